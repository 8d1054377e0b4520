"""One model in many threads: the vectors are those of one thread, on every path, and while prompts are trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from threads import at_once
from torch import Tensor
from toys import LONG, POSITIONS, TEXTS

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.interop.beir import BeirModel
from retrieval_prompts.prompts.encoders import PromptTable
from retrieval_prompts.towers import injection
from retrieval_prompts.towers.text import TextTower
from retrieval_prompts.training.loop import LoopSettings, fit

ToyTower = Callable[..., TextTower]
MANY = [*TEXTS, LONG, "", *[f"{LONG} {number}" for number in range(6)]]


def same_as_alone(calls: list[Callable[[], Any]], times: int = 3) -> bool:
    """Whether each call gives what it gives by itself."""
    alone = [each() for each in calls]
    found = at_once(calls, times=times)
    return all(np.array_equal(one, each) for one, row in zip(alone, found, strict=True) for each in row)


@pytest.mark.parametrize("architecture", ["bert", "mpnet", "qwen3"])
def test_both_sides_of_two_bi_encoders_over_one_tower(
    architecture: str, kind: str, toy_tower: ToyTower, recwarn: Any
) -> None:
    tower = toy_tower(architecture, maximum=POSITIONS)  # texts fill all positions, so that an input prompt cuts them
    one = BiEncoder(tower).attach("query", kind=kind, length=5, seed=1)
    two = BiEncoder(tower).attach("both", kind=kind, length=3, seed=2)
    two.strength = 0.5
    live, frozen = one.as_sentence_transformer(), BiEncoder(tower)
    assert same_as_alone(
        [
            lambda: one.encode_query(MANY),
            lambda: one.encode_document(MANY),
            lambda: two.encode_query(MANY),
            lambda: two.encode_document(MANY),
            lambda: live.encode_query(MANY),
            lambda: live.encode(MANY),
            lambda: tower.sentence_transformer.encode_document(MANY),
            lambda: BeirModel(frozen).encode_queries(MANY),
        ]
    )


@pytest.mark.parametrize("architecture", ["bert", "mpnet"])
def test_prefixes_may_be_used_for_the_first_time_in_several_threads(architecture: str, toy_tower: ToyTower) -> None:
    tower = toy_tower(architecture)
    shape = injection.prompt_shape(toy_tower(architecture), "prefix", 3)
    prompt = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    first = toy_tower(architecture)
    expected = BiEncoder(first, "prefix", {"query": PromptTable(prompt)}).encode_query(list(TEXTS))
    calls = [lambda: BiEncoder(tower, "prefix", {"query": PromptTable(prompt)}).encode_query(list(TEXTS))] * 4
    assert all(np.array_equal(expected, each) for row in at_once(calls) for each in row)


def test_what_is_encoded_during_a_training_is_of_one_state_of_the_prompts(toy_tower: ToyTower, kind: str) -> None:
    """Prompts of a few values, each state the same number everywhere: a vector of two states would be neither's."""
    model = BiEncoder(toy_tower("bert")).attach("query", kind=kind, length=3)
    module = model.prompts["query"]
    with torch.no_grad():
        module.get_parameter("vectors").fill_(0.5)

    def loss(_: int) -> Tensor:
        return module().sum()

    steps = fit(module, lambda epoch: [0], loss, None, LoopSettings(epochs=30, learning_rate=0.1, warmup=0))
    states = {0.5}
    seen: list[tuple[Tensor, np.ndarray]] = []

    def train() -> None:
        states.update(float(module().detach().flatten()[0]) for _ in steps)

    def encode() -> None:
        for _ in range(15):
            _, prompt, _ = model.still("query")
            assert prompt is not None
            seen.append((prompt, model.encode_query(list(TEXTS))))

    at_once([train, encode])
    assert all(len(prompt.unique()) == 1 and float(prompt.flatten()[0]) in states for prompt, _ in seen)
    vectors = [_vectors(model, state) for state in states]
    assert all(any(np.abs(one - found).max() < 1e-6 for one in vectors) for _, found in seen)


def _vectors(model: BiEncoder, state: float) -> np.ndarray:
    prompt = torch.full_like(model.prompts["query"](), state)
    return BiEncoder(model.tower, model.kind, {"query": PromptTable(prompt)}).encode_query(list(TEXTS))
