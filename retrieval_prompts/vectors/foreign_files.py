"""Vectors that were made elsewhere, read from their files: FAISS, .npy, .npz, Parquet; and the ids that belong to them.

Knows no texts and no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_prompts.data.ids import id_text, id_texts
from retrieval_prompts.data.lines import json_rows
from retrieval_prompts.errors import UserError, few, first_line
from retrieval_prompts.files import check_regular, read_json
from retrieval_prompts.vectors import faiss_foreign, faiss_index

BLOCK = 16_384  # vectors that are read at once
ID_NAMES = ("_id", "id", "doc_id", "document_id", "docid", "corpus_id", "pid", "ids")
VECTOR_NAMES = ("vector", "embedding", "vectors", "embeddings", "emb", "dense")


@dataclass(frozen=True)
class Source:
    """What a file holds.

    Args:
        vectors: in the order of the file; `ids` of them, None where the file has none.
        index: the faiss.Index by inner product of such a file, which can be searched as it is.
        numbers: the ids are FAISS's own, which may be numbers of rows.
    """

    vectors: Chosen
    ids: list[str] | None
    index: Any = None
    numbers: bool = False


class Chosen:
    """Some of the vectors of a source, in an order: `Rows`, and `likeness.Held`.

    Args:
        rows: all of them: an array, or what has `rows` or, as an index, `vectors_at`.
        positions: of those that are meant; None: all of them.
        unit: bring vectors to length 1 as they are read.
    """

    def __init__(self, rows: Any, positions: np.ndarray | None = None, *, unit: bool = False) -> None:
        self.base, self.unit = rows, unit
        self.positions = np.arange(len(rows)) if positions is None else np.asarray(positions, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._at(self.positions[start : start + BLOCK]) for start in range(0, len(self), BLOCK))

    def rows(self, positions: np.ndarray) -> np.ndarray:
        return self._at(self.positions[positions])

    vectors_at = rows

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As `Index.nearest` of a flat index, block by block; for a few queries."""
        scores: np.ndarray = np.empty((len(queries), 0), np.float32)
        positions: np.ndarray = np.empty((len(queries), 0), np.int64)
        for number, block in enumerate(self):
            here = np.broadcast_to(np.arange(len(block)) + number * BLOCK, (len(queries), len(block)))
            scores = np.concatenate([scores, queries @ block.T], axis=1)
            positions = np.concatenate([positions, here], axis=1)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores = np.take_along_axis(scores, best, axis=1)
            positions = np.take_along_axis(positions, best, axis=1)
        return scores, positions

    def as_kept(self, vectors: np.ndarray) -> np.ndarray:
        kept = getattr(self.base, "as_kept", None)
        return vectors if kept is None else kept(vectors)

    def _at(self, positions: np.ndarray) -> np.ndarray:
        base: Any = self.base
        read = getattr(base, "rows", None) or getattr(base, "vectors_at", None)
        found = base[positions] if read is None else read(positions)
        found = np.ascontiguousarray(found, dtype=np.float32)
        if self.unit:
            found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return found


class _Reconstructed:
    """The vectors of a faiss.Index, read back."""

    def __init__(self, index: Any, path: Path, keys: np.ndarray | None = None) -> None:
        """`keys`: by which it gives them, where these are no positions."""
        self.index, self.path, self.keys = index, path, keys

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def rows(self, positions: np.ndarray) -> np.ndarray:
        positions = positions if self.keys is None else self.keys[positions]
        found = faiss_index.vectors_at(self.index, positions)
        if found is None and self.keys is None and faiss_index.map_lists(self.index):
            found = faiss_index.vectors_at(self.index, positions)
        if found is None:
            raise UserError(
                f"{self.path}: an index of type {type(self.index).__name__} does not give its vectors back, so nobody "
                "can tell what made them; adopt the vectors themselves (.npy or Parquet)"
            )
        return found


def read_vectors(path: Path | str, *, id_field: str | None = None, vector_field: str | None = None) -> Source:
    """Read a file of vectors; those of .npy stay on disk until they are asked for.

    Args:
        id_field, vector_field: the columns of a Parquet file or the arrays of .npz; None: by their usual names.

    Raises:
        UserError: for what is no such file.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; expected a FAISS file, .npy, .npz or Parquet")
    for each in (path, *sorted(path.rglob("*"))):  # of a folder Parquet's reader would wait for a pipe
        check_regular(each)
    kind = path.suffix.lower()
    if path.is_dir() or kind in (".parquet", ".pq"):
        return _parquet(path, id_field, vector_field)
    if kind == ".npz":
        return _numpy(path, id_field, vector_field)
    if id_field is not None or vector_field is not None:
        raise UserError(f"{path} has no fields; leave out --id-field and --vector-field (id_field=, vector_field=)")
    if kind == ".npy":
        return _numpy(path, None, None)
    return _faiss(path)


def read_ids(path: Path | str) -> list[str]:
    """Ids from a file: .json (a list), .jsonl (rows with an id), .npy, or one in a line. Raises UserError."""
    path = Path(path)
    try:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
            if array.ndim != 1:
                raise UserError(f"{path}: expected one id a vector, got an array of shape {array.shape}")
            return id_texts(array.tolist(), path)
        if path.suffix == ".json":
            found = read_json(path)
            if not isinstance(found, list) or not all(isinstance(each, str | int) for each in found):
                raise UserError(f"{path}: expected a list of ids, got {type(found).__name__}")
            return id_texts(found, path)
        if path.suffix == ".jsonl":
            return [_id_of(row, f"{path}:{number}") for number, row in json_rows(path)]
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line]
    except UserError:
        raise
    except Exception as error:  # numpy evaluates headers, and raises whatever comes of that
        raise UserError(f"{path} holds no ids that can be read: {first_line(error)}") from None


def named(names: Sequence[str], wanted: str | None, usual: Sequence[str]) -> str | None:
    """The name that is wanted, or else the first usual one that is there; None: there is none."""
    if wanted is not None:
        return wanted if wanted in names else None
    return next((name for name in usual if name in names), None)


def _id_of(row: dict[str, Any], where: str) -> str:
    name = named(list(row), None, ID_NAMES)
    if name is None:
        raise UserError(f"{where}: expected an id under one of {', '.join(ID_NAMES)}")
    if (id := id_text(row[name])) is None or isinstance(row[name], list | dict | bool):
        raise UserError(f"{where}: expected an id under {name}, got {row[name]!r:.40}")
    return id


def _numpy(path: Path, id_field: str | None, vector_field: str | None) -> Source:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.ndarray):
            return Source(Chosen(matrix(found, path)), None)
        with found:
            own = named(found.files, id_field, ID_NAMES)
            if own is None and id_field is not None:
                raise UserError(f"{path} has no array {id_field}; it has {', '.join(found.files)}")
            vectors = _vectors_of(found, path, vector_field, own)
            return Source(Chosen(vectors), None if own is None else id_texts(found[own].ravel().tolist(), path))
    except UserError:
        raise
    except Exception as error:  # numpy evaluates headers, and raises whatever comes of that
        raise UserError(f"{path} cannot be read as vectors: {first_line(error)}") from None


def _vectors_of(arrays: Any, path: Path, wanted: str | None, ids: str | None) -> np.ndarray:
    """The array of vectors of .npz: by its name, else the first of two dimensions. Each access unpacks one anew."""
    names = dict.fromkeys([wanted] if wanted is not None else [*VECTOR_NAMES, *arrays.files])
    for name in names:
        if name in arrays.files and name != ids and (array := arrays[name]).ndim == 2:
            return matrix(array, path)
    raise UserError(f"{path}: expected an array of vectors, got {', '.join(arrays.files) or 'none'}")


def matrix(array: np.ndarray, where: Path | str) -> np.ndarray:
    """Raises UserError for what is no array (documents, dimension) of floats."""
    if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
        raise UserError(
            f"{where}: expected vectors as numbers of shape (documents, dimension), got {array.dtype} of shape "
            f"{array.shape}"
        )
    return array


def _parquet(path: Path, id_field: str | None, vector_field: str | None) -> Source:
    try:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.dataset as ds
    except ImportError:
        raise UserError('Parquet files need a package: pip install "retrieval-prompts[parquet]"') from None
    try:
        table = ds.dataset(path, format="parquet")
        lists = [each.name for each in table.schema if _is_vectors(each.type)]
        name = named(lists, vector_field, (*VECTOR_NAMES, *lists[:1]))
        if name is None:
            raise UserError(
                f"{path}: expected a column of vectors (lists of floats){f' {vector_field}' if vector_field else ''}, "
                f"got the columns {', '.join(table.schema.names)}"
            )
        own = named(table.schema.names, id_field, ID_NAMES)
        if own is None and id_field is not None:
            raise UserError(f"{path} has no column {id_field}; it has {', '.join(table.schema.names)}")
        parts: list[np.ndarray] = []
        ids: list[Any] = []
        lengths: set[int] = set()
        for batch in table.to_batches(columns=[each for each in (own, name) if each]):
            column = batch.column(name)
            if column.null_count:
                raise UserError(f"{path}: {column.null_count} rows have no vector; leave them out")
            if len(batch):
                lengths |= set(pc.list_value_length(column).unique().to_pylist())
                if len(lengths) > 1:
                    raise UserError(f"{path}: expected vectors of one length, got lists of {few(map(str, lengths))}")
                flat = column.flatten().to_numpy(zero_copy_only=False)
                parts.append(np.asarray(flat, dtype=np.float32).reshape(len(batch), -1))
            ids += batch.column(own).to_pylist() if own else []
        vectors = matrix(np.concatenate(parts or [np.empty((0, 0))]), path)
        return Source(Chosen(vectors), id_texts(ids, f"{path}, column {own}") if own else None)
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read as Parquet with vectors: {first_line(error)}") from None


def _is_vectors(kind: Any) -> bool:
    import pyarrow.types as types

    listed = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return listed and types.is_floating(kind.value_type)


def _faiss(path: Path) -> Source:
    index, own = faiss_foreign.without_ids(faiss_foreign.read(path))
    usable = faiss_foreign.by_inner_product(index)
    if own is None and (keys := faiss_foreign.numbered(index)) is not None:
        return Source(Chosen(_Reconstructed(index, path, keys)), [str(each) for each in keys.tolist()], numbers=True)
    ids = None if own is None else [str(each) for each in own.tolist()]
    return Source(Chosen(_Reconstructed(index, path)), ids, index if usable else None, own is not None)
