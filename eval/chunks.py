"""Are long documents better cut at the model's length, or in chunks of which the best is the document's score?

    python eval/chunks.py eval/data/scifact DATA/cranfield DATA/nfcorpus-filtered:dev --json eval/results/chunks.json

Each BEIR folder (NAME or NAME:SPLIT) is made into one of chunks as `retrieval-prompts corpus FOLDER --chunk SIZE` does,
and both are evaluated on the same queries: the frozen model, BM25, and both with BM25's weight of 0.75, which nobody
chose on these queries. Times are those of encoding all documents; other work on the machine is in them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval_prompts import BiEncoder, load
from retrieval_prompts.data.sources.making import Sources, make
from retrieval_prompts.evaluation.hybrid import UNLABELLED
from retrieval_prompts.evaluation.metrics import HEADLINE, means, per_query
from retrieval_prompts.evaluation.significance import compare
from retrieval_prompts.evaluation.words import PairedTest
from retrieval_prompts.experiments.result_file import made_on
from retrieval_prompts.experiments.workbench import TOP, Workbench
from retrieval_prompts.files import check_output, write_json
from retrieval_prompts.towers.chunking import chunking_for

PACKAGES = ("torch", "sentence-transformers", "transformers", "faiss-cpu", "bm25s")
Scores = dict[str, dict[str, dict[str, float]]]  # system -> metric -> query -> value


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path, help="BEIR folders, NAME or NAME:SPLIT")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--chunk", type=int, nargs="+", default=[256], help="tokens of a chunk")
    parser.add_argument("--model", help="default: all-MiniLM-L6-v2")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args(arguments)
    check_output(options.json, overwrite=options.overwrite)
    biencoder = BiEncoder.load(options.model, device="cpu")
    rows = []
    for name in options.data:
        folder, _, split = str(name).partition(":")
        rows += measure(biencoder, Path(folder), split or "test", options.chunk)
    write_json(options.json, {"model": biencoder.tower.name, "rows": rows, **made_on(PACKAGES)})


def measure(biencoder: BiEncoder, folder: Path, split: str, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """A row for the documents as they are, and one for each size of chunks, with tests against the former."""
    before, row = evaluated(biencoder, folder, split)
    rows = [{"data": folder.name, "split": split, "chunk": None, **row}]
    for size in sizes:
        with tempfile.TemporaryDirectory() as temporary:
            chunked = Path(temporary) / folder.name
            how = chunking_for(biencoder.tower, size)
            make(chunked, Sources((str(folder),), cut_tables=True), how)
            scores, row = evaluated(biencoder, chunked, split)
        tests = {name: compare(before[name][HEADLINE], scores[name][HEADLINE], HEADLINE) for name in scores}
        row["tests"] = {name: test.as_dict() for name, test in tests.items()}
        rows.append({"data": folder.name, "split": split, "chunk": size, "overlap": how.overlap, **row})
        for name, test in tests.items():
            print(f"{folder.name}: {PairedTest(f'{name}, {size}', f'{name}, cut', '', test).sentence()}", flush=True)
    return rows


def evaluated(biencoder: BiEncoder, folder: Path, split: str) -> tuple[Scores, dict[str, Any]]:
    """Scores of the systems on a split, and what is recorded of them."""
    dataset = load(folder)
    queries, qrels = dataset.split(split)
    with tempfile.TemporaryDirectory() as cache:
        bench = Workbench(biencoder.tower, dataset, Path(cache))
        start = time.perf_counter()
        vectors = len(bench.documents)
        seconds = round(time.perf_counter() - start, 1)
        asked = bench.frozen.query_vectors(list(queries.values()))
        runs = {"frozen": bench.index.rank(list(queries), asked, TOP), "bm25": bench.bm25(queries, TOP)}
        hybrid = bench.hybrid_of(bench.index)
        if hybrid is not None:
            (runs["frozen+bm25"],) = hybrid.rank(queries, asked, TOP, [UNLABELLED])
    scores = {name: per_query(qrels, run) for name, run in runs.items()}
    row = {"queries": len(queries), "vectors": vectors, "encoding_seconds": seconds}
    print(f"{folder.name}: {row}", flush=True)
    return scores, row | {"systems": {name: means(values) for name, values in scores.items()}}


if __name__ == "__main__":
    main()
