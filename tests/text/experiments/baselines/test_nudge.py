"""NUDGE by hand, beside the authors' package, and on a tiny tower: which vectors move, how far, and when none does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import load
from retrieval_prompts.errors import UserError
from retrieval_prompts.experiments.baselines import nudge
from retrieval_prompts.experiments.baselines.task import Retriever, Task, dev_mean
from retrieval_prompts.towers import injection as attach
from retrieval_prompts.towers.text import Floats
from retrieval_prompts.training.training_data import TrainingData
from retrieval_prompts.vectors import encode
from retrieval_prompts.vectors.blocks import VectorBlocks
from retrieval_prompts.vectors.index import Index


def with_data(task: Task, **changes: Any) -> Task:
    """The task with other judgements or queries."""
    return replace(task, data=replace(task.data, **changes))


def unit(vectors: Any) -> Floats:
    array = np.asarray(vectors, dtype=np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def test_closed_forms_by_hand() -> None:
    documents = np.array([[1, 0], [0, 1], [2, 0], [1, 0], [1, 0]], dtype=np.float32)
    pulls = np.array([[1, 1], [0, 0], [3, 3], [-1, 1], [0, 5]], dtype=np.float32)
    half = np.sqrt(0.5)
    # A step of half the document's length along the pull's direction
    expected = [[1 + half / 2, half / 2], [0, 1], [2 + half, half], [1 - half / 2, half / 2], [1, 0.5]]
    np.testing.assert_allclose(nudge.nudge_m(documents, pulls, 0.5), expected, atol=1e-6)
    # A chord whose square is 0.2: a cosine of 0.9, on the document's own circle; away from a pull nothing moves
    sine = np.sqrt(1 - 0.81)
    expected = [[0.9, sine], [0, 1], [1.8, 2 * sine], [1, 0], [1, 0]]
    np.testing.assert_allclose(nudge.nudge_n(documents, pulls, 0.2), expected, atol=1e-6)
    # At 45 degrees the pull is reached, and not left behind
    np.testing.assert_allclose(nudge.nudge_n(documents[:1], pulls[:1], 1.0), [[half, half]], atol=1e-6)
    for form in (nudge.nudge_m, nudge.nudge_n):
        np.testing.assert_allclose(form(documents, pulls, 0.0), documents, atol=1e-7)
        assert form(documents, pulls, 0.1).dtype == np.float32


@pytest.mark.parametrize("gamma", [0.02, 0.1, 0.48])
def test_the_authors_package_gives_the_same_vectors(gamma: float, capsys: pytest.CaptureFixture[str]) -> None:
    package = pytest.importorskip("nudge", reason="the authors' package: pip install nudge-ft")
    random = np.random.default_rng(0)
    documents = unit(random.normal(size=(30, 8)))
    answers = [sorted(random.choice(20, size=random.integers(1, 4), replace=False).tolist()) for _ in range(40)]
    # Queries near to their documents and far from them
    queries = unit([documents[rows].sum(axis=0) + random.normal(size=8) for rows in answers])
    pulls = np.zeros_like(documents)
    for query, rows in zip(queries, answers, strict=True):
        pulls[rows] += query
    judged = {"q_embs": queries, "q_ans_indx": answers}
    for theirs, ours in ((package.NUDGEM, nudge.nudge_m), (package.NUDGEN, nudge.nudge_n)):
        expected = theirs(device="cpu").finetune_embeddings(documents, judged, judged, gamma=gamma)
        assert np.abs(expected - documents).max() > 1e-3
        np.testing.assert_allclose(ours(documents, pulls, gamma), expected, atol=2e-6)
    capsys.readouterr()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    data = load(tiny.write_data(tmp_path_factory.mktemp("data"), dev=True))
    biencoder = BiEncoder.load(tiny.write_model(tmp_path_factory.mktemp("model")), device="cpu")
    documents = biencoder.encode_corpus(data.corpus)
    index = Index.build(documents, None, data.corpus.ids, encoder={})
    return Task(biencoder, TrainingData.of(data), documents, index)


def vectors(fitted: Retriever) -> Floats:
    return fitted.index.vectors.reconstruct_n(0, len(fitted.index))


@pytest.mark.parametrize("form", ["m", "n"])
def test_documents_of_training_queries_move_and_no_others(
    task: Task, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    before = task.documents.array().copy()
    encoded: list[str] = []

    def spy(tower: Any, ids: Any, side: str, *rest: Any) -> Any:
        encoded.append(side)
        return attach.embed(tower, ids, side, *rest)

    monkeypatch.setattr(encode, "embed", spy)
    seen = with_data(task, dev=task.data.train)
    fitted = nudge.fit(seen, form=form)
    assert set(encoded) == {"query"}
    record = fitted.record
    assert record["used"]
    assert record["dev"]["tuned"] > record["dev"]["frozen"]
    moved = np.flatnonzero((vectors(fitted) != before).any(axis=1))
    answers = {f"q{number}": [number] for number in tiny.TRAIN} | {"q0": [0, 38], "q1": [1, 39]}  # d30 has grade 0
    assert moved.tolist() == sorted(row for rows in answers.values() for row in rows)
    assert record["documents_changed"] == len(moved) == 32
    pulls = np.zeros_like(before)
    for query, rows in answers.items():
        pulls[rows] += task.frozen([task.data.queries[query]])
    move = {"m": nudge.nudge_m, "n": nudge.nudge_n}[form]
    np.testing.assert_allclose(vectors(fitted), move(before, pulls, record["settings"]["gamma"]), atol=1e-5)
    assert np.array_equal(task.documents.array(), before)
    queries = {query: task.data.queries[query] for query in seen.data.dev}
    assert dev_mean(seen, fitted.run(queries, 1000)) == pytest.approx(record["dev"]["tuned"])
    assert {len(hits) for hits in fitted.run(queries, 1000).values()} == {40}


def test_the_smallest_of_the_best_steps_is_taken(task: Task) -> None:
    fitted = nudge.fit(task)
    scores = {
        gamma: nudge.fit(task, steps=[gamma]).record["dev"]["tuned"] for gamma in (0.0, *nudge.STEPS["n"])
    }  # of a single step or the frozen model
    best = max(scores.values())
    assert fitted.record["dev"]["tuned"] == best
    assert fitted.record["settings"]["gamma"] == min(gamma for gamma, score in scores.items() if score == best)


def test_where_no_step_is_better_no_document_moves(task: Task) -> None:
    run = task.index.rank(list(task.data.dev), task.frozen(task.dev_texts), 1)
    fitted = nudge.fit(with_data(task, dev={query: dict.fromkeys(hits, 1) for query, hits in run.items()}))
    assert not fitted.record["used"]
    assert fitted.record["settings"]["gamma"] == fitted.record["documents_changed"] == 0
    assert fitted.index is task.index


def test_the_users_index_is_kept_in_kind_and_a_small_budget_makes_no_copy(task: Task) -> None:
    flat = nudge.fit(task)
    hnsw = Index.build(task.documents, None, task.data.corpus.ids, encoder={}, factory="HNSW8")
    fitted = nudge.fit(replace(task, index=hnsw), memory=1e-6)
    assert fitted.index.manifest["factory"] == "HNSW8"
    assert fitted.record["dev"]["tuned"] == pytest.approx(flat.record["dev"]["tuned"], abs=0.05)
    assert fitted.record["documents_changed"] == 32


def test_a_corpus_of_which_all_documents_move_or_one(task: Task) -> None:
    everything = with_data(task, train={"q0": dict.fromkeys(task.data.corpus.ids, 1)})
    assert nudge.fit(everything).record["dev"]["frozen"] == nudge.fit(task).record["dev"]["frozen"]
    # A document of the query's own id is no answer
    own = with_data(task, train={"d3": {"d3": 1, "d4": 1}}, queries={**task.data.queries, "d3": "copper"})
    assert nudge.fit(own).record["parameters"] == task.documents.dimension


def test_of_a_document_in_chunks_the_nearest_moves_and_its_best_is_its_score(tmp_path: Path) -> None:
    data = load(tiny.cut_in_two(tiny.write_data(tmp_path / "data", dev=True)))
    biencoder = BiEncoder.load(tiny.write_model(tmp_path / "model"), device="cpu")
    documents = biencoder.encode_corpus(data.corpus)
    index = Index.build(documents, data.corpus, data.corpus.ids, encoder={})
    task = Task(biencoder, TrainingData.of(data), documents, index)
    fitted = nudge.fit(task)
    assert fitted.record["used"]
    before, after = documents.array(), vectors(fitted)
    moved = {data.corpus.ids[at] for at in np.flatnonzero(np.abs(before - after).max(axis=1) > 1e-6)}
    asked = {query: task.frozen([data.queries[query]])[0] for query in task.data.train}
    nearest = set()
    for query, grades in task.data.train.items():
        for first in (id for id, grade in grades.items() if grade > 0):
            both = [data.corpus.position(first), data.corpus.position(f"{first[:-1]}2")]
            nearest.add(data.corpus.ids[both[int(np.argmax(before[both] @ asked[query]))]])
    assert moved == nearest
    run = fitted.run({query: data.queries[query] for query in task.data.dev}, 10)
    scores = task.frozen(task.dev_texts) @ after.T
    best = np.maximum(scores[:, ::2], scores[:, 1::2])
    for row, hits in zip(best, run.values(), strict=True):
        assert list(hits) == [f"d{at}#1" for at in np.argsort(-row, kind="stable")[:10]]
    assert fitted.record["dev"]["tuned"] == dev_mean(task, run)


def test_mistakes_are_one_line(task: Task) -> None:
    with pytest.raises(UserError, match=r"^the form of NUDGE must be m or n, got 'x'$"):
        nudge.fit(task, form="x")
    for gamma in (-0.1, 2.5, np.nan):
        with pytest.raises(UserError, match=rf"^the steps of NUDGE must be from 0 to 2, got {gamma}$"):
            nudge.fit(task, steps=[0.1, gamma])
    with pytest.raises(UserError, match=r"^tuning needs at least one training query with a relevant document$"):
        nudge.fit(with_data(task, train={}))
    with pytest.raises(UserError, match=r"^a baseline needs at least one dev query"):
        nudge.fit(with_data(task, dev={}))


def test_blocks_are_cut_at_any_place() -> None:
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    blocks = VectorBlocks([rows[:4], rows[4:4], rows[4:7], rows[7:]], 2, 0)
    moving = np.array([0, 3, 4, 9])
    left = np.concatenate(list(nudge._left(blocks, moving)))
    assert left[:, 0].tolist() == [2, 4, 10, 12, 14, 16]
    replaced = np.concatenate(list(nudge._replaced(blocks, moving, -np.ones((4, 2), dtype=np.float32))))
    assert np.flatnonzero(replaced[:, 0] == -1).tolist() == moving.tolist()
    assert rows.min() == 0, "the corpus itself stays"
