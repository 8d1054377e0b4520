"""Compare two systems: is the one better than the other, or are the queries too few to tell?

BM25 and a frozen model look for the documentation of Python's functions by what they are for. Their rankings become
TREC runs, which any tool can write, and a paired test says in words what the difference is worth.
"""

import importlib
import inspect
import sys
from pathlib import Path

from retrieval_prompts import BiEncoder, HybridIndex, Index, from_texts
from retrieval_prompts.evaluation.comparison import compare_runs
from retrieval_prompts.evaluation.comparison_words import words
from retrieval_prompts.evaluation.trec_runs import read_run, write_run

MODULES = ["math", "statistics", "random", "shutil", "textwrap", "itertools", "bisect", "heapq", "calendar", "operator"]


def documented() -> tuple[dict[str, str], dict[str, str]]:
    """Function -> the first line of its docstring, which asks; and -> the rest of it, which is to be found."""
    asked, answers = {}, {}
    for module in map(importlib.import_module, MODULES):
        for name, thing in vars(module).items():
            lines = (inspect.getdoc(thing) or "").splitlines() if callable(thing) else []
            if len(lines) > 2 and thing.__module__ == module.__name__ and not name.startswith("_"):
                asked[f"{module.__name__}.{name}"], answers[f"{module.__name__}.{name}"] = lines[0], " ".join(lines[1:])
    return asked, answers


def main(folder: str = "comparison") -> None:
    asked, answers = documented()
    corpus = from_texts(answers).corpus
    qrels = {f"about {name}": {name: 1} for name in asked}
    queries = {f"about {name}": text for name, text in asked.items()}

    biencoder = BiEncoder.load("all-MiniLM-L6-v2")
    index = Index.build(biencoder.encode_corpus(corpus), corpus, corpus.ids, encoder=biencoder.identity())
    both = HybridIndex.build(index, corpus)
    vectors = biencoder.query_vectors(queries.values())
    runs = {"frozen": index.rank(list(queries), vectors, 10), "bm25": both.lexical.run(queries, 10)}
    (runs["frozen+bm25"],) = both.rank(queries, vectors, 10, [0.5])
    for name, run in runs.items():
        write_run(Path(folder) / f"{name}.trec", run, name)

    baseline = read_run(Path(folder) / "bm25.trec")
    for name in ("frozen", "frozen+bm25"):
        compared = compare_runs(qrels, baseline, read_run(Path(folder) / f"{name}.trec"), ["mrr@10"])
        sentences, notes = words({"functions": compared}, {}, ("bm25", name), matters=0.01)
        print(*sentences, *(f"note: {note}" for note in notes), sep="\n")
        own, other = (scores["mrr@10"] for scores in compared.scores)
        apart = max(qrels, key=lambda query: abs(own[query] - other[query]))
        print(f"they differ most {apart}: {queries[apart]!r} ({own[apart]:.2f} and {other[apart]:.2f})\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
