"""What do two passes cost at search? Single queries one after another on a CPU: one pass, and one that prompts read.

    python eval/feedback_latency.py eval/data/scifact --json eval/results/feedback-latency.json

Queries are those of the BEIR folder, encoded by the real model; their encoding is in the times. Document texts are as
in `hybrid_latency.py`, their vectors random ones of length 1, all the same to exact search. The prompt is one at its
start, of as many vectors as the defaults have. All queries are asked once before they are timed. Where other work
shares the machine, `--clock cpu` counts what this process itself took, which with one thread (OMP_NUM_THREADS=1) is
what a quiet core would show.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from hybrid_latency import (  # type: ignore[import-not-found]
    CLOCKS,
    made,
    milliseconds,
    options_of,
    start,
    threads,
    timed_by,
    unit,
)

from retrieval_prompts import BiEncoder, Index, load
from retrieval_prompts.data.corpus import Document
from retrieval_prompts.evaluation.bm25 import BM25Index
from retrieval_prompts.evaluation.hybrid import HybridIndex
from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.files import check_output, write_json
from retrieval_prompts.prompts.feedback import regress


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options_of(__doc__, documents=[1_000, 10_000, 100_000])
    parser.add_argument("--model", help="default: all-MiniLM-L6-v2")
    parser.add_argument("--queries", type=int, default=100, help="how many of them")
    start(parser, run, arguments)


def run(options: argparse.Namespace) -> None:
    check_output(options.json, overwrite=options.overwrite)
    dataset = load(options.data)
    queries = list(dataset.split(options.split)[0].values())[: options.queries]
    biencoder = BiEncoder.load(options.model, device="cpu")
    frozen = BiEncoder(biencoder.tower)
    known = [document.content for document in dataset.corpus]
    sample = known[:200]
    begin = regress(biencoder.tower, "input", torch.from_numpy(frozen.encode_document(sample)), sample)
    biencoder.attach(encoder="feedback", start=begin, seed=options.seed)
    rows = []
    for count in options.documents:
        texts = [*known[:count], *made(known, count - len(known), options.seed)]
        rows.append({"documents": count, "synthetic_texts": max(0, count - len(known))})
        rows[-1] |= measure(texts, queries, frozen, biencoder, options)
        print(", ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    reads = biencoder.feedback
    assert reads is not None
    result = {
        "dataset": dataset.name,
        "model": biencoder.tower.name,
        "query_count": len(queries),
        "vectors": "random, of length 1",
        "prompt_length": reads.shape[1],
        "documents_read": reads.documents,
        **{name: getattr(options, name) for name in ("k", "weight", "seed", "clock")},
        "threads": threads(),
        "load_average": os.getloadavg()[0],
        **made_on(("torch", "faiss-cpu", "bm25s", "numpy")),
        "rows": rows,
    }
    write_json(options.json, result)


def measure(
    texts: list[str], queries: list[str], frozen: BiEncoder, biencoder: BiEncoder, options: argparse.Namespace
) -> dict[str, Any]:
    """Times of a query, by vectors alone and beside BM25, of the frozen model and of prompts that read documents."""
    timed = partial(timed_by, CLOCKS[options.clock])
    random = np.random.default_rng(options.seed)
    documents = [Document(f"d{number}", "", text) for number, text in enumerate(texts)]
    ids = [document.id for document in documents]
    vectors = unit(random, len(texts), frozen.tower.dimension)
    index = Index.build(vectors, None, ids, encoder=frozen.identity(), gpu=False)
    hybrid = HybridIndex(index, BM25Index.build(texts, ids))
    biencoder.bind(hybrid)

    def dense(encoder: BiEncoder, query: str, _: Any) -> object:
        return index.search(encoder.query_vectors([query]), options.k)

    def beside(encoder: BiEncoder, query: str, _: Any) -> object:
        return hybrid.search([query], encoder.query_vectors([query]), options.k, weight=options.weight)

    ways: dict[str, Callable[[str, Any], object]] = {
        "dense": partial(dense, frozen),
        "hybrid": partial(beside, frozen),
        "feedback_dense": partial(dense, biencoder),
        "feedback_hybrid": partial(beside, biencoder),
    }
    unused = np.empty((len(queries), 0), dtype=np.float32)
    times = {name: milliseconds(timed, search, queries, unused) for name, search in ways.items()}
    return {f"{name}_{part}_ms": value for name, found in times.items() for part, value in found.items()}


if __name__ == "__main__":
    main()
