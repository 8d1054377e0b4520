"""Few queries and hopeless ones, on tiny data: what is trained, what is said before, what is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset, load
from retrieval_prompts.errors import DataWarning
from retrieval_prompts.experiments.retrieval import tune
from retrieval_prompts.training.settings import TuneSettings

SETTINGS = TuneSettings(kind="prefix", length=3, epochs=2, batch_size=8, learning_rate=0.05, folds=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(tiny.write_data(tmp_path_factory.mktemp("tiny") / "data", dev=True))


def test_judgements_of_one_document_are_said_before_training_and_not_trained_on(
    model: Path, dataset: Dataset, tmp_path: Path
) -> None:
    one = {query: {"d0": 1} for query in list(dataset.qrels["train"])[:20]}
    narrow = replace(dataset, qrels={"train": one, "test": dataset.qrels["test"]})
    biencoder = BiEncoder.load(model, device="cpu")
    with pytest.warns(DataWarning, match="the 20 judged queries ask for only 1 document of 40"):
        found = tune(biencoder, narrow, SETTINGS, out=tmp_path / "prompts")
    assert found.steps == []
    assert biencoder.strength == 0
    assert BiEncoder.load(model, tmp_path / "prompts", device="cpu").strength == 0
    assert found.recommendation is not None
    assert "tuned" not in found.recommendation.system
    assert "ask for only 1 document" in found.recommendation.sentence
    assert found.systems["tuned"] == found.systems["frozen"]


def test_few_queries_are_cross_validated(model: Path, dataset: Dataset) -> None:
    biencoder = BiEncoder.load(model, device="cpu")
    seen: list[tuple[int, int]] = []
    found = tune(
        biencoder,
        dataset,
        SETTINGS,
        split=None,
        bm25=False,
        on_step=lambda step, total: seen.append((step.step, total)),
    )
    assert found.choice is not None
    assert (found.choice.how, found.choice.queries) == ("cross-validation", 38)
    assert found.choice.unseen <= 38
    assert [step for step, _ in seen] == sorted(step for step, _ in seen)
    alone = tune(biencoder, dataset, replace(SETTINGS, folds=1), split=None, bm25=False)
    assert alone.choice is not None
    assert (alone.choice.how, alone.choice.queries) == ("dev split", 8)
