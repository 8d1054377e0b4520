"""LanceDB: a table in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from retrieval_prompts.data.corpus import Document
from retrieval_prompts.data.ids import id_text
from retrieval_prompts.errors import UserError, few
from retrieval_prompts.interop.stores.address import Address, Fields
from retrieval_prompts.interop.stores.common import (
    check_name,
    check_place,
    documents_of,
    from_distance,
    id_field,
    in_order,
    one_vector,
    typed,
)


class Lance:
    """A table. Without an index of its own it is searched whole, by the inner product."""

    def __init__(self, table: Any, field: str, vector: str) -> None:
        self.table, self.field, self.vector = table, field, vector
        self.numbers = pa.types.is_integer(table.schema.field(field).type)
        indexed = [each for each in table.list_indices() if vector in each.columns]
        found = table.index_stats(indexed[0].name) if indexed else None
        self.measure = str(found.distance_type if found and found.distance_type else "dot").lower()

    def search(self, vectors: np.ndarray, k: int) -> tuple[list[list[float]], list[list[str | None]]]:
        scores, names = [], []
        for vector in vectors:
            query = self.table.search(vector, vector_column_name=self.vector, query_type="vector")
            found = query.distance_type(self.measure).select([self.field, "_distance"]).limit(k).to_arrow()
            scores.append([from_distance(each, self.measure) for each in found["_distance"].to_pylist()])
            names.append([id_text(each) for each in found[self.field].to_pylist()])
        return scores, names

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        found = self._rows(ids, [self.field, self.vector])
        return in_order(ids, {str(row[self.field]): row[self.vector] for row in found})

    def documents(self, ids: Sequence[str]) -> list[Document]:
        columns = [name for name in ("title", "text") if name in self.table.schema.names]
        return documents_of(ids, {str(row[self.field]): row for row in self._rows(ids, [self.field, *columns])})

    def known(self, ids: Sequence[str]) -> set[str]:
        return {str(row[self.field]) for row in self._rows(ids, [self.field])}

    def add(self, vectors: np.ndarray, documents: Sequence[Document]) -> None:
        rows = [
            {self.field: each.id, "title": each.title, "text": each.text, self.vector: vector}
            for each, vector in zip(documents, vectors.tolist(), strict=True)
        ]
        data = pa.Table.from_pylist(rows, schema=self.table.schema)
        (self.table.merge_insert(self.field).when_matched_update_all().when_not_matched_insert_all().execute(data))

    def __len__(self) -> int:
        return int(self.table.count_rows())

    def _rows(self, ids: Sequence[str], columns: list[str]) -> list[dict[str, Any]]:
        wanted = typed(ids, self.numbers)
        if not wanted:
            return []
        listed = ", ".join(str(id) if self.numbers else "'{}'".format(id.replace("'", "''")) for id in wanted)
        found = self.table.search().where(f"`{self.field}` IN ({listed})").select(columns).limit(len(wanted))
        return found.to_arrow().to_pylist()


def open_lance(address: Address, fields: Fields) -> Lance:
    """See `opening.open_store`."""
    check_place(address, make=fields.dimension is not None)
    database = lancedb.connect(address.place)
    names = list(database.list_tables().tables)
    if address.name not in names and fields.dimension is not None:
        columns = [pa.field(name, pa.string()) for name in ("_id", "title", "text")]
        made = pa.schema([*columns, pa.field("vector", pa.list_(pa.float32(), fields.dimension))])
        return Lance(database.create_table(address.name, schema=made), "_id", "vector")
    check_name(address, names)
    table = database.open_table(address.name)
    lists = [each.name for each in table.schema if pa.types.is_fixed_size_list(each.type)]
    vector = one_vector(fields.vector, lists, address)
    field = id_field(fields.id, table.schema.names, address)
    if field is None:
        raise UserError(f"{address.shown}: name its column of ids with --id-field; it has {few(table.schema.names)}")
    return Lance(table, field, vector)
