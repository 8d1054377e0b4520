"""Vectors of plain sentence-transformers, adopted from files and stores: do they rank as our own index, how long does
it take, and is what was made otherwise refused with the reason?

    python eval/adopt_vectors.py eval/data/scifact --json eval/results/adopt-scifact.json

Each store is filled by its own client, as in tests/toy_stores.py. The wrong ones are of the first 50 documents.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from sentence_transformers import SentenceTransformer

from retrieval_prompts import BiEncoder, Dataset, Index, UserError, adopt, load
from retrieval_prompts.evaluation.metrics import HEADLINE, means, per_query
from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.files import check_output, write_json
from retrieval_prompts.interop.stores.opening import open_index
from retrieval_prompts.towers.text import locate
from retrieval_prompts.vectors.likeness import SAMPLE

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from toy_stores import STORES, fill, server

FEW = 50  # documents of the wrong ones


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="BEIR folder with a test split")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--vectors", type=Path, help=".npy of the corpus by sentence-transformers; else encoded now")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="documents that are compared")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    check_output(options.json, overwrite=options.overwrite)
    write_json(options.json, measure(load(options.data), options.model, options.vectors, options.sample))


def measure(dataset: Dataset, model: str, vectors: Path | None, sample: int) -> dict[str, Any]:
    biencoder, stock = BiEncoder.load(model), SentenceTransformer(locate(model))
    texts = [document.content for document in dataset.corpus]
    made = np.load(vectors) if vectors is not None else stock.encode(texts, show_progress_bar=True)
    documents = biencoder.encode_corpus(dataset.corpus)
    own = Index.build(documents, dataset.corpus, dataset.corpus.ids, encoder=biencoder.identity())
    queries, qrels = dataset.split("test")
    asked = biencoder.query_vectors(list(queries.values()))
    expected = own.search(asked, 10)[1]
    result: dict[str, Any] = {"dataset": dataset.name, "model": model, "documents": len(texts), "queries": len(queries)}
    result["sample"] = sample
    result["ndcg_at_10_own"] = means(per_query(qrels, own.rank(list(queries), asked, 10), [HEADLINE]))[HEADLINE]
    result["rows"], result["refused"] = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, place, ids in kinds(Path(folder), dataset, made, texts):
            start = time.perf_counter()
            adopted = adopt(biencoder, place, dataset.corpus, ids=ids, sample=sample)
            seconds = time.perf_counter() - start
            adopted.index.save(Path(folder) / f"index-{kind}")
            index = adopted.index if kind in STORES else open_index(Path(folder) / f"index-{kind}")
            start = time.perf_counter()
            found = index.search(asked, 10)[1]
            row = {
                "kind": kind,
                "queries_with_the_same_10": sum(one == other for one, other in zip(found, expected, strict=True)),
                "queries_with_the_same_set_of_10": sum(
                    set(one) == set(other) for one, other in zip(found, expected, strict=True)
                ),
                "ndcg_at_10": means(per_query(qrels, index.rank(list(queries), asked, 10), [HEADLINE]))[HEADLINE],
                "lowest_cosine": adopted.check.cosine,
                "seconds_adopt": round(seconds, 2),
                "milliseconds_query": round(1000 * (time.perf_counter() - start) / len(queries) / 2, 2),
            }
            result["rows"].append(row)
            print(json.dumps(row), flush=True)
    few = dataset.corpus.only(dataset.corpus.ids[:FEW])
    for name, wrong in wrong_ones(stock, made[:FEW], texts[:FEW]):
        try:
            adopt(biencoder, wrong, few)
            said = "TAKEN"
        except UserError as error:
            said = str(error)
        result["refused"][name] = said
        print(f"{name}: {said}", flush=True)
    packages = ("sentence-transformers", "faiss-cpu", "qdrant-client", "lancedb", "milvus-lite", "psycopg", "pgvector")
    return result | made_on(packages)


def kinds(
    folder: Path, dataset: Dataset, made: np.ndarray, texts: list[str]
) -> Iterator[tuple[str, Any, Sequence[str] | None]]:
    """The vectors in each kind of file and store: (kind, what `adopt` takes, ids)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = dataset.corpus.ids
    for factory in ("Flat", "HNSW32"):
        index = faiss.index_factory(made.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        index.add(made)
        faiss.write_index(index, str(folder / f"{factory}.faiss"))
        yield f"faiss {factory}", folder / f"{factory}.faiss", ids
    np.save(folder / "made.npy", made)
    yield "npy", folder / "made.npy", ids
    pq.write_table(pa.table({"id": ids, "embedding": list(made)}), folder / "made.parquet")
    yield "parquet", folder / "made.parquet", None
    with ExitStack() as stack:
        for kind in STORES:
            place = stack.enter_context(server()) if kind == "pgvector" else str(folder / f"{kind}.db")
            fill(kind, place, ids, made, texts)
            yield kind, f"{kind}:{place}#docs", None


def wrong_ones(stock: Any, made: np.ndarray, texts: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Vectors of the same texts that something else made, or that stand elsewhere."""
    random = np.random.default_rng(0)
    yield "reversed", made[::-1]
    yield "shuffled", made[random.permutation(len(made))]
    yield "scaled ninefold", 9 * made
    yield "random", random.normal(size=made.shape).astype(np.float32)
    yield "other words", stock.encode(texts, prompt="passage: ")
    for name, change in {"other pooling": pooled, "cut at 128": cut, "another model": shallow}.items():
        other = copy.deepcopy(stock)
        change(other)
        yield name, other.encode(texts)


def pooled(model: Any) -> None:
    model[1].pooling_mode = "cls"


def cut(model: Any) -> None:
    model.max_seq_length = 128


def shallow(model: Any) -> None:
    """The same model without its last layer."""
    del model[0].model.encoder.layer[-1]


if __name__ == "__main__":
    main()
