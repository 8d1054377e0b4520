"""Tune on one data set with several values of --keep, and write what is gained there and what is lost on others.

    python eval/forgetting.py eval/data/scifact --also DATA/conala DATA/cranfield --json eval/results/forgetting.json

Choose by the dev column: test queries, there and elsewhere, are only reported.
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from retrieval_prompts import BiEncoder, Dataset, TuneSettings, UserError, load
from retrieval_prompts.evaluation.tables import markdown
from retrieval_prompts.experiments.elsewhere import elsewhere, load_others
from retrieval_prompts.experiments.retrieval import tune
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.files import check_output, write_json

KEEP = [0.0, 1.0, 3.0, 10.0, 30.0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="BEIR folder to tune on")
    parser.add_argument("--also", type=Path, nargs="+", required=True, help="BEIR folders to forget on")
    parser.add_argument("--json", type=Path, required=True, help="the result file")
    parser.add_argument("--keep", type=float, nargs="+", default=KEEP)
    parser.add_argument("--model", default=None)
    parser.add_argument("--kind", default=None, choices=["input", "prefix"])
    parser.add_argument("--side", default="query", choices=["query", "document", "both"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    try:
        run(options)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    check_output(options.json, overwrite=options.overwrite)
    biencoder = BiEncoder.load(options.model)
    dataset, others = load(options.data), load_others(options.also)
    rows: list[dict[str, Any]] = []
    for keep in options.keep:
        settings = TuneSettings.of(kind=options.kind, side=options.side, seed=options.seed, keep=keep)
        rows.append(measure(settings, Workbench(biencoder.tower, dataset), others))
        result = {
            "dataset": dataset.name,
            "model": biencoder.tower.name,
            "side": options.side,
            "seed": options.seed,
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("torch", "transformers", "sentence-transformers")},
            "rows": rows,
        }
        write_json(options.json, result)  # after each, for they take minutes
        print(table(rows), flush=True)


def measure(settings: TuneSettings, bench: Workbench, others: list[Dataset]) -> dict[str, Any]:
    """One tuning: dev, test and other test queries, frozen and tuned, with the paired tests."""
    biencoder = BiEncoder(bench.tower)
    found = tune(biencoder, bench, settings, bm25=False)
    return {"keep": settings.keep, **found.to_json(), "also": [each.to_json() for each in elsewhere(biencoder, others)]}


def table(rows: list[dict[str, Any]]) -> str:
    """Differences in nDCG@10 x 100 between tuned and frozen, a row a value of keep, as Markdown."""
    names = [each["dataset"] for each in rows[0]["also"]]
    header = ["keep", f"{rows[0]['dataset']} dev", f"{rows[0]['dataset']} test", *names, "mean elsewhere"]
    cells = []
    for row in rows:
        chosen_by = row["choice"]["systems"]
        dev = chosen_by.get("tuned", chosen_by["frozen"])["all"] - chosen_by["frozen"]["all"]
        lost = [each["test"]["difference"] for each in row["also"]]
        gains = [dev, row["tests"]["tuned_vs_frozen"]["difference"], *lost, sum(lost) / len(lost)]
        cells.append([f"{row['keep']:g}", *(f"{100 * gain:+.2f}" for gain in gains)])
    return markdown(cells, header)


if __name__ == "__main__":
    main()
