"""What do words cost at search? Single queries one after another on a CPU, by vectors alone and with BM25.

    python eval/hybrid_latency.py eval/data/scifact --json eval/results/hybrid-latency.json

The texts are those of the BEIR folder and, beyond them, texts made of its words: as many as one of its documents has,
drawn by how often they occur. The vectors of documents and queries are random ones of length 1, all the same to exact
search; no model is loaded, and the encoding of a query is not in the times. Each index is written, opened
(memory-mapped) and searched for the k best; all queries are asked once before they are timed. `open_seconds` has the
files in the system's cache. Where other work shares the machine, `--clock cpu` counts what this process itself took,
which with one thread (OMP_NUM_THREADS=1) is what a quiet core would show.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_prompts import Index, UserError, load
from retrieval_prompts.data.corpus import Document
from retrieval_prompts.evaluation.bm25 import BM25Index
from retrieval_prompts.evaluation.hybrid import UNLABELLED, WORDS, HybridIndex
from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.files import check_output, write_json

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options_of(__doc__, documents=[5_000, 100_000])
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--factory", default="Flat", help="FAISS index string")
    start(parser, run, arguments)


def options_of(description: str | None, documents: list[int]) -> argparse.ArgumentParser:
    """The options that every script on latencies has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="BEIR folder")
    parser.add_argument("--split", default="test", help="whose queries search")
    parser.add_argument("--documents", type=int, nargs="+", default=documents, help="how many")
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--weight", type=float, default=UNLABELLED, help="of BM25")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--json", type=Path, required=True, help="the result file")
    parser.add_argument("--overwrite", action="store_true")
    return parser


def start(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], None], arguments: Sequence[str] | None
) -> None:
    """Run a script; a user's mistake is one line."""
    options = parser.parse_args(arguments)
    try:
        run(options)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    check_output(options.json, overwrite=options.overwrite)
    dataset = load(options.data)
    queries = list(dataset.split(options.split)[0].values())
    rows = []
    for count in options.documents:
        texts = [document.content for document in dataset.corpus]
        texts = [*texts[:count], *made(texts, count - len(texts), options.seed)]
        rows.append({"documents": count, "synthetic_texts": max(0, count - len(dataset.corpus))})
        rows[-1] |= measure(texts, queries, options)
        print(", ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    result = {
        "dataset": dataset.name,
        "query_count": len(queries),
        "vectors": "random, of length 1",
        **{name: getattr(options, name) for name in ("dimension", "factory", "k", "weight", "seed", "clock")},
        "threads": threads(),
        "load_average": os.getloadavg()[0],
        **made_on(("faiss-cpu", "bm25s", "numpy")),
        "rows": rows,
    }
    write_json(options.json, result)


def made(texts: list[str], count: int, seed: int) -> list[str]:
    """Texts of the words of others, each as long as one of them; none for a negative count."""
    if count <= 0:
        return []
    random = np.random.default_rng(seed)
    split = [text.split() for text in texts]
    lengths = random.choice([len(words) for words in split], count)
    drawn = random.choice(np.array([word for words in split for word in words]), lengths.sum())
    return [" ".join(words) for words in np.split(drawn, np.cumsum(lengths)[:-1])]


def measure(texts: list[str], queries: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Times and bytes of an index of these texts."""
    timed = partial(timed_by, CLOCKS[options.clock])
    random = np.random.default_rng(options.seed)
    vectors, asked = (unit(random, count, options.dimension) for count in (len(texts), len(queries)))
    documents = [Document(f"d{number}", "", text) for number, text in enumerate(texts)]
    ids = [document.id for document in documents]
    encoder = {"fingerprint": "random vectors"}
    dense = Index.build(vectors, documents, ids, encoder=encoder, factory=options.factory, gpu=False)
    lexical, build_seconds = timed(lambda: BM25Index.build(texts, ids))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "index"
        HybridIndex(dense, lexical).save(folder)
        size = sum(path.stat().st_size for path in (folder / WORDS).iterdir())
        index, dense_open_seconds = timed(lambda: Index.open(folder))
        _, digest_seconds = timed(lambda: index.has_beside(folder, WORDS))
        opened, open_seconds = timed(lambda: HybridIndex.open(folder))
        assert opened is not None, "the words are in the folder"
        ways: dict[str, Callable[[str, Any], object]] = {
            "dense": lambda _, vector: opened.index.search(vector, options.k),
            "hybrid": lambda query, vector: opened.search([query], vector, options.k, weight=options.weight),
        }
        times = {name: milliseconds(timed, search, queries, asked) for name, search in ways.items()}
    return {
        **{f"{name}_{part}_ms": value for name, found in times.items() for part, value in found.items()},
        "bm25_build_seconds": round(build_seconds, 2),
        "bm25_bytes": size,
        "open_seconds": round(open_seconds, 3),
        "of_which_dense_seconds": round(dense_open_seconds, 3),
        "of_which_digest_seconds": round(digest_seconds, 3),
    }


def unit(random: np.random.Generator, count: int, dimension: int) -> Any:
    vectors = random.standard_normal((count, dimension), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def milliseconds(
    timed: Callable[..., tuple[Any, float]], search: Callable[[str, Any], object], queries: list[str], vectors: Any
) -> dict[str, float]:
    """The middle and the 99th percentile of single searches, once all queries have been asked."""
    each = []
    for _ in range(2):
        each = [timed(partial(search, query, vectors[n : n + 1]))[1] for n, query in enumerate(queries)]
    return {f"p{part}": round(1000 * float(np.percentile(each, part)), 3) for part in (50, 99)}


def timed_by(clock: Callable[[], float], action: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and the seconds it takes."""
    start = clock()
    found = action()
    return found, clock() - start


def threads() -> int:
    import faiss

    return int(faiss.omp_get_max_threads())


if __name__ == "__main__":
    main()
