"""sentence-transformers' trainer, losses, evaluator and mining on our live model: prompts change, nothing else does."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

import retrieval_prompts
from retrieval_prompts import BiEncoder, UserError
from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.evaluation.metrics import means, per_query
from retrieval_prompts.vectors.index import Index

pytest.importorskip("datasets", reason="the trainer of sentence-transformers needs datasets")
pytest.importorskip("accelerate", reason="the trainer of sentence-transformers needs accelerate")

from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.util import mine_hard_negatives

from retrieval_prompts.interop.live import SENTINELS
from retrieval_prompts.interop.trainer import ROUTER_MAPPING, retrieval_evaluator, trainable, training_pairs

STEPS = 4
ADVICE = (
    'pass router_mapping={"anchor": "query", "positive": "document", "negative": "document"}, with the names of your '
    "columns, to SentenceTransformerTrainingArguments"
)


def ranking(model: SentenceTransformer) -> nn.Module:
    return losses.MultipleNegativesRankingLoss(model)


def cached(model: SentenceTransformer) -> nn.Module:
    return losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=3)


def matryoshka(model: SentenceTransformer) -> nn.Module:
    return losses.MatryoshkaLoss(model, ranking(model), [32, 16])


def cached_matryoshka(model: SentenceTransformer) -> nn.Module:
    return losses.MatryoshkaLoss(model, cached(model), [32, 16])


def guided(model: SentenceTransformer) -> nn.Module:
    """Guided by the frozen model."""
    tower: Any = model[0]
    return losses.GISTEmbedLoss(model, tower.biencoder.tower.sentence_transformer, temperature=0.05)


class Opposite(nn.Module):
    """Documents are pushed away from their queries."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model, self.loss = model, ranking(model)

    def forward(self, features: Any, labels: Any) -> Tensor:
        return -self.loss(features, labels)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return retrieval_prompts.load(tiny.write_data(tmp_path_factory.mktemp("data"), dev=True))


@pytest.fixture(scope="module")
def pairs(data: Dataset) -> Any:
    return training_pairs(data)


@pytest.fixture
def biencoder(model_folder: Path) -> BiEncoder:
    return BiEncoder.load(model_folder, device="cpu").attach("query", length=4)


@pytest.fixture(scope="module", autouse=True)
def nothing_old_to_collect() -> Iterator[None]:
    """A run of the trainer collects garbage; without a look at all that was imported it takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def quiet(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """The trainer prints each of its records."""
    yield
    capsys.readouterr()


def trainer(
    biencoder: BiEncoder,
    pairs: Any,
    out: Path,
    make_loss: Callable[[SentenceTransformer], nn.Module] = ranking,
    evaluator: Any = None,
    **options: Any,
) -> SentenceTransformerTrainer:
    model = trainable(biencoder)
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 8,
        "max_steps": STEPS,
        "learning_rate": 1e-2,
        "router_mapping": ROUTER_MAPPING,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "use_cpu": True,
    }
    return SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(str(out), **{**settings, **options}),
        train_dataset=pairs,
        loss=make_loss(model),
        evaluator=evaluator,
    )


def copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("make_loss", "kind"),
    [
        (ranking, "input"),
        (ranking, "prefix"),
        (cached, "input"),
        (cached, "prefix"),
        (matryoshka, "input"),
        (cached_matryoshka, "input"),
        (guided, "input"),
    ],
)
def test_only_prompts_change(
    make_loss: Callable[[SentenceTransformer], nn.Module], kind: str, model_folder: Path, pairs: Any, tmp_path: Path
) -> None:
    biencoder = BiEncoder.load(model_folder, device="cpu").attach("both", kind=kind, length=3)
    backbone, before = copies(biencoder.tower.sentence_transformer), copies(biencoder.prompts)
    fingerprint = biencoder.tower.fingerprint
    ran = trainer(biencoder, pairs, tmp_path / "out", make_loss)
    ran.train()
    assert all(record["grad_norm"] > 0 for record in ran.state.log_history if "grad_norm" in record)
    after = copies(biencoder.prompts)
    assert not any(torch.equal(before[name], after[name]) for name in before), "both sides are trained"
    assert same(backbone, copies(biencoder.tower.sentence_transformer))
    del biencoder.tower.__dict__["fingerprint"]
    assert biencoder.tower.fingerprint == fingerprint
    assert not any(weight.requires_grad for weight in biencoder.tower.sentence_transformer.parameters())


def test_the_loss_is_that_of_our_vectors(model_folder: Path, pairs: Any) -> None:
    """Three columns: sentence-transformers runs the last two, both documents, in one forward pass."""
    biencoder = BiEncoder.load(model_folder, device="cpu").attach("both", length=3)
    model = trainable(biencoder).train()
    queries, documents = pairs["anchor"][:6], pairs["positive"][:6]
    negatives = [text[::-1][:20] for text in documents]
    columns = [(queries, "query"), (documents, "document"), (negatives, "document")]
    loss = ranking(model)([model.preprocess(texts, task=side) for texts, side in columns], None)
    ours = [biencoder.embed(biencoder.tokenize(texts, side), side) for texts, side in columns]
    scores = 20 * ours[0] @ torch.cat(ours[1:]).T
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(6))
    assert abs(loss.item() - expected.item()) < 1e-5
    parameters = list(biencoder.parameters())
    pairs_of_gradients = zip(*(torch.autograd.grad(each, parameters) for each in (loss, expected)), strict=True)
    assert all(torch.allclose(theirs, mine, atol=1e-6) for theirs, mine in pairs_of_gradients)


def test_columns_of_different_sides_are_not_joined(model_folder: Path, pairs: Any) -> None:
    """Where prompt names give the side there is no task by which the loss could tell columns apart."""
    biencoder = BiEncoder.load(model_folder, device="cpu").attach("both", length=3)
    model = trainable(biencoder).train()
    texts = pairs["anchor"][:4]
    sides = ("query", "document", "query")
    loss = ranking(model)([model.preprocess(texts, prompt=SENTINELS[side]) for side in sides], None)
    queries, documents, others = (biencoder.embed(biencoder.tokenize(texts, side), side) for side in sides)
    expected = torch.nn.functional.cross_entropy(20 * queries @ torch.cat([documents, others]).T, torch.arange(4))
    assert abs(loss.item() - expected.item()) < 1e-5


def test_cached_training_ends_with_the_same_prompt(model_folder: Path, pairs: Any, tmp_path: Path) -> None:
    ends = []
    for make_loss in (ranking, cached):
        biencoder = BiEncoder.load(model_folder, device="cpu").attach("query", length=4)
        trainer(biencoder, pairs, tmp_path / "out", make_loss).train()
        ends.append(biencoder.get_parameter("prompts.query.vectors").detach())
    assert torch.allclose(ends[0], ends[1], atol=1e-5)


def test_training_at_half_strength(biencoder: BiEncoder, pairs: Any, tmp_path: Path) -> None:
    biencoder.strength = 0.5
    before = copies(biencoder.prompts)
    trainer(biencoder, pairs, tmp_path / "out").train()
    assert not same(before, copies(biencoder.prompts))
    model = trainable(biencoder).train()
    ran = trainer(biencoder, pairs, tmp_path / "out")
    features, _ = ran.collect_features(next(iter(ran.get_train_dataloader())))
    assert len(features) == 2, "the frozen ids are no column"
    found = model(features[0])["sentence_embedding"].detach().numpy()
    model.eval()
    texts = [row["anchor"] for row in pairs]
    assert all(np.abs(vector - model.encode_query(texts)).max(1).min() < 1e-6 for vector in found)


NO_SIDE = "a column of the training data has no side, query or document"


@pytest.mark.parametrize(
    ("make_loss", "mapping", "reason"),
    [
        (ranking, {}, NO_SIDE),
        (cached, {}, NO_SIDE),
        (cached, {"anchor": "query"}, NO_SIDE),
        (
            ranking,
            dict.fromkeys(ROUTER_MAPPING, "document"),
            "every column is on the document side, which has no prompt",
        ),
        (
            cached,
            dict.fromkeys(ROUTER_MAPPING, "document"),
            "every column is on the document side, which has no prompt",
        ),
    ],
)
def test_training_nothing_is_refused(
    make_loss: Callable[[SentenceTransformer], nn.Module],
    mapping: dict[str, str],
    reason: str,
    biencoder: BiEncoder,
    pairs: Any,
    tmp_path: Path,
) -> None:
    before = copies(biencoder.prompts)
    with pytest.raises(UserError) as error:
        trainer(biencoder, pairs, tmp_path / "out", make_loss, router_mapping=mapping).train()
    assert str(error.value) == f"{reason}: that does not train the query prompt; {ADVICE}"
    assert same(before, copies(biencoder.prompts))


def test_a_document_side_without_a_prompt_is_a_constant(model_folder: Path, pairs: Any, tmp_path: Path) -> None:
    for side in ("query", "document"):
        biencoder = BiEncoder.load(model_folder, device="cpu").attach(side, length=4)
        before = copies(biencoder.prompts)
        trainer(biencoder, pairs, tmp_path / "out", cached).train()
        assert not same(before, copies(biencoder.prompts))


def test_prompt_names_give_the_side_too(biencoder: BiEncoder, pairs: Any, tmp_path: Path) -> None:
    before = copies(biencoder.prompts)
    names = {"anchor": SENTINELS["query"], "positive": SENTINELS["document"]}
    trainer(biencoder, pairs, tmp_path / "out", cached, router_mapping={}, prompts=names).train()
    assert not same(before, copies(biencoder.prompts))


def test_what_cannot_be_trained(biencoder: BiEncoder) -> None:
    biencoder.strength = 0
    message = "prompts of strength 0 are not used, so they cannot be trained; set biencoder.strength = 1"
    with pytest.raises(UserError, match=message):
        trainable(biencoder)
    live = biencoder.as_sentence_transformer().train()
    with pytest.raises(UserError, match=message):
        live(live.preprocess(["river"], task="query"))
    with pytest.raises(UserError, match=r"there is no prompt to train; attach one first \(BiEncoder.attach\)"):
        trainable(BiEncoder(biencoder.tower))


def test_each_forward_pass_uses_each_prompt_where_processes_train_together(model_folder: Path, tmp_path: Path) -> None:
    """torch averages the gradients of processes once a backward pass has reached all parameters."""
    biencoder = BiEncoder.load(model_folder, device="cpu").attach("both", length=3)
    model = trainable(biencoder).train()
    features = model.preprocess(["river copper"], task="document")
    alone = model(dict(features))["sentence_embedding"]
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        torch.autograd.grad(alone.sum(), biencoder.get_parameter("prompts.query.vectors"))
    address = f"file://{tmp_path / 'address'}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    try:
        together = model(dict(features))["sentence_embedding"]
    finally:
        torch.distributed.destroy_process_group()
    assert torch.equal(together, alone)
    (gradient,) = torch.autograd.grad(together.sum(), biencoder.get_parameter("prompts.query.vectors"))
    assert not gradient.any()


def prompted(model_folder: Path, encoder: str, common: bool) -> BiEncoder:
    return BiEncoder.load(model_folder, device="cpu").attach("both", length=3, encoder=encoder, common=common)


@pytest.mark.parametrize(("encoder", "common"), [("table", False), ("mlp", False), ("lstm", True)])
def test_a_resumed_run_ends_as_if_it_had_not_stopped(
    encoder: str, common: bool, model_folder: Path, pairs: Any, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    whole = prompted(model_folder, encoder, common)
    trainer(whole, pairs, tmp_path / "out", **options).train()
    again = prompted(model_folder, encoder, common)
    trainer(again, pairs, tmp_path / "out", **options).train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-2"))
    assert same(copies(whole.prompts), copies(again.prompts))
    assert not same(copies(whole.prompts), copies(prompted(model_folder, encoder, common).prompts))


def test_checkpoints_are_prompt_folders(biencoder: BiEncoder, pairs: Any, tmp_path: Path) -> None:
    ran = trainer(biencoder, pairs, tmp_path / "out", save_strategy="steps", save_steps=2)
    ran.train()
    last = BiEncoder.load(prompts=tmp_path / "out" / f"checkpoint-{STEPS}", device="cpu")
    assert same(copies(last.prompts), copies(biencoder.prompts))
    first = BiEncoder.load(prompts=tmp_path / "out/checkpoint-2", device="cpu")
    assert not same(copies(first.prompts), copies(biencoder.prompts))
    assert last.training_record["settings"]["max_steps"] == STEPS
    ran.save_model()  # into the folder of the checkpoints
    assert same(copies(BiEncoder.load(prompts=tmp_path / "out", device="cpu").prompts), copies(biencoder.prompts))
    assert (tmp_path / "out/checkpoint-2/trainer_state.json").is_file()
    assert not list((tmp_path / "out").rglob("*model*.safetensors")), "no copy of the backbone"
    ran.create_model_card()
    assert "Input prompts (query)" in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_the_best_checkpoint_is_taken(biencoder: BiEncoder, data: Dataset, pairs: Any, tmp_path: Path) -> None:
    """A loss that ruins the prompt more with each step: the best checkpoint is an early one."""
    evaluator = retrieval_evaluator(data, "dev")
    ran = trainer(
        biencoder,
        pairs,
        tmp_path / "out",
        Opposite,
        evaluator=evaluator,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        learning_rate=0.1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_cosine_ndcg@10",
    )
    ran.train()
    scores = {
        record["step"]: record["eval_cosine_ndcg@10"]
        for record in ran.state.log_history
        if "eval_cosine_ndcg@10" in record
    }
    best = max(scores, key=lambda step: scores[step])
    assert ran.state.best_global_step == best < STEPS, scores
    kept = BiEncoder.load(prompts=tmp_path / "out" / f"checkpoint-{best}", device="cpu")
    assert same(copies(kept.prompts), copies(biencoder.prompts))
    assert evaluator(trainable(biencoder))["cosine_ndcg@10"] == scores[best]


def test_a_checkpoint_of_another_model_is_refused(
    biencoder: BiEncoder, model_folder: Path, pairs: Any, tmp_path: Path
) -> None:
    trainer(biencoder, pairs, tmp_path / "out", save_strategy="steps", save_steps=2).train()
    other = BiEncoder.load(tiny.write_model(tmp_path / "other", seed=1), device="cpu").attach("query", length=4)
    with pytest.raises(UserError) as error:
        trainer(other, pairs, tmp_path / "out").train(resume_from_checkpoint=True)
    assert str(error.value) == (
        f"the checkpoint belongs to {model_folder}, not to {other.tower.name}; train in another folder"
    )


def test_pairs_are_queries_with_their_relevant_documents(data: Dataset, pairs: Any) -> None:
    queries, qrels = data.split("train")
    expected = [
        (queries[query], data.corpus[data.corpus.position(document)].content)
        for query in qrels
        for document, grade in qrels[query].items()
        if grade > 0
    ]
    assert [(row["anchor"], row["positive"]) for row in pairs] == expected
    assert len(expected) == 32, "30 queries, two of which have two documents; a document of grade 0 is none"


@pytest.fixture
def exported(biencoder: BiEncoder, tmp_path: Path) -> SentenceTransformer:
    biencoder.export(tmp_path / "exported")
    return SentenceTransformer(str(tmp_path / "exported"), device="cpu")


def test_their_evaluator_gives_our_metrics(
    biencoder: BiEncoder, exported: SentenceTransformer, data: Dataset, tmp_path: Path
) -> None:
    documents = biencoder.encode_corpus(data.corpus, tmp_path / "cache")
    index = Index.build(documents, None, data.corpus.ids, encoder=biencoder.identity())
    queries, qrels = data.split("test")
    run = index.run(list(queries), biencoder.encode_query(list(queries.values())), k=100)
    ours = means(per_query(qrels, run, ["ndcg@10", "mrr@10", "map@100", "recall@10"]))
    for model in (biencoder.as_sentence_transformer(), exported):
        theirs = retrieval_evaluator(data, "test")(model)
        for metric, value in ours.items():
            assert abs(theirs[f"cosine_{metric}"] - value) < 1e-9, metric
    assert 0 < ours["ndcg@10"] < 1


@pytest.mark.parametrize("use_faiss", [False, True])
def test_their_mining_ranks_by_our_prompts(
    use_faiss: bool, biencoder: BiEncoder, exported: SentenceTransformer, pairs: Any
) -> None:
    with torch.no_grad():
        biencoder.get_parameter("prompts.query.vectors").neg_()  # far from the frozen model
    pairs = pairs.select(range(8))
    corpus = list(dict.fromkeys(pairs["positive"]))
    scores = biencoder.encode_query(pairs["anchor"][:]) @ biencoder.encode_document(corpus).T
    relevant = {anchor: {row["positive"] for row in pairs if row["anchor"] == anchor} for anchor in pairs["anchor"]}
    expected = {
        anchor: next(corpus[each] for each in np.argsort(-row) if corpus[each] not in relevant[anchor])
        for anchor, row in zip(pairs["anchor"], scores, strict=True)
    }
    options: dict[str, Any] = {"num_negatives": 1, "verbose": False, "use_faiss": use_faiss}
    mined = mine_hard_negatives(pairs, biencoder.as_sentence_transformer(), **options)
    assert {row["anchor"]: row["negative"] for row in mined} == expected
    frozen = mine_hard_negatives(pairs, biencoder.tower.sentence_transformer, **options)
    assert {row["anchor"]: row["negative"] for row in frozen} != expected


def test_their_mining_keeps_vectors_apart(biencoder: BiEncoder, pairs: Any, tmp_path: Path) -> None:
    live = biencoder.as_sentence_transformer()
    options: dict[str, Any] = {"num_negatives": 1, "verbose": False, "cache_folder": str(tmp_path)}
    for _ in range(2):
        before = mine_hard_negatives(pairs, live, **options).to_list()
        assert len(list(tmp_path.iterdir())) == 2, "queries and documents; the second time from the cache"
    biencoder.strength = 0
    after = mine_hard_negatives(pairs, live, **options).to_list()
    assert after == mine_hard_negatives(pairs, live, num_negatives=1, verbose=False).to_list() != before


def test_their_mining_on_an_export(biencoder: BiEncoder, exported: SentenceTransformer, pairs: Any) -> None:
    options: dict[str, Any] = {"num_negatives": 2, "verbose": False}
    live = mine_hard_negatives(pairs, biencoder.as_sentence_transformer(), **options)
    assert mine_hard_negatives(pairs, exported, **options).to_list() == live.to_list()
