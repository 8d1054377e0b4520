"""Training steps a second of the text tower as classes grow, and the memory they take: a table and a picture.

Every size runs in a process of its own (`text_tower.py`), so that its peak memory is its own. The published way is
run up to --published classes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from retrieval_prompts.files import check_output, write_json


def measure(classes: int, ways: str, context: int, steps: int, model: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "eval.speed.text_tower", "--classes", str(classes), "--ways", ways]
        command += ["--context", str(context), "--steps", str(steps), "--model", model, "--json", str(result)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads(result.read_text())
    return found


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (speed, memory) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for way, marker in (("published", "s"), ("shared", "o")):
        some = [row for row in rows if row["way"] == way]
        sizes = [row["classes"] for row in some]
        speed.plot(sizes, [1 / row["seconds_per_step"] for row in some], marker=marker, label=way)
        memory.plot(sizes, [row["peak_activation_bytes"] / 1e9 for row in some], marker=marker, label=way)
    speed.set(title="steps a second", xlabel="classes", xscale="log", yscale="log")
    memory.set(title="saved activations, GB", xlabel="classes", xscale="log", yscale="log")
    for axis in (speed, memory):
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", default="10,100,1000,10000")
    parser.add_argument("--published", type=int, default=100, help="the largest size that the published way is run at")
    parser.add_argument("--context", type=int, default=16)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="a .png or .svg file; needs matplotlib")
    parser.add_argument("--overwrite", action="store_true")
    arguments = parser.parse_args()
    for path in (arguments.json, arguments.picture):
        if path is not None:
            check_output(path, overwrite=arguments.overwrite)
    rows: list[dict[str, Any]] = []
    for classes in map(int, arguments.classes.split(",")):
        ways = "published,shared" if classes <= arguments.published else "shared"
        found = measure(classes, ways, arguments.context, arguments.steps, arguments.model)
        for way, values in found["ways"].items():
            row = {"classes": classes, "way": way}
            row |= {name: values[name] for name in ("seconds_per_step", "peak_activation_bytes")}
            rows.append(row)
            print(
                f"{classes:6,} classes, {way:9}: {1 / row['seconds_per_step']:8.3f} steps a second, "
                f"{row['peak_activation_bytes'] / 1e6:8.1f} MB of saved activations",
                flush=True,
            )
    if arguments.json is not None:
        details = {name: found[name] for name in ("model", "context", "threads", "torch", "memory_gigabytes")}
        write_json(arguments.json, {**details, "rows": rows})
    if arguments.picture is not None:
        draw(rows, arguments.picture)


if __name__ == "__main__":
    main()
