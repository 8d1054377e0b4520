"""The method auto: of the quick ones the one that held-out shots take, and no test picture has a say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimodal.classifier import PromptClassifier
from multimodal.data.images import ImageData
from multimodal.prompts.settings import METHODS, QUICK
from multimodal.towers.clip import Clip
from multimodal.training import classes as training
from multimodal.training.classes import Task
from multimodal.training.method_choice import Tried, taken
from retrieval_prompts.errors import UserError


def tried(method: str, *hits: int) -> Tried:
    return Tried(method, np.array(hits, dtype=bool))


def test_the_one_that_is_right_most_often_is_taken() -> None:
    found = [
        tried("coop", *[1] * 5, *[0] * 15),
        tried("tcp", *[1] * 15, *[0] * 5),
        tried("kgcoop", *[1] * 9, *[0] * 11),
    ]
    best, why = taken(found)
    assert best is found[1]
    assert why == "tcp: 75.0 % of 20 held-out shots right, kgcoop 45.0, coop 25.0; no test picture was asked"
    near = [tried("coop", 1, 1, 0, 1), tried("tcp", 1, 1, 1, 0)]
    assert taken(near)[0] is near[0] and "tcp 75.0 (tcp may be as good)" in taken(near)[1], "of equals the first"


def test_auto_is_settled_by_fit_and_stays_what_was_asked(
    tiny_model: Clip, colours: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, real = Counter[str](), training.train

    def train_one(task: Task, **options: Any) -> Any:
        trained[task.settings.method] += 1
        return real(task, **options)

    monkeypatch.setattr(training, "train", train_one)
    train = colours.split("train")
    labels = [colours.classes[label] for label in train.labels]
    asked = PromptClassifier(tiny_model, method="auto", epochs=1, head="none", context=2)
    asked.fit(train.pictures, labels, cache=tmp_path)
    assert trained == Counter(QUICK * 2) + Counter([asked.settings.method]), "its halves calibrate it too"
    assert asked.settings.method in QUICK and asked.settings.context == 2 and set(QUICK) < set(METHODS)
    assert asked.training["method"].startswith(f"{asked.settings.method}: ")
    assert asked.get_params()["method"] == "auto", "the next fit chooses again"
    named = PromptClassifier(tiny_model, method=asked.settings.method, epochs=1, head="none", context=2)
    named.fit(train.pictures, labels, cache=tmp_path)
    assert asked.temperature == named.temperature and asked.training["held_out"] == named.training["held_out"]
    assert (asked.logits(train.pictures, cache=tmp_path) == named.logits(train.pictures, cache=tmp_path)).all()
    asked.save(tmp_path / "saved")
    assert PromptClassifier.load(tmp_path / "saved", tiny_model).settings == asked.settings


def test_one_shot_leaves_nothing_to_choose_or_calibrate_by(
    tiny_model: Clip, colours: ImageData, tmp_path: Path
) -> None:
    train = colours.split("train")
    rows = [int(np.flatnonzero(train.labels == label)[0]) for label in range(len(colours.classes))]
    one = PromptClassifier(tiny_model, method="auto", epochs=1, head="none")
    one.fit(train.take(rows).pictures, train.labels[rows].tolist(), colours.classes, cache=tmp_path)
    assert one.training["method"] == "coop: one image a class, none held out to choose by"
    assert "none was held out to calibrate by" in one.training["uncalibrated"]
    with pytest.raises(UserError, match="the method auto is chosen by labelled images"):
        one.fit(train.pictures, None, colours.classes)
