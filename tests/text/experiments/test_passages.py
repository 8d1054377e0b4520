"""Documents in chunks: the best chunk is the document's score, whatever ranks, and queries learn from one chunk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset, load
from retrieval_prompts.experiments.retrieval import evaluate, tune
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.training.plan import Batch
from retrieval_prompts.training.retrieval import Task
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.vectors.index import Index

SMALL: dict[str, Any] = {"length": 2, "epochs": 1, "batch_size": 10, "folds": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def chunked(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The tiny data, each document in two chunks, of four words and of the rest."""
    return load(tiny.cut_in_two(tiny.write_data(tmp_path_factory.mktemp("data") / "chunked", dev=True)))


def test_a_ranking_of_documents_has_each_with_its_best_chunk() -> None:
    vectors = np.array([[0.1], [0.9], [0.5], [0.4], [0.3]], dtype=np.float32)
    index = Index.build(vectors, None, ["a#1", "a#2", "b", "c#1", "c#2"], encoder={})
    assert list(index.rank(["q"], np.array([[1.0]]), 2)["q"]) == ["a#2", "b"]
    index.first_of = {"a#2": "a#1", "c#2": "c#1"}
    ranked = index.rank(["q"], np.array([[1.0]]), 3)["q"]
    assert {id: round(score, 4) for id, score in ranked.items()} == {"a#1": 0.9, "b": 0.5, "c#1": 0.4}
    assert list(index.rank(["q"], np.array([[1.0]]), 9)["q"]) == ["a#1", "b", "c#1"]
    assert index.search(np.array([[1.0]]), 2)[1] == [["a#2", "b"]]


def test_every_system_ranks_documents(model: Path, chunked: Dataset) -> None:
    found = evaluate(BiEncoder.load(model, device="cpu"), chunked)
    firsts = {id for id in chunked.corpus.ids if id.endswith("#1")}
    assert found.runs.keys() == {"frozen", "bm25", "frozen+bm25"}
    for run in found.runs.values():
        assert all(set(hits) <= firsts for hits in run.values())
    assert all(len(hits) == 40 for hits in found.runs["frozen"].values())
    bench = Workbench(BiEncoder.load(model, device="cpu").tower, chunked)
    queries, _ = chunked.split("test")
    vectors = bench.frozen.query_vectors(list(queries.values()))
    scores = vectors @ bench.documents.array().T
    best = np.maximum(scores[:, ::2], scores[:, 1::2])  # of the two chunks of each document
    for row, hits in zip(best, found.runs["frozen"].values(), strict=True):
        assert np.allclose(sorted(hits.values(), reverse=True), np.sort(row)[::-1], atol=1e-6)


def test_a_query_learns_from_the_nearest_chunk_and_the_others_do_not_count(model: Path, chunked: Dataset) -> None:
    chosen = TuneSettings(**SMALL)
    biencoder = BiEncoder.load(model, device="cpu").attach(chosen)
    bench = Workbench(biencoder.tower, chunked)
    task = Task(biencoder, bench.training, chosen, bench.documents)
    vectors = bench.documents.array()
    for query, positive, beside in zip(task.frozen_queries.numpy(), task.relevant, task.beside, strict=True):
        assert {int(each) // 2 for each in positive} == {int(each) // 2 for each in beside}
        for near in positive:
            assert vectors[near] @ query >= vectors[near ^ 1] @ query
        assert set(beside).isdisjoint(positive)
    loss = task.loss(fresh=False)
    before = loss(Batch(np.array([3]), 0)).item()
    task.all_documents[int(task.beside[3][0])] *= -1
    assert loss(Batch(np.array([3]), 0)).item() == before


def test_the_document_of_a_querys_own_id_is_left_out_with_all_its_chunks(model: Path, chunked: Dataset) -> None:
    own = {"q0": "d5", "q1": "d9#2"}  # named as a document, and as a chunk of one

    def renamed(names: dict[str, Any]) -> dict[str, Any]:
        return {own.get(name, name): value for name, value in names.items()}

    qrels = {split: renamed(judged) for split, judged in chunked.qrels.items()}
    qrels["train"]["d5"] = {"d5#1": 1, "d6#1": 1}
    named = replace(chunked, queries=renamed(chunked.queries), qrels=qrels)
    runs = evaluate(BiEncoder.load(model, device="cpu"), named, split="train").runs
    assert all("d5#1" not in run["d5"] and "d9#1" not in run["d9#2"] for run in runs.values())
    assert "d9#1" in runs["frozen"]["d5"] and "d5#1" in runs["frozen"]["d9#2"]
    bench = Workbench(BiEncoder.load(model, device="cpu").tower, named)
    chosen = TuneSettings(**SMALL)
    task = Task(BiEncoder(bench.tower).attach(chosen), bench.training, chosen, bench.documents)
    row = task.texts.index(named.queries["d5"])
    assert {10, 11} <= set(task.beside[row].tolist()) and {int(each) // 2 for each in task.relevant[row]} == {6}


@pytest.mark.parametrize("side", ["query", "document"])
def test_prompts_are_tuned_on_chunks(model: Path, chunked: Dataset, side: str) -> None:
    found = tune(BiEncoder.load(model, device="cpu"), chunked, TuneSettings(**SMALL, side=side, document_steps=2))
    assert {"frozen", "tuned"} <= found.systems.keys()
    assert found.systems["frozen"] == evaluate(BiEncoder.load(model, device="cpu"), chunked).systems["frozen"]
