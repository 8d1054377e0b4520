"""FAISS indexes of vectors, by inner product: trained on a sample, filled in blocks, searched. Knows no ids or files.

The same vectors, factory and number of threads give the same index: FAISS draws with fixed seeds, and the sample is
evenly spread. Two exceptions: an HNSW graph is sure to be the same only when one thread builds it (OMP_NUM_THREADS=1),
and a GPU promises nothing. Another number of threads may change the last bits of what is learned (PCA, OPQ).
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from retrieval_prompts.errors import UserError
from retrieval_prompts.vectors.index_parts import faiss_training
from retrieval_prompts.vectors.index_parts.streamed import Streamed

BLOCK = 65_536  # vectors of an array added at once
# Our name -> FAISS's, and our default. nprobe: lists that an IVF index visits (FAISS: 1); ef_search: candidates that an
# HNSW index keeps (FAISS: 16); k_factor: candidates that a refined index (RFlat) scores anew, times k (FAISS: 1)
PARAMETERS = {"nprobe": ("nprobe", 16), "ef_search": ("efSearch", 64), "k_factor": ("k_factor_rf", 4)}


@runtime_checkable
class Rows(Protocol):
    """Vectors in blocks that can also be read at any positions, as `encode.VectorBlocks` can."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[np.ndarray]: ...

    def rows(self, positions: np.ndarray) -> np.ndarray: ...


Vectors = np.ndarray | Rows | Iterable[np.ndarray]


def build(vectors: Vectors, factory: str = "Flat", **options: Any) -> tuple[Any, dict[str, Any]]:
    """(a faiss.Index with all vectors, how it was built). Besides the index, memory holds one block and the sample.

    vectors: (n, dimension), a memory map for instance, `Rows`, or blocks (any, dimension); used as float32.
    factory: a FAISS index factory string.
    options: see `prepared`.
    Raises UserError for no vectors, a vector that is not finite, differing dimensions, too few vectors to learn from,
    and whatever FAISS refuses. Warns when there are fewer vectors than FAISS recommends.
    """
    index, blocks, record = prepared(vectors, factory, **options)
    with faiss_errors(f"cannot build the index {factory!r} on vectors of dimension {index.d}"):
        for block in blocks:
            index.add(block)
    return index, record


def write(path: Path, vectors: Vectors, factory: str = "Flat", **options: Any) -> dict[str, Any]:
    """As `build`, into a file; returns how it was built. Those that `Streamed` knows are never in memory.

    Raises:
        UserError: as `build`.
    """
    import faiss

    index, blocks, record = prepared(vectors, factory, **options)
    with faiss_errors(f"cannot build the index {factory!r} on vectors of dimension {index.d}"):
        if not record["gpu"] and (layout := Streamed.of(index)) is not None:
            layout.write(path, blocks)
            return record
        for block in blocks:
            index.add(block)
    with faiss_errors("the index cannot be written"):
        faiss.write_index(to_cpu(index, record["gpu"]), str(path))
    return record


def prepared(
    vectors: Vectors,
    factory: str,
    *,
    train_size: int | None = None,
    ef_construction: int | None = None,
    gpu: bool = True,
) -> tuple[Any, Iterator[np.ndarray], dict[str, Any]]:
    """(a faiss.Index that has learned what it needs to, the vectors to be added, how it is built).

    train_size: how many vectors a factory that learns is trained on, evenly spaced ones of an array or of `Rows`, the
        first ones of other iterables. None: 256 a centroid, from 65,536 to 1,048,576 in all, or 39 a centroid if more.
    ef_construction: candidates kept while an HNSW graph is built; FAISS's default is 40.
    gpu: train and add on the GPUs, if FAISS sees any and has the factory's type for them; the index then stays there.
    """
    import faiss

    blocks = _blocks(vectors)
    head = next(blocks, None)
    if head is None:
        raise UserError("there are no vectors to index")
    dimension = head.shape[1]
    with faiss_errors(f"cannot build the index {factory!r} on vectors of dimension {dimension}"):
        cpu = index = make(factory, dimension)
        if ef_construction is not None:
            _set(index, "efConstruction", "ef_construction", ef_construction, factory)
        waiting = [head]
        sample = head[:0]
        if not cpu.is_trained:
            centroids = max((least for _, least in faiss_training.learned(cpu)), default=0)
            sample, taken = _training_sample(vectors, head, blocks, train_size or faiss_training.train_size(centroids))
            waiting += taken
            _check_training(factory, cpu, sample)
        if gpu:
            index = to_gpu(cpu, factory)
        if trained_on := len(sample):
            index.train(sample)

    def all_of_them() -> Iterator[np.ndarray]:
        while waiting:
            yield waiting.pop(0)
        yield from blocks

    return (
        index,
        all_of_them(),
        {
            "train_size": trained_on,
            "seed": next(
                (int(clustering.seed) for clustering, _ in faiss_training.learned(cpu) if clustering is not None), None
            ),
            "lists": getattr(faiss.try_extract_index_ivf(cpu), "nlist", None),
            "ef_construction": ef_construction,
            "block": len(head),
            "threads": faiss.omp_get_max_threads(),
            "gpu": index is not cpu,
            "faiss": faiss.__version__,
        },
    )


def make(factory: str, dimension: int) -> Any:
    """An empty faiss.Index by inner product.

    Raises:
        UserError: when FAISS cannot read the factory string.
    """
    import faiss

    if not factory.isascii():
        raise UserError(f"cannot build the index {factory!r}: such strings are of ASCII letters; write Flat or HNSW32")
    with faiss_errors(f"cannot build the index {factory!r} on vectors of dimension {dimension}"):
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    if any(least < 1 for _, least in faiss_training.learned(index)):
        raise UserError(f"cannot build the index {factory!r}: it has no lists; write IVF256 for instance")
    return index


def check(factory: str, dimension: int, **parameters: int | None) -> None:
    """Raise UserError for a factory string or a search parameter that FAISS would refuse, before any vector is made."""
    index = make(factory, dimension)
    for name, value in parameters.items():
        if value is not None:
            _set(index, PARAMETERS[name][0], name, value, factory)


def search(
    index: Any, queries: np.ndarray, k: int, *, factory: str, gpu: bool = False, **parameters: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """The k vectors with the highest inner product for each query.

    queries: (q, dimension). Returns scores (q, k), float32 and descending, and positions (q, k); equal scores are in
    the order of the index. Where an approximate index finds fewer, the score is -inf and the position -1. parameters:
    see PARAMETERS; a lacking one or None is our default.

    Raises:
        UserError: for one that the index has not.
    """
    for name, (faiss_name, default) in PARAMETERS.items():
        value = parameters.get(name)
        try:
            # At every search, so that none is left over from the search before
            _set(index, faiss_name, name, default if value is None else value, factory, gpu)
        except UserError:
            if value is not None:
                raise
    with faiss_errors(f"cannot search the index {factory!r}"):
        scores, positions = index.search(queries, k)
    scores[positions < 0] = -np.inf
    order = np.lexsort((positions, -scores))  # FAISS gives equal scores last document first
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(positions, order, axis=1)


def scores_at(index: Any, query: np.ndarray, positions: np.ndarray) -> np.ndarray | None:
    """The inner products (n,) of a query (dimension,) with the vectors at these positions; None where the type of the
    index does not give its vectors back."""
    if not len(positions):
        return np.empty(0, dtype=np.float32)
    vectors = vectors_at(index, positions)
    return None if vectors is None else vectors @ np.asarray(query, dtype=np.float32)


def vectors_at(index: Any, positions: np.ndarray) -> np.ndarray | None:
    """The vectors (n, dimension) at these positions, as the index keeps them; None where its type does not give them
    back, or would first need a map from positions to lists (see `map_lists`)."""
    try:
        vectors: np.ndarray = index.reconstruct_batch(np.ascontiguousarray(positions, dtype=np.int64))
    except RuntimeError:
        return None
    return vectors


def map_lists(index: Any) -> bool:
    """Make the map by which an index of lists (IVF) gives its vectors back: 8 bytes a vector, kept in memory. False for
    types that do not, and for packed codes, over which FAISS ends the process where the index is memory-mapped."""
    import faiss

    try:
        lists: Any = faiss.downcast_index(faiss.extract_index_ivf(index))
    except RuntimeError:
        return False
    known = (faiss.IndexIVFFlat, faiss.IndexIVFScalarQuantizer, faiss.IndexIVFPQ, faiss.IndexIVFRaBitQ)
    if type(lists) not in known:
        return False
    lists.make_direct_map()
    return True


def accepted(index: Any, gpu: bool = False) -> list[str]:
    """Which search parameters (names in PARAMETERS) the index has."""
    names = []
    for name, (faiss_name, default) in PARAMETERS.items():
        try:
            _set(index, faiss_name, name, default, "", gpu)
            names.append(name)
        except UserError:
            continue
    return names


def to_gpu(index: Any, factory: str) -> Any:
    """The index on every GPU that FAISS sees, or itself where there is none, or no such type (one warning)."""
    import faiss

    if faiss.get_num_gpus() == 0:
        return index
    try:
        return faiss.index_cpu_to_all_gpus(index)
    except RuntimeError as error:
        warnings.warn(
            f"{factory} stays on the CPU, FAISS has it not on GPUs: {reason(error)}", UserWarning, stacklevel=3
        )
        return index


def to_cpu(index: Any, gpu: bool) -> Any:
    """What can be written: a copy on the CPU of an index on the GPU, any other index itself."""
    import faiss

    return faiss.index_gpu_to_cpu(index) if gpu else index


def size(index: Any) -> int:
    """The bytes of a faiss.Index on the CPU as a file, which is not written."""
    faiss: Any = importlib.import_module("faiss")  # its type stubs lack the writer
    sizes: list[int] = []
    faiss.write_index(index, faiss.PyCallbackIOWriter(lambda block: sizes.append(len(block))))
    return sum(sizes)


def threads() -> int:
    """How many threads FAISS uses on the CPU."""
    import faiss

    return int(faiss.omp_get_max_threads())


def matrix(vectors: np.ndarray, what: str) -> np.ndarray:
    """(count, dimension) as contiguous float32.

    Raises:
        UserError: for another shape, and for NaN or infinity.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise UserError(f"expected {what} of shape (count, dimension), got {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise UserError(
            f"expected finite {what}, got NaN or infinity in {(~np.isfinite(vectors)).any(1).sum()} of them"
        )
    return vectors


@contextmanager
def faiss_errors(context: str) -> Iterator[None]:
    """FAISS's errors as UserErrors of one line: `context` and the reason."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(f"{context}: {reason(error)}") from None


def reason(error: Exception) -> str:
    """One line; of a FAISS error only what stands behind the C++ signature and the source line."""
    text = re.sub(r".* at \S+\.(cpp|h|cu):\d+: (Error: )?", "", str(error), flags=re.DOTALL)
    return " ".join(text.split())


def _blocks(vectors: Vectors) -> Iterator[np.ndarray]:
    """Blocks (n > 0, dimension) of contiguous, finite float32, all of one dimension."""
    parts: Iterable[np.ndarray] = vectors
    if isinstance(vectors, np.ndarray):
        array = vectors
        parts = (array[start : start + BLOCK] for start in range(0, len(array), BLOCK))
    dimension = None
    for part in parts:
        block = matrix(part, "vectors")
        dimension = dimension or block.shape[1]
        if block.shape[1] != dimension:
            raise UserError(f"expected vectors of one dimension, got {dimension} and then {block.shape[1]}")
        if len(block):
            yield block


def _training_sample(
    vectors: Vectors, head: np.ndarray, blocks: Iterator[np.ndarray], size: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """(min(n, size), dimension), and what had to be taken from `blocks`, behind `head`, for it."""
    if isinstance(vectors, np.ndarray | Rows):
        rows = np.linspace(0, len(vectors) - 1, min(size, len(vectors))).astype(np.int64)
        return matrix(vectors[rows] if isinstance(vectors, np.ndarray) else vectors.rows(rows), "vectors"), []
    taken: list[np.ndarray] = []
    while len(head) + sum(map(len, taken)) < size and (block := next(blocks, None)) is not None:
        taken.append(block)
    return np.concatenate([head, *taken])[:size], taken


def _check_training(factory: str, index: Any, sample: np.ndarray) -> None:
    """Raises UserError when FAISS cannot train on so few vectors, warns when it would, and silences its own words."""
    count, dimension = sample.shape
    least, good = faiss_training.needs(index)
    if count < least:
        raise UserError(
            f"{factory} needs at least {least:,} vectors to train on, {good:,} to train well, got {count:,}; "
            f"use {_fitting(factory, dimension, count)}"
        )
    if count < good:
        warnings.warn(
            f"{factory} should be trained on {good:,} vectors or more, got {count:,}; "
            f"{_fitting(factory, dimension, count)} would fit",
            UserWarning,
            stacklevel=3,
        )
    for clustering, _ in faiss_training.learned(index):
        if clustering is not None:
            clustering.min_points_per_centroid = 1


def _fitting(factory: str, dimension: int, count: int) -> str:
    """The factory with fewer lists, if so few vectors can train that well, else Flat."""
    lists = 1 << max((count // faiss_training.CENTROID[0]).bit_length() - 1, 0)
    smaller = re.sub(r"IVF\d+", f"IVF{lists}", factory)
    return smaller if lists > 1 and faiss_training.needs(make(smaller, dimension))[1] <= count else "Flat"


def _set(index: Any, parameter: str, name: str, value: int, factory: str, gpu: bool = False) -> None:
    import faiss

    if value < 1:
        raise UserError(f"{name} must be at least 1, got {value}")
    space = faiss.GpuParameterSpace() if gpu else faiss.ParameterSpace()
    try:
        space.set_index_parameter(index, parameter, value)
    except RuntimeError:
        raise UserError(f"an index of type {factory} has no {name}; leave it out") from None
