"""Whole experiments on tiny data: what they report, what they leave, and how they go on after an interruption."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset, load
from retrieval_prompts.errors import Diverged, UserError
from retrieval_prompts.evaluation.metrics import METRICS, means, per_query
from retrieval_prompts.experiments import retrieval as experiment
from retrieval_prompts.experiments.retrieval import RetrievalResult, curve
from retrieval_prompts.experiments.selection import choice
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.training import loop as training
from retrieval_prompts.training import retrieval as tuning
from retrieval_prompts.training.loop import Step
from retrieval_prompts.training.losses import info_nce
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.training.training_data import TrainingData
from retrieval_prompts.vectors.index import Index

SETTINGS = TuneSettings(kind="prefix", length=3, epochs=3, batch_size=8, learning_rate=0.05, folds=1)


def tune(
    biencoder: BiEncoder, data: Dataset, *given: Any, cache: Path | None = None, **options: Any
) -> RetrievalResult:
    return experiment.tune(biencoder, Workbench(biencoder.tower, data, cache), *given, **options)


def evaluate(
    biencoder: BiEncoder, data: Dataset, *given: Any, cache: Path | None = None, **options: Any
) -> RetrievalResult:
    return experiment.evaluate(biencoder, Workbench(biencoder.tower, data, cache), *given, **options)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(tiny.write_data(tmp_path_factory.mktemp("tiny") / "data", dev=True))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def loaded(model: Path, prompts: Path | None = None) -> BiEncoder:
    return BiEncoder.load(model, prompts, device="cpu")


# --- dev ----------------------------------------------------------------------------------------------------------


def test_a_dev_split_is_used_where_there_is_one(dataset: Dataset) -> None:
    learned = TrainingData.of(dataset)
    train, dev, held_out = learned.train, learned.dev, learned.held_out
    assert not held_out
    assert list(dev) == [f"q{number}" for number in tiny.DEV]
    assert list(train) == [f"q{number}" for number in tiny.TRAIN]


def test_dev_is_held_out_of_train_where_there_is_none_and_said(tmp_path: Path, model: Path) -> None:
    dataset = load(tiny.write_data(tmp_path / "data"))
    learned = TrainingData.of(dataset)
    train, dev, held_out = learned.train, learned.dev, learned.held_out
    assert held_out
    assert (len(train), len(dev)) == (27, 3)
    assert not train.keys() & dev.keys()
    assert train.keys() | dev.keys() == dataset.qrels["train"].keys()
    assert TrainingData.of(dataset).dev == dev
    biencoder = loaded(model)
    found = tune(biencoder, dataset, SETTINGS, cache=tmp_path / "cache", bm25=False, split=None)
    assert found.to_json()["settings"]["dev_held_out_of_train"] is True
    assert (found.to_json()["settings"]["train_queries"], found.to_json()["settings"]["dev_queries"]) == (27, 3)
    assert biencoder.training_record["dev_held_out_of_train"] is True


def test_a_curve_averages_losses_over_spans_and_keeps_dev_scores() -> None:
    steps = [Step(0, 0, math.nan, 0.0, 0.0, dev=0.5, best=True)]
    steps += [Step(number, 0, float(number), 0.1, 1.0, dev=0.6 if number == 120 else None) for number in range(1, 121)]
    found = curve(steps)
    assert len(found["loss"]) == 60
    assert found["loss"][:2] == [(2, 1.5), (4, 3.5)]
    assert found["dev"] == [(0, 0.5), (120, 0.6)]
    assert curve([]) == {"loss": [], "dev": []}


# --- results ------------------------------------------------------------------------------------------------------


def test_evaluate_agrees_with_a_search_by_hand(model: Path, dataset: Dataset, cache: Path) -> None:
    biencoder = loaded(model).attach("both", kind="prefix", length=3)
    found = evaluate(biencoder, dataset, cache=cache)
    queries, qrels = dataset.split("test")
    assert (
        list(found.to_json()["systems"]) == list(found.runs) == ["frozen", "tuned", "bm25", "frozen+bm25", "tuned+bm25"]
    )
    for system, encoder in (("frozen", BiEncoder(biencoder.tower)), ("tuned", biencoder)):
        documents = encoder.encode_document(dataset.corpus.contents(0, 40))
        scores = encoder.encode_query(list(queries.values())) @ documents.T
        by_hand = {
            query: {f"d{n}": float(score) for n, score in enumerate(row)}
            for query, row in zip(queries, scores, strict=True)
        }
        assert found.to_json()["systems"][system] == pytest.approx(means(per_query(qrels, by_hand)))
        assert found.runs[system].keys() == queries.keys()
        for query, hits in found.runs[system].items():
            assert hits == pytest.approx(by_hand[query], abs=1e-5)
    assert list(found.to_json()["systems"]["frozen"]) == list(METRICS)
    assert found.to_json()["systems"]["frozen"] != found.to_json()["systems"]["tuned"]
    test = found.to_json()["tests"]["tuned_vs_frozen"]
    systems = found.to_json()["systems"]
    assert test["difference"] == pytest.approx(systems["tuned"]["ndcg@10"] - systems["frozen"]["ndcg@10"])
    assert test["helped"] + test["hurt"] + test["unchanged"] == 10
    json.dumps(found.to_json(), allow_nan=False)


def test_evaluate_counts_what_it_encodes(model: Path, dataset: Dataset, tmp_path: Path) -> None:
    for side, first in (("query", 40), ("document", 40)):  # the frozen vectors are there from the first time on
        biencoder = loaded(model).attach(side, length=3)
        found = evaluate(biencoder, dataset, cache=tmp_path, bm25=False)
        assert found.to_json()["documents_encoded"] == first
        assert found.to_json()["documents_reencoded"] == (40 if side == "document" else 0)
        assert evaluate(biencoder, dataset, cache=tmp_path, bm25=False).to_json()["documents_encoded"] == 0
    assert evaluate(loaded(model), dataset, cache=tmp_path, bm25=False).to_json()["tests"] == {}


def test_a_missing_split_is_refused(model: Path, dataset: Dataset, cache: Path) -> None:
    with pytest.raises(UserError, match=r"has no split 'tset'; it has dev, test, train$"):
        evaluate(loaded(model), dataset, "tset", cache=cache)


def test_a_query_does_not_find_the_document_of_its_own_id(model: Path) -> None:
    biencoder = loaded(model)
    documents = [f"{word} copper" for word in tiny.WORDS] * 2
    names = [f"d{number}" for number in range(len(documents))]
    index = Index.build(biencoder.encode_document(documents), None, names, encoder={})
    run = index.rank(["d5", "other"], biencoder.query_vectors([documents[5]] * 2), 100)
    assert "d5" not in run["d5"]
    assert next(iter(run["other"])) in ("d5", f"d{5 + len(tiny.WORDS)}")
    assert {query: len(hits) for query, hits in run.items()} == {"d5": 100, "other": 100}
    assert all(list(hits.values()) == sorted(hits.values(), reverse=True) for hits in run.values())


def test_queries_whose_documents_no_training_query_had(model: Path, dataset: Dataset) -> None:
    bench = Workbench(loaded(model).tower, dataset)
    # q38 and q39 are about d38 and d39, which are relevant to q0 and q1 of the training queries as well
    assert bench.unseen_queries("test") == [f"q{number}" for number in range(30, 38)]
    assert bench.unseen_queries("train") == []


# --- prompt folders and interruptions -----------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_tune_saves_what_it_evaluated(
    model: Path, dataset: Dataset, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "ALPHA", 1.0)  # the better mean wins: so few queries make nothing sure
    biencoder = loaded(model)
    seen: list[int] = []

    def on_step(step: training.Step, total: int) -> None:
        seen.append(total)

    found = tune(biencoder, dataset, SETTINGS, out=tmp_path / "a" / "prompts", cache=cache, on_step=on_step)
    assert names(tmp_path / "a") == ["prompts"]  # no checkpoint is left
    assert names(tmp_path / "a" / "prompts") == ["prompt.json", "prompt.safetensors"]
    assert sum(path.stat().st_size for path in (tmp_path / "a" / "prompts").iterdir()) < 100_000
    assert seen == [found.steps[-1].step] * len(found.steps)
    again = evaluate(loaded(model, tmp_path / "a" / "prompts"), dataset, cache=cache)
    assert again.to_json()["systems"] == found.to_json()["systems"]
    assert again.to_json()["tests"] == found.to_json()["tests"]
    assert found.to_json()["settings"]["strength"] > 0
    assert found.to_json()["systems"]["tuned"] != found.to_json()["systems"]["frozen"]
    record = json.loads((tmp_path / "a" / "prompts" / "prompt.json").read_text())["training"]
    assert record["dataset"] == "data"
    assert record["settings"]["learning_rate"] == 0.05
    assert record["results"] == {"test": found.to_json()["systems"]}


def test_a_split_that_is_not_there_is_left_out(model: Path, dataset: Dataset, cache: Path) -> None:
    found = tune(loaded(model), dataset, SETTINGS, split=None, cache=cache)
    assert found.to_json()["systems"] == found.to_json()["tests"] == {}
    assert found.runs == {}
    json.dumps(found.to_json(), allow_nan=False)


class Stop(BaseException):
    """As Ctrl-C is."""


@pytest.mark.parametrize(
    ("side", "after", "files"),
    [("query", 2, 1), ("query", 5, 1), ("both", 5, 1), ("both", 13, 1), ("both", 14, 2), ("both", 24, 2)],
)
def test_an_interrupted_tune_goes_on_to_the_same_prompt(
    model: Path,
    dataset: Dataset,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    side: str,
    after: int,
    files: int,
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 2)
    # 12 steps on the query side, then with both 12 more of which each encodes documents
    chosen = TuneSettings(side=side, length=3, epochs=3, batch_size=8, learning_rate=0.05, encoder="mlp", folds=1)
    options: dict[str, Any] = {"cache": cache, "split": None}
    whole = tune(loaded(model), dataset, chosen, out=tmp_path / "whole", **options)

    def interrupt(step: training.Step, _: int) -> None:
        if step.step == after:
            raise Stop

    with pytest.raises(Stop):
        tune(loaded(model), dataset, chosen, out=tmp_path / "prompts", on_step=interrupt, **options)
    left = names(tmp_path)
    assert len(left) == files + 1
    assert all(re.fullmatch(r"whole|prompts\.[0-9a-f]{8}\.partial(\.2)?", name) for name in left)
    rest: list[training.Step] = []
    on_step = lambda step, _: rest.append(step)  # noqa: E731
    resumed = tune(loaded(model), dataset, chosen, out=tmp_path / "prompts", on_step=on_step, **options)
    assert names(tmp_path) == ["prompts", "whole"]
    assert content(tmp_path / "prompts") == content(tmp_path / "whole")
    assert len(rest) < len(whole.steps)
    assert rest == whole.steps[len(whole.steps) - len(rest) :]
    assert str(resumed.steps) == str(whole.steps)  # as text: a loss before training is NaN


def test_other_settings_do_not_go_on_from_a_checkpoint(
    model: Path, dataset: Dataset, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise Stop

    monkeypatch.setattr(experiment, "_record", interrupt)  # when training is over, before anything is saved
    with pytest.raises(Stop):
        tune(loaded(model), dataset, SETTINGS, out=tmp_path / "prompts", cache=cache)
    other = TuneSettings(**{**vars(SETTINGS), "seed": 1})
    monkeypatch.undo()
    found = tune(loaded(model), dataset, other, out=tmp_path / "prompts", cache=cache, split=None)
    assert found.steps[0].step == 0
    again = tune(loaded(model), dataset, SETTINGS, out=tmp_path / "prompts2", cache=cache, split=None)
    assert again.steps[0].step == 0


def test_a_prompt_folder_that_exists_is_replaced_only_on_request(
    model: Path, dataset: Dataset, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "prompts"
    options: dict[str, Any] = {"cache": cache, "split": None, "out": out}
    tune(loaded(model), dataset, SETTINGS, **options)
    before = content(out)
    other = TuneSettings(**{**vars(SETTINGS), "seed": 1})

    def count(*_: object, **__: object) -> Any:
        raise AssertionError("work before the check")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="exists already"):
        patch.setattr(BiEncoder, "encode_corpus", count)
        tune(loaded(model), dataset, other, **options)
    assert content(out) == before
    (tmp_path / ".prompts.new-abcd_123").mkdir()  # as a disk leaves it that failed at its deletion
    (tmp_path / ".prompts.12345678.partial.new-abcd_123").touch()
    with pytest.raises(UserError, match="exists already"):
        tune(loaded(model), dataset, SETTINGS, **options)
    assert names(tmp_path) == ["prompts"]

    def interrupt(step: training.Step, _: int) -> None:
        if step.step == 1:
            raise Stop

    with pytest.raises(Stop):
        tune(loaded(model), dataset, other, overwrite=True, on_step=interrupt, **options)
    assert content(out) == before  # until there is a better one
    tune(loaded(model), dataset, other, overwrite=True, **options)
    assert content(out) != before
    assert names(tmp_path) == ["prompts"]


def test_prompts_are_saved_before_they_are_evaluated_and_not_trained_again(
    model: Path, dataset: Dataset, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: BaseException) -> None:
        def raised(*_: object) -> None:
            raise error

        monkeypatch.setattr(experiment, "_evaluate", raised)

    options: dict[str, Any] = {"cache": cache, "out": tmp_path / "prompts"}
    whole = tune(loaded(model), dataset, SETTINGS, cache=cache, out=tmp_path / "whole")
    vectors = content(tmp_path / "whole")["prompt.safetensors"]
    with monkeypatch.context():
        fail(MemoryError("no room for BM25"))
        with pytest.warns(UserWarning, match=r"evaluation failed \(no room for BM25\); the same command evaluates"):
            found = tune(loaded(model), dataset, SETTINGS, **options)
        assert (found.failed, found.systems) == ("no room for BM25", {})
        with pytest.raises(MemoryError):  # nothing was saved that the result would have to be returned for
            tune(loaded(model), dataset, SETTINGS, cache=cache)
        assert content(tmp_path / "prompts")["prompt.safetensors"] == vectors
        fail(Stop())  # now it is killed
        with pytest.raises(Stop):
            tune(loaded(model), dataset, SETTINGS, **options)
    monkeypatch.undo()
    other = replace(SETTINGS, seed=1)
    with pytest.raises(UserError, match="prompts exists already, made by a run with other settings, data or model"):
        tune(loaded(model), dataset, other, **options)
    trained: list[Step] = []
    found = tune(loaded(model), dataset, SETTINGS, on_step=lambda step, _: trained.append(step), **options)
    assert trained == []
    assert content(tmp_path / "prompts") == content(tmp_path / "whole")
    assert found.to_json()["systems"] == whole.to_json()["systems"]
    assert json.dumps(found.to_json()["choice"]) == json.dumps(whole.to_json()["choice"])
    assert names(tmp_path) == ["prompts", "whole"]
    with pytest.raises(UserError, match="exists already; choose another name or pass --overwrite"):
        tune(loaded(model), dataset, SETTINGS, **options)  # nothing is missing


def test_settings_that_the_model_cannot_take_leave_nothing(
    model: Path, dataset: Dataset, cache: Path, tmp_path: Path
) -> None:
    for given, message in (
        ({"length": 60}, "a query prompt of 60 leaves 4 of 40 tokens to the text; use a smaller --length"),
        ({"init": "text:"}, "--init 'text:' has no words"),
    ):
        biencoder = loaded(model)
        with pytest.raises(UserError, match=message):
            tune(biencoder, dataset, TuneSettings(**given), out=tmp_path / "prompts", cache=cache)
        assert names(tmp_path) == []


def test_when_training_diverges_the_last_good_prompt_is_kept_beside_the_output(
    model: Path, dataset: Dataset, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def burst(scores: torch.Tensor, positive: torch.Tensor, temperature: float) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return info_nce(scores, positive, temperature) * (1 if calls < 7 else float("inf"))

    monkeypatch.setattr(tuning, "info_nce", burst)
    biencoder = loaded(model)
    with pytest.raises(Diverged) as caught:
        tune(biencoder, dataset, SETTINGS, out=tmp_path / "prompts", cache=cache)
    kept = tmp_path / "prompts.last-good"
    assert str(caught.value).startswith(
        "the loss is not finite (loss inf, gradient norm nan) at step 7 of 12; the prompt "
    )
    assert str(caught.value).endswith(f"; the last good prompt: {kept}")
    assert all(re.fullmatch(r"prompts\.([0-9a-f]{8}\.partial|last-good)", name) for name in names(tmp_path))
    vectors = loaded(model, kept).prompt("query")
    ours = biencoder.prompt("query")
    assert vectors is not None
    assert ours is not None
    assert vectors.isfinite().all()
    assert torch.equal(vectors, ours)
    calls = 0
    with pytest.raises(Diverged, match=r"kept; try a smaller --lr or a larger --temperature$"):  # nowhere to keep it
        tune(loaded(model), dataset, SETTINGS, cache=cache)


def test_the_run_is_known_by_all_that_it_depends_on(
    model: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    biencoder = loaded(model)
    data = TrainingData.of(dataset)
    train = data.train

    def identity(encoder: BiEncoder = biencoder, settings: TuneSettings = SETTINGS, **changes: Any) -> str:
        return tuning.run_identity(encoder, replace(data, **changes), settings)

    other = load(tiny.write_data(tmp_path / "data", dev=True, titles=False))
    different = [
        identity(),
        identity(loaded(tiny.write_model(tmp_path / "model", seed=1))),
        identity(corpus=other.corpus),
        identity(queries={**dataset.queries, "q0": "other words"}),
        identity(train={query: train[query] for query in list(train)[1:]}),
        identity(train={**train, "q0": {"d1": 1}}),
        identity(dev={"q40": {"d0": 1}}),
        identity(settings=TuneSettings(**{**vars(SETTINGS), "seed": 1})),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "0.0")
        different.append(identity())
    assert len(set(different)) == len(different)
    assert identity() == identity(loaded(model), queries={**dataset.queries, "q30": "not of train or dev"})
    assert np.array_equal(biencoder.encode_query(["copper"]), loaded(model).encode_query(["copper"]))
