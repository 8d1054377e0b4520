"""General texts are held near their frozen vectors: by hand, by seed and step, and not at all unless asked."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset, load
from retrieval_prompts.training import retrieval as tuning
from retrieval_prompts.training.keeping.general import general_texts
from retrieval_prompts.training.keeping.keep import STREAM, distance, frozen_vectors
from retrieval_prompts.training.plan import Batch
from retrieval_prompts.training.retrieval import Task
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.training.training_data import TrainingData


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(tiny.write_data(tmp_path_factory.mktemp("data"), dev=True))


@pytest.fixture(autouse=True)
def rising(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each dev score is better than the last one, so that training ends with the weights of its last step."""
    scores = count()
    monkeypatch.setattr(Task, "dev_mean", lambda *_: float(next(scores)))


def settings(**given: Any) -> TuneSettings:
    small = {"length": 3, "epochs": 2, "batch_size": 10, "learning_rate": 0.05, "precision": "float32"}
    return TuneSettings(**{**small, **given})


def task(model: Path, dataset: Dataset, chosen: TuneSettings) -> Task:
    biencoder = BiEncoder.load(model, device="cpu").attach(chosen)
    documents = BiEncoder(biencoder.tower).encode_corpus(dataset.corpus)
    return Task(biencoder, TrainingData.of(dataset), chosen, documents)


def trained(model: Path, dataset: Dataset, chosen: TuneSettings) -> BiEncoder:
    made = task(model, dataset, chosen)
    list(tuning.train(made.biencoder, made.data, chosen, documents=made.documents))
    return made.biencoder


def test_the_general_texts_are_many_and_different() -> None:
    texts = general_texts()
    assert len(texts) > 1000
    assert len(set(texts)) == len(texts)
    assert texts == general_texts()
    assert not any("{" in text or "  " in text for text in texts)
    assert all(2 < len(text) < 150 for text in texts)


@pytest.mark.parametrize("sides", [["query"], ["query", "document"]])
def test_the_distance_by_hand(model: Path, sides: list[str]) -> None:
    biencoder = BiEncoder.load(model, device="cpu").attach("both", length=3)
    texts = [general_texts()[at] for at in np.random.default_rng([7, 4, STREAM]).choice(len(general_texts()), 5, False)]
    expected = 0.0
    for side in sides:
        before, after = (getattr(each, f"encode_{side}")(texts) for each in (BiEncoder(biencoder.tower), biencoder))
        expected += float(np.mean(1 - (before * after).sum(axis=1)))  # of unit length
    moved = distance(biencoder, frozen_vectors(biencoder, sides), 5, 7)
    assert moved(4).item() == pytest.approx(expected, abs=1e-6)
    assert moved(4).item() == moved(4).item() != moved(5).item()
    assert distance(biencoder, frozen_vectors(biencoder, sides), 5, 8)(4).item() != moved(4).item()


def test_prompts_without_effect_are_no_distance(model: Path) -> None:
    biencoder = BiEncoder.load(model, device="cpu")
    assert distance(biencoder, frozen_vectors(biencoder, ["query"]), 5, 0)(0).item() == pytest.approx(0, abs=1e-6)


def test_the_loss_is_the_contrastive_one_and_keep_times_the_distance(model: Path, dataset: Dataset) -> None:
    batch = Batch(np.arange(10), 3)
    plain, kept = (task(model, dataset, settings(keep=keep)) for keep in (0.0, 2.0))
    moved = distance(kept.biencoder, kept.general, 5, 0)  # half a batch
    assert kept.loss(False)(batch).item() == pytest.approx(plain.loss(False)(batch).item() + 2 * moved(3).item())
    kept.loss(False)(batch).backward()
    assert all(parameter.grad is not None for parameter in kept.biencoder.prompts.parameters())


@pytest.mark.parametrize("side", ["query", "both"])
def test_general_texts_are_encoded_once_and_only_to_be_kept(
    model: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    calls = []

    def spy(biencoder: BiEncoder, sides: Any) -> dict[str, torch.Tensor]:
        calls.append(sorted(sides))
        return frozen_vectors(biencoder, sides)

    monkeypatch.setattr(tuning, "frozen_vectors", spy)
    trained(model, dataset, settings(side=side))
    assert calls == []
    trained(model, dataset, settings(side=side, keep=1.0))
    assert calls == [["document", "query"] if side == "both" else ["query"]]


def test_the_more_is_kept_the_less_general_texts_move(model: Path, dataset: Dataset) -> None:
    def moved(keep: float) -> float:
        biencoder = trained(model, dataset, settings(epochs=10, keep=keep))
        assert biencoder.training_record["settings"]["keep"] == keep
        return distance(biencoder, frozen_vectors(biencoder, ["query"]), 200, 0)(0).item()

    assert moved(100.0) < moved(10.0) < moved(0.0)


def test_a_seed_fixes_what_is_kept(model: Path, dataset: Dataset) -> None:
    first, again, other = (trained(model, dataset, settings(keep=keep)).prompts["query"]() for keep in (1.0, 1.0, 2.0))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
