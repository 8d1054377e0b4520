"""Qdrant: a folder (its local mode) or a server."""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

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

OWN = uuid.UUID("6f1b7c1e-0d43-5a55-9d4c-3e0a4f5b2a10")  # points that are written here are named by it and their id
OWN_FIELD = "_id"

SOME = 32  # points that are looked at for the fields of their payload


class Qdrant:
    """A collection. The id of a document is a field of the payload, or the point's own where there is none."""

    def __init__(
        self, client: QdrantClient, name: str, field: str | None, vector: str, measure: str, some: Sequence[Any]
    ) -> None:
        """some: of its points, with their payload."""
        self.client, self.name, self.field, self.vector, self.measure = client, name, field, vector, measure
        weakref.finalize(self, client.close)
        owns = [(point.id, point.id if field is None else (point.payload or {}).get(field)) for point in some]
        point, own = next(((point, own) for point, own in owns if own is not None), (None, None))
        self.numbers = isinstance(own, int)
        self.named_by_id = not some or (own is not None and str(point) == _point(str(own)))

    def search(self, vectors: np.ndarray, k: int) -> tuple[list[list[float]], list[list[str | None]]]:
        fields: Any = [self.field] if self.field else False
        asked = [
            models.QueryRequest(query=vector, using=self.vector or None, limit=k, with_payload=fields)
            for vector in vectors.tolist()
        ]
        found = [answer.points for answer in self.client.query_batch_points(self.name, requests=asked)]
        scores = [[self._inner(point.score) for point in points] for points in found]
        return scores, [[self._id(point) for point in points] for points in found]

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        found = self._read(ids, with_vectors=[self.vector] if self.vector else True)
        rows = {str(self._id(point)): point.vector for point in found}
        return in_order(ids, {id: row[self.vector] if isinstance(row, dict) else row for id, row in rows.items()})

    def documents(self, ids: Sequence[str]) -> list[Document]:
        return documents_of(ids, {str(self._id(point)): point.payload or {} for point in self._read(ids)})

    def known(self, ids: Sequence[str]) -> set[str]:
        return {id for point in self._read(ids) if (id := self._id(point)) is not None}

    def add(self, vectors: np.ndarray, documents: Sequence[Document]) -> None:
        field = self.field or OWN_FIELD
        points = [
            models.PointStruct(
                id=_point(each.id),
                vector={self.vector: row} if self.vector else row,
                payload={field: each.id, "title": each.title, "text": each.text},
            )
            for each, row in zip(documents, vectors.tolist(), strict=True)
        ]
        self.client.upsert(self.name, points=points, wait=True)
        self.field = field

    def __len__(self) -> int:
        return int(self.client.count(self.name, exact=True).count)

    def _read(self, ids: Sequence[str], **options: Any) -> list[Any]:
        known = typed(ids, self.numbers)
        if not known:
            return []
        if self.field is None:
            return list(self.client.retrieve(self.name, known, **options))
        if self.named_by_id:
            return list(self.client.retrieve(self.name, [_point(id) for id in ids], **options))
        some = models.MatchAny(any=known)
        wanted = models.Filter(must=[models.FieldCondition(key=self.field, match=some)])
        return list(self.client.scroll(self.name, scroll_filter=wanted, limit=len(ids), **options)[0])

    def _id(self, point: Any) -> str | None:
        return id_text(point.id if self.field is None else (point.payload or {}).get(self.field))

    def _inner(self, score: float) -> float:
        return 1 - score * score / 2 if self.measure == "Euclid" else score


def open_qdrant(address: Address, fields: Fields) -> Qdrant:
    """See `opening.open_store`."""
    check_place(address, make=fields.dimension is not None)
    remote = "://" in address.place
    # Of a server that is not there the client would warn from a thread; it is said below
    where: dict[str, Any] = {"url": address.place, "api_key": key_of("qdrant"), "check_compatibility": False}
    client = QdrantClient(**where) if remote else QdrantClient(path=address.place)
    with kept_open(client.close):
        if fields.dimension is not None and not client.collection_exists(address.name):
            size = models.VectorParams(size=fields.dimension, distance=models.Distance.DOT)
            client.create_collection(address.name, vectors_config=size)
        check_name(address, [each.name for each in client.get_collections().collections])
        config: Any = client.get_collection(address.name).config.params.vectors
        vector, about = "", config
        if isinstance(config, dict):
            vector = one_vector(fields.vector, list(config), address)
            about = config[vector]
        measure = str(about.distance.value)
        if measure == "Manhattan":
            raise UserError(f"{address.shown} compares by {measure}; expected Dot, or Cosine")
        some = client.scroll(address.name, limit=SOME, with_payload=True)[0]
        names = list(dict.fromkeys(name for point in some for name in point.payload or {}))
        field = id_field(fields.id, names, address)
        if field is None and not some and fields.dimension is not None:
            field = OWN_FIELD  # others, who write there at the same time, name it so
        return Qdrant(client, address.name, field, vector, measure, some)


def _point(id: str) -> str:
    return str(uuid.uuid5(OWN, id))
