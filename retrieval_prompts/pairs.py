"""Training pairs made from plain documents: a title, and the documents that bear it. Needs no labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval_prompts.data import Corpus


def title_pairs(corpus: Corpus, count: int, seed: int) -> list[tuple[str, NDArray[np.int64]]]:
    """At most `count` (title, positions of the documents with that title), drawn at random by document.

    Documents without a title, or with nothing but one, make no pair. Only the drawn titles are kept in memory.
    """
    order = np.random.default_rng([seed, len(corpus)]).permutation(len(corpus))
    bearers: dict[str, list[int]] = {}
    for position in order:
        if len(bearers) == count:
            break
        document = corpus[int(position)]
        if document.title.strip() and document.text.strip():
            bearers.setdefault(document.title, [])
    if not bearers:
        return []
    for position, document in enumerate(corpus):
        if document.title in bearers and document.text.strip():
            bearers[document.title].append(position)
    return [(title, np.array(positions, dtype=np.int64)) for title, positions in bearers.items()]
