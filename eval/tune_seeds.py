"""Tune on one data set with several seeds, and write mean and standard deviation beside every single run.

    python eval/tune_seeds.py eval/data/scifact --side query --json eval/results/scifact-query.json

Settings are the package's defaults unless an option says otherwise; they are chosen on dev, and test is only reported.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from retrieval_prompts import BiEncoder, TuneSettings, UserError, load
from retrieval_prompts.evaluation.metrics import per_query
from retrieval_prompts.evaluation.significance import compare
from retrieval_prompts.experiments.retrieval import RetrievalResult, tune
from retrieval_prompts.files import check_output, write_json

METRIC = "ndcg@10"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="BEIR folder")
    parser.add_argument("--json", type=Path, required=True, help="the result file")
    parser.add_argument("--model", default=None)
    parser.add_argument("--side", default="query", choices=["query", "document", "both"])
    parser.add_argument("--kind", default=None, choices=["input", "prefix"])
    parser.add_argument("--split", default="test")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings, such as epochs=5")
    parser.add_argument("--prompts", type=Path, help="keep each seed's prompt folder under this folder")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    try:
        run(options)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    check_output(options.json, overwrite=options.overwrite)
    dataset = load(options.data)
    _, qrels = dataset.split(options.split)
    given = {name: _number(value) for name, _, value in (pair.partition("=") for pair in options.set)}
    found: list[RetrievalResult] = []
    for seed in options.seeds:
        settings = TuneSettings.of(kind=options.kind, side=options.side, seed=seed, **given)
        biencoder = BiEncoder.load(options.model)
        out = options.prompts / f"{dataset.name}-{options.side}-{seed}" if options.prompts else None
        experiment = tune(biencoder, dataset, settings, split=options.split, out=out, overwrite=options.overwrite)
        found.append(experiment)
        scores = {system: round(values[METRIC], 4) for system, values in experiment.systems.items()}
        print(
            f"{dataset.name}, {options.side}, seed {seed}: {METRIC} {scores}, {experiment.seconds}",
            flush=True,
        )
    frozen = per_query(qrels, found[0].runs["frozen"], [METRIC])[METRIC]
    tuned = [per_query(qrels, experiment.runs["tuned"], [METRIC])[METRIC] for experiment in found]
    average = {query: statistics.fmean(scores[query] for scores in tuned) for query in frozen}
    first = found[0].to_json()
    result: dict[str, Any] = {
        "dataset": first["dataset"],
        "split": first["split"],
        "model": first["model"],
        "side": options.side,
        "seeds": options.seeds,
        "mean": _over(found, statistics.fmean),
        "std": _over(found, statistics.stdev) if len(found) > 1 else None,
        "tests": {"mean_over_seeds_vs_frozen": compare(frozen, average, METRIC).as_dict()},
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "machine": {"processor": _processor(), "threads": torch.get_num_threads(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("torch", "transformers", "sentence-transformers", "faiss-cpu")},
        "runs": [experiment.to_json() for experiment in found],
    }
    write_json(options.json, result)
    mean, std = result["mean"]["tuned"][METRIC], result["std"]["tuned"][METRIC] if result["std"] else float("nan")
    test = result["tests"]["mean_over_seeds_vs_frozen"]
    print(
        f"{options.json}: {METRIC} frozen {first['systems']['frozen'][METRIC]:.4f}, tuned {mean:.4f} (std {std:.4f}), "
        f"difference {test['difference']:+.4f}, p = {test['p_value']:.4f}"
    )


def _over(found: list[RetrievalResult], function: Any) -> dict[str, dict[str, float]]:
    first = found[0].to_json()["systems"]
    return {
        system: {metric: function([experiment.systems[system][metric] for experiment in found]) for metric in metrics}
        for system, metrics in first.items()
    }


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
