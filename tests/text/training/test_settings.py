"""Settings refuse what cannot be trained with, before anything is read; what is not given is a kind's default."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict
from typing import Any

import pytest

from retrieval_prompts.errors import UserError
from retrieval_prompts.training.settings import TuneSettings, check_given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"side": "left"}, "--side must be query, document or both, got 'left'"),
        ({"kind": "suffix"}, "--kind must be input, prefix or auto, got 'suffix'"),
        ({"encoder": "gru"}, "--encoder must be table, mlp, lstm, feedback or auto, got 'gru'"),
        ({"negatives": "hard"}, "--negatives must be corpus, in-batch or mined, got 'hard'"),
        ({"init": "zeros"}, "--init must be text:WORDS, vocab or gaussian, got 'zeros'"),
        ({"length": 0}, "--length must be 1 or more, got 0"),
        ({"epochs": -1}, "--epochs must be 1 or more, got -1"),
        ({"batch_size": 0}, "--batch-size must be 1 or more, got 0"),
        ({"learning_rate": 0.0}, "--lr must be above 0 and at most 1e+30, got 0.0"),
        ({"learning_rate": float("nan")}, "--lr must be above 0 and at most 1e+30, got nan"),
        ({"learning_rate": float("inf")}, "--lr must be above 0 and at most 1e+30, got inf"),
        ({"temperature": 0.0}, "--temperature must be above 0, got 0.0"),
        ({"temperature": -1.0}, "--temperature must be above 0, got -1.0"),
        ({"patience": 0}, "--patience must be 1 or more, got 0"),
        ({"seed": -1}, "--seed must be from 0 to 4294967295, got -1"),
        ({"keep": -1.0}, "--keep must be 0 or more, got -1.0"),
        ({"warmup": 1.5}, "--warmup must be from 0 to 1, got 1.5"),
        ({"common": True}, "--common is used with --side both, not with --side query"),
    ],
    ids=str,
)
def test_what_cannot_be_trained_with_is_refused(given: dict[str, Any], message: str) -> None:
    for make in (TuneSettings, TuneSettings.of):
        with pytest.raises(UserError) as caught:
            make(**given)
        assert str(caught.value) == message


@pytest.mark.parametrize("kind", ["input", "prefix"])
def test_what_is_not_given_is_the_default_of_the_kind(kind: str) -> None:
    chosen = TuneSettings.of(kind=kind, epochs=None, seed=7)
    assert asdict(chosen) == {**asdict(TuneSettings()), **TuneSettings.DEFAULTS[kind], "kind": kind, "seed": 7}
    assert TuneSettings(kind=kind) == TuneSettings.of(kind=kind), "there is no other way to a default"
    assert TuneSettings.of(kind=kind, length=3).length == 3
    assert TuneSettings.of() == TuneSettings.of(kind=TuneSettings().kind)


def test_what_is_the_same_for_all_kinds_is_known_before_one_is_chosen() -> None:
    auto = TuneSettings.of(kind="auto", keep=0.5)
    assert auto.encoder == "table"
    assert {vars(auto)[each] for each in ("length", "learning_rate")} == {None}
    check_given(auto, ["kind", "keep"])
    assert TuneSettings.of(kind="auto", pairs="queries").encoder == "feedback"


def test_a_name_that_is_no_setting_is_refused() -> None:
    with pytest.raises(UserError, match=r"^no such setting: lr; there are side, kind, "):
        TuneSettings.of(lr=0.1)


def test_settings_are_plain_values() -> None:
    chosen = TuneSettings.of(temperature=0.05)
    assert TuneSettings(**json.loads(json.dumps(asdict(chosen)))) == chosen
    with pytest.raises(FrozenInstanceError):
        chosen.seed = 1  # type: ignore[misc]


def test_settings_need_no_heavy_library() -> None:
    code = "import sys, retrieval_prompts.training.settings; print({'torch', 'numpy', 'faiss'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_what_was_given_and_is_not_read_is_refused() -> None:
    check_given(TuneSettings(negatives="corpus"), ["negatives"])
    check_given(TuneSettings(negatives="mined", side="both", document_steps=3), ["negatives", "document_steps"])
    with pytest.raises(UserError, match="--document-steps is used with --side document or both, not with --side query"):
        check_given(TuneSettings(document_steps=3), ["document_steps"])
    with pytest.raises(UserError, match=r"--negatives corpus compares with all documents, .* --side both it is mined"):
        check_given(TuneSettings(negatives="corpus", side="both"), ["negatives"])
