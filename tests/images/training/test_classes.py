"""Training prompts: batches, what a step computes, the average over epochs, and runs that are cut short."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_clip import DIMENSION
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.prompts.contexts import Classes, Prompts, logits
from multimodal.prompts.methods import method
from multimodal.towers.clip import Clip
from multimodal.training.classes import Average, Task, train
from multimodal.training.settings import Settings
from retrieval_prompts.errors import UserError
from retrieval_prompts.training.loop import Step
from retrieval_prompts.training.task import Positions

NAMES = ("dog", "red panda", "cup")
LABELS = np.array([0, 0, 0, 1, 1, 2, 2])
Learned = dict[str, Tensor]


class Pixels:
    """Random images in two views; keeps what it was asked for."""

    def __init__(self, clip: Clip) -> None:
        self.all = torch.randn(2, len(LABELS), 3, 16, 16, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            self.vectors = torch.stack([clip.encode_images(view) for view in self.all])
        self.asked: list[tuple[str, list[int], list[int]]] = []

    def features(self, positions: Positions, views: Positions) -> Tensor:
        self.asked.append(("features", positions.tolist(), views.tolist()))
        return self.vectors[views, positions]

    def pixels(self, positions: Positions, views: Positions) -> Tensor:
        self.asked.append(("pixels", positions.tolist(), views.tolist()))
        return self.all[views, positions]


def task(clip: Clip, **given: Any) -> Task:
    settings = Settings.of(**{"epochs": 4, "batch_size": 3, "learning_rate": 0.05, "context": 3, **given})
    built = method(settings.method).build(clip, settings, len(NAMES))
    return Task(clip, built, Classes(clip, NAMES, settings), Pixels(clip), LABELS, settings)


def learned(task: Task) -> Learned:
    return {name: value.clone() for name, value in task.method.prompter.state_dict().items()}


def trained(task: Task, checkpoint: Path | None = None) -> Learned:
    for _ in train(task, checkpoint=checkpoint):
        pass
    return learned(task)


def same(one: Learned, other: Learned) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- batches


def test_an_epoch_has_every_image_once(tiny_model: Clip) -> None:
    mine = task(tiny_model, views=2)
    epochs = [mine.batches(epoch) for epoch in range(20)]
    for batches in epochs:
        assert [len(batch.positions) for batch in batches] == [3, 3, 1]
        assert sorted(np.concatenate([batch.positions for batch in batches])) == list(range(7))
        assert all(set(batch.views) <= {0, 1} and batch.views.shape == batch.positions.shape for batch in batches)
    orders = [np.concatenate([batch.positions for batch in batches]).tolist() for batches in epochs]
    assert len({tuple(order) for order in orders}) > 10, "each epoch its own order"
    assert 0.3 < np.mean([batch.views.mean() for batches in epochs for batch in batches]) < 0.7
    again = task(tiny_model, views=2).batches(5)
    assert np.array_equal(again[1].positions, epochs[5][1].positions), "the seed and the epoch alone decide"
    assert np.array_equal(again[1].views, epochs[5][1].views)
    other = np.concatenate([batch.positions for batch in task(tiny_model, seed=2).batches(5)])
    assert other.tolist() != orders[5]


def test_one_view_is_the_image_itself(tiny_model: Clip) -> None:
    assert all((batch.views == 0).all() for epoch in range(5) for batch in task(tiny_model).batches(epoch))


# --- a step


@pytest.mark.parametrize("name", ["coop", "cocoop", "promptsrc"])
def test_what_a_step_computes(tiny_model: Clip, name: str) -> None:
    mine = task(tiny_model, method=name, views=2)
    images: Any = mine.images
    batch = mine.batches(0)[0]
    outputs = mine.outputs(batch)
    frozen = images.vectors[batch.views, batch.positions]
    assert torch.equal(outputs.frozen_images, frozen)
    assert outputs.labels.tolist() == LABELS[batch.positions].tolist()
    text = outputs.text if outputs.text.dim() == 3 else outputs.text.expand(3, -1, -1)
    expected = tiny_model.scale * (outputs.images[:, None] * text).sum(dim=-1)
    assert torch.allclose(outputs.logits, expected, atol=1e-4)
    assert outputs.text.dim() == (3 if name == "cocoop" else 2)
    assert torch.equal(outputs.frozen_text, mine.classes.frozen)
    assert torch.equal(outputs.ensemble_text, mine.classes.ensemble if name == "promptsrc" else mine.classes.frozen)
    prompted = name == "promptsrc"
    assert torch.equal(outputs.images, frozen) == (not prompted)
    assert torch.allclose(outputs.images.norm(dim=1), torch.ones(3))
    assert [kind for kind, _, _ in images.asked] == (["features", "pixels"] if prompted else ["features"])
    assert all(asked[1:] == (batch.positions.tolist(), batch.views.tolist()) for asked in images.asked)
    assert float(mine.loss(batch).detach()) == pytest.approx(float(mine.method.objective(outputs).detach()))


def test_text_that_nothing_trains_is_computed_once(tiny_model: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Classes] = []
    plain = Classes.features

    def features(classes: Classes, prompts: Prompts) -> Tensor:
        calls.append(classes)
        return plain(classes, prompts)

    monkeypatch.setattr(Classes, "features", features)
    trained(task(tiny_model, method="vpt", epochs=2))
    assert len(calls) == 1
    trained(task(tiny_model, method="coop", epochs=2))
    assert len(calls) == 1 + 6


def test_logits() -> None:
    images, text = (F.normalize(torch.randn(*shape, 5), dim=-1) for shape in ((2,), (3,)))
    found = logits(10.0, images, text)
    assert torch.allclose(found, 10 * torch.stack([text @ image for image in images]), atol=1e-5)
    assert torch.allclose(logits(10.0, images, text.expand(2, -1, -1)), found, atol=1e-5)
    assert logits(10.0, images.bfloat16(), text.bfloat16()).dtype == torch.float32


def test_half_precision_is_near_and_leaves_prompts_and_losses_whole(tiny_model: Clip) -> None:
    for name in ("coop", "tcp", "maple"):
        whole, half = (task(tiny_model, method=name, precision=kind) for kind in ("float32", "bfloat16"))
        assert half.bfloat16 and not whole.bfloat16
        batch = whole.batches(0)[0]
        one, other = whole.loss(batch).detach(), half.loss(batch).detach()
        assert other.dtype == torch.float32
        assert float(other) == pytest.approx(float(one), abs=0.3) and float(other) != float(one)
        assert torch.equal(half.classes.frozen, whole.classes.frozen)
        assert all(value.dtype == torch.float32 for value in trained(half).values())


def test_what_cannot_be_trained_on(tiny_model: Clip) -> None:
    settings = Settings.of(context=3)
    built = method("coop").build(tiny_model, settings)
    alone, both = (Classes(tiny_model, names, settings) for names in (("dog",), ("dog", "cup")))
    with pytest.raises(UserError, match="expected two classes or more to tell apart, got 1"):
        Task(tiny_model, built, alone, Pixels(tiny_model), LABELS * 0, settings)
    with pytest.raises(UserError, match="there are no images to train on"):
        Task(tiny_model, built, both, Pixels(tiny_model), LABELS[:0], settings)


# --- a run


def test_the_loss_falls_and_every_step_is_told(tiny_model: Clip) -> None:
    told: list[tuple[Step, int]] = list(train(task(tiny_model, epochs=10)))
    assert [step.step for step, _ in told] == list(range(1, 31)) and {total for _, total in told} == {30}
    assert all(step.dev is None for step, _ in told), "there is no dev split"
    losses = [step.loss for step, _ in told]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_without_an_average_the_last_prompts_are_kept(tiny_model: Clip) -> None:
    mine = task(tiny_model)
    states = [learned(mine) for _ in train(mine)]
    assert same(learned(mine), states[-1]) and not same(states[-1], states[-2])


# --- the Gaussian average


class Scalar(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ParameterDict({"x": nn.Parameter(torch.zeros(2))})


def test_the_average_by_hand() -> None:
    scalar = Scalar()
    average = Average(scalar, mean=2.0, deviation=1.0)
    for epoch, values in enumerate(([1.0, 10.0], [2.0, 20.0], [4.0, 0.0])):
        with torch.no_grad():
            scalar.inner["x"].copy_(torch.tensor(values))
        average.add(epoch)
    average.finish()
    e = math.exp(-0.5)  # one epoch from the mean, either way
    expected = [(e * 1 + 2 + e * 4) / (1 + 2 * e), (e * 10 + 20) / (1 + 2 * e)]
    assert scalar.inner["x"].tolist() == pytest.approx(expected)
    assert scalar.inner["x"].requires_grad


def test_an_average_of_nothing_changes_nothing() -> None:
    scalar = Scalar()
    nn.init.ones_(scalar.inner["x"])
    Average(scalar, 1, 1).finish()
    assert scalar.inner["x"].tolist() == [1, 1]


def test_what_is_optimised_and_kept_of_an_average() -> None:
    average = Average(Scalar(), 1, 1)
    assert [name for name, _ in average.named_parameters()] == ["prompter.inner.x"]
    assert set(average.state_dict()) == {"prompter.inner.x", "average_inner_x", "total"}


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_promptsrc_ends_with_the_mean_of_its_epochs(tiny_model: Clip, epochs: int) -> None:
    mine = task(tiny_model, method="promptsrc", epochs=epochs)
    ends: list[Learned] = []
    for step, _ in train(mine):
        if step.step % 3 == 0:
            ends.append(learned(mine))
    mean, deviation = 0.75 * epochs, 0.05 * epochs
    weights = np.array([math.exp(-0.5 * ((epoch - mean) / deviation) ** 2) for epoch in range(1, epochs + 1)])
    weights /= weights.sum()
    for name, value in learned(mine).items():
        expected = sum(weight * end[name].double() for weight, end in zip(weights, ends, strict=True))
        assert torch.allclose(value.double(), torch.as_tensor(expected), rtol=1e-5, atol=1e-6)


# --- cut short


def interrupted(task: Task, checkpoint: Path, after: int) -> None:
    run: Iterator[tuple[Step, int]] = train(task, checkpoint=checkpoint)
    assert len(list(islice(run, after))) == after
    del run


@pytest.mark.parametrize("name", ["coop", "cocoop", "promptsrc"])
def test_a_run_goes_on_to_the_same_prompts(
    tiny_model: Clip, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval_prompts.training.loop.CHECKPOINT_EVERY", 2)
    whole = trained(task(tiny_model, method=name))
    # Before any checkpoint, in the middle of an epoch, at the end of one, at the end of all
    for after in (1, 5, 9, 12) if name != "cocoop" else (5,):
        checkpoint = tmp_path / f"{after}"
        interrupted(task(tiny_model, method=name), checkpoint, after)
        assert checkpoint.exists() == (after > 1)
        mine = task(tiny_model, method=name)
        steps = [step.step for step, _ in train(mine, checkpoint=checkpoint)]
        assert steps == list(range({1: 1, 5: 5, 9: 10, 12: 13}[after], 13))
        assert same(learned(mine), whole)


def test_another_run_does_not_go_on_from_it(tiny_model: Clip, tmp_path: Path) -> None:
    interrupted(task(tiny_model), tmp_path / "checkpoint", 4)
    with pytest.raises(UserError, match="checkpoint of a run with other settings, data or model"):
        trained(task(tiny_model, weight_decay=0.1), tmp_path / "checkpoint")
    with pytest.raises(UserError, match="checkpoint of a run with other settings, data or model"):
        list(train(task(tiny_model), checkpoint=tmp_path / "checkpoint", identity="other data"))


def test_the_model_stays_as_it_is(tiny_model: Clip) -> None:
    before = {name: value.clone() for name, value in tiny_model.model.state_dict().items()}
    for name in ("maple", "cocoop"):
        trained(task(tiny_model, method=name, epochs=1))
    assert same(before, tiny_model.model.state_dict())
    assert all(value.grad is None and not value.requires_grad for value in tiny_model.model.parameters())
    assert before["text_projection"].shape[1] == DIMENSION
