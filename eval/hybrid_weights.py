"""The weight of BM25 beside a frozen model, without labels: nDCG@10 at each weight, on several collections.

    python eval/hybrid_weights.py DATA/scifact DATA/nfcorpus-filtered:dev --json eval/results/hybrid-weights.json

A collection is a BEIR folder, with ":split" where it is not test. Each weight is tested against the frozen model alone.
Beside the normalisation of the package stands the other common one, BM25 divided by the best score of the query.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_prompts import BiEncoder, UserError, load
from retrieval_prompts.data.judgements import Run
from retrieval_prompts.evaluation.hybrid import UNLABELLED, WEIGHTS, HybridIndex
from retrieval_prompts.evaluation.metrics import HEADLINE, per_query
from retrieval_prompts.evaluation.significance import ALPHA, compare
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.files import check_output, write_json

BEST_WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # of BM25 divided by its best score, beside cosines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="BEIR folder, or FOLDER:SPLIT")
    parser.add_argument("--model", default=None)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    try:
        run(options)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    check_output(options.json, overwrite=options.overwrite)
    biencoder = BiEncoder.load(options.model)
    found: dict[str, Any] = {"model": biencoder.tower.name, "unlabelled": UNLABELLED, "collections": {}}
    for each in options.data:
        folder, _, split = each.partition(":")
        row = collection(biencoder, Path(folder), split or "test")
        found["collections"][row.pop("dataset")] = row
        print(row, flush=True)
    write_json(options.json, found)


def collection(biencoder: BiEncoder, folder: Path, split: str) -> dict[str, Any]:
    """One collection: weight -> mean, difference, p against the frozen model alone, for both normalisations."""
    bench = Workbench(biencoder.tower, load(folder))
    queries, qrels = bench.dataset.split(split)
    vectors = bench.query_vectors(biencoder, queries.values())
    hybrid = bench.hybrid_of(bench.index)
    if hybrid is None:
        raise UserError(f"{folder} has no words")
    frozen = per_query(qrels, bench.index.rank(list(queries), vectors, 100), [HEADLINE])[HEADLINE]

    def tested(runs: list[Run], weights: tuple[float, ...]) -> dict[str, dict[str, float]]:
        rows = {}
        for weight, ranking in zip(weights, runs, strict=True):
            scores = per_query(qrels, ranking, [HEADLINE])[HEADLINE] if weight else frozen
            test = compare(frozen, scores, HEADLINE)
            mean = sum(scores.values()) / len(scores)
            rows[f"{weight:g}"] = {HEADLINE: mean, "difference": test.difference, "p": test.p_value}
        return rows

    bound = tested(hybrid.rank(queries, vectors, 100, WEIGHTS), WEIGHTS)
    best = tested(divided_by_best(hybrid, queries, vectors, BEST_WEIGHTS), BEST_WEIGHTS)
    return {
        "dataset": bench.dataset.name,
        "split": split,
        "documents": len(bench.dataset.corpus),
        "queries": len(queries),
        "weights": bound,
        "weights_divided_by_best": best,
        "unlabelled_significantly_worse": bound[f"{UNLABELLED:g}"]["difference"] < 0
        and bound[f"{UNLABELLED:g}"]["p"] < ALPHA,
    }


def divided_by_best(
    hybrid: HybridIndex, queries: dict[str, str], vectors: np.ndarray, weights: tuple[float, ...]
) -> list[Run]:
    """(1 - weight) * inner product + weight * BM25 / the best BM25 of the query, over all documents."""
    runs: list[Run] = [{} for _ in weights]
    everything = np.arange(len(hybrid.index))
    for (query, text), vector in zip(queries.items(), vectors, strict=True):
        dense, lexical = hybrid.index.scores_at(vector, everything), hybrid.lexical.scores(text)
        assert dense is not None
        for ranking, weight in zip(runs, weights, strict=True):
            scores = (1 - weight) * dense + weight * lexical / (lexical.max() or 1.0)
            best = np.argsort(-scores, kind="stable")[:101]
            hits = [(hybrid.index.ids[position], float(scores[position])) for position in best]
            ranking[query] = dict([hit for hit in hits if hit[0] != query][:100])
    return runs


if __name__ == "__main__":
    main()
