"""Prompts that are made from documents: how the map starts, what a prompt is, what stays exact, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import LONG, TEXTS

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.corpus import Document
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.first_pass import FirstPass, with_words
from retrieval_prompts.evaluation.hybrid import HybridIndex
from retrieval_prompts.files import sealed
from retrieval_prompts.prompts.feedback import MAP_RATE, FeedbackPrompt, Start, regress
from retrieval_prompts.prompts.settings import PromptSettings
from retrieval_prompts.towers.injection import prompt_shape, record_prefix
from retrieval_prompts.towers.text import TextTower
from retrieval_prompts.vectors.encode import encode_texts
from retrieval_prompts.vectors.index import Index

ToyTower = Callable[..., TextTower]
QUERIES = [*TEXTS, LONG]
DOCUMENTS = [Document(f"d{number}", "", f"{text} {number}") for number, text in enumerate([*TEXTS, *TEXTS, LONG])]


def start(tower: TextTower, kind: str) -> Start:
    layers, _, width = prompt_shape(tower, kind, 1)
    draw = torch.Generator().manual_seed(0)
    return Start(
        torch.randn(tower.dimension, layers * width, generator=draw), torch.randn(layers * width, generator=draw)
    )


def attached(tower: TextTower, kind: str, **given: Any) -> BiEncoder:
    return BiEncoder(tower).attach(
        kind=kind, encoder="feedback", length=2, feedback=3, start=start(tower, kind), **given
    )


def frozen_index(tower: TextTower, factory: str = "Flat") -> Index:
    frozen = BiEncoder(tower)
    vectors = tower.comparable(frozen.encode_document([document.content for document in DOCUMENTS]))
    ids = [document.id for document in DOCUMENTS]
    return Index.build(vectors, DOCUMENTS, ids, encoder=frozen.identity(), factory=factory)


def searched(tower: TextTower) -> HybridIndex | Index:
    return with_words(frozen_index(tower), DOCUMENTS, 0.5)


def test_a_prompt_is_the_static_vectors_and_one_for_each_document() -> None:
    draw = torch.Generator().manual_seed(1)
    static, documents = torch.randn(2, 3, 5, generator=draw), torch.randn(4, 2, 6, generator=draw)
    begin = Start(torch.randn(6, 10, generator=draw), torch.randn(10, generator=draw))
    prompt = FeedbackPrompt(static, begin, torch.tensor([1.0, -0.5]), 0.3)
    made = prompt(documents)
    assert made.shape == (4, 2, 5, 5)
    assert prompt.shape == (2, 5, 5)
    for query in range(4):
        assert torch.equal(made[query, :, :3], static)
        for rank, gate in enumerate((1.0, -0.5)):
            expected = gate * (documents[query, rank] @ begin.map + begin.bias)
            torch.testing.assert_close(made[query, :, 3 + rank].flatten(), expected)
    with torch.no_grad():
        prompt.map_change.add_(1)
    torch.testing.assert_close(prompt.parts()["map"], begin.map + MAP_RATE)
    again = FeedbackPrompt.of(static, prompt.parts(), 0.3)
    torch.testing.assert_close(again(documents), prompt(documents))


def test_the_map_starts_at_the_words_of_a_document(toy_tower: ToyTower, kind: str) -> None:
    tower = toy_tower("bert")
    words = " ".join(TEXTS).split()
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(words, 5)) for _ in range(400)]
    table = tower.embeddings.weight
    means = torch.stack([table[torch.tensor(row)].mean(dim=0) for row in tower.tokenize(texts, "document")]).detach()
    turned = means @ torch.linalg.qr(torch.randn(means.shape[1], means.shape[1])).Q
    found = regress(tower, kind, turned, texts)
    layers, _, width = prompt_shape(tower, kind, 1)
    assert found.map.shape == (tower.dimension, layers * width)
    made = turned @ found.map + found.bias
    if kind == "input":
        assert torch.nn.functional.cosine_similarity(made, means).min() > 0.9
        lengths = table[torch.tensor([token for row in tower.tokenize(texts[:200], "document") for token in row])]
        assert made.norm(dim=1).mean() == pytest.approx(float(lengths.norm(dim=1).mean()), rel=1e-3)
    else:
        own = torch.stack(
            [record_prefix(tower, row).mean(dim=1).flatten() for row in tower.tokenize(texts, "document")]
        )
        mean = own.mean(dim=0)
        explained = 1 - ((made - own).square().sum() / (mean - own).square().sum()).item()
        assert explained > 0.5  # the mean of all texts explains nothing


def test_queries_are_encoded_with_what_the_frozen_model_finds(tower: TextTower, kind: str) -> None:
    model = attached(tower, kind, feedback_bm25=0.0).bind(frozen_index(tower))
    reads = model.feedback
    assert reads is not None
    assert model.first_pass is not None
    frozen = BiEncoder(tower)
    vectors = tower.comparable(frozen.encode_document([document.content for document in DOCUMENTS]))
    together = model.encode_query(QUERIES)
    for row, query in enumerate(QUERIES):
        own = frozen.query_vectors([query])
        scores = vectors @ own[0]
        best = model.first_pass.positions([query], own)[0]
        np.testing.assert_allclose(scores[best], np.sort(scores)[::-1][:3], atol=1e-6)
        prompt = reads(torch.from_numpy(vectors[best])[None])[0].detach()
        by_hand = tower.comparable(encode_texts(tower, [query], "query", kind, prompt))
        np.testing.assert_allclose(tower.comparable(together[row : row + 1]), by_hand, atol=1e-5)
        np.testing.assert_allclose(model.encode_query(query), together[row], atol=1e-5)
    assert not np.allclose(together, frozen.encode_query(QUERIES), atol=1e-3)


def test_strength_0_is_the_frozen_model_and_needs_no_index(tower: TextTower, kind: str) -> None:
    model = attached(tower, kind)
    with pytest.raises(UserError, match=r"no index to search; give one with BiEncoder\.bind"):
        model.encode_query(QUERIES)
    model.strength = 0
    assert np.array_equal(model.encode_query(QUERIES), BiEncoder(tower).encode_query(QUERIES))
    assert model.identity() == BiEncoder(tower).identity()


def test_half_the_strength_lies_on_the_line_between(toy_tower: ToyTower, kind: str) -> None:
    tower = toy_tower("bert")
    model = attached(tower, kind).bind(searched(tower))
    whole, frozen = model.encode_query(QUERIES), BiEncoder(tower).encode_query(QUERIES)
    model.strength = 0.5
    half = (whole + frozen) / 2
    if tower.unit_length:
        half /= np.linalg.norm(half, axis=1, keepdims=True)
    np.testing.assert_allclose(model.encode_query(QUERIES), half, atol=1e-6)
    assert np.array_equal(model.whole().encode_query(QUERIES), whole)


def test_a_folder_keeps_the_map_and_the_first_search(toy_tower: ToyTower, kind: str, tmp_path: Path) -> None:
    tower = toy_tower("bert")
    model = attached(tower, kind, feedback_bm25=0.25).bind(searched(tower))
    model.save(tmp_path / "prompts")
    loaded = BiEncoder.load(tower.name, tmp_path / "prompts", device="cpu").bind(searched(tower))
    assert loaded.feedback is not None
    assert (loaded.feedback.documents, loaded.feedback.bm25_weight) == (3, 0.25)
    assert np.array_equal(loaded.encode_query(QUERIES), model.encode_query(QUERIES))
    file = tmp_path / "prompts" / "prompt.json"
    about = json.loads(file.read_text())
    about["feedback"]["bm25_weight"] = 2
    file.write_text(json.dumps(sealed(about)))
    with pytest.raises(UserError, match=r"prompt\.json: expected a bm25_weight of feedback"):
        BiEncoder.load(tower.name, tmp_path / "prompts", device="cpu")


def test_an_index_of_another_model_is_refused(toy_tower: ToyTower) -> None:
    with pytest.raises(UserError, match="another document encoder"):
        attached(toy_tower("bert"), "input").bind(frozen_index(toy_tower("mpnet")))


def test_fewer_documents_than_are_read_are_repeated(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert")
    first = FirstPass(searched(tower), len(DOCUMENTS) + 2, 0.5)
    found = first.positions(QUERIES, BiEncoder(tower).query_vectors(QUERIES))
    assert found.shape == (len(QUERIES), len(DOCUMENTS) + 2)
    for row in found:
        assert sorted(row[: len(DOCUMENTS)]) == list(range(len(DOCUMENTS)))
        assert row[len(DOCUMENTS) :].tolist() == row[:2].tolist()
    assert first.positions([], np.empty((0, tower.dimension), np.float32)).shape == (0, len(DOCUMENTS) + 2)


def test_the_first_search_reads_words_with_its_weight(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert")
    hybrid = searched(tower)
    assert isinstance(hybrid, HybridIndex)
    vectors = BiEncoder(tower).query_vectors(QUERIES)
    for weight in (0.0, 0.5, 1.0):
        found = FirstPass(hybrid, 3, weight).positions(QUERIES, vectors)
        _, expected = hybrid.search(QUERIES, vectors, 3, weight=weight)
        assert [[hybrid.index.ids[position] for position in row] for row in found] == expected
    with pytest.warns(UserWarning, match="the index holds no words"):
        assert FirstPass(hybrid.index, 3, 0.5).bm25_weight == 0


@pytest.mark.filterwarnings("ignore:IVF1")
@pytest.mark.parametrize(
    "factory", ["SQ8", "HNSW8", "IVF1,Flat", "IVF1,SQ8", "IVF1,RaBitQ", "PCA8,Flat", "RaBitQ", "SQ8,RFlat"]
)
def test_vectors_come_back_from_an_index(toy_tower: ToyTower, factory: str, tmp_path: Path) -> None:
    tower = toy_tower("bert")
    frozen_index(tower, factory).save(tmp_path / "index")
    vectors = tower.comparable(BiEncoder(tower).encode_document([document.content for document in DOCUMENTS]))
    for index in (frozen_index(tower, factory), Index.open(tmp_path / "index")):
        found = index.vectors_at(np.array([3, 0, 3]))
        tolerance = 0.02 if "SQ8" in factory or factory.endswith("Flat") else 0.15  # of one bit a number
        if factory.startswith("PCA"):
            assert found.shape == (3, tower.dimension)
        else:
            np.testing.assert_allclose(found, vectors[[3, 0, 3]], atol=tolerance)


@pytest.mark.filterwarnings("ignore:IVF1")
def test_an_index_that_gives_no_vectors_back_is_refused(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert")
    frozen = BiEncoder(tower)
    vectors = np.random.default_rng(0).standard_normal((64, tower.dimension)).astype(np.float32)
    ids = [f"d{number}" for number in range(64)]
    index = Index.build(vectors, None, ids, encoder=frozen.identity(), factory="IVF1,PQ8x4fs")
    with pytest.raises(UserError, match=r"IVF1,PQ8x4fs does not give its vectors back"):
        attached(tower, "input", feedback_bm25=0.0).bind(index)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"side": "both"}, "for the query side, got --side both"),
        ({"side": "document"}, "for the query side, got --side document"),
    ],
)
def test_other_sides_are_refused(toy_tower: ToyTower, given: dict[str, str], message: str) -> None:
    tower = toy_tower("bert")
    with pytest.raises(UserError, match=message):
        BiEncoder(tower).attach(PromptSettings.of(encoder="feedback", **given), start=start(tower, "input"))


def test_a_start_is_needed(toy_tower: ToyTower) -> None:
    with pytest.raises(UserError, match="train it with tune"):
        BiEncoder(toy_tower("bert")).attach(encoder="feedback")


def test_auto_is_a_choice_of_tune(toy_tower: ToyTower) -> None:
    with pytest.raises(UserError, match="attach one of table, mlp, lstm, feedback"):
        BiEncoder(toy_tower("bert")).attach(encoder="auto")


def test_attaching_anew_forgets_the_index(toy_tower: ToyTower, kind: str) -> None:
    tower = toy_tower("bert")
    model = attached(tower, kind).bind(searched(tower))
    model.attach(kind=kind, encoder="feedback", length=2, feedback=2, start=start(tower, kind))
    with pytest.raises(UserError, match="no index to search"):
        model.encode_query(QUERIES)
    assert model.bind(searched(tower)).encode_query(QUERIES).shape == (len(QUERIES), tower.dimension)


def test_texts_of_no_token_teach_a_map_nothing(toy_tower: ToyTower, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = toy_tower("bert")
    vectors = torch.from_numpy(BiEncoder(tower).encode_document(TEXTS))
    expected = regress(tower, kind, vectors, TEXTS)
    real = type(tower).tokenize

    def tokenize(self: TextTower, texts: list[str], side: str) -> list[list[int]]:
        return [row if text else [] for text, row in zip(texts, real(self, texts, side), strict=True)]

    monkeypatch.setattr(type(tower), "tokenize", tokenize)
    found = regress(tower, kind, torch.cat([vectors, torch.ones(1, tower.dimension)]), [*TEXTS, ""])
    assert torch.equal(found.map, expected.map)
    assert torch.equal(found.bias, expected.bias)


def test_what_has_no_index_cannot_hold_them(toy_tower: ToyTower, tmp_path: Path) -> None:
    from retrieval_prompts.interop.live import name_and_revision
    from retrieval_prompts.interop.peft import write_adapter

    model = attached(toy_tower("bert"), "input")
    with pytest.raises(UserError, match="a stock checkpoint has none"):
        model.export(tmp_path / "export")
    with pytest.raises(UserError, match="a SentenceTransformer has none"):
        model.as_sentence_transformer()
    with pytest.raises(UserError, match="a PEFT adapter has none"):
        write_adapter(model, tmp_path / "adapter")
    assert not list(tmp_path.iterdir())
    before = name_and_revision(model)
    assert model.feedback is not None
    with torch.no_grad():
        model.feedback.gate.add_(1)
    assert name_and_revision(model) != before
