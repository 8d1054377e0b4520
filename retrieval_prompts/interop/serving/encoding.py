"""Texts, each with a prompt of its own -> vectors. The one place that knows how a batch of several prompts is run."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from retrieval_prompts.interop.serving.shelf import Loaded
from retrieval_prompts.towers.text import Floats, TextTower
from retrieval_prompts.vectors.encode import encode_texts


def encode_queries(
    tower: TextTower, texts: Sequence[str], prompts: Sequence[Loaded | None], strengths: Sequence[float | None]
) -> Floats:
    """Queries -> vectors (queries, dimension), each as `BiEncoder.encode_query` gives it with its prompt alone.

    Args:
        prompts: None for the frozen model.
        strengths: None for that of the prompt.
    """
    found = np.empty((len(texts), tower.dimension), dtype=np.float32)
    groups: dict[tuple[Loaded | None, float | None], list[int]] = {}
    for place, key in enumerate(zip(prompts, strengths, strict=True)):
        groups.setdefault(key, []).append(place)
    for (prompt, strength), places in groups.items():
        own = [texts[place] for place in places]
        if prompt is None:
            found[places] = encode_texts(tower, own, "query")
            continue
        biencoder = prompt.biencoder
        if strength is not None:
            biencoder = copy.copy(biencoder)
            biencoder.strength = strength
        found[places] = biencoder.encode_query(own)
    return found
