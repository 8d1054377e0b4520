"""What of a FAISS index is learned, and from how many vectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

CENTROID = 39, 256  # training vectors a centroid: below the first FAISS warns, beyond the second it leaves some out
TRAIN_SIZE = 65_536, 1_048_576  # the fewest and the most vectors that are sampled unless told otherwise


def train_size(centroids: int) -> int:
    least, most = (each * centroids for each in CENTROID)
    return max(min(max(TRAIN_SIZE[0], most), TRAIN_SIZE[1]), least)


def learned(index: Any) -> Iterator[tuple[Any, int]]:
    """(clustering parameters or None, the fewest training vectors) of each part of an index that is trained."""
    import faiss

    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        chain: Any = index.chain
        for number in range(chain.size()):
            part: Any = faiss.downcast_VectorTransform(chain.at(number))
            if isinstance(part, faiss.OPQMatrix):
                if part.pq is None:  # the one that FAISS would make itself, but within reach of our settings
                    made: Any = faiss.ProductQuantizer(part.d_out, part.M, 8)
                    made.this.disown()  # the transform does not own it: it stays, a few kilobytes
                    part.pq = made
                yield part.pq.cp, part.pq.ksub
            elif isinstance(part, faiss.PCAMatrix):
                yield None, part.d_out
        yield from learned(index.index)
        return
    if isinstance(index, faiss.IndexRefine):
        yield from learned(index.base_index)
        yield from learned(index.refine_index)
    if isinstance(index, faiss.IndexHNSW):
        yield from learned(index.storage)
    if isinstance(index, faiss.IndexIVF):
        yield index.cp, index.nlist
    if isinstance(pq := getattr(index, "pq", None), faiss.ProductQuantizer):
        yield pq.cp, pq.ksub


def needs(index: Any) -> tuple[int, int]:
    """The fewest training vectors, and the fewest that FAISS recommends."""
    parts = list(learned(index))
    good = [CENTROID[0] * least if clustering is not None else least for clustering, least in parts]
    return max((least for _, least in parts), default=1), max(good, default=1)
