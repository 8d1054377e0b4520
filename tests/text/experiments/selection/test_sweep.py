"""Several strengths: each as an evaluation at that strength has it, the trade by other queries than those shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from command_line import Command

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.cli.options import strengths_of
from retrieval_prompts.data.beir_folder import load
from retrieval_prompts.errors import UserError
from retrieval_prompts.experiments.retrieval import evaluate
from retrieval_prompts.experiments.selection.sweep import sweep
from retrieval_prompts.experiments.workbench import Workbench


@pytest.fixture
def biencoder(tmp_path: Path) -> BiEncoder:
    return BiEncoder.load(tiny.write_model(tmp_path / "model"), device="cpu").attach(length=3)


def test_each_strength_is_an_evaluation(biencoder: BiEncoder, tmp_path: Path) -> None:
    data = load(tiny.write_data(tmp_path / "here", dev=True))
    other = load(tiny.write_data(tmp_path / "there", seed=1))
    only_test = load(tiny.write_data(tmp_path / "test", seed=2))
    del only_test.qrels["train"]
    strengths = [0.0, 0.5, 1.0]
    found = sweep(biencoder, Workbench(biencoder.tower, data), [other, only_test], strengths, "test")
    assert [(line.dataset, line.here, line.queries) for line in found.shown] == [
        ("here", True, 10),
        ("there", False, 10),
        ("test", False, 5),
    ]
    assert [line.split for line in found.chosen_by] == ["train and dev", "train and dev", "test, one half"]
    assert found.chosen_by[2].queries == 5
    for line, each in ((found.shown[0], data), (found.shown[1], other)):
        for at, strength in enumerate(strengths):
            biencoder.strength = strength
            whole = evaluate(biencoder, Workbench(biencoder.tower, each), bm25=False)
            assert line.values[at] == pytest.approx(whole.systems["tuned"]["ndcg@10"], abs=1e-12)
            assert line.tests[at] == whole.tests["tuned_vs_frozen"]
    trades = [
        found.chosen_by[0].gains[at] + (found.chosen_by[1].gains[at] + found.chosen_by[2].gains[at]) / 2
        for at in range(3)
    ]
    assert trades[strengths.index(found.best)] == max(trades)
    assert found.shown[0].gains[0] == 0


def test_what_cannot_be_swept(biencoder: BiEncoder, tmp_path: Path) -> None:
    data = load(tiny.write_data(tmp_path / "data"))
    del data.qrels["train"]
    with pytest.raises(UserError, match="data has no train or dev queries to choose a strength by; give one"):
        sweep(biencoder, Workbench(biencoder.tower, data), [], [0, 1], "test")
    judged = load(tiny.write_data(tmp_path / "judged", dev=True))
    assert sweep(biencoder, Workbench(biencoder.tower, judged), [], [0, 1], "dev").chosen_by[0].split == "train"
    assert sweep(biencoder, Workbench(biencoder.tower, judged), [], [0, 1], "train").chosen_by[0].split == "dev"
    del judged.qrels["train"]
    with pytest.raises(UserError, match="judged shows all its dev queries, and has none left to choose a strength by"):
        sweep(biencoder, Workbench(biencoder.tower, judged), [], [0, 1], "dev")
    here, single = (load(tiny.write_data(tmp_path / name, dev=True)) for name in ("here", "single"))
    single.qrels["test"] = dict([next(iter(single.qrels["test"].items()))])
    del single.qrels["train"], single.qrels["dev"]
    with pytest.raises(UserError, match="single has one test query and no others: one is to choose by"):
        sweep(biencoder, Workbench(biencoder.tower, here), [single], [0, 1], "test")
    with pytest.raises(UserError, match="several strengths share one index, and a document prompt needs one of each"):
        sweep(biencoder.attach("both"), Workbench(biencoder.tower, data), [], [0, 1], "test")


def test_the_command_evaluates_the_best_trade(biencoder: BiEncoder, command: Command, tmp_path: Path) -> None:
    data, other = (tiny.write_data(tmp_path / name, dev=True, seed=at) for at, name in enumerate(("here", "there")))
    biencoder.save(tmp_path / "prompts")
    line = ("evaluate", data, "--prompts", tmp_path / "prompts", "--also", other, "--no-bm25")
    out = ("--json", tmp_path / "many.json", "--report", tmp_path / "page.html")
    done = command(*line, *out, "--strength", "0,0.5,...,1")
    assert done.code == 0, done.err
    assert "Best trade: strength " in done.out
    many = json.loads((tmp_path / "many.json").read_text())
    assert many["sweep"]["strengths"] == [0, 0.5, 1]
    best = many["sweep"]["best"]
    one = command(*line, "--json", "-", "--strength", str(best)).json
    assert "sweep" not in one
    assert (one["systems"], one["tests"]) == (many["systems"], many["tests"])
    assert many["settings"]["strength"] == best
    shown = {each["dataset"]: each["values"] for each in many["sweep"]["shown"]}
    at = many["sweep"]["strengths"].index(best)
    assert shown["there"][at] == pytest.approx(one["also"][0]["systems"]["tuned"]["ndcg@10"], abs=1e-12)
    page = (tmp_path / "page.html").read_text()
    assert "What a strength changes here and elsewhere" in page
    assert "here (test): from 0 at strength 0" in page


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, []),
        ("0.3", [0.3]),
        ("1,0,1", [0, 1]),
        ("0,0.25,...,1", [0, 0.25, 0.5, 0.75, 1]),
        ("0, 0.1, ..., 0.3, 1", [0, 0.1, 0.2, 0.3, 1]),
    ],
)
def test_strengths_as_they_are_typed(given: str | None, expected: list[float]) -> None:
    assert strengths_of(given) == expected


@pytest.mark.parametrize("given", ["", "much", "0,", "...,1", "0,...,1", "0,0,...,1", "0,1,...", "0,1,...,inf"])
def test_strengths_that_are_none(given: str) -> None:
    with pytest.raises(UserError) as error:
        strengths_of(given)
    assert str(error.value) == f"--strength: expected a number, or several as in 0,0.25,...,1, got {given!r}"


def test_strengths_that_are_too_many() -> None:
    assert len(strengths_of("0,0.0025,...,1")) == 401
    with pytest.raises(UserError, match=r"expected at most 1000 strengths, got more in '0,1e-4,...,1'"):
        strengths_of("0,1e-4,...,1")
