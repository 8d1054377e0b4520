"""Are long documents better cut at the model's length, or in chunks of which the best is the document's score?

    python eval/chunks.py DATA/cranfield --json eval/results/chunks-cranfield.json
    python eval/chunks.py DATA/nfcorpus-filtered:dev --json eval/results/chunks-nfcorpus.json

Each BEIR folder (NAME or NAME:SPLIT) is made into one of chunks as `retrieval-prompts corpus FOLDER --chunk SIZE` does,
and both are evaluated on the same queries: the frozen model, BM25, and both with BM25's weight of 0.75, which nobody
chose on these queries. Documents no longer than a chunk have the vector that they had, and those of whole documents are
taken from the user's cache; times are those that the processor spent on what was encoded.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_prompts import BiEncoder, Dataset, load
from retrieval_prompts.data.sources.making import Sources, make
from retrieval_prompts.evaluation.hybrid import UNLABELLED
from retrieval_prompts.evaluation.metrics import HEADLINE, means, per_query
from retrieval_prompts.evaluation.significance import compare
from retrieval_prompts.evaluation.words import PairedTest
from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.experiments.workbench import TOP, Workbench
from retrieval_prompts.files import check_output, write_json
from retrieval_prompts.towers.chunking import chunking_for
from retrieval_prompts.vectors.blocks import VectorBlocks

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
    dataset = load(folder)
    start = time.process_time()
    documents = biencoder.encode_corpus(dataset.corpus)
    took = {"encoded": documents.encoded, "cpu_seconds": round(time.process_time() - start, 1)}
    known = dict(zip((document.content for document in dataset.corpus), np.asarray(documents), strict=True))
    before, row = evaluated(biencoder, dataset, split, documents)
    rows = [{"data": folder.name, "split": split, "chunk": None, **row, **took}]
    for size in sizes:
        with tempfile.TemporaryDirectory() as temporary:
            chunked = Path(temporary) / folder.name
            how = chunking_for(biencoder.tower, size)
            make(chunked, Sources((str(folder),), cut_tables=True), how)
            dataset = load(chunked)
            start = time.process_time()
            new = [each.content for each in dataset.corpus if each.content not in known]
            found = known | dict(zip(new, biencoder.tower.comparable(biencoder.encode_document(new)), strict=True))
            took = {"encoded": len(new), "cpu_seconds": round(time.process_time() - start, 1)}
            vectors = np.stack([found[each.content] for each in dataset.corpus])
            blocks = VectorBlocks([vectors], biencoder.tower.dimension, len(new))
            scores, row = evaluated(biencoder, dataset, split, blocks)
        tests = {name: compare(before[name][HEADLINE], scores[name][HEADLINE], HEADLINE) for name in scores}
        row["tests"] = {name: test.as_dict() for name, test in tests.items()}
        rows.append({"data": folder.name, "split": split, "chunk": size, "overlap": how.overlap, **row, **took})
        for name, test in tests.items():
            print(f"{folder.name}: {PairedTest(f'{name}, {size}', f'{name}, cut', '', test).sentence()}", flush=True)
    return rows


def evaluated(
    biencoder: BiEncoder, dataset: Dataset, split: str, documents: VectorBlocks
) -> tuple[Scores, dict[str, Any]]:
    """Scores of the systems on a split, and what is recorded of them."""
    queries, qrels = dataset.split(split)
    bench = Workbench(biencoder.tower, dataset)
    bench.documents = documents
    asked = bench.frozen.query_vectors(list(queries.values()))
    runs = {"frozen": bench.index.rank(list(queries), asked, TOP), "bm25": bench.bm25(queries, TOP)}
    hybrid = bench.hybrid_of(bench.index)
    if hybrid is not None:
        (runs["frozen+bm25"],) = hybrid.rank(queries, asked, TOP, [UNLABELLED])
    scores = {name: per_query(qrels, run) for name, run in runs.items()}
    row = {"queries": len(queries), "vectors": len(documents)}
    found = {name: means(values) for name, values in scores.items()}
    print(
        f"{dataset.name}: {row}, " + ", ".join(f"{name} {each[HEADLINE]:.4f}" for name, each in found.items()),
        flush=True,
    )
    return scores, {**row, "systems": found}


if __name__ == "__main__":
    main()
