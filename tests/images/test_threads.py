"""One CLIP in many threads: tokens and features, prompted or not, are those of one thread; copies of a live model."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import toy_clips
from threads import at_once
from toy_clips import CONTEXT_LENGTH, LAYERS, NAMES, WIDTH

from multimodal.classifier import PromptClassifier
from multimodal.interop.live import as_sentence_transformer

if TYPE_CHECKING:
    from multimodal.data.images import ImageData
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


def classifier_of(clip: Clip) -> PromptClassifier:
    return PromptClassifier(
        clip, epochs=4, learning_rate=0.1, batch_size=4, context=2, init="gaussian", calibrate=False
    )


def shots_of(data: ImageData) -> tuple[Any, list[str]]:
    split = data.split("train")
    return split.pictures, [data.classes[label] for label in split.labels]


def test_class_vectors_that_are_asked_for_during_a_training_are_of_one_state(
    tiny_model: Clip, colours: ImageData
) -> None:
    classifier, shots = classifier_of(tiny_model), shots_of(colours)
    states: list[dict[str, torch.Tensor]] = []
    seen: list[torch.Tensor] = []
    begun = Event()

    def keep(*_: Any) -> None:
        states.append({name: part.clone() for name, part in classifier.method.prompter.state_dict().items()})
        begun.set()

    def train() -> None:
        classifier.fit(*shots, on_step=keep)

    def ask() -> None:
        begun.wait()
        seen.extend(classifier.class_vectors() for _ in range(20))

    at_once([train, ask])
    last = classifier.class_vectors()
    assert len(states) > 4
    other = copy.deepcopy(classifier)
    possible = []
    for state in (classifier.method.prompter.state_dict(), *states):
        other.method.prompter.load_state_dict(state)
        possible.append(other.class_vectors())
    assert torch.equal(last, possible[0]), "what was asked for during the training is not what it ends with"
    assert not torch.equal(last, possible[1])
    assert all(any(torch.allclose(found, one, rtol=0, atol=1e-6) for one in possible) for found in seen)


def test_copies_of_a_classifier(tiny_model: Clip, colours: ImageData) -> None:
    classifier = classifier_of(tiny_model).fit(*shots_of(colours))
    for other in (copy.deepcopy(classifier), pickle.loads(pickle.dumps(classifier))):
        assert torch.equal(other.class_vectors(), classifier.class_vectors())
        assert other.clip is not classifier.clip
