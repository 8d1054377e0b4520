"""The bar that training draws: what stands before a dev score, and behind which of them there is a star."""

from __future__ import annotations

import math
import re

import pytest
from tqdm import tqdm

from retrieval_prompts.cli import console
from retrieval_prompts.cli.progress import Progress
from retrieval_prompts.errors import UserError
from retrieval_prompts.training.loop import Step


def lines(progress: Progress, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with progress as on_step:
        on_step(Step(0, 0, math.nan, 0.0, 0.0, dev=0.7381), 4)
        on_step(Step(1, 0, 1.5, 0.1, 0.2, dev=0.7, best=False), 4)
        on_step(Step(2, 1, 1.4, 0.1, 0.2, dev=0.75, best=True), 4)
        on_step(Step(2, 0, math.nan, 0.0, 0.0, dev=0.8), 4)  # of a second stage
        on_step(Step(3, 0, 1.3, 0.1, 0.2), 4)
    return [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if " dev " in line]


def test_the_frozen_model_comes_first_and_has_no_star(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(Progress("nDCG@10", "frozen"), capsys) == [
        "frozen: dev nDCG@10 0.7381",
        "step 1: dev nDCG@10 0.7000",
        "step 2: dev nDCG@10 0.7500 *",
        "step 2, frozen: dev nDCG@10 0.8000",
    ]


def test_where_it_is_not_the_frozen_model_it_is_what_was_there_before_training(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert lines(Progress("accuracy"), capsys)[0] == "before training: dev accuracy 0.7381"
    assert lines(Progress(), capsys) == []


def test_an_error_is_a_line_of_its_own_below_progress_bars(capsys: pytest.CaptureFixture[str]) -> None:
    def app() -> None:
        bar = tqdm(total=3, desc="encode documents")
        bar.update()
        raise UserError("the disk is full")

    with pytest.raises(SystemExit):
        console.run(app)
    *bars, last, end = re.split(r"[\r\n]+", capsys.readouterr().err)
    assert (last, end) == ("error: the disk is full", "")
    assert all("encode documents" in bar for bar in bars if bar)
