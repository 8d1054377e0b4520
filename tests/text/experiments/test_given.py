"""Document vectors that are given to a training instead of being encoded: checked, and then as good as encoded ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from toy_stores import Shelf

from retrieval_prompts import BiEncoder, TuneSettings, UserError, adopt, load, tune
from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.vectors import given
from retrieval_prompts.vectors.given import given_vectors
from retrieval_prompts.vectors.index import Index

SETTINGS = TuneSettings(epochs=2, batch_size=8, length=3, folds=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(tiny.write_data(tmp_path_factory.mktemp("tiny") / "data", dev=True))


@pytest.fixture(scope="module")
def vectors(model: Path, dataset: Dataset) -> np.ndarray:
    return BiEncoder.load(model, device="cpu").encode_corpus(dataset.corpus).array()


def index(model: Path, dataset: Dataset, vectors: np.ndarray) -> Index:
    identity = BiEncoder.load(model, device="cpu").identity()
    order = np.random.default_rng(0).permutation(40)
    return Index.build(vectors[order], None, [dataset.corpus.ids[place] for place in order], encoder=identity)


def over_a_store(model: Path, dataset: Dataset, vectors: np.ndarray) -> Index:
    rows = dict(zip(dataset.corpus.ids, vectors, strict=True))
    return adopt(BiEncoder.load(model, device="cpu"), Shelf(rows), dataset.corpus).index


def array(model: Path, dataset: Dataset, vectors: np.ndarray) -> np.ndarray:
    return vectors


@pytest.fixture(scope="module")
def expected(model: Path, dataset: Dataset) -> BiEncoder:
    biencoder = BiEncoder.load(model, device="cpu")
    tune(biencoder, dataset, SETTINGS, bm25=False)
    return biencoder


@pytest.mark.parametrize("make", [array, index, over_a_store])
def test_a_training_on_given_vectors_is_that_on_encoded_ones(
    model: Path,
    dataset: Dataset,
    vectors: np.ndarray,
    expected: BiEncoder,
    make: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    documents = make(model, dataset, vectors)
    biencoder = BiEncoder.load(model, device="cpu")
    monkeypatch.setattr(BiEncoder, "encode_corpus", None)
    found = tune(biencoder, dataset, SETTINGS, documents=documents, bm25=False)
    assert found.documents_encoded == 0
    assert np.array_equal(biencoder.encode_query(["copper river"]), expected.encode_query(["copper river"]))


@pytest.mark.parametrize("what", ["random", "reversed"])
@pytest.mark.parametrize("make", [array, index])
def test_wrong_vectors_are_refused_before_training(
    model: Path, dataset: Dataset, vectors: np.ndarray, make: Callable[..., Any], what: str, tmp_path: Path
) -> None:
    random = np.random.default_rng(0).normal(size=vectors.shape).astype(np.float32)
    documents = make(model, dataset, random if what == "random" else vectors[::-1])
    reason = "another model made them" if what == "random" else "another order than the ids or texts: reversed"
    with pytest.raises(UserError, match=reason):
        tune(BiEncoder.load(model, device="cpu"), dataset, SETTINGS, documents=documents, out=tmp_path / "prompts")
    assert not (tmp_path / "prompts").exists()


def test_vectors_of_other_documents(model: Path, dataset: Dataset, vectors: np.ndarray) -> None:
    tower = BiEncoder.load(model, device="cpu").tower
    with pytest.raises(UserError, match="expected a vector for each of 40 documents, in order, got 30"):
        given_vectors(tower, vectors[:30], dataset.corpus)
    some = Index.build(vectors[:30], None, dataset.corpus.ids[:30], encoder={"fingerprint": "x"})
    with pytest.raises(UserError, match=r"the index is missing 10 of 40 documents \(d30, d31, d32 and 7 more\)"):
        given_vectors(tower, some, dataset.corpus)
    whole = Index.build(vectors, None, dataset.corpus.ids, encoder={"fingerprint": "x"})
    with pytest.raises(UserError, match="this index was made by another document encoder"):
        tune(BiEncoder.load(model, device="cpu"), dataset, SETTINGS, documents=whole)


def test_vectors_beyond_memory_are_read_when_they_are_asked_for(
    model: Path, dataset: Dataset, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(given, "HELD", 0)
    tower = BiEncoder.load(model, device="cpu").tower
    found = given_vectors(tower, index(model, dataset, vectors), dataset.corpus)
    places = np.array([5, 0, 39])
    assert np.array_equal(found.rows(places), vectors[places])
    assert np.array_equal(found.array(), vectors)
    assert len(found) == 40


def test_a_workbench_has_its_documents(model: Path, dataset: Dataset, vectors: np.ndarray) -> None:
    biencoder = BiEncoder.load(model, device="cpu")
    with pytest.raises(UserError, match="a workbench has its documents already"):
        tune(biencoder, Workbench(biencoder.tower, dataset), SETTINGS, documents=vectors)
    with pytest.raises(UserError, match="no such setting: max_step"):
        tune(biencoder, dataset, SETTINGS, max_step=3)
