"""FAISS indexes that someone else filled: read, rid of ids of FAISS's own, their measure, what their codes keep."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_prompts.errors import UserError
from retrieval_prompts.vectors import faiss_index

CHECKED = 1 << 28  # bytes of an index.faiss that is read before it is mapped: a tenth of a second


def opened(path: Path, mmap: bool = True) -> Any:
    """The faiss.Index in a file, memory-mapped if that is wanted and FAISS can do it for this type."""
    faiss = _faiss()

    if not mmap:
        return faiss.read_index(str(path))
    # FAISS's careful reader raises for what would end the process where it is mapped
    found = faiss.read_index(str(path)) if path.stat().st_size <= CHECKED else None
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError:  # a type that FAISS cannot map, or a damaged file, which fails again
        return found or faiss.read_index(str(path))


def read(path: Path) -> Any:
    """The faiss.Index in a file, memory-mapped where FAISS can.

    Raises:
        UserError: for what is no index of vectors.
    """
    try:
        index = opened(path)
    except (RuntimeError, MemoryError) as error:
        said = f"{path} is not a file of vectors that can be read (FAISS, .npy, .npz, Parquet)"
        raise UserError(f"{said}: {faiss_index.reason(error)}") from None
    if not index.ntotal:
        raise UserError(f"{path} holds no vectors")
    return index


def without_ids(index: Any) -> tuple[Any, np.ndarray | None]:
    """The index by positions from 0, and the ids that FAISS had for them (n,), if it had any (IndexIDMap)."""
    faiss = _faiss()

    outer = faiss.downcast_index(index)
    if not isinstance(outer, faiss.IndexIDMap):
        return index, None
    inner: Any = faiss.downcast_index(outer.index)
    inner.referenced_objects = [index]  # which owns it
    return inner, faiss.vector_to_array(outer.id_map)


def numbered(index: Any) -> np.ndarray | None:
    """The ids (n,), ascending, that the lists (IVF) of an index hold instead of positions from 0; None where they hold
    positions, and of other indexes. Its vectors are then read by these ids (see `faiss_index.vectors_at`)."""
    faiss = _faiss()

    try:
        lists: Any = faiss.downcast_index(faiss.extract_index_ivf(index))
    except RuntimeError:
        return None
    found = [np.empty(0, np.int64)]
    for number in range(lists.nlist):
        if size := lists.invlists.list_size(number):
            found.append(faiss.rev_swig_ptr(lists.invlists.get_ids(number), size).copy())
    ids = np.sort(np.concatenate(found))
    if (ids == np.arange(len(ids))).all():
        return None
    lists.set_direct_map_type(faiss.DirectMap.Hashtable)
    return ids


def by_inner_product(index: Any) -> bool:
    """Whether higher scores are better; otherwise it measures distances."""
    faiss = _faiss()

    return bool(index.metric_type == faiss.METRIC_INNER_PRODUCT)


def kind_of(index: Any) -> str:
    """What type of index it is, for people: HNSWFlat, IVFPQ."""
    name = type(_faiss().downcast_index(index)).__name__.removeprefix("Index")
    return "Flat" if name in ("FlatIP", "FlatL2") else name


def as_kept(index: Any, vectors: np.ndarray) -> np.ndarray:
    """What the index would give back of vectors (n, dimension): for an index of codes, those that are coded and decoded
    again; vectors as they are where it keeps them, or nobody can tell."""
    faiss = _faiss()

    inner: Any = faiss.downcast_index(index)
    while isinstance(inner, faiss.IndexHNSW | faiss.IndexRefine):
        inner = faiss.downcast_index(inner.storage if isinstance(inner, faiss.IndexHNSW) else inner.base_index)
    try:
        kept: np.ndarray = inner.sa_decode(inner.sa_encode(np.ascontiguousarray(vectors, dtype=np.float32)))
    except (RuntimeError, AttributeError):
        return vectors
    return kept


def _faiss() -> Any:
    return importlib.import_module("faiss")  # its type stubs lack much of this
