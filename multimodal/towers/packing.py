"""Texts of different lengths in one matrix without padding, and the buckets in which they attend. Knows no model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BUCKET = 64  # what a bucket of attention costs, in tokens: its operations are many and small


@dataclass(frozen=True)
class Bucket:
    """Texts of about one length, which attend together, padded to the longest.

    Args:
        texts, tokens: the slices of the packed texts and tokens that it covers; n texts.
        length: of its longest text, L.
        lengths: (n,), of its texts.
        pad: (n * L,) -> which of its tokens stands there, its text's last one behind the end; None: nothing is padded.
        real: (tokens,) -> where in n * L each token stands.
    """

    texts: slice
    tokens: slice
    length: int
    lengths: Tensor
    pad: Tensor | None
    real: Tensor

    @property
    def n(self) -> int:
        return self.texts.stop - self.texts.start

    def padded(self, packed: Tensor) -> Tensor:
        """(G, tokens, W) of this bucket -> (G, n * L, W)"""
        return packed if self.pad is None else packed[:, self.pad]

    def unpadded(self, padded: Tensor) -> Tensor:
        """The inverse."""
        return padded if self.pad is None else padded[:, self.real]

    def put(self, target: Tensor, asking: slice, out: Tensor, ends_only: bool) -> None:
        """Write (G, H, n * asked, d) into the rows `asking` of target (G, A, W)."""
        flat = out.transpose(1, 2)  # (G, n * asked, H, d)
        if not ends_only and self.pad is not None:
            flat = flat[:, self.real]
        target[:, asking].view(flat.shape).copy_(flat)

    def zero_padded(self, packed: Tensor) -> Tensor:
        """(G, tokens, W) -> (G, n * L, W) with zeros behind the ends."""
        if self.pad is None:
            return packed
        return packed.new_zeros(packed.shape[0], len(self.pad), packed.shape[2]).index_copy_(1, self.real, packed)


@dataclass(frozen=True)
class Packed:
    """Texts, shorter ones first, in one row of T tokens.

    Args:
        ids: (T,); places: (T,), each token's place in its text; ends: (texts,), where each text's last token is.
        order: packed order -> given order.
    """

    ids: Tensor
    places: Tensor
    ends: Tensor
    buckets: tuple[Bucket, ...]
    order: tuple[int, ...]


def pack(tails: Sequence[Sequence[int]], order: Sequence[int], prefixes: int, device: torch.device) -> Packed:
    """The texts in `order`, shorter ones first, and the buckets in which they attend behind `prefixes` prefixes."""
    chosen = [tails[index] for index in order]
    sizes = [len(tail) for tail in chosen]
    starts = [0, *itertools.accumulate(sizes)]
    lengths = torch.tensor(sizes, device=device)
    ends = lengths.cumsum(0) - 1
    places = torch.tensor([place for size in sizes for place in range(size)], device=device)
    ids = torch.tensor([id for tail in chosen for id in tail], dtype=torch.long, device=device)
    buckets = []
    for start, stop in _cuts(sizes, BUCKET // prefixes):
        own, L = lengths[start:stop], sizes[stop - 1]
        first, total = starts[start], starts[stop] - starts[start]
        pad = None
        if total < (stop - start) * L:
            # (n, L): a text's token, or its last one where it has ended
            within = torch.minimum(torch.arange(L, device=device), own[:, None] - 1)
            pad = (within + (own.cumsum(0) - own)[:, None]).flatten()
        text = torch.repeat_interleave(torch.arange(stop - start, device=device), own, output_size=total)
        real = text * L + places[first : first + total]
        buckets.append(Bucket(slice(start, stop), slice(first, first + total), L, own, pad, real))
    return Packed(ids, places, ends, tuple(buckets), tuple(order))


def _cuts(lengths: Sequence[int], price: int) -> list[tuple[int, int]]:
    """Ascending lengths -> the cheapest cut into runs, a run costing `price` and its texts times its longest."""
    edges = [0, *(at for at in range(1, len(lengths)) if lengths[at] > lengths[at - 1]), len(lengths)]
    best = [(0, 0)]  # up to each edge: cost, and the edge where its last run begins
    for stop in range(1, len(edges)):
        longest = lengths[edges[stop] - 1]
        best.append(
            min((best[start][0] + price + longest * (edges[stop] - edges[start]), start) for start in range(stop))
        )
    runs, stop = [], len(edges) - 1
    while stop:
        start = best[stop][1]
        runs.append((edges[start], edges[stop]))
        stop = start
    return runs[::-1]
