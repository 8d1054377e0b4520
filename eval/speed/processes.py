"""One epoch of `tune` on one process and on several, in turns: seconds, and how far the prompts are apart.

    python -m eval.speed.processes eval/data/scifact --json eval/results/processes-scifact.json

Each run is a command of its own, with one thread a process; document vectors are there before the first one is timed.
Memory is what each process has for itself and shares with no other, at its most.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.files import check_output, write_json

MODULE = ["-m", "retrieval_prompts.cli.app", "tune"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    check_output(options.json, overwrite=options.overwrite)
    given = ["--epochs", "1", "--folds", "1", "--batch-size", str(options.batch_size), "--device", "cpu"]
    found: dict[str, list[dict[str, Any]]] = {"1": [], str(options.processes): []}
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(options.rounds):
            for count, runs in found.items():
                out = Path(temporary) / f"{number}-{count}"
                runs.append(timed(options.data, int(count), out, given))
                print(f"{count}: {runs[-1]['seconds']}", flush=True)
        folders = {count: Path(temporary) / f"0-{count}" for count in found}
        one, several = (load_file(next(folder.glob("*.safetensors"))) for folder in folders.values())
    distances = {name: float((several[name] - each).norm() / each.norm()) for name, each in one.items()}
    result = {
        "data": options.data.name,
        "command": ["tune", options.data.name, *given],
        "processes": found,
        "median_training_seconds": {
            count: statistics.median(run["seconds"]["tune"] for run in runs) for count, runs in found.items()
        },
        "relative_distance_of_the_prompts": distances,
        "load_average": os.getloadavg(),
        "threads_a_process": 1,
        **made_on(("torch", "sentence-transformers", "transformers")),
    }
    write_json(options.json, result)
    print(result["median_training_seconds"], distances)


def timed(data: Path, count: int, out: Path, given: list[str]) -> dict[str, Any]:
    """A run: its seconds, what it found, and what each process had in memory."""
    launch = [] if count == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [sys.executable, *launch, *MODULE, str(data), "--out", str(out), "--json", f"{out}.json", *given]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        peak: dict[str, int] = defaultdict(int)
        while process.poll() is None:
            for rank, size in private(process.pid).items():
                peak[rank] = max(peak[rank], size)
            time.sleep(2)
        taken = time.perf_counter() - start
        if process.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{said.read()}")
    found = json.loads(Path(f"{out}.json").read_text())
    return {
        "seconds": {**found["seconds"], "whole": taken},
        "dev": found["settings"]["dev"],
        "stages": found["settings"]["stages"],
        "megabytes_of_its_own": {rank: round(size / 1e6) for rank, size in sorted(peak.items())},
    }


def private(parent: int) -> dict[str, int]:
    """RANK -> bytes that no other process has, of a process or of its children where it launched some."""
    children = Path(f"/proc/{parent}/task/{parent}/children")
    try:
        processes = [int(each) for each in children.read_text().split()] or [parent]
    except OSError:
        return {}
    found = {}
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            environment = Path(f"/proc/{process}/environ").read_text().split("\0")
        except OSError:
            continue
        rank = next((each.partition("=")[2] for each in environment if each.startswith("RANK=")), "0")
        found[rank] = sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return found


if __name__ == "__main__":
    main()
