"""Time run_beir.py beside beir's own exact search: whole processes, the same model and data, nothing cached.

    python -m eval.speed.benchmark DATA/scifact --json eval/results/speed-beir.json

Each way runs as a process of its own, one after the other, all ways again in each round: imports, loading, encoding
of queries and documents, search to depth 1000, metrics, writing. Metrics of the ways are compared as well.
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
from pathlib import Path
from typing import Any

from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.files import check_output, write_json
from retrieval_prompts.towers.text import locate

HERE = Path(__file__).parent
WAYS = ("beir", "ours", "ours, bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="BEIR folder, not gzipped: beir reads plain files")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    check_output(options.json, overwrite=options.overwrite)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    metrics: dict[str, dict[str, float]] = {}
    for _ in range(options.rounds):
        for way in WAYS:
            taken, metrics[way] = timed(way, options.data, options.model)
            seconds[way].append(taken)
            print(f"{way}: {taken:.1f} s, nDCG@10 {metrics[way]['ndcg@10']:.5f}", flush=True)
    median = {way: statistics.median(values) for way, values in seconds.items()}
    result = {
        "data": options.data.name,
        "model": options.model,
        "seconds": seconds,
        "times_as_fast": {way: median["beir"] / median[way] for way in WAYS},
        "largest_difference_to_beir": {
            way: max(abs(values[name] - metrics["beir"][name]) for name in metrics["beir"])
            for way, values in metrics.items()
        },
        "ndcg@10": {way: values["ndcg@10"] for way, values in metrics.items()},
        "threads": len(os.sched_getaffinity(0)),
        **made_on(("torch", "sentence-transformers", "transformers", "beir", "faiss-cpu")),
    }
    write_json(options.json, result)
    print({way: round(times, 2) for way, times in result["times_as_fast"].items()})


def timed(way: str, data: Path, model: str) -> tuple[float, dict[str, float]]:
    """Seconds of a whole process, and its metrics by our names."""
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "out"
        if way == "beir":
            command = [HERE / "beir_exact.py", data, locate(model), out]
        else:
            command = [
                HERE.parent / "run_beir.py",
                "--datasets",
                data.name,
                "--data-dir",
                data.parent,
                "--model",
                model,
            ]
            command += ["--out", out, "--baselines", "none", "--cache", Path(temporary) / "cache"]
            command += ["--precision", "bfloat16"] if way.endswith("bfloat16") else []
        start = time.perf_counter()
        done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
        taken = time.perf_counter() - start
        if done.returncode:
            sys.exit(f"{way} failed:\n{done.stderr}")
        return taken, theirs(json.loads(out.read_text())) if way == "beir" else ours(out, data.name)


def theirs(found: dict[str, float]) -> dict[str, float]:
    """beir's names, NDCG@10 or P@10, as ours."""
    return {
        name.lower().replace("p@", "precision@") if name[0] == "P" else name.lower(): v for name, v in found.items()
    }


def ours(out: Path, name: str) -> dict[str, float]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found["datasets"][name]["systems"]["frozen"]


if __name__ == "__main__":
    main()
