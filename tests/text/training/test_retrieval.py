"""Training prompts of a tiny tower: what changes and what stays, which documents are negatives, and when to give up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import nn

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset, load
from retrieval_prompts.data.judgements import Qrels
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.significance import Comparison
from retrieval_prompts.experiments.retrieval import tune
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.prompts.encoders import PromptSum
from retrieval_prompts.towers import injection as attach
from retrieval_prompts.training import passages
from retrieval_prompts.training import retrieval as tuning
from retrieval_prompts.training.loop import Step
from retrieval_prompts.training.plan import Batch
from retrieval_prompts.training.retrieval import Task
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.training.training_data import TrainingData
from retrieval_prompts.vectors import encode
from retrieval_prompts.vectors.blocks import VectorBlocks
from retrieval_prompts.vectors.index import Index


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(tiny.write_data(tmp_path_factory.mktemp("data"), dev=True))


@pytest.fixture(autouse=True)
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps on few queries seldom beat the frozen model; most tests ask what the steps do."""
    monkeypatch.setattr(tuning, "GIVE_UP", None)


def settings(**given: Any) -> TuneSettings:
    """Three steps of ten queries an epoch."""
    rate = given.get("learning_rate", 0.05)
    small = {"length": 3, "epochs": 2, "batch_size": 10, "learning_rate": rate, "document_learning_rate": rate}
    return TuneSettings(**{**small, **given})


def attached(model: Path, chosen: TuneSettings) -> BiEncoder:
    return BiEncoder.load(model, device="cpu").attach(chosen)


def training_data(dataset: Dataset, **changes: Qrels) -> TrainingData:
    """The data's own splits, or those given."""
    train, dev = (changes.get(name, dataset.qrels[name]) for name in ("train", "dev"))
    return TrainingData(dataset.corpus, dataset.queries, train, dev)


def steps(biencoder: BiEncoder, dataset: Dataset, chosen: TuneSettings, **changes: Qrels) -> Iterator[Step]:
    data = training_data(dataset, **changes)
    return tuning.train(biencoder, data, chosen, documents=frozen(biencoder, dataset))


def train(biencoder: BiEncoder, dataset: Dataset, chosen: TuneSettings, **changes: Qrels) -> list[Step]:
    return list(steps(biencoder, dataset, chosen, **changes))


def frozen(biencoder: BiEncoder, dataset: Dataset) -> VectorBlocks:
    return BiEncoder(biencoder.tower).encode_corpus(dataset.corpus)


def best_documents(biencoder: BiEncoder, dataset: Dataset, queries: list[str]) -> Qrels:
    """Judgements by which the bi-encoder's own first document is the relevant one."""
    vectors = biencoder.encode_query([dataset.queries[query] for query in queries])
    best = (vectors @ frozen(biencoder, dataset).array().T).argmax(axis=1)
    return {query: {dataset.corpus.ids[position]: 1} for query, position in zip(queries, best.tolist(), strict=True)}


# --- what is trained ----------------------------------------------------------------------------------------------


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", ["input", "prefix"])
@pytest.mark.parametrize("side", ["query", "document", "both"])
def test_only_the_prompts_change(model: Path, dataset: Dataset, side: str, kind: str) -> None:
    chosen = settings(side=side, kind=kind)
    biencoder = attached(model, chosen)
    frozen_weights = snapshot(biencoder.tower.sentence_transformer)
    prompts = biencoder.prompts
    assert sorted(prompts) == (["document", "query"] if side == "both" else [side])
    previous = {each: snapshot(prompts[each]) for each in prompts}
    changes = []
    for step in steps(biencoder, dataset, chosen):
        now = {each: snapshot(prompts[each]) for each in prompts}
        if not math.isnan(step.loss):
            assert step.gradient_norm > 0
            changes.append([each for each in prompts if not equal(previous[each], now[each])])
        previous = now
    # With both, the query side comes first, alone
    expected = {"query": [["query"]] * 6, "document": [["document"]] * 6}
    expected["both"] = [["query"]] * 6 + [["query", "document"]] * 6
    assert changes == expected[side]
    assert equal(frozen_weights, biencoder.tower.sentence_transformer.state_dict())
    assert all(parameter.grad is None for parameter in biencoder.tower.sentence_transformer.parameters())


WAYS: list[dict[str, Any]] = [
    {"negatives": "corpus"},
    {"negatives": "corpus", "symmetric": True},
    {"negatives": "corpus", "memory": 1e-6},  # the vectors take 5 kB: mined, random and in-batch documents instead
    {"negatives": "in-batch"},
    {"negatives": "mined"},
    {"kind": "prefix"},
    {"encoder": "mlp"},
    {"encoder": "lstm"},
    {"init": "vocab"},
    {"init": "text:the evidence"},
    {"side": "document", "negatives": "corpus"},
    {"side": "document", "negatives": "in-batch"},
    {"side": "document", "negatives": "mined", "kind": "prefix"},
    {"side": "both", "negatives": "corpus"},
    {"side": "both", "negatives": "corpus", "memory": 1e-6},
    {"side": "both", "negatives": "in-batch", "symmetric": True},
    {"side": "both", "negatives": "mined"},
    {"side": "both", "negatives": "mined", "kind": "prefix"},
    {"side": "both", "common": True},
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: ",".join(f"{key}={value}" for key, value in way.items()))
def test_the_loss_falls(model: Path, dataset: Dataset, way: dict[str, Any]) -> None:
    # A step has all queries, so that its loss is not that of an easy batch
    rate = 0.005 if way.get("encoder") in ("mlp", "lstm") else 0.05
    chosen = settings(epochs=20, batch_size=30, learning_rate=rate, **way)
    losses: list[list[float]] = [[]]
    for step in train(attached(model, chosen), dataset, chosen)[1:]:
        if math.isnan(step.loss):
            losses.append([])  # a stage begins
        else:
            losses[-1].append(step.loss)
    assert len(losses) == (2 if way.get("side") == "both" and "common" not in way else 1)
    for stage in losses:
        assert len(stage) == 20
        assert np.mean(stage[-5:]) < np.mean(stage[:5])


def test_the_corpus_is_not_put_into_memory_beyond_the_budget(
    model: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: VectorBlocks) -> None:
        raise AssertionError("all vectors at once")

    monkeypatch.setattr(VectorBlocks, "array", refuse)
    for side in ("query", "both"):
        chosen = settings(side=side, memory=1e-6)
        assert len(train(attached(model, chosen), dataset, chosen)) > 1
    with pytest.raises(AssertionError, match="all vectors at once"):
        train(attached(model, settings()), dataset, settings())


def test_the_common_part_is_one_module_and_learns(model: Path, dataset: Dataset) -> None:
    chosen = settings(side="both", common=True)
    biencoder = attached(model, chosen)
    query, document = biencoder.prompts["query"], biencoder.prompts["document"]
    assert isinstance(query, PromptSum)
    assert isinstance(document, PromptSum)
    assert query.common is document.common
    assert not query.common().any()
    dev = best_documents(biencoder, dataset, ["q40"])
    for step in steps(biencoder, dataset, chosen, dev=dev):
        if step.step:
            assert query.common().all()
            assert torch.equal(query(), query.own() + query.common())
            assert torch.equal(document(), document.own() + query.common())


def test_training_does_not_outlast_what_was_asked_for(model: Path, dataset: Dataset) -> None:
    for given, most in (
        ({"epochs": 1}, 3),
        ({"epochs": 4}, 12),
        ({"epochs": 7}, 21),
        ({"epochs": 5, "max_steps": 4}, 4),
        ({"epochs": 5, "side": "document", "document_steps": 7}, 7),
        ({"epochs": 5, "side": "both", "max_steps": 4, "document_steps": 6}, 10),
    ):
        chosen = settings(**given)
        assert most * 0.8 <= train(attached(model, chosen), dataset, chosen)[-1].step <= most


def test_an_epoch_has_every_query_once_in_an_order_of_its_own(model: Path, dataset: Dataset) -> None:
    def orders(seed: int) -> list[list[int]]:
        plan = task(model, dataset, settings(epochs=4, seed=seed)).plan(fresh=False)
        batches = [batch for number in range(plan.epochs) for batch in plan.batches(number)]
        assert [batch.step for batch in batches] == list(range(12))
        drawn = np.concatenate([batch.queries for batch in batches]).reshape(4, 30)
        assert np.array_equal(np.sort(drawn, axis=1), np.tile(np.arange(30), (4, 1)))
        return drawn.tolist()

    assert orders(0) == orders(0)
    assert len({tuple(order) for order in [*orders(0), *orders(1)]}) == 8


def test_dev_is_scored_ten_times_or_five_where_documents_are_encoded(model: Path, dataset: Dataset) -> None:
    for side, scores in (("query", 11), ("document", 6), ("both", 17)):  # with those before each stage
        chosen = settings(side=side, epochs=10)
        biencoder = attached(model, chosen)
        assert sum(step.dev is not None for step in train(biencoder, dataset, chosen)) == scores


# --- positives and negatives --------------------------------------------------------------------------------------


def task(model: Path, dataset: Dataset, chosen: TuneSettings, **changes: Qrels) -> Task:
    biencoder = attached(model, chosen)
    return Task(biencoder, training_data(dataset, **changes), chosen, frozen(biencoder, dataset))


def test_every_relevant_document_is_a_positive_wherever_it_came_from(model: Path, dataset: Dataset) -> None:
    made = task(model, dataset, settings())
    # Of the data set itself: d38 and d39 are relevant too, and d30, of grade 0, is not
    assert [each.tolist() for each in made.relevant[:4]] == [[0, 38], [1, 39], [2], [3]]
    relevant = [np.array([0, 2]), np.array([2]), np.array([4, 5])]
    whole = made.positive(relevant, None)
    assert whole.shape == (3, 40)
    assert [np.flatnonzero(row).tolist() for row in whole.numpy()] == [[0, 2], [2], [4, 5]]
    # Document 2 came for the first query, and is the second one's too; 0 and 5 are not among the candidates
    batch = made.positive(relevant, np.array([1, 2, 4]))
    assert batch.tolist() == [[False, True, False], [False, True, False], [False, False, True]]


@pytest.mark.parametrize("side", ["query", "document"])
def test_mined_negatives_are_the_best_wrong_answers_of_the_query_side_as_it_is(
    model: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    monkeypatch.setattr(tuning, "MINED", 5)
    made = task(model, dataset, settings(side=side, precision="float32"))
    encoder = made.biencoder if side == "query" else made.frozen
    queries = encoder.encode_query([dataset.queries[f"q{number}"] for number in tiny.TRAIN])
    scores = queries @ made.documents.array().T
    for row, relevant, mined in zip(scores, made.relevant, made.mine(), strict=True):
        ranked = [position for position in np.argsort(-row).tolist() if position not in relevant]
        assert mined.tolist() == ranked[:5]


def test_mining_gives_whatever_there_is_in_a_small_corpus(model: Path, dataset: Dataset) -> None:
    made = task(model, dataset, settings(), train={"q0": {f"d{number}": 1 for number in range(38)}})
    assert [sorted(mined.tolist()) for mined in made.mine()] == [[38, 39]]


@pytest.mark.parametrize("negatives", ["in-batch", "mined"])
@pytest.mark.parametrize("side", ["query", "document"])
def test_no_positive_is_ever_a_negative(
    model: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, side: str, negatives: str
) -> None:
    """In every step each candidate that is relevant to a query is marked so, and each query has a positive."""
    seen = []
    marked = Task.positive

    def spy(made: Task, relevant: Any, candidates: Any) -> torch.Tensor:
        mask = marked(made, relevant, candidates)
        for row, positions in zip(mask.tolist(), relevant, strict=True):
            assert sum(row) == len(set(positions.tolist()) & set(candidates.tolist())) >= 1
        assert len(set(candidates.tolist())) == len(candidates)
        seen.append(len(candidates))
        return mask

    monkeypatch.setattr(Task, "positive", spy)
    chosen = settings(side=side, negatives=negatives)
    train(attached(model, chosen), dataset, chosen)
    assert len(seen) == 6
    # 10 queries have a document each, all of theirs where vectors are looked up, and a mined one where encoded
    most = {("query", "in-batch"): 12, ("query", "mined"): 40, ("document", "in-batch"): 10, ("document", "mined"): 20}
    assert max(seen) <= most[side, negatives]


def test_the_dev_pool_has_the_relevant_documents_then_the_best_by_rank(
    model: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pool() -> list[int]:
        chosen = settings(side="document")
        return task(model, dataset, chosen, dev={"q40": {"d7": 1, "d8": 0}, "q41": {"d9": 2}}).pool

    biencoder = BiEncoder.load(model, device="cpu")
    index = Index.build(frozen(biencoder, dataset), None, dataset.corpus.ids, encoder={})
    _, found = index.search(biencoder.encode_query([dataset.queries["q40"], dataset.queries["q41"]]), 40)
    ranked = [row[rank] for rank in range(40) for row in found]
    assert [f"d{position}" for position in pool()] == list(dict.fromkeys(["d7", "d9", *ranked]))
    monkeypatch.setattr(passages, "POOL_TOKENS", 0)
    assert pool() == [7, 9]  # never without these
    lengths = [len(row) for row in biencoder.tokenize(dataset.corpus.contents(0, 40), "document")]
    monkeypatch.setattr(passages, "POOL_TOKENS", 100)
    assert len(pool()) > 2
    assert sum(lengths[position] for position in pool()) <= 100


# --- whether the prompt is used -----------------------------------------------------------------------------------


def test_where_no_prompt_beats_the_frozen_model_it_is_the_frozen_model(
    model: Path, dataset: Dataset, tmp_path: Path
) -> None:
    chosen = settings(side="query")
    biencoder = attached(model, chosen)
    # The frozen model is perfect on this dev split, so that nothing can be better
    dev = best_documents(BiEncoder(biencoder.tower), dataset, [f"q{number}" for number in tiny.DEV])
    train(biencoder, dataset, chosen, dev=dev)
    assert biencoder.training_record["dev"]["frozen"] == 1
    assert biencoder.strength == 0
    texts = ["what does the evidence show about copper", "falcon"]
    assert np.array_equal(biencoder.encode_query(texts), BiEncoder(biencoder.tower).encode_query(texts))
    biencoder.save(tmp_path / "prompts")
    again = BiEncoder.load(model, tmp_path / "prompts", device="cpu")
    assert again.strength == 0
    assert np.array_equal(again.encode_query(texts), biencoder.encode_query(texts))


@pytest.mark.parametrize("side", ["query", "document", "both"])
def test_a_training_that_does_not_beat_the_frozen_model_is_given_up(
    model: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    monkeypatch.setattr(tuning, "GIVE_UP", 1 / 3)
    chosen = settings(side=side)
    biencoder = attached(model, chosen)
    dev = best_documents(BiEncoder(biencoder.tower), dataset, [f"q{number}" for number in tiny.DEV])
    training = tuning.train(biencoder, training_data(dataset, dev=dev), chosen, documents=frozen(biencoder, dataset))
    records = list(training)
    assert training.given_up
    assert records[0].dev == 1, "the frozen model's, and not that of the untrained prompt"
    assert not any(step.best for step in records)
    record = biencoder.training_record
    # 6 steps with a dev score each end after 2; the second stage is short, and is not given up
    ended = [{"step": 2, "of": 6}, {"step": 6, "of": 6}]
    assert (record["given_up"], record["stages"]) == (True, ended[: 2 if side == "both" else 1])
    assert biencoder.strength == 0


def test_a_training_that_beats_the_frozen_model_is_not_given_up(
    model: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "GIVE_UP", 1 / 3)
    chosen = settings()
    biencoder = attached(model, chosen)
    rising = iter(range(100))
    monkeypatch.setattr(Task, "dev_mean", lambda *_: float(next(rising)))
    train(biencoder, dataset, chosen)
    assert (biencoder.training_record["given_up"], biencoder.training_record["stages"]) == (
        False,
        [{"step": 6, "of": 6}],
    )


def test_a_prompt_that_is_as_good_as_the_frozen_model_is_not_used(model: Path, dataset: Dataset) -> None:
    chosen = settings(learning_rate=1e-9)
    biencoder = attached(model, chosen)
    # A document that the frozen model finds last of all, and the prompt as it begins not among the first ten
    scores = BiEncoder(biencoder.tower).encode_query(dataset.queries["q40"]) @ frozen(biencoder, dataset).array().T
    train(biencoder, dataset, chosen, dev={"q40": {f"d{scores.argmin()}": 1}})
    assert biencoder.training_record["dev"] == {"metric": "ndcg@10", "frozen": 0, "tuned": 0}
    assert biencoder.strength == 0


def test_a_prompt_that_beats_the_frozen_model_is_used_whole(model: Path, dataset: Dataset) -> None:
    chosen = settings(side="query", learning_rate=1e-9)
    biencoder = attached(model, chosen)
    queries = [f"q{number}" for number in tiny.DEV]
    dev = best_documents(biencoder, dataset, queries)
    assert dev != best_documents(BiEncoder(biencoder.tower), dataset, queries)
    train(biencoder, dataset, chosen, dev=dev)
    scores = biencoder.training_record["dev"]
    assert scores["tuned"] == 1 > scores["frozen"]
    assert biencoder.strength == 1


def test_a_loss_that_is_not_finite_leaves_the_best_prompt(model: Path, dataset: Dataset) -> None:
    chosen = settings(temperature=1e-30)
    biencoder = attached(model, chosen)
    initial = {name: tensor.clone() for name, tensor in biencoder.prompts.state_dict().items()}
    with pytest.raises(UserError, match=r"not finite \(.*\) at step 1 of \d+; the prompt of step 0 is kept; try"):
        train(biencoder, dataset, chosen)
    assert all(torch.equal(initial[name], tensor) for name, tensor in biencoder.prompts.state_dict().items())


def test_a_learning_rate_without_measure_is_a_user_error(model: Path, dataset: Dataset) -> None:
    for side in ("query", "both"):
        chosen = settings(side=side, learning_rate=1e30)
        biencoder = attached(model, chosen)
        with pytest.raises(UserError, match="try a smaller --lr"):
            train(biencoder, dataset, chosen)
        assert all(tensor.isfinite().all() for tensor in biencoder.prompts.state_dict().values())


@pytest.mark.parametrize("empty", [{"train": {}}, {"train": {"q0": {"d0": 0}}}, {"train": {}, "dev": {}}])
def test_there_must_be_training_queries(model: Path, dataset: Dataset, empty: dict[str, Any]) -> None:
    chosen = settings()
    with pytest.raises(UserError, match=r"^tuning needs at least one training query with a relevant document$"):
        train(attached(model, chosen), dataset, chosen, **empty)


def test_without_dev_queries_the_last_query_prompt_is_kept(model: Path, dataset: Dataset) -> None:
    chosen = settings(epochs=2)
    biencoder = attached(model, chosen)
    before = biencoder.prompts["query"]().detach().clone()
    found = train(biencoder, dataset, chosen, dev={})
    assert [step.step for step in found] == [1, 2, 3, 4, 5, 6]
    assert all(step.dev is None for step in found)
    assert biencoder.strength == 1
    assert biencoder.training_record["dev"] is None
    assert not torch.equal(biencoder.prompts["query"]().detach(), before)


@pytest.mark.parametrize("side", ["document", "both"])
def test_documents_are_not_tuned_without_dev_queries(model: Path, dataset: Dataset, side: str) -> None:
    chosen = settings(side=side)
    with pytest.raises(UserError, match=r"^tuning documents needs at least one dev query"):
        train(attached(model, chosen), dataset, chosen, dev={})


# --- what a run costs and leaves ----------------------------------------------------------------------------------


def test_documents_are_encoded_once_and_never_again(
    model: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []

    def spy(tower: Any, ids: Any, side: str, *rest: Any) -> torch.Tensor:
        if side == "document":
            encoded.extend(" ".join(map(str, row)) for row in ids)
        return attach.embed(tower, ids, side, *rest)

    monkeypatch.setattr(encode, "embed", spy)
    for expected in (40, 0):
        encoded.clear()
        biencoder = BiEncoder.load(model, device="cpu")
        found = tune(
            biencoder,
            Workbench(biencoder.tower, dataset, tmp_path / "cache"),
            settings(),
            out=tmp_path / f"out{expected}",
        )
        assert found.documents_encoded == expected
        assert found.documents_reencoded == 0
        assert len(encoded) == len(set(encoded)) == expected


@pytest.mark.parametrize("side", ["query", "both"])
def test_a_seed_fixes_every_byte(model: Path, dataset: Dataset, tmp_path: Path, side: str) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        biencoder = BiEncoder.load(model, device="cpu")
        chosen = settings(side=side, seed=seed)
        tune(
            biencoder, Workbench(biencoder.tower, dataset, tmp_path / "cache"), chosen, out=tmp_path / name, bm25=False
        )
    a, b, c = ((tmp_path / name / "prompt.safetensors").read_bytes() for name in "abc")
    assert a == b != c
    assert (tmp_path / "a" / "prompt.json").read_bytes() == (tmp_path / "b" / "prompt.json").read_bytes()


@pytest.mark.parametrize("kind", ["input", "prefix"])
@pytest.mark.parametrize("encoder", ["mlp", "lstm"])
def test_prompt_encoders_are_saved_as_plain_vectors(
    model: Path, dataset: Dataset, tmp_path: Path, encoder: str, kind: str
) -> None:
    chosen = settings(encoder=encoder, kind=kind, learning_rate=0.01)
    biencoder = attached(model, chosen)
    dev = best_documents(biencoder, dataset, ["q40"])
    train(biencoder, dataset, chosen, dev=dev)
    biencoder.strength = 1
    biencoder.save(tmp_path / "prompts")
    vectors = load_file(tmp_path / "prompts" / "prompt.safetensors")
    # A row of the embedding table for each vector, or keys and values for both layers
    assert {side: tuple(value.shape) for side, value in vectors.items()} == {
        "query": (1, 3, 32) if kind == "input" else (2, 3, 64)
    }
    again = BiEncoder.load(model, tmp_path / "prompts", device="cpu")
    texts = ["what does the evidence show about copper", "falcon"]
    assert np.array_equal(again.encode_query(texts), biencoder.encode_query(texts))
    assert not np.array_equal(again.encode_query(texts), BiEncoder(again.tower).encode_query(texts))


# --- documents of the query's own id, as in ArguAna -----------------------------------------------------------------


def test_a_document_of_the_querys_own_id_is_no_negative(model: Path, dataset: Dataset) -> None:
    corpus, judged = dataset.corpus, dataset.qrels["train"]
    free = iter([id for id in corpus.ids if not any(id in grades for grades in judged.values())])
    named = dict(zip(judged, free, strict=False))  # query -> the id of a document that is relevant to none
    assert len(named) >= 5
    queries = dataset.queries | {new: dataset.queries[old] for old, new in named.items()}
    train_qrels = {new: judged[old] for old, new in named.items()}
    chosen = settings()
    biencoder = attached(model, chosen)
    documents = frozen(biencoder, dataset)
    task = Task(biencoder, TrainingData(corpus, queries, train_qrels, dataset.qrels["dev"]), chosen, documents)
    own = [corpus.position(query) for query in train_qrels]
    assert [each.tolist() for each in task.beside] == [[position] for position in own]
    assert all(position not in mined for position, mined in zip(own, task.mine(), strict=True))
    batch = Batch(np.array([0]), 0)
    loss = task.loss(fresh=False)
    before = loss(batch).item()
    with torch.no_grad():
        task.all_documents[own[0]] *= -1
    assert loss(batch).item() == before, "its vector does not count"
    with torch.no_grad():
        task.all_documents[own[1]] *= -1
    assert loss(batch).item() != before, "another document's does"


def test_a_document_of_the_querys_own_id_is_no_positive_whatever_the_judgements_say(
    model: Path, dataset: Dataset
) -> None:
    first, second, third = list(dataset.corpus.ids)[:3]
    queries = {first: "river copper", third: "basalt lantern"}
    judged = {first: {first: 1, second: 1}, third: {third: 1}}
    chosen = settings()
    biencoder = attached(model, chosen)
    data = TrainingData(dataset.corpus, queries | dataset.queries, judged, dataset.qrels["dev"])
    task = Task(biencoder, data, chosen, frozen(biencoder, dataset))
    assert task.texts == ["river copper"], "the other has nothing else to find"
    assert [found.tolist() for found in task.relevant] == [[1]]
    assert task.loss(fresh=False)(Batch(np.array([0]), 0)).item() < 100


# --- a document prompt has to earn the encoding of the corpus -------------------------------------------------------


@pytest.mark.parametrize(("difference", "p_value", "kept"), [(0.1, 0.01, True), (0.1, 0.2, False), (-0.1, 0.01, False)])
def test_a_document_prompt_that_earns_nothing_is_dropped(
    model: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, difference: float, p_value: float, kept: bool
) -> None:
    outcome = Comparison("ndcg@10", difference, (difference, difference), p_value, 1, 0, 0)
    monkeypatch.setattr(tuning, "compare", lambda *_: outcome)
    chosen = settings(side="both")
    biencoder = attached(model, chosen)
    train(biencoder, dataset, chosen)
    assert sorted(biencoder.prompts) == (["document", "query"] if kept else ["query"])
    assert biencoder.training_record["document_prompt_on_dev"] == outcome.as_dict()
    alone = attached(model, settings(side="query"))
    train(alone, dataset, settings(side="query"))
    same = torch.equal(biencoder.prompts["query"](), alone.prompts["query"]())
    assert same or kept, "without it, what is left is the query prompt of a query-side training, bit for bit"
