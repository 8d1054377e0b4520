"""Scores of base-to-new and of image-text retrieval, as pure functions of arrays. Knows no model and no data set."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

RECALL_AT = (1, 5, 10)


def harmonic_mean(base: float, new: float) -> float:
    """2 base new / (base + new): base-to-new's summary (Xian et al. 2017); 0 where both are 0.

    >>> round(harmonic_mean(0.8269, 0.6322), 4)
    0.7166
    """
    return 2 * base * new / (base + new) if base + new else 0.0


def best_ranks(scores: np.ndarray, positives: Sequence[Collection[int]]) -> np.ndarray:
    """The rank, from 1, of the best-placed positive of each query: (Q,) integers.

    Args:
        scores: (Q, N), higher is better. A negative with the same score as the positive is placed before it.
        positives: for each query the positions in N that are right, at least one.

    >>> best_ranks(np.array([[0.9, 0.5, 0.1], [0.3, 0.2, 0.3]]), [[1, 2], [0]]).tolist()
    [2, 2]
    """
    if len(scores) != len(positives) or not all(len(right) for right in positives):
        raise ValueError(
            f"expected at least one positive for each of {len(scores)} queries, got {len(positives)} lists"
        )
    rows = np.repeat(np.arange(len(scores)), [len(right) for right in positives])
    columns = np.fromiter((position for right in positives for position in right), dtype=np.int64, count=len(rows))
    mask = np.zeros(scores.shape, dtype=bool)
    mask[rows, columns] = True
    best = np.where(mask, scores, -np.inf).max(axis=1, keepdims=True)
    if not np.isfinite(best).all():
        raise ValueError("expected a finite score for each positive")
    return 1 + ((scores >= best) & ~mask).sum(axis=1)


def recall_at(
    scores: np.ndarray | Iterable[np.ndarray], positives: Sequence[Collection[int]], at: Sequence[int] = RECALL_AT
) -> dict[str, float]:
    """ "r@k" -> the share of queries with at least one positive among the k best candidates.

    This is the recall of image-text retrieval (Karpathy and Fei-Fei 2015), a hit rate: not the recall@k of
    information retrieval, the share of all positives that is found.

    Args:
        scores: (Q, N), higher is better; or an iterable of (q, N) blocks of consecutive queries, of which one is
            needed at a time.
        positives: for each query the positions in N that are right, at least one.

    >>> recall_at(np.array([[0.9, 0.5, 0.1], [0.3, 0.2, 0.1]]), [[1, 2], [0]], at=(1, 2))
    {'r@1': 0.5, 'r@2': 1.0}
    """
    ranks: list[np.ndarray] = []
    start = 0
    for block in [scores] if isinstance(scores, np.ndarray) else scores:
        ranks.append(best_ranks(block, positives[start : start + len(block)]))
        start += len(block)
    if start != len(positives) or not start:
        raise ValueError(f"expected scores of {len(positives)} queries, at least one, got {start}")
    found = np.concatenate(ranks)
    return {f"r@{k}": float((found <= k).mean()) for k in at}
