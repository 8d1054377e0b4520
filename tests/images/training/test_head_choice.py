"""Which head: by shots that are held out, never by others; calibrated; refused where there are too few."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from multimodal.heads import choose as choose_
from multimodal.heads import gda, options_of, two_stage
from multimodal.heads.head import Head, Shots
from multimodal.training import head_choice
from multimodal.training.head_choice import Part, choose
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.classification.scores import expected_calibration_error

CLASSES = ("ape", "bee", "cat", "dog", "emu", "fox")


def made(per_class: int, seed: int = 0, telling: bool = True) -> Shots:
    """Pictures around their class's direction, or of noise alone; texts that say the class, or nothing."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(6).repeat_interleave(per_class)
    noise = torch.randn(len(labels), 16, generator=random)
    text = torch.eye(6, 16)
    if telling:
        text = torch.ones(6, 16) + 0.05 * torch.randn(6, 16, generator=random)
    return Shots.of(
        F.normalize(2 * torch.eye(6, 16)[labels] + 0.6 * noise, dim=1), labels, F.normalize(text, dim=1), 20.0
    )


def test_folds_hold_out_every_shot_once_and_no_single_one() -> None:
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 0, 0, 0])
    folds = list(head_choice._folds(labels))
    assert sorted(np.concatenate([held for _, held in folds])) == [0, 1, 2, 3, 4, 6, 7, 8]
    for rest, held in folds:
        assert set(labels[rest].tolist()) == {0, 1, 2} and not set(rest) & set(held)
    assert list(head_choice._folds(torch.tensor([0, 0, 1]))) == []


def test_auto_takes_a_head_where_pictures_tell_more_than_texts() -> None:
    shots = made(8)
    answer, why = choose("auto", shots, CLASSES)
    assert answer is not None and answer.classes == CLASSES and why == answer.why
    assert "% of the held-out shots right" in why
    other = made(60, seed=1)
    logits = answer.logits(other.features)
    assert float((logits.argmax(dim=1) == other.labels).float().mean()) > 0.9
    assert expected_calibration_error(logits.softmax(dim=1).numpy(), other.labels.numpy()) < 0.1


def test_auto_leaves_the_prompt_alone_where_it_is_better() -> None:
    random = torch.Generator().manual_seed(0)
    noise = F.normalize(torch.randn(24, 16, generator=random), dim=1)
    shots = replace(made(4), features=noise.double())  # pictures that tell nothing
    halves = [np.flatnonzero(np.arange(24) % 2 == part) for part in (0, 1)]
    parts = [
        Part(rest, held, 5 * F.one_hot(shots.labels[held], 6).float(), None) for rest, held in (halves, halves[::-1])
    ]
    answer, why = choose("auto", shots, CLASSES, parts)
    assert answer is None and why.startswith("none, the prompt answers alone: 100.0 % of the held-out shots right")
    asked, why = choose("gda", shots, CLASSES, parts)
    assert asked is not None and asked.name == "gda" and "the prompt alone 100.0" in why


def test_one_shot_a_class() -> None:
    shots = made(1)
    answer, why = choose("auto", shots, CLASSES)
    assert answer is not None and (answer.name, answer.gate) == ("proker", (1.0, 0.0, 0.0))
    assert why == "proker: one image a class, none can be held out to choose by"
    with pytest.raises(UserError, match="--head gda needs 2 images or more in a class; got one of each"):
        choose("gda", shots, CLASSES)


def test_the_gate_tells_known_from_new() -> None:
    every = made(8)
    known = every.labels < 4
    shots = Shots.of(every.features[known], every.labels[known], every.text[:4], 20.0)
    answer, _ = choose("proker", shots, CLASSES[:4])
    assert answer is not None and min(answer.gate[:2]) >= 0 and max(answer.gate[:2]) > 0
    other = made(40, seed=3)
    frozen = (20 * other.features @ every.text.T).float()
    found = answer.mixed(CLASSES, answer.logits(other.features), frozen, frozen).softmax(dim=1)
    sure = found[:, :4].sum(dim=1)
    assert sure[other.labels < 4].mean() > sure[other.labels >= 4].mean() + 0.2


def test_gda_where_one_class_alone_has_many_shots() -> None:
    every = made(8)
    kept = [at for at in range(48) if at % 8 < 2 or at >= 40]
    shots = Shots.of(every.features[kept], every.labels[kept], every.text, 20.0)
    answer, _ = choose("gda", shots, CLASSES)  # the gate's halves have classes of a single shot
    assert answer is not None and bool(torch.isfinite(answer.logits(every.features)).all())
    with pytest.raises(UserError, match="--head gda needs 2 images or more in a class beside those held out"):
        choose("gda", made(2), CLASSES)


def test_auto_leaves_out_kernels_of_all_pairs_where_shots_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_choice, "TOO_MANY", 40)
    tried: list[str] = []
    real = choose_.tried

    def noted(name: str, *rest: Any) -> Any:
        tried.append(name)
        return real(name, *rest)

    monkeypatch.setattr(head_choice, "tried", noted)
    choose("auto", made(8), CLASSES)
    assert tried == ["gda", "probe"]


def test_a_head_stands_on_the_prompts_texts_where_those_say_more() -> None:
    random = torch.Generator().manual_seed(0)
    telling = F.normalize(torch.eye(6, 16)[torch.arange(6)] + 0.01, dim=1)
    near = F.normalize(2 * telling.repeat_interleave(4, dim=0) + 0.6 * torch.randn(24, 16, generator=random), dim=1)
    shots = replace(made(4), features=near.double())
    halves = [np.flatnonzero(np.arange(24) % 2 == part) for part in (0, 1)]
    parts = [Part(rest, held, 20 * near[held] @ telling.T, telling) for rest, held in (halves, halves[::-1])]
    answer, why = choose("two-stage", shots, CLASSES, parts, telling)
    assert answer is not None and "; on the prompt's texts)" in why
    other = F.normalize(2 * telling + 0.1, dim=1)
    assert answer.logits(other).argmax(dim=1).tolist() == list(range(6))
    blind, why = choose("two-stage", shots, CLASSES, [replace(part, text=None) for part in parts], telling)
    assert blind is not None and "; on the frozen texts)" in why


def test_the_published_options_are_not_chosen_but_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    shots, fitted = made(4), []
    fit = two_stage.fit

    def watched(part: Shots, **options: Any) -> Head:
        fitted.append(options)
        return fit(part, **{**options, "steps": 3})

    monkeypatch.setattr(two_stage, "fit", watched)
    _, why = choose("two-stage", shots, CLASSES, published=True)
    assert why.startswith("two-stage (steps 480, learning_rate 0.0002, floor 1e-06; on the frozen texts)")
    assert all(each == two_stage.published(shots) for each in fitted) and len(fitted) > 1
    one = made(1)
    choose("two-stage", one, CLASSES, published=True)
    assert fitted[-1]["steps"] == 120
    assert options_of("gda", shots, published=True) == gda.GRID == options_of("gda", shots, published=False)
    assert options_of("two-stage", shots, published=False) == two_stage.GRID
