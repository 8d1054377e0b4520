"""Milvus: a file (Milvus Lite) or a server."""

from __future__ import annotations

import json
import logging
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient

from retrieval_prompts.data.corpus import Document
from retrieval_prompts.data.ids import id_text
from retrieval_prompts.errors import UserError
from retrieval_prompts.interop.stores.address import Address, Fields
from retrieval_prompts.interop.stores.common import (
    check_name,
    check_place,
    documents_of,
    id_field,
    in_order,
    kept_open,
    one_vector,
    typed,
)
from retrieval_prompts.interop.stores.trust import key_of

TEXT = 65_535  # bytes that a field of text holds; what is longer is cut
_lock = Lock()
_held: list[None] = []  # calls that go on, of any thread; while there are some, the client logs nothing
_levels: list[int] = []  # at which it logs
FLOATS = (DataType.FLOAT_VECTOR, DataType.FLOAT16_VECTOR)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the client and its local server from logging an error, with a traceback, that is raised as well."""
    loggers = [logging.getLogger(name) for name in ("pymilvus", "milvus_lite")]
    with _lock:
        if not _levels:
            _levels.extend(logger.level for logger in loggers)
        _held.append(None)
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        with _lock:
            _held.pop()
            if not _held:
                for logger, level in zip(loggers, _levels, strict=True):
                    logger.setLevel(level)
                _levels.clear()


class Milvus:
    """A collection."""

    def __init__(self, client: MilvusClient, name: str, field: str, vector: str, measure: str) -> None:
        self.client, self.name, self.field, self.vector, self.measure = client, name, field, vector, measure
        weakref.finalize(self, client.close)
        about = {each["name"]: each for each in client.describe_collection(name)["fields"]}
        self.numbers = about[field]["type"] == DataType.INT64
        self.texts = [each for each in ("title", "text") if each in about]

    @_quiet()
    def search(self, vectors: np.ndarray, k: int) -> tuple[list[list[float]], list[list[str | None]]]:
        options = {"limit": k, "anns_field": self.vector, "output_fields": [self.field]}
        found = self.client.search(self.name, data=vectors.tolist(), consistency_level="Strong", **options)
        scores = [[self._inner(hit["distance"]) for hit in hits] for hits in found]
        return scores, [[id_text(hit["entity"].get(self.field)) for hit in hits] for hits in found]

    @_quiet()
    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        found = self._rows(ids, [self.field, self.vector])
        return in_order(ids, {str(row[self.field]): row[self.vector] for row in found})

    @_quiet()
    def documents(self, ids: Sequence[str]) -> list[Document]:
        found = self._rows(ids, [self.field, *self.texts])
        return documents_of(ids, {str(row[self.field]): row for row in found})

    @_quiet()
    def known(self, ids: Sequence[str]) -> set[str]:
        return {str(row[self.field]) for row in self._rows(ids, [self.field])}

    @_quiet()
    def add(self, vectors: np.ndarray, documents: Sequence[Document]) -> None:
        rows = [
            {self.field: each.id, "title": _cut(each.title), "text": _cut(each.text), self.vector: vector}
            for each, vector in zip(documents, vectors.tolist(), strict=True)
        ]
        self.client.upsert(self.name, rows)

    @_quiet()
    def __len__(self) -> int:
        found = self.client.query(self.name, filter="", output_fields=["count(*)"], consistency_level="Strong")
        return int(found[0]["count(*)"])

    def _rows(self, ids: Sequence[str], fields: list[str]) -> list[Any]:
        known = typed(ids, self.numbers)
        if not known:
            return []
        wanted = f"{self.field} in {json.dumps(known, ensure_ascii=False)}"
        return list(self.client.query(self.name, filter=wanted, output_fields=fields, consistency_level="Strong"))

    def _inner(self, score: float) -> float:
        return 1 - score / 2 if self.measure == "L2" else score


@_quiet()
def open_milvus(address: Address, fields: Fields) -> Milvus:
    """See `opening.open_store`."""
    check_place(address, make=fields.dimension is not None)
    client = MilvusClient(uri=address.place, token=key_of("milvus") or "")
    with kept_open(client.close):
        if fields.dimension is not None and address.name not in client.list_collections():
            _make(client, address.name, fields.dimension)
        check_name(address, client.list_collections())
        about = client.describe_collection(address.name)["fields"]
        vector = one_vector(fields.vector, [each["name"] for each in about if each["type"] in FLOATS], address)
        key = next(each["name"] for each in about if each.get("is_primary"))
        field = id_field(fields.id, [each["name"] for each in about], address) or key
        client.load_collection(address.name)
        measure = next(
            (
                str(client.describe_index(address.name, each)["metric_type"]).upper()
                for each in client.list_indexes(address.name)
                if client.describe_index(address.name, each)["field_name"] == vector
            ),
            "IP",
        )
        if measure not in ("IP", "COSINE", "L2"):
            raise UserError(f"{address.shown} compares by {measure}; expected IP, or COSINE")
        return Milvus(client, address.name, field, vector, measure)


def _make(client: MilvusClient, name: str, dimension: int) -> None:
    schema = client.create_schema(auto_id=False)
    schema.add_field("_id", DataType.VARCHAR, is_primary=True, max_length=TEXT)
    for text in ("title", "text"):
        schema.add_field(text, DataType.VARCHAR, max_length=TEXT)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type="FLAT", metric_type="IP")
    client.create_collection(name, schema=schema, index_params=indexes)


def _cut(text: str) -> str:
    return text.encode()[:TEXT].decode(errors="ignore")
