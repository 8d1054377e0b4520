"""How the recommendation fares with few judged queries: draws of several sizes, each tuned with the defaults.

    python eval/small_data.py eval/data/scifact --sizes 5 16 64 256 --draws 5 --json eval/results/small-scifact.json

Every draw is written as it ends, and a draw that is there is not made again. Figures are of the whole test split:
the frozen model, BM25 beside it, what was recommended, and a linear adapter trained on the same queries.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from retrieval_prompts import BiEncoder, TuneSettings, UserError, load
from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.evaluation.metrics import HEADLINE, per_query
from retrieval_prompts.evaluation.significance import ALPHA, compare
from retrieval_prompts.experiments.baselines import linear
from retrieval_prompts.experiments.baselines.task import Task
from retrieval_prompts.experiments.retrieval import tune
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="BEIR folder with the splits train and test")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 16, 64, 256], help="judged queries; 0: all")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--model", default=None)
    parser.add_argument("--json", type=Path, required=True, help="the result file; it is added to")
    options = parser.parse_args()
    try:
        run(options)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    found: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {"draws": {}}
    dataset, biencoder = load(options.data), BiEncoder.load(options.model)
    found |= {"dataset": dataset.name, "model": biencoder.tower.name}
    for size in options.sizes:
        for draw in range(options.draws if size else 1):
            name = f"{size or 'all'}.{draw}"
            if name not in found["draws"]:
                found["draws"][name] = one(drawn(dataset, size, draw), biencoder, draw)
                write_json(options.json, found)
            print(name, line(found["draws"][name]), flush=True)


def drawn(dataset: Dataset, size: int, draw: int) -> Dataset:
    """The data with so many of its judged queries to learn from; without a dev split where it is a draw."""
    if not size:
        return dataset
    judged = {**dataset.split("train")[1], **(dataset.split("dev")[1] if "dev" in dataset.qrels else {})}
    chosen = random.Random(draw).sample(sorted(judged), size)
    return replace(dataset, qrels={"train": {query: judged[query] for query in chosen}, "test": dataset.qrels["test"]})


def one(dataset: Dataset, biencoder: BiEncoder, seed: int) -> dict[str, Any]:
    """What came of one draw."""
    _, qrels = dataset.split("test")
    bench = Workbench(biencoder.tower, dataset)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = tune(BiEncoder(biencoder.tower), bench, TuneSettings.of(seed=seed))
    assert result.recommendation is not None and result.choice is not None
    scores = {system: per_query(qrels, run, [HEADLINE])[HEADLINE] for system, run in result.runs.items()}
    task = Task(bench.frozen, bench.training, bench.documents, bench.index, seed)
    queries, _ = dataset.split("test")
    scores["linear"] = per_query(qrels, linear.fit(task).run(queries, 100), [HEADLINE])[HEADLINE]
    system = result.recommendation.system
    rows = {name: sum(values.values()) / len(values) for name, values in scores.items()}
    return {
        "recommended": system,
        "sentence": result.recommendation.sentence,
        "strength": result.choice.strength,
        "weights": result.weights,
        "systems": rows,
        "against_frozen": {
            name: compare(scores["frozen"], values, HEADLINE).as_dict()
            for name, values in scores.items()
            if name in (system, "frozen+bm25", "linear") and name != "frozen"
        },
        "choice": result.choice.to_json(),
        "warnings": [str(each.message) for each in said],
        "seconds": result.seconds,
    }


def line(found: dict[str, Any]) -> str:
    test = found["against_frozen"].get(found["recommended"])
    worse = test is not None and test["difference"] < 0 and test["p_value"] < ALPHA
    rows = ", ".join(f"{name} {100 * value:.1f}" for name, value in found["systems"].items())
    return f"{found['recommended']}{' WORSE' if worse else ''}: {rows}"


if __name__ == "__main__":
    main()
