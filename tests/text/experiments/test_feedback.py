"""Prompts that read documents, from tuning to search: what is trained, saved, evaluated, and found again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from command_line import Command

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset, load
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.experiments.retrieval import evaluate, tune
from retrieval_prompts.experiments.run import PromptOutput
from retrieval_prompts.experiments.selection import encoder
from retrieval_prompts.experiments.selection.choice import Choice
from retrieval_prompts.experiments.selection.trained import Trained
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.training.loop import Step
from retrieval_prompts.training.settings import TuneSettings


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("tiny") / "data", dev=True)


@pytest.fixture
def dataset(data: Path) -> Dataset:
    return load(data)


def settings(**given: object) -> TuneSettings:
    usual = {"encoder": "feedback", "feedback": 3, "length": 2, "epochs": 10, "batch_size": 15, "folds": 1}
    return TuneSettings.of(**{"learning_rate": 0.05, **usual, **given})


def test_all_parts_learn_and_the_model_stays(model: Path, dataset: Dataset, kind: str, tmp_path: Path) -> None:
    biencoder = BiEncoder.load(model, device="cpu")
    before = {name: value.clone() for name, value in biencoder.tower.sentence_transformer.state_dict().items()}
    bench = Workbench(biencoder.tower, dataset, tmp_path / "cache")
    chosen = settings(kind=kind)
    bench.attach(biencoder, chosen)
    started = {name: value.clone() for name, value in biencoder.prompts.state_dict().items()}
    losses = []
    for step in bench.train(biencoder, bench.training, chosen, None):
        losses.append(step.loss)
        last = {name: value.clone() for name, value in biencoder.prompts.state_dict().items()}
    assert np.mean(losses[-4:]) < np.mean(losses[1:5])
    assert {name for name in last if not torch.equal(last[name], started[name])} == {
        "query.vectors",
        "query.gate",
        "query.map_change",
        "query.bias_change",
    }
    after = biencoder.tower.sentence_transformer.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_tuned_folder_gives_the_same_evaluation(model: Path, dataset: Dataset, tmp_path: Path) -> None:
    biencoder = BiEncoder.load(model, device="cpu")
    bench = Workbench(biencoder.tower, dataset, tmp_path / "cache")
    found = tune(biencoder, bench, settings(), out=tmp_path / "prompts")
    again = BiEncoder.load(model, tmp_path / "prompts", device="cpu")
    assert again.feedback is not None
    again.strength = biencoder.strength = 1.0
    first, second = (evaluate(each, Workbench(each.tower, dataset, tmp_path / "cache")) for each in (biencoder, again))
    assert first.systems == second.systems
    assert first.runs == second.runs
    assert set(found.systems) == {"frozen", "tuned", "bm25", "frozen+bm25", "tuned+bm25"}
    assert second.systems["tuned"] != second.systems["frozen"]
    assert second.documents_reencoded == 0


def test_an_interrupted_training_ends_with_the_same_prompt(model: Path, dataset: Dataset, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(step: Step, _: int) -> None:
        if step.step == 12:
            raise Stop

    def run(name: str, interrupted: bool) -> bytes:
        for on_step in [stop, None] if interrupted else [None]:
            biencoder = BiEncoder.load(model, device="cpu")
            bench = Workbench(biencoder.tower, dataset, tmp_path / "cache")
            try:
                tune(biencoder, bench, settings(), out=tmp_path / name, split=None, on_step=on_step)
            except Stop:
                assert not (tmp_path / name).exists()
        return (tmp_path / name / "prompt.safetensors").read_bytes()

    assert run("interrupted", True) == run("whole", False)


def test_few_queries_are_cross_validated(model: Path, dataset: Dataset, tmp_path: Path) -> None:
    biencoder = BiEncoder.load(model, device="cpu")
    bench = Workbench(biencoder.tower, dataset, tmp_path / "cache")
    found = tune(biencoder, bench, settings(folds=3, epochs=2), split=None)
    assert found.choice is not None
    assert found.choice.how == "cross-validation"
    assert found.choice.queries == 38


def test_the_command_line_tunes_searches_and_refuses(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    prompts, index = tmp_path / "prompts", tmp_path / "index"
    options = ["--encoder", "feedback", "--feedback", 3, "--length", 2, "--epochs", 2, "--folds", 1, "--lr", 0.05]
    page, found = tmp_path / "page.html", tmp_path / "found.json"
    done = command("tune", data, "--model", model, "--out", prompts, "--json", found, "--report", page, *options)
    assert done.code == 0
    assert page.stat().st_size > 1000
    evaluated = command("evaluate", data, "--model", model, "--prompts", prompts, "--strength", 1, "--json", "-").json
    assert evaluated["systems"]["tuned"] != evaluated["systems"]["frozen"]
    about = json.loads((prompts / "prompt.json").read_text())
    assert about["feedback"] == {"bm25_weight": 0.75}
    assert about["tensors"]["query.gate"] == [3]
    assert command("index", data, "--out", index, "--model", model).code == 0
    before = (index / "index.faiss").read_bytes()
    question = "what does the evidence show about copper"
    search = ["search", index, question, "--prompts", prompts, "--strength", 1, "--json", "-"]
    hits = command(*search).json
    biencoder = BiEncoder.load(model, prompts, device="cpu", strength=1)
    bench = Workbench(biencoder.tower, load(data))
    weight = biencoder.bm25_weight
    assert weight is not None
    hybrid = bench.hybrid_of(bench.index)
    assert hybrid is not None
    _, expected = hybrid.search([question], bench.query_vectors(biencoder, [question]), 10, weight=weight)
    assert [hit["id"] for hit in hits] == expected[0]
    # The first search has its words whatever the ranking
    _, dense = bench.index.search(bench.query_vectors(biencoder, [question]), 10)
    assert [hit["id"] for hit in command(*search, "--bm25-weight", 0).json] == dense[0]
    assert (index / "index.faiss").read_bytes() == before
    refused = command("export", prompts, "--out", tmp_path / "export", "--strength", 1)
    assert refused.code == 2
    assert "a stock checkpoint has none" in refused.err
    refused = command("tune", data, "--model", model, "--out", tmp_path / "other", "--feedback", 3)
    assert "--feedback is used with --encoder feedback or auto, not with --encoder table" in refused.err


def test_in_beir_and_mteb(model: Path, dataset: Dataset, tmp_path: Path) -> None:
    from retrieval_prompts.interop.beir import BeirModel, FaissSearch
    from retrieval_prompts.interop.mteb import IndexSearch

    biencoder = BiEncoder.load(model, device="cpu")
    bench = Workbench(biencoder.tower, dataset, tmp_path / "cache")
    bench.attach(biencoder, settings())
    queries, _ = dataset.split("test")
    expected = bench.index.rank(list(queries), bench.query_vectors(biencoder, queries.values()), 5)
    fresh = biencoder.whole()
    fresh.first_pass = None
    corpus = {document.id: {"title": document.title, "text": document.text} for document in dataset.corpus}
    search = FaissSearch(BeirModel(fresh), show_progress_bar=False)
    found = search.search(corpus, queries, 5)
    assert {query: list(hits) for query, hits in found.items()} == {
        query: list(hits) for query, hits in expected.items()
    }
    fresh = biencoder.whole()
    fresh.first_pass = None
    mteb = IndexSearch(fresh, cache=tmp_path / "cache")
    mteb.index([{"id": id, **row} for id, row in corpus.items()])
    rows: Any = Rows(queries)
    assert {query: list(hits) for query, hits in mteb.search(rows, top_k=5).items()} == {
        query: list(hits) for query, hits in expected.items()
    }


class Rows:
    """Queries as mteb gives them: rows, and columns by name."""

    def __init__(self, queries: dict[str, str]) -> None:
        self.rows = [{"id": id, "text": text} for id, text in queries.items()]

    def __getitem__(self, key: str) -> list[str]:
        return [row[key] for row in self.rows]

    def __iter__(self) -> Iterator[dict[str, str]]:
        return iter(self.rows)


STATIC, BETTER, EQUAL = ({f"q{number}": value for number in range(30)} for value in (0.2, 0.9, 0.2))


@pytest.mark.parametrize(
    ("strengths", "scores", "used"),
    [
        ((1.0, 1.0), (STATIC, BETTER), "feedback"),
        ((1.0, 1.0), (STATIC, EQUAL), "table"),
        ((1.0, 1.0), (BETTER, STATIC), "table"),
        ((0.0, 1.0), (STATIC, EQUAL), "feedback"),
        ((0.0, 0.0), (STATIC, STATIC), "table"),
        ((1.0, 0.0), (STATIC, BETTER), "table"),
        ((0.0, 1.0), ({}, BETTER), "feedback"),  # given up in the folds: there are no scores
        ((1.0, 0.0), (STATIC, {}), "table"),
    ],
)
def test_auto_asks_dev_which_prompts_are_used(
    model: Path,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    strengths: tuple[float, float],
    scores: tuple[dict[str, float], dict[str, float]],
    used: str,
) -> None:
    """The static prompt, unless the other is surely better, or is the only one that helps."""
    found = dict(zip(("table", "feedback"), zip(strengths, scores, strict=True), strict=True))

    def judged(biencoder: BiEncoder, bench: Workbench, way: TuneSettings, *_: object, **__: object) -> Trained:
        strength, of = found[way.encoder]
        systems = {"tuned": {"all": of.get("q0", 0.0)}}
        choice = Choice("tuned", strength, None, None, "dev split", len(of), 0, systems)
        biencoder.training_record = {"settings": {"encoder": way.encoder}}
        return Trained(choice, [], of)

    monkeypatch.setattr(Trained, "of", judged)
    biencoder = BiEncoder.load(model, device="cpu")
    bench = Workbench(biencoder.tower, dataset, tmp_path / "cache")
    trained = encoder.train(biencoder, bench, settings(encoder="auto"), PromptOutput(None))
    assert trained.scores is found[used][1]
    assert (biencoder.feedback is not None) == (used == "feedback")
    assert biencoder.training_record["settings"]["encoder"] == used
    assert biencoder.training_record["encoders"] == {
        "used": used,
        "dev": {name: {"all": of.get("q0", 0.0)} for name, (_, of) in found.items()},
    }


def test_auto_trains_both_one_after_the_other(model: Path, dataset: Dataset, tmp_path: Path) -> None:
    biencoder = BiEncoder.load(model, device="cpu")
    bench = Workbench(biencoder.tower, dataset, tmp_path / "cache")
    steps: list[tuple[int, int]] = []
    found = tune(
        biencoder,
        bench,
        settings(encoder="auto"),
        out=tmp_path / "prompts",
        split=None,
        on_step=lambda step, total: steps.append((step.step, total)),
    )
    tried = found.settings["encoders"]
    assert set(tried["dev"]) == {"table", "feedback"}
    numbers = [number for number, _ in steps]
    assert numbers == sorted(numbers)
    assert steps[-1][0] == steps[-1][1]
    again = BiEncoder.load(model, tmp_path / "prompts", device="cpu")
    assert (again.feedback is not None) == (tried["used"] == "feedback")
    with pytest.raises(UserError, match="for the query side, got --side both"):
        tune(biencoder, bench, settings(encoder="auto", side="both"), split=None)


def test_auto_tries_both_kinds_and_takes_the_better(
    model: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another kind costs a query nothing, so that no test has to be passed; one that does not help is never taken."""
    of = {("input", "table"): (1.0, 0.5), ("prefix", "table"): (1.0, 0.6), ("input", "feedback"): (1.0, 0.7)}

    def judged(biencoder: BiEncoder, bench: Workbench, way: TuneSettings, *_: object, **__: object) -> Trained:
        strength, score = of[way.kind, way.encoder]
        biencoder.training_record = {}
        choice = Choice("tuned", strength, None, None, "dev split", 2, 0, {"tuned": {"all": score}})
        return Trained(choice, [], {"a": score, "b": score})

    monkeypatch.setattr(Trained, "of", judged)
    biencoder = BiEncoder.load(model, device="cpu")
    bench = Workbench(biencoder.tower, dataset, tmp_path / "cache")
    auto = settings(kind="auto", encoder="auto", length=None)
    encoder.train(biencoder, bench, auto, PromptOutput(None))
    used = {"input table": {"all": 0.5}, "prefix table": {"all": 0.6}, "input feedback": {"all": 0.7}}
    assert biencoder.training_record["encoders"] == {"used": "prefix table", "dev": used}
    assert biencoder.kind == "prefix"
    assert biencoder.prompt("query").shape[1] == 4  # type: ignore[union-attr]  # the default of the kind
    of["prefix", "table"] = (0.0, 0.9)
    encoder.train(biencoder, bench, settings(kind="auto", encoder="table"), PromptOutput(None))
    assert biencoder.kind == "input"
    assert set(biencoder.training_record["encoders"]["dev"]) == {"input", "prefix"}
    with pytest.raises(UserError, match="attach one of input, prefix"):
        biencoder.attach(kind="auto")


def test_auto_leaves_out_a_kind_that_the_model_does_not_take(
    model: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    biencoder = BiEncoder.load(model, device="cpu")
    bench = Workbench(biencoder.tower, dataset, tmp_path / "cache")

    def no_prefix(*_: object) -> None:
        raise UserError("model toy takes no prefix")

    monkeypatch.setattr("retrieval_prompts.towers.injection.record_prefix", no_prefix)
    with pytest.warns(DataWarning, match="--kind prefix is left out: model toy takes no prefix"):
        encoder.train(biencoder, bench, settings(kind="auto"), PromptOutput(None))
    assert biencoder.kind == "input"
    with pytest.raises(UserError, match="takes no prefix"):
        encoder.train(biencoder, bench, settings(kind="prefix"), PromptOutput(None))


def test_in_a_benchmark(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    beir = ["beir", "--datasets", "data", "--data-dir", data.parent, "--model", model, "--out", tmp_path / "results"]
    beir += ["--tune", "--encoder", "feedback"]
    assert command(*beir).code == 0
    record = json.loads((tmp_path / "results" / "results.json").read_text())["datasets"]["data"]
    assert {"frozen", "tuned", "bm25", "frozen+bm25", "tuned+bm25"} <= set(record["systems"])
    assert len(record["prompts"]["query"]) == 64
    before = (tmp_path / "results" / "results.json").read_bytes()
    assert command(*beir).code == 0
    assert (tmp_path / "results" / "results.json").read_bytes() == before
