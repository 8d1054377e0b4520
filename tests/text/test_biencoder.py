"""A bi-encoder: strength, room, what is trained and what stays frozen, saving and loading, mistakes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import LONG, MAXIMUM, POSITIONS, TEXTS, WIDTH

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.corpus import Corpus
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import sealed
from retrieval_prompts.prompts.encoders import ENCODERS, PromptTable
from retrieval_prompts.towers.injection import prompt_shape
from retrieval_prompts.towers.text import TextTower, load_tower

Toy = Callable[..., Path]
ToyTower = Callable[..., TextTower]
ALL = [*TEXTS, LONG]
SIDES = ("query", "document")


@pytest.fixture
def bert(toy_tower: ToyTower) -> BiEncoder:
    return BiEncoder(toy_tower("bert"))


def encoders(model: BiEncoder) -> Iterator[tuple[str, Callable[..., np.ndarray]]]:
    return iter([("query", model.encode_query), ("document", model.encode_document)])


def vectors_of(model: BiEncoder, side: str) -> torch.Tensor:
    prompt = model.prompt(side)
    assert prompt is not None
    return prompt.detach()


# --- no-ops and strength --------------------------------------------------------------------------------------------


def test_without_a_prompt_it_is_the_frozen_model(tower: TextTower) -> None:
    model = BiEncoder(tower)
    for text in ALL:
        expected = tower.sentence_transformer.encode(text)
        assert np.array_equal(model.encode_query(text), expected)
        assert np.array_equal(model.encode_document(text), expected)


def test_an_empty_prompt_changes_no_bit(tower: TextTower, kind: str) -> None:
    frozen = BiEncoder(tower)
    empty = BiEncoder(tower, kind, {"query": PromptTable(torch.zeros(prompt_shape(tower, kind, 0)))})
    assert np.array_equal(empty.encode_query(ALL), frozen.encode_query(ALL))


def test_a_prompt_on_one_side_leaves_the_other_frozen(tower: TextTower, kind: str) -> None:
    frozen = BiEncoder(tower)
    for side, other in (SIDES, SIDES[::-1]):
        model = BiEncoder(tower).attach(side, kind=kind, length=3)
        changed, same = (dict(encoders(model))[name](ALL) for name in (side, other))
        assert np.array_equal(same, frozen.encode_query(ALL))
        assert (np.linalg.norm(changed - same, axis=1) > 1e-3).all()


def test_strength_from_frozen_to_tuned(tower: TextTower, kind: str) -> None:
    frozen = BiEncoder(tower).encode_query(ALL)
    model = BiEncoder(tower).attach("query", kind=kind, length=3)
    tuned = model.encode_query(ALL)
    vectors = []
    for strength in np.linspace(0, 1, 6):
        model.strength = strength
        vectors.append(model.encode_query(ALL))
    assert np.array_equal(vectors[0], frozen)
    assert np.array_equal(vectors[-1], tuned)
    distances = np.stack([np.linalg.norm(each - frozen, axis=1) for each in vectors])
    assert (np.diff(distances, axis=0) > 0).all()
    steps = np.stack([np.linalg.norm(b - a, axis=1) for a, b in pairwise(vectors)])
    assert steps.max() < 4 * distances[-1].max() / 5
    assert np.linalg.norm(np.stack(vectors), axis=2) == pytest.approx(1, abs=1e-5)
    for tiny, near in ((1e-6, frozen), (1 - 1e-6, tuned)):
        model.strength = tiny
        assert np.abs(model.encode_query(ALL) - near).max() < 1e-5


def test_strength_of_vectors_that_are_not_of_unit_length(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert", normalize=False)
    frozen = BiEncoder(tower).encode_query(ALL)
    model = BiEncoder(tower).attach("query", length=3)
    tuned = model.encode_query(ALL)
    model.strength = 0.25
    assert model.encode_query(ALL) == pytest.approx(0.75 * frozen + 0.25 * tuned, abs=1e-6)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strength_out_of_range(strength: float, bert: BiEncoder) -> None:
    with pytest.raises(UserError) as error:
        bert.strength = strength
    assert str(error.value) == f"strength must be from 0 (the frozen model) to 1 (the whole prompt), got {strength}"
    assert bert.strength == 1


def test_one_text_and_many(bert: BiEncoder) -> None:
    model = bert.attach("both", length=3)
    for _, encode_side in encoders(model):
        many = encode_side(ALL)
        assert many.shape == (len(ALL), WIDTH)
        assert many.dtype == np.float32
        assert np.abs(np.stack([encode_side(text) for text in ALL]) - many).max() < 1e-6
        assert encode_side(tuple(ALL)).shape == (len(ALL), WIDTH)
        assert encode_side([]).shape == (0, WIDTH)


def test_texts_in_any_form(bert: BiEncoder) -> None:
    model = bert.attach("query", length=3)
    for encode in (model.encode_query, model.encode_document, model.as_sentence_transformer().encode_query):
        expected = encode(list(TEXTS))
        for given in (np.array(TEXTS), np.array(TEXTS, dtype=object), iter(TEXTS), dict(enumerate(TEXTS)).values()):
            assert np.array_equal(encode(given), expected)
        assert np.array_equal(encode(np.array("fox")), encode("fox"))
    assert model.encode_query(iter(())).shape == (0, WIDTH)
    model.strength = 0.5
    assert np.array_equal(model.encode_query(iter(TEXTS)), model.encode_query(list(TEXTS))), "an iterator is read once"


@pytest.mark.parametrize("bad", [None, float("nan"), 3, b"fox", "smile \ud83d"])
def test_what_is_no_text_is_one_line_with_its_position(bad: Any, bert: BiEncoder) -> None:
    model = bert.attach("query", length=3)
    live = model.as_sentence_transformer()
    texts = ["search the corpus for evidence", "fox", bad]  # sorted by length, it would have another position
    ways = (model.encode_query, model.encode_document, model.query_vectors)
    for encode in (*ways, live.encode, live.encode_query, live.encode_document):
        with pytest.raises(UserError, match=r"^[^\n]* at position 2 \(counted from 0\)[^\n]*$"):
            encode(texts)
        with pytest.raises(UserError, match="position 0"):
            encode([bad])
    with pytest.raises(UserError, match="position 2"):
        live.encode(inputs=texts)
    with pytest.raises(UserError, match="position 2"):
        live.preprocess(texts, task="query")
    with pytest.raises(UserError, match="position 2"):
        model.tokenize(texts, "query")
    with pytest.raises(UserError):
        model.encode_query(bad)


# --- what is trained ------------------------------------------------------------------------------------------------


def train(model: BiEncoder, steps: int = 3) -> None:
    """A few steps that pull each query to a document of its own."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        queries = model.embed(model.tokenize(list(TEXTS), "query"), "query")
        documents = model.embed(model.tokenize(list(TEXTS)[::-1], "document"), "document")
        (-(queries * documents).sum() + (queries @ documents.T).logsumexp(dim=1).sum()).backward()
        optimizer.step()


def test_only_prompts_learn(tower: TextTower, kind: str) -> None:
    before = {name: weight.clone() for name, weight in tower.sentence_transformer.state_dict().items()}
    model = BiEncoder(tower).attach("both", kind=kind, length=3)
    assert {name for name, _ in model.named_parameters()} == {f"prompts.{side}.vectors" for side in SIDES}
    start = {side: vectors_of(model, side).clone() for side in SIDES}
    train(model)
    after = tower.sentence_transformer.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(weight.grad is None for weight in tower.sentence_transformer.parameters())
    for side in SIDES:
        gradient = model.get_parameter(f"prompts.{side}.vectors").grad
        assert gradient is not None
        assert (gradient.abs().sum(dim=2) > 0).all(), "every row of every layer has a gradient"
        assert ((vectors_of(model, side) - start[side]).abs().sum(dim=2) > 0).all()


@pytest.mark.parametrize(("side", "other"), [SIDES, SIDES[::-1]])
def test_only_the_side_with_a_prompt_learns(side: str, other: str, bert: BiEncoder, kind: str) -> None:
    model = bert.attach(side, kind=kind, length=3)
    before = {name: encode_side(ALL) for name, encode_side in encoders(model)}
    assert [name for name, _ in model.named_parameters()] == [f"prompts.{side}.vectors"]
    train(model)
    after = {name: encode_side(ALL) for name, encode_side in encoders(model)}
    assert np.array_equal(after[other], before[other])
    assert not np.allclose(after[side], before[side], atol=1e-3)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("common", [False, True])
def test_encoders_collapse_to_plain_vectors(
    encoder: str, common: bool, kind: str, toy_tower: ToyTower, tmp_path: Path
) -> None:
    tower = toy_tower("bert")
    plain = BiEncoder(tower).attach("both", kind=kind, length=3, init="text:the fox")
    model = BiEncoder(tower).attach("both", kind=kind, length=3, init="text:the fox", encoder=encoder, common=common)
    for side in SIDES:
        assert torch.equal(vectors_of(model, side), vectors_of(plain, side)), "the initial vectors, exactly"
    train(model)
    model.save(tmp_path / "prompts")
    loaded = BiEncoder.load(tower.name, tmp_path / "prompts")
    assert {type(module) for module in loaded.prompts.values()} == {PromptTable}
    for side, encode_side in encoders(model):
        assert torch.equal(vectors_of(loaded, side), vectors_of(model, side))
        assert np.array_equal(dict(encoders(loaded))[side](ALL), encode_side(ALL))


def test_a_common_part_learns_from_both_sides(toy_tower: ToyTower) -> None:
    model = BiEncoder(toy_tower("bert")).attach("both", length=3, common=True)
    names = {name for name, _ in model.named_parameters()}
    assert names == {"prompts.query.own.vectors", "prompts.query.common.vectors", "prompts.document.own.vectors"}
    train(model, steps=1)
    gradients: dict[str, Any] = {name: value.grad for name, value in model.named_parameters()}
    query, document = (gradients[f"prompts.{side}.own.vectors"] for side in SIDES)
    assert torch.allclose(gradients["prompts.query.common.vectors"], query + document)
    assert query.norm() > 0
    assert document.norm() > 0


def test_attaching_is_seeded_and_leaves_the_global_generator_alone(toy_tower: ToyTower) -> None:
    tower, state = toy_tower("bert"), torch.get_rng_state()

    def positions(seed: int) -> torch.Tensor:
        model = BiEncoder(tower).attach("query", encoder="lstm", seed=seed)
        return model.get_parameter("prompts.query.positions")

    assert torch.equal(positions(3), positions(3))
    assert not torch.equal(positions(3), positions(4))
    assert torch.equal(torch.get_rng_state(), state)


def test_attaching_again_replaces(toy_tower: ToyTower) -> None:
    model = BiEncoder(toy_tower("mpnet"))
    frozen = model.encode_query(ALL)
    model.attach("both", kind="prefix", length=3)
    model.strength = 0.5
    model.attach("document", kind="input", length=3)
    assert (model.kind, list(model.prompts), model.strength) == ("input", ["document"], 1)
    assert np.array_equal(model.encode_query(ALL), frozen)


# --- room -----------------------------------------------------------------------------------------------------------


def test_the_texts_room_is_kept(tower: TextTower) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = BiEncoder(tower).attach("query", length=POSITIONS - MAXIMUM)
    assert model.tokenize([LONG], "query") == tower.tokenize([LONG], "query")
    assert len(model.tokenize([LONG], "query")[0]) == MAXIMUM
    assert np.isfinite(model.encode_query(LONG)).all()


def test_where_positions_end_the_texts_room_shrinks(tower: TextTower) -> None:
    tower.tokenizer.model_max_length = POSITIONS
    (whole,) = tower.tokenize([LONG], "query")
    assert len(whole) == POSITIONS
    with pytest.warns(UserWarning) as caught:
        model = BiEncoder(tower).attach("query", length=8)
    assert [str(warning.message) for warning in caught] == [
        f"{tower.name} has 64 positions: with a query prompt of 8 its texts are cut at 56 tokens, not 64; a prefix "
        "(--kind prefix) takes up none"
    ]
    assert caught[0].filename == __file__, "it points at the caller"
    (cut,) = model.tokenize([LONG], "query")
    assert cut == [*whole[: POSITIONS - 8 - 1], whole[-1]]
    assert np.isfinite(model.encode_query(LONG)).all()
    assert model.tokenize([LONG], "document") == [whole]


def test_a_prefix_takes_no_room(tower: TextTower) -> None:
    tower.tokenizer.model_max_length = POSITIONS
    model = BiEncoder(tower).attach("both", kind="prefix", length=100)
    for side in SIDES:
        assert model.tokenize([LONG], side) == tower.tokenize([LONG], side)
    assert np.isfinite(model.encode_query(LONG)).all()


@pytest.mark.parametrize(("length", "left"), [(56, 8), (64, 0), (100, 0)])
def test_a_prompt_that_leaves_no_room_is_refused(length: int, left: int, tower: TextTower) -> None:
    tower.tokenizer.model_max_length = POSITIONS
    model = BiEncoder(tower).attach("query", kind="prefix", length=2)
    with pytest.raises(UserError) as error:
        model.attach("document", length=length)
    assert str(error.value) == (
        f"a document prompt of {length} leaves {left} of 64 tokens to the text; use a smaller --length"
    )
    assert (model.kind, list(model.prompts)) == ("prefix", ["query"]), "what was there stays"


# --- saving and loading ---------------------------------------------------------------------------------------------


def test_save_and_load(tower: TextTower, kind: str, tmp_path: Path) -> None:
    model = BiEncoder(tower).attach("both", kind=kind, length=3)
    model.strength = 0.75
    model.training_record = {"epochs": 3}
    model.save(tmp_path / "prompts")
    loaded = BiEncoder.load(prompts=tmp_path / "prompts", device="cpu")
    assert (loaded.tower.name, loaded.kind, loaded.strength) == (tower.name, kind, 0.75)
    assert loaded.training_record == {"epochs": 3}
    assert list(loaded.prompts) == list(model.prompts)
    for name, encode_side in encoders(model):
        assert np.array_equal(dict(encoders(loaded))[name](ALL), encode_side(ALL))
    whole = BiEncoder.load(tower.name, str(tmp_path / "prompts"), strength=1)
    model.strength = 1
    assert np.array_equal(whole.encode_query(ALL), model.encode_query(ALL))
    assert sum(file.stat().st_size for file in (tmp_path / "prompts").iterdir()) < 100_000


@pytest.mark.parametrize("side", SIDES)
def test_save_and_load_one_side(side: str, bert: BiEncoder, tmp_path: Path) -> None:
    bert.attach(side, length=3).save(tmp_path / "prompts")
    loaded = BiEncoder.load(prompts=tmp_path / "prompts", device="cpu")
    assert list(loaded.prompts) == [side]
    assert torch.equal(vectors_of(loaded, side), vectors_of(bert, side))


def test_there_is_nothing_to_save(bert: BiEncoder, tmp_path: Path) -> None:
    for write in (bert.save, bert.export):
        with pytest.raises(UserError, match=r"^there is no prompt to (save|export); "):
            write(tmp_path / "prompts")
    assert not (tmp_path / "prompts").exists()


@pytest.mark.parametrize("options", [{"seed": 1}, {"pooling": "cls"}, {"maximum": 31}])
def test_prompts_of_another_model(options: dict[str, object], toy: Toy, bert: BiEncoder, tmp_path: Path) -> None:
    bert.attach("query", length=3).save(tmp_path / "prompts")
    other = load_tower(toy("bert", **options))
    with pytest.raises(UserError) as error:
        BiEncoder.load(toy("bert", **options), tmp_path / "prompts")
    assert str(error.value) == (
        f"{tmp_path / 'prompts'} belong to {bert.tower.name} (fingerprint {bert.tower.fingerprint[:12]}, dimension "
        f"32), not to {other.name} ({other.fingerprint[:12]}, dimension 32); load that model, or tune prompts for "
        "this one"
    )


def test_prompts_of_another_width(bert: BiEncoder, tmp_path: Path) -> None:
    folder = bert.attach("query", length=3).collapsed()
    narrow = type(folder)(folder.kind, {"query": torch.zeros(1, 3, 16)}, folder.base)
    with pytest.raises(UserError) as error:
        BiEncoder.with_prompts(bert.tower, narrow, source="narrow")
    assert str(error.value) == "narrow: the query prompt has shape (1, 3, 16), expected (1, 3, 32)"
    flat = type(folder)(folder.kind, {"query": torch.zeros(3, 32)}, folder.base)
    with pytest.raises(UserError) as error:
        BiEncoder.with_prompts(bert.tower, flat, source="flat")
    assert str(error.value) == "flat: the query prompt has shape (3, 32), expected (1, 32, 32)"


def test_a_model_that_has_moved(bert: BiEncoder, tmp_path: Path) -> None:
    bert.attach("query", length=3).save(tmp_path / "prompts")
    file = tmp_path / "prompts" / "prompt.json"
    description = json.loads(file.read_text())
    description["base"]["name"] = str(tmp_path / "gone")
    file.write_text(json.dumps(sealed(description)))
    with pytest.raises(UserError, match=f"^there is no model folder {tmp_path / 'gone'}; "):
        BiEncoder.load(prompts=tmp_path / "prompts")
    moved = BiEncoder.load(bert.tower.name, tmp_path / "prompts")
    assert np.array_equal(moved.encode_query(ALL), bert.encode_query(ALL))


def test_a_garbled_prompt_folder_is_refused_before_its_model_is_sought(bert: BiEncoder, tmp_path: Path) -> None:
    bert.attach("query", length=3).save(tmp_path / "prompts")
    file = tmp_path / "prompts" / "prompt.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base": {}}))
    with pytest.raises(UserError, match="has a missing or damaged field"):
        BiEncoder.load(prompts=tmp_path / "prompts")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": "queries"}, "--side must be query, document or both, got 'queries'"),
        ({"kind": "suffix"}, "--kind must be input, prefix or auto, got 'suffix'"),
        ({"encoder": "gru"}, "--encoder must be table, mlp, lstm, feedback or auto, got 'gru'"),
        ({"common": True}, "--common is used with --side both, not with --side query"),
        ({"length": 0}, "--length must be 1 or more, got 0"),
        ({"init": "zero"}, "--init must be text:WORDS, vocab or gaussian, got 'zero'"),
        (
            {"lengths": 4},
            "no such setting: lengths; there are side, kind, encoder, feedback, feedback_bm25, length, init, common, "
            "seed",
        ),
    ],
)
def test_mistakes(options: dict[str, Any], message: str, bert: BiEncoder) -> None:
    with pytest.raises(UserError) as error:
        bert.attach(**options)
    assert str(error.value) == message
    assert not bert.prompts


def test_an_unknown_kind(toy_tower: ToyTower) -> None:
    with pytest.raises(UserError) as error:
        BiEncoder(toy_tower("bert"), "suffix")
    assert str(error.value) == "a prompt's kind must be one of input, prefix, got 'suffix'"


# --- a corpus -------------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[BiEncoder], tuple[np.ndarray, int]]:
    """A model -> (its vectors of ten documents, how many of them were encoded now), cached in a folder."""
    monkeypatch.setattr("retrieval_prompts.vectors.blocks.BLOCK", 4)
    texts = [f"the fox {number}" for number in range(10)]
    rows = [json.dumps({"_id": str(number), "text": text}) for number, text in enumerate(texts)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(rows))
    documents = Corpus.open(tmp_path / "corpus.jsonl")

    def encoded(model: BiEncoder) -> tuple[np.ndarray, int]:
        blocks = model.encode_corpus(documents, tmp_path / "cache")
        assert np.abs(blocks.array() - model.tower.comparable(model.encode_document(texts))).max() < 1e-6
        assert [len(block) for block in blocks] == [4, 4, 2]
        return blocks.array(), blocks.encoded

    return encoded


def test_documents_are_encoded_once(corpus: Callable[[BiEncoder], tuple[np.ndarray, int]], toy_tower: ToyTower) -> None:
    tower = toy_tower("bert")
    frozen, count = corpus(BiEncoder(tower))
    assert count == 10
    for kind in ("input", "prefix"):
        model = BiEncoder(toy_tower("bert")).attach("query", kind=kind, length=3)
        vectors, count = corpus(model)
        assert count == 0, "a query prompt leaves the documents alone, also in another process"
        assert np.array_equal(vectors, frozen)
    model = BiEncoder(tower).attach("both", length=3)
    tuned, count = corpus(model)
    assert count == 10
    assert corpus(model)[1] == 0
    train(model)
    assert corpus(model)[1] == 10, "another document prompt"
    model.strength = 0
    assert corpus(model)[1] == 0
    model.strength = 0.5
    assert corpus(model)[1] == 0, "mixed of two that are cached"
    assert corpus(BiEncoder(toy_tower("bert", seed=1)))[1] == 10, "another model"


def test_a_corpus_ready_for_an_inner_product(
    corpus: Callable[[BiEncoder], tuple[np.ndarray, int]], toy_tower: ToyTower
) -> None:
    cosine, _ = corpus(BiEncoder(toy_tower("bert", normalize=False)))
    assert np.linalg.norm(cosine, axis=1) == pytest.approx(1)
    dot, _ = corpus(BiEncoder(toy_tower("bert", normalize=False, similarity="dot")))
    assert not np.allclose(np.linalg.norm(dot, axis=1), 1, atol=0.1)


def test_training_vectors_are_ready_for_an_inner_product(toy_tower: ToyTower) -> None:
    for options, unit in (({}, True), ({"normalize": False}, True), ({"normalize": False, "similarity": "dot"}, False)):
        model = BiEncoder(toy_tower("bert", **options)).attach("query", length=3)
        lengths = model.embed(model.tokenize(ALL, "query"), "query").norm(dim=1)
        assert torch.allclose(lengths, torch.ones(len(ALL))) == unit


def test_what_an_index_depends_on(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert")
    frozen = BiEncoder(tower).identity()
    assert frozen == {"model": tower.name, "fingerprint": tower.fingerprint, "document_prompt": None}
    assert BiEncoder(tower).attach("query", length=3).identity() == frozen
    model = BiEncoder(tower).attach("document", length=3)
    whole = model.identity()
    model.strength = 0.5
    half = model.identity()
    model.strength = 0
    assert model.identity() == frozen
    assert len({whole["document_prompt"], half["document_prompt"], None}) == 3
