"""Prompts without judged queries: trained on pairs that are made, evaluated on the judged queries that were kept away.

    python eval/pairs.py DATA/scifact DATA/cranfield --pairs titles queries --json eval/results/pairs.json

Judgements of the training split are not read. Every row is written as it ends, and one that is there is not made again.
A data set without a test split is evaluated on its dev split.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from retrieval_prompts import BiEncoder, TuneSettings, UserError, load
from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.evaluation.hybrid import UNLABELLED
from retrieval_prompts.evaluation.metrics import HEADLINE, means, per_query
from retrieval_prompts.evaluation.significance import ALPHA, compare
from retrieval_prompts.evaluation.tables import markdown
from retrieval_prompts.experiments.baselines import linear, lora
from retrieval_prompts.experiments.baselines.task import Retriever, Task
from retrieval_prompts.experiments.pairs.prepare import prepare
from retrieval_prompts.experiments.retrieval import RetrievalResult, tune
from retrieval_prompts.experiments.workbench import TOP, Workbench
from retrieval_prompts.files import write_json

BASELINES: dict[str, Callable[[Task], Retriever]] = {"linear": linear.fit, "lora": lora.fit}
SYSTEMS = ("frozen", "frozen+bm25", "tuned", "tuned+bm25")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="BEIR folders")
    parser.add_argument("--pairs", nargs="+", default=["titles", "queries", "crops"])
    parser.add_argument("--encoder", default=None, choices=["table", "feedback"])
    parser.add_argument(
        "--labels", type=int, nargs="+", default=[0], help="judged queries that choose, drawn by the seed"
    )
    parser.add_argument("--baselines", nargs="*", default=[], choices=sorted(BASELINES), help="on the same material")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--model", default=None)
    parser.add_argument("--json", type=Path, required=True, help="the result file; it is added to")
    options = parser.parse_args()
    try:
        run(options)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    found: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {"rows": {}}
    biencoder = BiEncoder.load(options.model)
    found["model"] = biencoder.tower.name
    for folder in options.data:
        whole = load(folder)
        for pairs, labels, seed in product(options.pairs, options.labels, options.seeds):
            dataset, split = hidden(whole, labels, seed)
            kept = f" {labels} labels" if labels else ""
            settings = TuneSettings.of(pairs=pairs, encoder=options.encoder, seed=seed)
            name = f"{dataset.name} {pairs}{kept} {options.encoder or 'default'} {seed}"
            bench = Workbench(biencoder.tower, dataset)
            row = found["rows"].get(name) or one(bench, settings, split)
            for baseline in options.baselines:
                if "refused" not in row and baseline not in row["systems"]:
                    row["systems"] |= rival(bench, settings, split, baseline)
            found["rows"][name] = row
            write_json(options.json, found)
            print(name, row.get("refused", ""), flush=True)
    print(table(found["rows"]))


def hidden(dataset: Dataset, labels: int, seed: int) -> tuple[Dataset, str]:
    """The data with the judgements of one split, to evaluate on, and those of so many training queries; all queries."""
    split = "test" if "test" in dataset.qrels else "dev"
    qrels = {split: dataset.qrels[split]}
    if labels:
        judged = dataset.split("train")[1]
        qrels["train"] = {query: judged[query] for query in random.Random(seed).sample(sorted(judged), labels)}
    return replace(dataset, qrels=qrels), split


def one(bench: Workbench, settings: TuneSettings, split: str) -> dict[str, Any]:
    """What came of one training."""
    biencoder = BiEncoder(bench.tower)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = tune(biencoder, bench, settings, split=split)
        except UserError as error:
            return {"refused": str(error)}
    row = found.to_json() | {"tests": tests(bench, found, split), "warnings": [str(each.message) for each in said]}
    return row | {"training": {name: biencoder.training_record.get(name) for name in ("curve", "dev", "pairs")}}


def rival(bench: Workbench, settings: TuneSettings, split: str, name: str) -> dict[str, dict[str, float]]:
    """A baseline that was trained on the same pairs and chosen by the same queries: alone, and beside BM25 at the
    weight that is safe without judged queries."""
    made = prepare(bench, settings, split)
    data = bench.learning(made).training if made is not None else bench.training
    queries, qrels = bench.dataset.split(split)
    vectors = BASELINES[name](Task(bench.frozen, data, bench.documents, bench.index, settings.seed)).encode(
        list(queries.values())
    )
    runs = {name: bench.index.rank(list(queries), vectors, TOP)}
    if (hybrid := bench.hybrid_of(bench.index)) is not None:
        (runs[f"{name}+bm25"],) = hybrid.rank(queries, vectors, TOP, [UNLABELLED])
    return {system: means(per_query(qrels, run)) for system, run in runs.items()}


def tests(bench: Workbench, found: RetrievalResult, split: str) -> dict[str, Any]:
    """Paired tests of nDCG@10 of the evaluated split."""
    qrels = bench.dataset.split(split)[1]
    scores = {system: per_query(qrels, run, [HEADLINE])[HEADLINE] for system, run in found.runs.items()}
    assert found.recommendation is not None
    scores["recommended"] = scores[found.recommendation.system]
    pairs = [("tuned", "frozen"), ("tuned+bm25", "frozen+bm25")]
    pairs += [("recommended", "frozen"), ("recommended", "frozen+bm25"), ("frozen+bm25", "frozen")]
    return {f"{a}_vs_{b}": compare(scores[b], scores[a], HEADLINE).as_dict() for a, b in pairs if {a, b} <= set(scores)}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """nDCG@10 x 100, a row a training; * where the prompts differ significantly from the same without them."""
    rivals = [name for name in BASELINES if any(name in row.get("systems", {}) for row in rows.values())]
    systems = [*SYSTEMS, *(system for name in rivals for system in (name, f"{name}+bm25"))]
    header = ["data, pairs, prompt, seed", *systems, "recommended", "against frozen", "against frozen+bm25"]
    cells = []
    for name, row in rows.items():
        if "refused" in row:
            cells.append([name, *[""] * len(systems), row["refused"], "", ""])
            continue
        values = [cell(row, system) for system in systems]
        gains = [difference(row["tests"][f"recommended_vs_{rival}"]) for rival in ("frozen", "frozen+bm25")]
        cells.append([name, *values, row["recommendation"]["system"], *gains])
    return markdown(cells, header)


def cell(row: dict[str, Any], system: str) -> str:
    if system not in row["systems"]:
        return ""
    return f"{100 * row['systems'][system][HEADLINE]:.1f}{star(row, system)}"


def star(row: dict[str, Any], system: str) -> str:
    if "tuned" not in system:
        return ""
    return "*" if row["tests"][f"{system}_vs_{system.replace('tuned', 'frozen')}"]["p_value"] < ALPHA else ""


def difference(test: dict[str, Any]) -> str:
    return f"{100 * test['difference']:+.1f} (p = {test['p_value']:.3f})"


if __name__ == "__main__":
    main()
