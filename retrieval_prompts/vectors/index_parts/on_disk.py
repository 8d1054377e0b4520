"""The lists of an IVF index in a file beside it, memory-mapped: for an index that memory does not hold.

Shards are added to copies of one trained index, and their lists are then merged on disk (FAISS's `merge_ondisk`). The
merged index finds what one finds to which all was added in this order. Linux and macOS; FAISS has it not on Windows.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_prompts.errors import UserError

LISTS = "lists.ivf"  # the file, beside index.faiss
ID = 8  # bytes of an id beside each code


def mergeable(index: Any) -> bool:
    """Whether an index, trained or not, can be made of shards: lists of codes, also behind transforms such as PCA; not
    those of packed codes, nor what scores its candidates anew."""
    faiss = _faiss()

    inner: Any = faiss.downcast_index(index)
    while isinstance(inner, faiss.IndexPreTransform):
        inner = faiss.downcast_index(inner.index)
    known = (faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer, faiss.IndexIVFPQ, faiss.IndexIVFRaBitQ)
    return hasattr(faiss, "OnDiskInvertedLists") and type(inner) in known


def lists_of(index: Any) -> int:
    """How many lists it has."""
    return int(_faiss().extract_index_ivf(index).nlist)


def version() -> str:
    """FAISS's."""
    return str(_faiss().__version__)


def content(index: Any) -> bytes:
    """An index on the CPU as a file."""
    found: np.ndarray = _faiss().serialize_index(index)
    return found.tobytes()


def added(trained: Path, runs: Iterable[tuple[int, np.ndarray]]) -> bytes:
    """A shard as a file: the trained index with runs of vectors (n, dimension), each from its position on."""
    index = _faiss().read_index(str(trained))
    for start, vectors in runs:
        index.add_with_ids(vectors, np.arange(start, start + len(vectors), dtype=np.int64))
    return content(index)


def merge(trained: Path, shards: Sequence[Path], path: Path) -> Any:
    """Write the index of all shards, their positions ascending, and its lists beside it; returns it, memory-mapped.

    Raises:
        UserError: where the disk has not the room.
    """
    faiss = _faiss()
    ondisk: Any = importlib.import_module("faiss.contrib.ondisk")

    index, lists = faiss.read_index(str(trained)), path.with_name(LISTS)
    # Without the room, writing to the mapped file would end the process
    needed, free = sum(shard.stat().st_size for shard in shards), shutil.disk_usage(path.parent).free
    if needed > free:
        raise UserError(f"{path.parent} has {free >> 20:,} MB left, and the index takes {needed >> 20:,}; make room")
    with _silent():
        ondisk.merge_ondisk(index, [str(shard) for shard in shards], str(lists))
    _write(index, path)
    return opened(path)


def opened(path: Path) -> Any:
    """The index in a file, over the lists beside it. What the file says of where they are is not followed.

    Raises:
        ValueError: where the lists are not those of this index.
        RuntimeError: of FAISS, for what it cannot read.
    """
    faiss = _faiss()

    index = faiss.read_index(str(path), faiss.IO_FLAG_SKIP_IVF_DATA | faiss.IO_FLAG_READ_ONLY)
    lists, file = _lists(index), path.with_name(LISTS)
    if lists is None:
        raise ValueError(f"{path.name} has no lists in a file of their own")
    count = lists.lists.size()
    words = (ctypes.c_size_t * (3 * count)).from_address(int(lists.lists.data().this)) if count else []
    sizes, capacities, starts = np.array(words, dtype=np.float64).reshape(count, 3).T
    ends = starts + capacities * (lists.code_size + ID)
    if count != lists.nlist or (sizes > capacities).any() or ends.max(initial=0) > file.stat().st_size:
        raise ValueError(f"{LISTS} is not of {path.name}")
    if lists.totsize != file.stat().st_size or sizes.sum() != index.ntotal:
        raise ValueError(f"{LISTS} is not of {path.name}")
    lists.filename = str(file)
    lists.do_mmap()
    return index


def write(index: Any, path: Path) -> None:
    """Write any index; the lists of one that has them in a file of their own are copied too."""
    lists = _lists(index)
    if lists is None:
        _faiss().write_index(index, str(path))
        return
    # What is mapped, for the file may have been moved or replaced
    _faiss().rev_swig_ptr(lists.ptr, lists.totsize).tofile(path.with_name(LISTS))
    _write(index, path)


def _write(index: Any, path: Path) -> None:
    """The index without the place of its lists, which are beside it wherever it goes."""
    lists: Any = _lists(index)
    place, lists.filename = lists.filename, LISTS
    try:
        _faiss().write_index(index, str(path))
    finally:
        lists.filename = place


def _lists(index: Any) -> Any | None:
    """The lists of an index that has them in a file of their own."""
    faiss = _faiss()
    if not hasattr(faiss, "OnDiskInvertedLists") or (ivf := faiss.try_extract_index_ivf(index)) is None:
        return None
    found: Any = faiss.downcast_InvertedLists(ivf.invlists)
    return found if isinstance(found, faiss.OnDiskInvertedLists) else None


@contextmanager
def _silent() -> Iterator[None]:
    """FAISS prints the size of the file on standard output, where results may be."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


def _faiss() -> Any:
    return importlib.import_module("faiss")  # its type stubs lack much of this
