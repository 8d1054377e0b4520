"""Trainings and what is chosen after them: judgements that teach nothing, few queries, many; what is recommended."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import tiny

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset, load
from retrieval_prompts.data.judgements import Qrels
from retrieval_prompts.errors import DataWarning
from retrieval_prompts.evaluation.hybrid import UNLABELLED, WEIGHTS
from retrieval_prompts.evaluation.metrics import per_query
from retrieval_prompts.experiments import retrieval as experiment
from retrieval_prompts.experiments import workbench
from retrieval_prompts.experiments.retrieval import RetrievalResult
from retrieval_prompts.experiments.selection import choice as choices
from retrieval_prompts.experiments.selection import folds, trained
from retrieval_prompts.experiments.selection.advice import by_evaluation
from retrieval_prompts.experiments.selection.choice import STRENGTHS, Choice
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.training import loop
from retrieval_prompts.training.loop import Step
from retrieval_prompts.training.retrieval import train
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.training.training_data import TrainingData

# Two folds of 19 queries, 6 steps each; then 10 steps on all 38
SETTINGS = TuneSettings(kind="prefix", length=3, epochs=2, batch_size=8, learning_rate=0.05, folds=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(tiny.write_data(tmp_path_factory.mktemp("tiny") / "data", dev=True))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def loaded(model: Path) -> BiEncoder:
    return BiEncoder.load(model, device="cpu")


def tune(biencoder: BiEncoder, data: Dataset, *given: Any, cache: Path, **options: Any) -> RetrievalResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # so few queries tell little
        return experiment.tune(biencoder, Workbench(biencoder.tower, data, cache), *given, **options)


def refuse(*_: object, **__: object) -> Any:
    raise AssertionError("this was not to be called")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- judgements that teach nothing --------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["test", None])
def test_where_everything_is_about_one_document_nothing_is_trained(
    model: Path, dataset: Dataset, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str | None
) -> None:
    one = {split: {query: {"d0": 1} for query in dataset.qrels[split]} for split in ("train", "dev")}
    data = replace(dataset, qrels={**dataset.qrels, **one})
    monkeypatch.setattr(workbench, "train", refuse)
    biencoder = loaded(model)
    bench = Workbench(biencoder.tower, data, cache)
    options: dict[str, Any] = {"split": split, "out": tmp_path / "prompts", "on_step": refuse}
    with pytest.warns(DataWarning, match="data: the 38 judged queries ask for only 1 document of 40"):
        found = experiment.tune(biencoder, bench, SETTINGS, **options)
    assert found.steps == []
    assert found.settings["strength"] == biencoder.strength == 0
    assert found.choice is not None and found.recommendation is not None
    assert found.choice.system in ("frozen", "frozen+bm25")
    assert found.choice.best_vs_untuned is None
    assert "tuned" not in found.recommendation.system
    assert found.choice.remarks[0] in found.recommendation.sentence
    if split is not None:
        assert found.systems["tuned"] == found.systems["frozen"]
        assert found.tests["tuned_vs_frozen"].unchanged == 10
    kept = json.loads((tmp_path / "prompts" / "prompt.json").read_text())
    assert kept["training"]["settings"]["learning_rate"] == 0.05
    assert kept["training"]["curve"] == {"loss": [], "dev": []}
    again = BiEncoder.load(model, tmp_path / "prompts", device="cpu")
    assert (again.encode_query(["copper"]) == BiEncoder(again.tower).encode_query(["copper"])).all()


def test_doubts_that_are_no_reason_to_stop_are_said_before_training(model: Path, dataset: Dataset, cache: Path) -> None:
    biencoder = loaded(model)
    said: list[str] = []

    def on_step(*_: object) -> None:
        assert said
        raise KeyboardInterrupt

    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: said.append(str(message))
        warnings.simplefilter("always")
        with pytest.raises(KeyboardInterrupt):
            experiment.tune(biencoder, Workbench(biencoder.tower, dataset, cache), SETTINGS, on_step=on_step)
    assert any("38 queries to choose by: a gain under about" in each for each in said)


# --- few queries --------------------------------------------------------------------------------------------------


def test_few_queries_are_judged_by_prompts_that_never_saw_them(
    model: Path, dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "ALPHA", 1.0)  # the better mean wins
    biencoder = loaded(model)
    bench = Workbench(biencoder.tower, dataset, cache)
    found = tune(biencoder, dataset, SETTINGS, cache=cache, split=None)
    assert found.choice is not None and found.recommendation is not None
    assert (found.choice.how, found.choice.queries, found.choice.unseen) == ("cross-validation", 38, 38)
    assert found.recommendation.basis == "cross-validation"
    by_hand: dict[str, float] = {}
    for fold in TrainingData.of(dataset).folds(2):
        assert len(fold.train) == len(fold.dev) == 19
        own = BiEncoder(biencoder.tower).attach(SETTINGS)
        list(train(own, replace(fold, dev={}), SETTINGS, documents=bench.documents))
        queries = [dataset.queries[query] for query in fold.dev]
        run = bench.index.rank(list(fold.dev), own.query_vectors(queries), 10)
        by_hand |= per_query(fold.dev, run, ["ndcg@10"])["ndcg@10"]
    strength, mean = found.choice.curve[-1]
    assert strength == 1
    assert mean == pytest.approx(fmean(by_hand.values()))
    # The prompts themselves are then trained on every query
    assert found.choice.strength > 0
    assert biencoder.training_record["train_queries"] == 38
    assert biencoder.training_record["dev"] is None
    assert [step.step for step in found.steps] == list(range(1, 11))


def test_few_queries_are_cross_validated_without_bm25(model: Path, dataset: Dataset, cache: Path) -> None:
    found = tune(loaded(model), dataset, replace(SETTINGS, folds=3), cache=cache, split=None, bm25=False)
    assert found.choice is not None
    assert (found.choice.how, found.choice.queries) == ("cross-validation", 38)
    assert found.choice.system in ("frozen", "tuned")
    assert (found.choice.weight, found.weights) == (None, {})


@pytest.mark.parametrize("after", [1, 5, 6, 9, 12, 13, 17, 22])
def test_an_interruption_in_a_fold_or_after_them_changes_nothing(
    model: Path, dataset: Dataset, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(choices, "ALPHA", 1.0)
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 2)
    seen: list[tuple[int, int]] = []

    def on_step(step: Step, total: int) -> None:
        seen.append((step.step, total))

    whole = tune(loaded(model), dataset, SETTINGS, cache=cache, out=tmp_path / "whole", on_step=on_step)
    assert whole.choice is not None
    assert whole.choice.strength > 0
    assert seen == [(step, 22) for step in range(1, 23)]

    def interrupt(step: Step, _: int) -> None:
        if step.step == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(loaded(model), dataset, SETTINGS, cache=cache, out=tmp_path / "prompts", on_step=interrupt)
    left = [name for name in names(tmp_path) if name != "whole"]
    assert all(re.fullmatch(r"prompts\.[0-9a-f]{8}\.partial(\.fold[01])?", name) for name in left)
    assert any(name.endswith(".fold0") for name in left)
    before = seen.copy()
    seen.clear()
    resumed = tune(loaded(model), dataset, SETTINGS, cache=cache, out=tmp_path / "prompts", on_step=on_step)
    assert seen == before[len(before) - len(seen) :]
    assert after - 2 <= 22 - len(seen) <= after
    assert names(tmp_path) == ["prompts", "whole"]
    assert content(tmp_path / "prompts") == content(tmp_path / "whole")
    assert resumed.choice == whole.choice
    assert str(resumed.steps) == str(whole.steps)


@pytest.mark.parametrize(("score", "trainings"), [(0.0, 2), (1.0, 4)])
def test_folds_are_given_up_after_two_that_nothing_helped(
    model: Path, dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch, score: float, trainings: int
) -> None:
    made: list[TrainingData] = []

    def count(biencoder: BiEncoder, data: TrainingData, *given: Any, **options: Any) -> Any:
        made.append(data)
        return train(biencoder, data, *given, **options)

    def grid(_: object, __: object, ___: object, queries: dict[str, str], *____: object) -> choices.Grid:
        return {(strength, weight): dict.fromkeys(queries, score) for strength in STRENGTHS for weight in WEIGHTS}

    monkeypatch.setattr(workbench, "train", count)
    monkeypatch.setattr(folds, "tuned_grid", grid)
    settings = replace(SETTINGS, folds=3, epochs=1)
    found = tune(loaded(model), dataset, settings, cache=cache, split=None)
    assert found.choice is not None and found.recommendation is not None
    assert len(made) == trainings
    assert all(not data.dev for data in made)
    assert found.choice.how == "cross-validation"
    if score == 0:
        assert (found.choice.strength, found.steps) == (0, [])
        assert found.choice.remarks[-1] == trained.NOTHING
        assert trained.NOTHING in found.recommendation.sentence
        assert "tuned" not in found.recommendation.system
    else:
        assert len(made[-1].train) == 38
        assert found.choice.strength == 1
        assert trained.NOTHING not in found.choice.remarks


def test_prompts_that_helped_beside_bm25_alone_are_not_given_up() -> None:
    tried = dict.fromkeys("abcd", 0.5)
    frozen = {(0.0, 0.0): tried, (0.0, UNLABELLED): dict.fromkeys("abcd", 0.6)}
    worse = {(1.0, 0.0): dict.fromkeys("abcd", 0.4), (1.0, UNLABELLED): dict.fromkeys("abcd", 0.6)}
    better = {**worse, (1.0, UNLABELLED): dict.fromkeys("abcd", 0.61)}
    assert not folds._helped(folds.Judged(worse), frozen)
    assert folds._helped(folds.Judged(better), frozen)
    assert folds._helped(folds.Judged({**worse, (0.25, 0.0): dict.fromkeys("abcd", 0.51)}), frozen)
    part = {key: {query: scores[query] for query in "ab"} for key, scores in better.items()}
    assert folds._helped(folds.Judged(part), {**frozen, (0.0, 0.0): {**tried, "c": 1.0, "d": 1.0}})


def test_the_queries_of_a_split_do_not_choose_for_it(dataset: Dataset, bench: Workbench) -> None:
    dev, train = (set(dataset.qrels[split]) for split in ("dev", "train"))
    assert set(bench.choosing("test")[0]) == dev | train  # few dev queries
    assert set(bench.choosing("dev")[0]) == train
    many = Workbench(bench.tower, many_dev(dataset, 50))
    assert len(many.choosing("test")[0]) == 50
    assert many.choosing("dev") == ({}, {})
    assert set(Workbench(bench.tower, replace(dataset, qrels={"dev": dataset.qrels["dev"]})).choosing()[0]) == dev


# --- queries to choose by -----------------------------------------------------------------------------------------


def many_dev(dataset: Dataset, count: int) -> Dataset:
    """As many dev queries: about d0, d1 ... d37, d0 ..., each of three words of its document."""
    dev: Qrels = {f"p{number}": {f"d{number % 38}": 1} for number in range(count)}
    words = [document.text.split() for document in dataset.corpus]
    texts = {f"p{number}": " ".join([*tiny.FRAME, *words[number % 38][number // 38 :][:3]]) for number in range(count)}
    return replace(dataset, queries={**dataset.queries, **texts}, qrels={**dataset.qrels, "dev": dev})


def test_enough_dev_queries_choose_without_folds(
    model: Path, dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained, "cross_validate", refuse)
    settings = replace(SETTINGS, folds=5)
    found = tune(loaded(model), many_dev(dataset, 50), settings, cache=cache, split=None)
    assert found.choice is not None and found.recommendation is not None
    # d30 ... d37 are no training query's; p30 ... p37 ask for them
    assert (found.choice.how, found.choice.queries, found.choice.unseen) == ("dev split", 50, 8)
    assert found.recommendation.basis == "dev split" or found.recommendation.gain is None
    assert found.settings["dev_queries"] == 50
    monkeypatch.setattr(trained, "cross_validate", folds.cross_validate)
    found = tune(loaded(model), many_dev(dataset, 49), replace(settings, folds=2), cache=cache, split=None)
    assert found.choice is not None
    assert (found.choice.how, found.choice.queries) == ("cross-validation", 79)


def test_without_folds_few_dev_queries_choose(model: Path, dataset: Dataset, cache: Path) -> None:
    settings = replace(SETTINGS, folds=1, epochs=1)
    found = tune(loaded(model), dataset, settings, cache=cache, split=None)
    assert found.choice is not None
    assert (found.choice.how, found.choice.queries, found.choice.unseen) == ("dev split", 8, 2)
    held_out = replace(dataset, qrels={split: dataset.qrels[split] for split in ("train", "test")})
    found = tune(loaded(model), held_out, settings, cache=cache, split=None)
    assert found.choice is not None
    assert (found.choice.how, found.choice.queries) == ("held out of train", 3)


def test_a_document_prompt_is_judged_without_folds(
    model: Path, dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained, "cross_validate", refuse)
    settings = TuneSettings(side="document", length=3, epochs=1, batch_size=8)
    found = tune(loaded(model), dataset, settings, cache=cache, split=None)
    assert found.choice is not None
    assert (found.choice.how, found.choice.queries) == ("dev split", 8)


# --- what is recommended ------------------------------------------------------------------------------------------


def scores(**levels: float) -> dict[str, dict[str, float]]:
    """System -> test query -> a score about a level; "_" stands for "+bm25"."""
    return {
        system.replace("_", "+"): {f"q{number}": level + 0.01 * (number % 3) for number in tiny.TEST}
        for system, level in levels.items()
    }


def chosen(system: str) -> Choice:
    return Choice(system, 1.0 if "tuned" in system else 0.0, 0.5, 0.75, "dev split", 60, 0, {})


@pytest.fixture(scope="module")
def bench(model: Path, dataset: Dataset, cache: Path) -> Workbench:
    return Workbench(loaded(model).tower, dataset, cache)


@pytest.fixture(scope="module")
def prompted(bench: Workbench) -> BiEncoder:
    return BiEncoder(bench.tower).attach("query", length=3)


def advised(prompted: BiEncoder, bench: Workbench, found: dict[str, dict[str, float]], choice: Choice | None) -> Any:
    return by_evaluation(prompted, bench, "test", found, {"frozen": 0.75, "tuned": 0.5}, choice)


@pytest.mark.parametrize("system", ["tuned", "tuned+bm25", "frozen+bm25"])
def test_what_dev_chose_and_test_surely_refutes_is_harmful(prompted: BiEncoder, bench: Workbench, system: str) -> None:
    levels = {"frozen": 0.8, "tuned": 0.8, "bm25": 0.8, "frozen_bm25": 0.8, "tuned_bm25": 0.8}
    found = advised(prompted, bench, scores(**{**levels, system.replace("+", "_"): 0.5}), chosen(system))
    assert found.harmful
    assert found.system == system
    assert found.sentence.startswith("Do not use ")
    assert (found.gain.difference, found.gain.hurt) == (pytest.approx(-0.3), 10)
    good = advised(prompted, bench, scores(**{**levels, system.replace("+", "_"): 0.9}), chosen(system))
    assert not good.harmful
    assert good.sentence.startswith("Use the ")
    assert good.bm25_weight == {"tuned": None, "tuned+bm25": 0.5, "frozen+bm25": 0.75}[system]
    assert set(good.milliseconds) == {"frozen", system}
    assert all(value > 0 for value in good.milliseconds.values())
    assert good.cost in good.sentence
    assert " ms a query" not in good.without_times().sentence


def test_prompts_that_lose_against_what_needs_no_training_are_harmful(prompted: BiEncoder, bench: Workbench) -> None:
    found = advised(
        prompted, bench, scores(frozen=0.4, tuned=0.4, bm25=0.3, frozen_bm25=0.7, tuned_bm25=0.5), chosen("tuned+bm25")
    )
    assert found.harmful
    assert found.sentence.startswith(
        "Do not use these prompts: -20.0 points of nDCG@10 against the frozen model with BM25 on 10 queries (test)"
    )
    # Words that lose against words alone are no harm: the frozen model is what they stand beside
    found = advised(prompted, bench, scores(frozen=0.4, bm25=0.8, frozen_bm25=0.7), chosen("frozen+bm25"))
    assert not found.harmful


def test_without_a_choice_prompts_must_be_surely_better_than_what_needs_no_training(
    prompted: BiEncoder, bench: Workbench
) -> None:
    found = advised(prompted, bench, scores(frozen=0.4, bm25=0.3, frozen_bm25=0.6, tuned=0.5, tuned_bm25=0.7), None)
    assert (found.system, found.bm25_weight, found.strength) == ("tuned+bm25", 0.5, 1.0)
    assert found.gain.difference == pytest.approx(0.3)
    found = advised(prompted, bench, scores(frozen=0.4, bm25=0.3, frozen_bm25=0.6, tuned=0.5, tuned_bm25=0.6), None)
    assert (found.system, found.bm25_weight, found.strength) == ("frozen+bm25", 0.75, 0.0)
    assert "prompts were not shown to add to it" in found.sentence
    found = advised(prompted, bench, scores(frozen=0.4, tuned=0.5), None)
    assert (found.system, found.bm25_weight) == ("tuned", None)
    found = advised(BiEncoder(bench.tower), bench, scores(frozen=0.4), None)
    assert (found.system, found.gain, found.sentence) == ("frozen", None, "Use the frozen model as it is.")
    found = advised(BiEncoder(bench.tower), bench, scores(frozen=0.4, frozen_bm25=0.5), None)
    assert "prompts" not in found.sentence.removeprefix("Use the frozen model with BM25, without prompts")
    assert not found.sentence.endswith("; test.")
    found = advised(BiEncoder(bench.tower), bench, scores(frozen=0.4, bm25=0.7, frozen_bm25=0.6), None)
    assert found.system == "bm25"


def test_a_gain_is_that_on_unseen_documents_and_a_loss_on_all_queries_is_not_passed_over(
    prompted: BiEncoder, dataset: Dataset, cache: Path
) -> None:
    qrels: dict[str, Qrels] = {
        "train": {f"q{number}": {f"d{number}": 1} for number in range(20)},
        "test": {f"q{number}": {f"d{number - 20}": 1} for number in range(20, 30)},  # documents of training queries
    }
    unseen = {f"q{number}": {f"d{number}": 1} for number in range(30, 38)} | {"q0": {"d20": 1}, "q1": {"d21": 1}}
    qrels["test"] |= unseen
    bench = Workbench(prompted.tower, replace(dataset, qrels=qrels), cache)
    assert bench.unseen_queries("test") == list(unseen)
    before = dict.fromkeys(qrels["test"], 0.5)
    after = {query: 0.6 if query in unseen else 0.9 for query in qrels["test"]}
    found = advised(prompted, bench, {"frozen": before, "tuned": after}, chosen("tuned"))
    assert (found.basis, found.gain.queries) == ("test, unseen documents", 10)
    assert found.gain.difference == pytest.approx(0.1)
    after = {query: 0.5 if query in unseen else 0.1 for query in qrels["test"]}
    found = advised(prompted, bench, {"frozen": before, "tuned": after}, chosen("tuned"))
    assert (found.basis, found.gain.queries, found.harmful) == ("test", 20, True)
    after = {query: 0.1 if query in unseen else 0.9 for query in qrels["test"]}
    found = advised(prompted, bench, {"frozen": before, "tuned": after}, chosen("tuned"))
    assert (found.basis, found.gain.queries, found.harmful) == ("test, unseen documents", 10, True)


def test_no_time_is_kept_with_prompts(
    model: Path, dataset: Dataset, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "ALPHA", 1.0)
    settings = replace(SETTINGS, folds=1)
    found = tune(loaded(model), dataset, settings, cache=cache, out=tmp_path / "prompts")
    assert found.recommendation is not None
    assert found.recommendation.system != "frozen"
    assert " ms a query" in found.recommendation.sentence
    kept = json.loads((tmp_path / "prompts" / "prompt.json").read_text())["training"]["recommendation"]
    assert (kept["milliseconds"], kept["cost"]) == ({}, "")
    assert " ms a query" not in kept["sentence"]
    assert kept == json.loads(json.dumps(found.recommendation.without_times().to_json()))
