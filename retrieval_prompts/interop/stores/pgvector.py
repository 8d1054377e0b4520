"""PostgreSQL with pgvector: a table with a column of vectors."""

from __future__ import annotations

import re
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
from psycopg import conninfo, sql

from retrieval_prompts.data.corpus import Document
from retrieval_prompts.errors import UserError, few
from retrieval_prompts.interop.stores.address import Address, Fields
from retrieval_prompts.interop.stores.common import documents_of, id_field, in_order, kept_open, one_vector, typed

VECTORS, NUMBERS = ("vector", "halfvec"), ("int2", "int4", "int8")
COLUMNS = """
    SELECT a.attname, t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""
MADE = "CREATE TABLE IF NOT EXISTS {} (_id text PRIMARY KEY, title text, text text, vector vector({}) NOT NULL)"


class Pgvector:
    """A table, searched by the inner product: by an index of vector_ip_ops where it has one, else whole."""

    def __init__(self, connection: Any, table: str, columns: dict[str, str], field: str, vector: str) -> None:
        self.connection, self.numbers = connection, columns[field] in NUMBERS
        weakref.finalize(self, connection.close)
        self.texts = [each for each in ("title", "text") if each in columns]
        self.names = {
            "table": sql.Identifier(*table.split(".")),
            "id": sql.Identifier(field),
            "vector": sql.Identifier(vector),
            "type": sql.SQL(columns[vector]),
            "list": sql.SQL("int8[]" if self.numbers else "text[]"),
        }

    def search(self, vectors: np.ndarray, k: int) -> tuple[list[list[float]], list[list[str | None]]]:
        text = "SELECT {id}::text, -({vector} <#> %s::{type}) FROM {table} ORDER BY {vector} <#> %s::{type} LIMIT %s"
        found = [self._all(text, each, each, k) for each in map(_written, vectors)]
        return [[float(score) for _, score in rows] for rows in found], [[id for id, _ in rows] for rows in found]

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        return in_order(ids, dict(self._of("SELECT {id}::text, {vector}::real[]", ids)))

    def documents(self, ids: Sequence[str]) -> list[Document]:
        columns = [sql.Identifier(each) for each in self.texts]
        rows = self._of("SELECT {id}::text, {texts}", ids, texts=sql.SQL(", ").join([*columns, sql.SQL("''")]))
        return documents_of(ids, {id: dict(zip(self.texts, row, strict=False)) for id, *row in rows})

    def known(self, ids: Sequence[str]) -> set[str]:
        return {id for (id,) in self._of("SELECT {id}::text", ids)}

    def add(self, vectors: np.ndarray, documents: Sequence[Document]) -> None:
        names = [sql.Identifier(each) for each in self.texts]
        filled = sql.SQL(", ").join([self.names["id"], self.names["vector"], *names])
        changed = sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(each) for each in (self.names["vector"], *names)
        )
        text = "INSERT INTO {table} ({filled}) VALUES ({values}) ON CONFLICT ({id}) DO UPDATE SET {changed}"
        values = sql.SQL(", ").join([sql.Placeholder()] * (2 + len(names)))
        made = self._made(text, filled=filled, changed=changed, values=values)
        rows = [
            [each.id, _written(vector), *(getattr(each, name).replace("\0", "") for name in self.texts)]
            for each, vector in zip(documents, vectors, strict=True)
        ]
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.executemany(made, rows)

    def __len__(self) -> int:
        return int(self._all("SELECT count(*) FROM {table}")[0][0])

    def _of(self, text: str, ids: Sequence[str], **parts: sql.Composable) -> list[Any]:
        wanted = typed(ids, self.numbers)
        return self._all(f"{text} FROM {{table}} WHERE {{id}} = ANY(%s::{{list}})", wanted, **parts)

    def _all(self, text: str, *values: Any, **parts: sql.Composable) -> list[Any]:
        return list(self.connection.execute(self._made(text, **parts), values).fetchall())

    def _made(self, text: str, **parts: sql.Composable) -> sql.Composed:
        return sql.SQL(text).format(**self.names, **parts)


def open_pgvector(address: Address, fields: Fields) -> Pgvector:
    """See `opening.open_store`. A table that is made has the columns _id, title, text and vector."""
    _check(address)
    connection = psycopg.connect(address.place, autocommit=True)
    with kept_open(connection.close):
        if fields.dimension is not None:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            table = sql.Identifier(*address.name.split("."))
            connection.execute(sql.SQL(MADE).format(table, sql.Literal(fields.dimension)))
        named = sql.Identifier(*address.name.split(".")).as_string(connection)
        columns: dict[str, str] = dict(connection.execute(COLUMNS, [named]).fetchall())
        if not columns:
            raise UserError(f"{address.shown}: there is no table {address.name}")
        vector = one_vector(fields.vector, [name for name, kind in columns.items() if kind in VECTORS], address)
        field = id_field(fields.id, list(columns), address)
        if field is None:
            raise UserError(f"{address.shown}: name its column of ids with --id-field; it has {few(columns)}")
        return Pgvector(connection, address.name, columns, field, vector)


def _check(address: Address) -> None:
    """Raises UserError for what the library would refuse with a part of it, which may be of a password."""
    try:
        found = conninfo.conninfo_to_dict(address.place)
        host, port = str(found.get("host") or ""), str(found.get("port") or "")
        if "@" not in host[1:] and re.fullmatch(r"[\d,]*", port):
            return
    except psycopg.Error:
        pass
    raise UserError(
        f"{address.shown} cannot be read; expected pgvector:postgresql://user@host:port/database#table or "
        "pgvector:host=... dbname=...#table; in a password @ is %40, : is %3A, / is %2F, or set PGPASSWORD"
    )


def _written(vector: np.ndarray) -> str:
    return "[" + ",".join(map(repr, np.asarray(vector, dtype=np.float32).tolist())) + "]"
