"""What numbers may do with pictures: one seed, the same bytes; other threads, rounding; never NaN."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from multimodal import PromptClassifier
from multimodal.data.images import ImageData
from multimodal.towers.clip import Clip
from multimodal.vectors.texts import text_vectors
from retrieval_prompts.errors import DataWarning, UserError

TOLERANCE = 1e-3  # of trained vectors, relative to their largest, between numbers of threads


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def trained(clip: Clip, data: ImageData, cache: Path) -> PromptClassifier:
    train = data.split("train")
    classifier = PromptClassifier(clip, method="coop", epochs=1, context=2, seed=1)
    return classifier.fit(train.pictures, [data.classes[label] for label in train.labels], cache=cache)


@pytest.mark.usefixtures("threads")
def test_threads_move_a_trained_context_by_rounding_alone(tiny_model: Clip, colours: ImageData, tmp_path: Path) -> None:
    found = []
    for number in (1, 2, 1):
        torch.set_num_threads(number)
        state = trained(tiny_model, colours, tmp_path / "cache").method.prompter.state_dict()
        found.append(torch.cat([value.flatten() for value in state.values()]).numpy().copy())
    assert np.array_equal(found[0], found[2]), "one machine, one seed, one number of threads: the same bytes"
    assert np.abs(found[0] - found[1]).max() <= TOLERANCE * np.abs(found[0]).max()


def test_no_text_gives_a_number_that_is_not_finite(tiny_model: Clip) -> None:
    with pytest.warns(DataWarning, match="1 of 4 texts are cut"):
        found = text_vectors(tiny_model, ["fox", "", " ", "the lazy fox, " * 7_200])
    assert torch.isfinite(found).all() and (found.norm(dim=1) - 1).abs().max() < 1e-5


def test_a_context_of_huge_numbers_is_refused(tiny_model: Clip, colours: ImageData, tmp_path: Path) -> None:
    classifier = trained(tiny_model, colours, tmp_path / "cache")
    with torch.no_grad():
        for parameter in classifier.method.prompter.parameters():
            parameter.copy_(torch.linspace(-3e38, 3e38, parameter.numel()).view_as(parameter))
    classifier.strength = 1.0
    with pytest.raises(UserError, match="these prompts give vectors that are not finite; lower their strength"):
        classifier.class_vectors()
