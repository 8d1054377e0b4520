"""Baselines trained on a tiny tower, and rank fusion: what changes, what stays, and when the frozen model is kept."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import load
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.fusion import reciprocal_rank_fusion
from retrieval_prompts.experiments.baselines import linear, lora
from retrieval_prompts.experiments.baselines.task import QueryTraining, Retriever, Task, dev_mean
from retrieval_prompts.towers.injection import attention_modules
from retrieval_prompts.towers.text import TextTower
from retrieval_prompts.training import retrieval as tuning
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.training.training_data import TrainingData
from retrieval_prompts.vectors.blocks import VectorBlocks
from retrieval_prompts.vectors.index import Index

SHORT = TuneSettings(epochs=10, batch_size=10)
FITS = {
    "linear": lambda task, **given: linear.fit(task, **{"learning_rate": 1e-2, "settings": SHORT, **given}),
    "lora": lambda task, **given: lora.fit(task, **{"learning_rate": 1e-2, "settings": SHORT, **given}),
}
Fit = Callable[..., Retriever]


def with_data(task: Task, **changes: Any) -> Task:
    """The task with other judgements or queries."""
    return replace(task, data=replace(task.data, **changes))


@pytest.fixture(params=FITS)
def fit(request: pytest.FixtureRequest) -> Fit:
    if request.param == "lora":
        pytest.importorskip("peft", reason="LoRA is peft's")
    return FITS[request.param]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def task(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Task:
    data = load(tiny.write_data(tmp_path_factory.mktemp("data"), dev=True))
    biencoder = BiEncoder.load(model, device="cpu")
    documents = biencoder.encode_corpus(data.corpus)
    index = Index.build(documents, None, data.corpus.ids, encoder={})
    return Task(biencoder, TrainingData.of(data), documents, index)


def perfect(task: Task) -> Task:
    """The same with a dev split on which the frozen model makes no mistake."""
    run = task.index.rank(list(task.data.dev), task.frozen(task.dev_texts), 1)
    return with_data(task, dev={query: dict.fromkeys(hits, 1) for query, hits in run.items()})


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_equal(before: dict[str, torch.Tensor], module: nn.Module) -> None:
    after = module.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


# --- both ------------------------------------------------------------------------------------------------------------


def test_it_learns_and_nothing_else_changes(task: Task, fit: Fit) -> None:
    tower = task.biencoder.tower
    weights, vectors = snapshot(tower.sentence_transformer), task.documents.array()
    fitted = fit(task)
    dev = fitted.record["dev"]
    assert dev["metric"] == "ndcg@10"
    assert fitted.record["used"]
    assert dev["tuned"] > dev["frozen"] + 0.02
    run = fitted.run({query: task.data.queries[query] for query in task.data.dev}, 1000)
    assert dev["tuned"] == pytest.approx(dev_mean(task, run))
    assert {len(hits) for hits in run.values()} == {40}
    assert fitted.record["documents_changed"] == 0
    assert fitted.index is task.index
    assert np.array_equal(task.documents.array(), vectors)
    assert_equal(weights, tower.sentence_transformer)
    assert not any(each.requires_grad or each.grad is not None for each in tower.sentence_transformer.parameters())
    encoded = fitted.encode(task.dev_texts)
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(encoded, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(fitted.encode(task.dev_texts[:1]), encoded[:1], atol=1e-5)


def test_where_dev_is_not_better_it_is_the_frozen_model(task: Task, fit: Fit) -> None:
    fitted = fit(perfect(task))
    assert not fitted.record["used"]
    assert fitted.record["dev"]["frozen"] == fitted.record["dev"]["tuned"] == 1
    assert np.array_equal(fitted.encode(task.dev_texts), task.frozen(task.dev_texts))


def test_the_seed_decides_and_that_of_the_settings_does_not(task: Task, fit: Fit) -> None:
    a, b, c = (
        fit(replace(task, seed=seed), settings=replace(SHORT, seed=other)) for seed, other in ((3, 0), (3, 1), (4, 0))
    )
    assert a.record["settings"] == b.record["settings"]
    assert a.record["settings"]["seed"] == 3
    assert np.array_equal(a.encode(task.dev_texts), b.encode(task.dev_texts))
    assert not np.array_equal(a.encode(task.dev_texts), c.encode(task.dev_texts))


def test_the_corpus_is_not_put_into_memory_beyond_the_budget(
    task: Task, fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: VectorBlocks) -> None:
        raise AssertionError("all vectors at once")

    monkeypatch.setattr(VectorBlocks, "array", refuse)
    assert fit(task, settings=replace(SHORT, memory=1e-6)).record["dev"]["tuned"] > 0
    with pytest.raises(AssertionError, match="all vectors at once"):
        fit(task)


def test_there_must_be_queries(task: Task, fit: Fit) -> None:
    for empty in (with_data(task, train={}), with_data(task, train={"q0": {"d0": 0}})):
        with pytest.raises(UserError, match=r"^tuning needs at least one training query with a relevant document$"):
            fit(empty)
    with pytest.raises(UserError, match=r"^a baseline needs at least one dev query"):
        fit(with_data(task, dev={}))


def test_divergence_is_a_user_error(task: Task, fit: Fit) -> None:
    with pytest.raises(UserError, match=r"is not finite .*; try a smaller learning rate$"):
        fit(task, settings=replace(SHORT, temperature=1e-30))


def test_training_compares_as_tune_does(task: Task) -> None:
    """With the frozen vectors in place of learned ones the loss is that of tuning's own task."""
    own = tuning.Task(task.biencoder, task.data, SHORT, task.documents)
    training = QueryTraining(task, SHORT, lambda texts: torch.from_numpy(task.frozen(texts)))
    for negatives in ("corpus", "mined", "in-batch"):
        own.negatives = training.negatives = negatives
        for batch in own.plan(False).batches(0):
            value = training.loss(False)(batch).item()
            assert value == pytest.approx(own.loss(False)(batch).item(), rel=1e-5)
            assert value > 0


# --- linear ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_map_has_a_weight_for_each_pair_of_dimensions(task: Task, bias: bool) -> None:
    record = linear.fit(task, bias=bias, settings=replace(SHORT, epochs=1)).record
    assert record["parameters"] == 32 * 32 + (32 if bias else 0)
    assert record["settings"]["bias"] is bias
    assert record["settings"]["learning_rate"] == linear.LEARNING_RATE
    assert record["settings"]["temperature"] == 0.05


def test_a_linear_map_is_linear_and_begins_at_the_identity(
    toy_tower: Callable[..., TextTower], task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a dot-product model, whose vectors keep their lengths; each query is encoded once for all steps."""
    biencoder = BiEncoder(toy_tower("bert", similarity="dot", normalize=False))
    documents = biencoder.encode_corpus(task.data.corpus)
    index = Index.build(documents, None, task.data.corpus.ids, encoder={})
    dotted = replace(task, biencoder=biencoder, documents=documents, index=index)
    texts = list(task.data.queries.values())[:40]
    encode, encoded = biencoder.encode_query, []

    def spy(given: list[str]) -> Any:
        encoded.extend(given)
        return encode(given)

    monkeypatch.setattr(biencoder, "encode_query", spy)
    none = linear.fit(dotted, learning_rate=1e-12, settings=SHORT)
    trained = [task.data.queries[query] for query in task.data.train]
    assert [encoded.count(text) for text in trained] == [1] * len(trained)
    np.testing.assert_allclose(none.encode(texts), encode(texts), rtol=1e-4, atol=1e-5)
    # Dev: the document that the frozen model finds last for q40, so that any other map may be better
    scores = encode([task.data.queries["q40"]]) @ documents.array().T
    fitted = linear.fit(
        with_data(dotted, dev={"q40": {f"d{scores.argmin()}": 1}}), learning_rate=0.3, settings=replace(SHORT, clip=1e9)
    )
    assert fitted.record["used"]
    assert fitted.record["settings"]["temperature"] == 1
    frozen, moved = encode(texts), fitted.encode(texts)
    weight = np.linalg.lstsq(frozen, moved)[0]  # 40 vectors of 32 dimensions determine the map
    np.testing.assert_allclose(frozen @ weight, moved, atol=1e-3 * np.abs(moved).max())
    assert np.abs(weight - np.eye(32)).max() > 0.1


# --- LoRA ------------------------------------------------------------------------------------------------------------

NAMES: dict[str, list[str] | str] = {
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
    "xlm-roberta": ["query", "value"],
    "mpnet": ["q", "v"],
    "distilbert": ["q_lin", "v_lin"],
    "qwen3": ["q_proj", "v_proj"],
    "modernbert": "all-linear",  # one projection makes queries, keys and values
}


@pytest.mark.parametrize("architecture", NAMES)
def test_a_copy_with_lora_shares_nothing_and_at_first_changes_nothing(
    toy_tower: Callable[..., TextTower], architecture: str
) -> None:
    pytest.importorskip("peft", reason="LoRA is peft's")
    tower = toy_tower(architecture)
    assert lora.targets(tower.model) == NAMES[architecture]
    attention_modules(tower)  # of MPNet, this replaces the forward of a class
    weights, texts = snapshot(tower.sentence_transformer), ["fox", "a frozen retriever finds the documents"]
    frozen = BiEncoder(tower).encode_query(texts)
    made = lora.inject(tower, 2, 4, seed=0)
    assert np.array_equal(BiEncoder(made).encode_query(texts), frozen)
    pointers = {each.data_ptr() for each in tower.sentence_transformer.state_dict().values()}
    assert not pointers & {each.data_ptr() for each in made.sentence_transformer.state_dict().values()}
    learned = {name: each for name, each in made.model.named_parameters() if each.requires_grad}
    assert all(".lora_" in name for name in learned)
    if architecture == "bert":
        assert sum(each.numel() for each in learned.values()) == 2 * 2 * (2 * 32 + 2 * 32)  # layers, projections, A, B
    with torch.no_grad():
        for each in learned.values():
            each += 0.5
    assert np.abs(BiEncoder(made).encode_query(texts) - frozen).max() > 1e-3
    assert np.array_equal(BiEncoder(tower).encode_query(texts), frozen)
    assert_equal(weights, tower.sentence_transformer)


def test_lora_in_bfloat16_learns_what_it_learns_in_float32(task: Task) -> None:
    pytest.importorskip("peft", reason="LoRA is peft's")
    exact, rounded = (
        lora.fit(task, learning_rate=3e-3, settings=replace(SHORT, precision=each)) for each in ("float32", "bfloat16")
    )
    assert rounded.record["settings"]["precision"] == "bfloat16"
    a, b = (each.encode(task.dev_texts) for each in (exact, rounded))
    frozen = task.frozen(task.dev_texts)
    assert not np.array_equal(a, b)
    assert np.linalg.norm(a - b) < np.linalg.norm(a - frozen) / 2


@pytest.mark.parametrize(("rank", "alpha"), [(0, 16), (8, 0)])
def test_lora_needs_a_rank(task: Task, rank: int, alpha: int) -> None:
    with pytest.raises(UserError, match=f"a rank of 1 or more and an alpha above 0, got {rank} and {alpha}$"):
        lora.fit(task, rank=rank, alpha=alpha)


def test_lora_without_peft_says_what_to_install(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"^LoRA needs peft: pip install peft$"):
        lora.fit(task)


# --- search ----------------------------------------------------------------------------------------------------------


def test_search_keeps_k_without_the_document_of_the_querys_own_id() -> None:
    vectors = np.array([[0.9, 0], [0.8, 0], [0.7, 0], [-1, 0]], dtype=np.float32)
    index = Index.build(vectors, None, ["a", "b", "c", "d"], encoder={})
    queries = np.array([[1, 0], [1, 0], [-1, 0]], dtype=np.float32)

    def found(k: int) -> list[list[str]]:
        return [list(hits) for hits in index.rank(["a", "q", "d"], queries, k).values()]

    assert found(2) == [["b", "c"], ["a", "b"], ["c", "b"]]
    assert found(1000) == [["b", "c", "d"], ["a", "b", "c", "d"], ["c", "b", "a"]]
    with pytest.raises(UserError, match=r"^k must be at least 1, got 0$"):
        found(0)


def test_a_retriever_hands_on_how_to_search() -> None:
    seen: list[Any] = []

    def rank(ids: list[str], vectors: Any, k: int, **parameters: Any) -> dict[str, dict[str, float]]:
        seen.append((ids, vectors.shape, k, parameters))
        return {"q": {"a": 1.0}}

    index: Any = SimpleNamespace(rank=rank)
    made = Retriever(index, lambda texts: np.ones((len(texts), 2), dtype=np.float32), {})
    assert made.run({"q": "words"}, 5, nprobe=3) == {"q": {"a": 1.0}}
    assert seen == [(["q"], (1, 2), 5, {"nprobe": 3, "ef_search": None})]


def test_a_task_takes_no_prompts(task: Task, model: Path) -> None:
    with pytest.raises(UserError, match="starts from the frozen model; got one with prompts"):
        replace(task, biencoder=BiEncoder.load(model, device="cpu").attach("query", length=2))


# --- fusion ----------------------------------------------------------------------------------------------------------


def test_reciprocal_rank_fusion_by_hand() -> None:
    first = {"q": {"a": 9.0, "b": 8.0, "c": 7.0}, "only": {"x": 0.1}}
    second = {"q": {"c": -1.0, "d": -2.0, "a": -3.0}}
    expected = {"a": 1 / 61 + 1 / 63, "c": 1 / 63 + 1 / 61, "b": 1 / 62, "d": 1 / 62}
    fused = reciprocal_rank_fusion([first, second], 10)
    assert fused["q"] == pytest.approx(expected)
    assert list(fused["q"]) == ["c", "a", "d", "b"], "equal scores by id, descending, as trec_eval has it"
    assert fused["only"] == {"x": 1 / 61}
    assert list(reciprocal_rank_fusion([first, second], 1)["q"]) == ["c"]
    assert reciprocal_rank_fusion([first], 2, constant=0)["q"] == {"a": 1, "b": 0.5}


def test_fusion_ranks_equal_scores_as_trec_eval_does() -> None:
    # The last two are one number in float32
    run = {"q": {"a": 1.0, "b": 1.0, "x": 0.5 + 1e-12, "y": 0.5}}
    assert list(reciprocal_rank_fusion([run], 4)["q"]) == ["b", "a", "y", "x"]


def test_fusion_refuses_what_makes_no_sense() -> None:
    for arguments, message in (
        (([], 10), "at least one run"),
        (([{}], 0), "k must be at least 1"),
        (([{}], 1, -1), "constant of reciprocal rank fusion must be 0 or more, got -1"),
    ):
        with pytest.raises(UserError, match=message):
            reciprocal_rank_fusion(*arguments)
