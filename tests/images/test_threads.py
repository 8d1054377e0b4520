"""One CLIP in many threads: tokens and features, prompted or not, are those of one thread; copies of a live model."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import toy_clips
from threads import at_once
from toy_clips import CONTEXT_LENGTH, LAYERS, NAMES, WIDTH

from multimodal.interop.live import as_sentence_transformer

if TYPE_CHECKING:
    from multimodal.towers.clip import Clip

LENGTHY = "a soft prompt steers a frozen retriever " * 20


@pytest.mark.parametrize("name", ["fused", "custom blocks", "bert, mean", "siglip", "coca"])
def test_every_way_through_a_text_tower(name: str) -> None:
    """Hooks put context vectors into a module that other threads run at the same time."""
    tower = toy_clips.tower(name)
    draw = torch.Generator().manual_seed(0)
    rows, bare = tower.rows(NAMES, 3), tower.rows(NAMES[:3], 0)
    context = torch.randn(3, WIDTH, generator=draw)
    tokenize = tower.tokens.tokenizer

    def of(way: str, seed: int) -> Callable[[], Any]:
        own = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(seed))
        return lambda: tower.encode(rows, own, way=way)

    fastest = tower.way(rows, context)
    calls: list[Callable[[], Any]] = [of("full", 1), of("full", 2), of(fastest, 3)]
    calls += [lambda: tower.encode(bare, context[:0], way="full"), lambda: tokenize([LENGTHY, "fox"], CONTEXT_LENGTH)]
    calls += [lambda: torch.tensor(tower.rows([LENGTHY, "fox"], 2, cut=True).ids[0])]
    if name in ("fused", "custom blocks"):
        deep = {layer: torch.randn(3, WIDTH, generator=draw) for layer in range(1, LAYERS)}
        calls.append(lambda: tower.encode(rows, context, deep, way="full"))
    expected = [each() for each in calls]
    for one, row in zip(expected, at_once(calls, times=5), strict=True):
        assert all(torch.allclose(one, each, rtol=0, atol=1e-6) for each in row)


def test_copies_of_a_live_model(tiny_model: Clip) -> None:
    live = as_sentence_transformer(tiny_model)
    texts = ["red", "a blue square"]
    for other in (copy.deepcopy(live), pickle.loads(pickle.dumps(live))):
        assert np.array_equal(other.encode_query(texts), live.encode_query(texts))
