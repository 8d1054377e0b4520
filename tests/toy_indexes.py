"""A small index whose best documents are known, and vectors for larger ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from retrieval_prompts.data.corpus import Document
from retrieval_prompts.vectors.index import Index

ENCODER = {"model": "toy", "fingerprint": "f" * 64, "document_prompt": None}
IDS = ["d0", "d1", "d2", "d3"]
VECTORS = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], dtype=np.float32)
DOCUMENTS = [Document(id, f"title {id}", f"tëxt\nof {id}") for id in IDS]


def build(vectors: Any = VECTORS, documents: Any = DOCUMENTS, ids: Any = IDS, **options: Any) -> Index:
    return Index.build(vectors, documents, ids, **{"encoder": ENCODER, **options})


def random_vectors(count: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def names(count: int) -> list[str]:
    return [f"d{i}" for i in range(count)]
