"""The same ranking, judged by us, by beir and by mteb; and mteb's own evaluation of the model through our index.

python eval/parity.py eval/data/scifact --json eval/results/parity-scifact.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import datasets
import mteb
from beir.retrieval.evaluation import EvaluateRetrieval
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from retrieval_prompts import BiEncoder, load
from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.evaluation.metrics import means, per_query
from retrieval_prompts.experiments.benchmark_dataset import CUTOFFS, METRICS, TOP, BenchmarkDataset, BenchmarkSettings
from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.files import check_output, write_json
from retrieval_prompts.interop.mteb import IndexSearch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="BEIR folder with a test split")
    parser.add_argument("--model", default=None)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    check_output(options.json, overwrite=options.overwrite)
    biencoder = BiEncoder.load(options.model)
    data = BenchmarkDataset.open(options.data.name, options.data, biencoder, BenchmarkSettings(split="test"), Path())
    run = data.make("frozen")
    ours = means(per_query(data.qrels, run, METRICS))
    ways = {"ours": ours, "beir": by_beir(data.qrels, run), "mteb": by_mteb(biencoder, load(options.data))}
    result = {
        "data": options.data.name,
        "model": biencoder.tower.name,
        "queries": len(data.queries),
        "depth": TOP,
        "metrics": ways,
        "largest_difference": {
            way: max(abs(value - ours[metric]) for metric, value in found.items()) for way, found in ways.items()
        },
        "compared": {way: len(found) for way, found in ways.items()},
        **made_on(("beir", "mteb", "pytrec-eval-terrier", "torch", "sentence-transformers")),
    }
    write_json(options.json, result)
    print({way: round(found["ndcg@10"], 5) for way, found in ways.items()})
    print(f"largest difference of {result['compared']} metrics: {result['largest_difference']}")


def by_beir(qrels: Any, run: Any) -> dict[str, float]:
    found = EvaluateRetrieval.evaluate(qrels, run, list(CUTOFFS))
    names = ("ndcg", "map", "recall", "precision")
    return {
        f"{name}@{k}": value
        for name, values in zip(names, found, strict=True)
        for k, value in zip(CUTOFFS, values.values(), strict=True)
    }


def by_mteb(biencoder: BiEncoder, data: Dataset) -> dict[str, float]:
    """mteb's own evaluation: it asks our index for the ranking, and judges it."""
    results = mteb.evaluate(IndexSearch(biencoder), local_task(data), cache=None, co2_tracker=False)
    scores = results.task_results[0].scores["test"][0]
    return {
        f"{name}@{k}": scores[f"{name}_at_{k}"]
        for name in ("ndcg", "map", "recall", "precision", "mrr")
        for k in CUTOFFS
        if f"{name}@{k}" in METRICS
    }


def local_task(data: Dataset) -> AbsTaskRetrieval:
    """The test split as a task of mteb's that needs no network."""

    class Local(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=data.name,
            description="A BEIR folder on this disk.",
            reference=None,
            dataset={"path": "local", "revision": "local"},
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            date=None,
            domains=None,
            task_subtypes=None,
            license=None,
            annotations_creators=None,
            dialect=None,
            sample_creation=None,
            bibtex_citation=None,
        )

    queries, qrels = data.split("test")
    task = Local()
    rows = [{"id": each.id, "title": each.title, "text": each.text} for each in data.corpus]
    asked = [{"id": id, "text": text} for id, text in queries.items()]
    part: Any = {
        "corpus": datasets.Dataset.from_list(rows),
        "queries": datasets.Dataset.from_list(asked),
        "relevant_docs": qrels,
        "top_ranked": None,
    }
    task.dataset = {"default": {"test": part}}
    task.data_loaded = True
    return task


if __name__ == "__main__":
    main()
