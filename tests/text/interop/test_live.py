"""A live SentenceTransformer gives our vectors for every kind of prompt and strength, however it is called."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from toys import LONG, POSITIONS, TEXTS, WIDTH

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.errors import UserError
from retrieval_prompts.interop.live import SavedPrompts
from retrieval_prompts.prompts.folder import load_prompts
from retrieval_prompts.towers.text import TextTower

ToyTower = Callable[..., TextTower]
ALL = [*TEXTS, LONG, ""]


def close(ours: Any, theirs: Any) -> bool:
    return bool(np.abs(ours - theirs).max() < 1e-6 * max(1.0, float(np.abs(ours).max())))


def check(model: BiEncoder) -> None:
    """Every way of calling the live model against the bi-encoder itself."""
    live = model.as_sentence_transformer()
    assert isinstance(live, SentenceTransformer)
    frozen = model.tower.sentence_transformer
    ours = {"query": model.encode_query(ALL), "document": model.encode_document(ALL)}
    assert close(ours["query"], live.encode_query(ALL))
    assert close(ours["document"], live.encode_document(ALL, batch_size=2))
    for side, vectors in ours.items():
        assert close(vectors, live.encode(ALL, prompt_name=side)), "LlamaIndex names only the prompt"
        assert close(vectors, live.encode(ALL, prompt=live.prompts[side])), "BEIR gives only its words"
        assert close(vectors, live.encode(ALL, prompt_name=side, task=side))
    assert close(frozen.encode(ALL), live.encode(ALL))
    assert close(frozen.encode(ALL, prompt="words: "), live.encode(ALL, prompt="words: "))
    assert close(frozen.encode(ALL, prompt="words: "), live.encode_query(ALL, prompt="words: "))
    assert close(ours["query"][1], live.encode_query(ALL[1]))
    assert live.get_embedding_dimension() == model.tower.dimension
    assert live.similarity_fn_name == model.tower.similarity


def test_every_call_gives_our_vectors(tower: TextTower, kind: str) -> None:
    check(BiEncoder(tower).attach("both", kind=kind, length=3))


def test_plain_encode_says_once_that_it_is_the_frozen_model(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert")
    live = BiEncoder(tower).attach("query", length=3).as_sentence_transformer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        live.encode_query(ALL)
        live.encode(ALL, prompt_name="document")
        BiEncoder(tower).as_sentence_transformer().encode(ALL)  # there is no prompt to miss
    with pytest.warns(UserWarning, match="plain encode.. is the frozen model, without prompts: use encode_query"):
        live.encode(ALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        live.encode(ALL)


@pytest.mark.parametrize("side", ["query", "document"])
def test_with_a_prompt_on_one_side(side: str, kind: str, toy_tower: ToyTower) -> None:
    check(BiEncoder(toy_tower("bert")).attach(side, kind=kind, length=3))


def test_at_half_strength(tower: TextTower, kind: str) -> None:
    model = BiEncoder(tower).attach("both", kind=kind, length=3)
    model.strength = 0.5
    check(model)


@pytest.mark.parametrize("strength", [0, 1e-3, 0.9])
def test_at_any_strength(strength: float, kind: str, toy_tower: ToyTower) -> None:
    model = BiEncoder(toy_tower("bert")).attach("query", kind=kind, length=3)
    model.strength = strength
    check(model)


def test_at_strength_0_texts_have_the_prompts_room_too(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert", maximum=POSITIONS)
    with pytest.warns(UserWarning, match="64 positions: with a query prompt of 5 its texts are cut at 59 tokens"):
        model = BiEncoder(tower).attach("query", length=5)
    model.strength = 0
    check(model)


def test_without_a_prompt(tower: TextTower) -> None:
    check(BiEncoder(tower))


@pytest.mark.parametrize(
    "options",
    [
        {"prompts": {"query": "query: ", "document": "the passage: "}},
        {"prompts": {"query": "query: "}, "include_prompt": False},
        {"dense": 12, "normalize": False},
        {"similarity": "dot", "normalize": False},
        {"truncate_dim": 12},
        {"pooling": "cls"},
    ],
)
def test_models_of_other_kinds(options: dict[str, Any], kind: str, toy_tower: ToyTower) -> None:
    model = BiEncoder(toy_tower("bert", **options)).attach("both", kind=kind, length=3)
    check(model)
    model.strength = 0.5
    check(model)


def test_other_prompt_names_of_the_model(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert", prompts={"query": "query: ", "search": "search: "})
    live = BiEncoder(tower).attach("both", length=3).as_sentence_transformer()
    assert set(live.prompts) == {"query", "document", "search"}
    expected = tower.sentence_transformer.encode(ALL, prompt_name="search")
    assert close(expected, live.encode(ALL, prompt_name="search"))


def test_training_goes_on_underneath(toy_tower: ToyTower, kind: str) -> None:
    model = BiEncoder(toy_tower("bert")).attach("query", kind=kind, length=3)
    live = model.as_sentence_transformer()
    before = live.encode_query(ALL)
    with torch.no_grad():
        model.get_parameter("prompts.query.vectors").neg_()
    assert not close(before, live.encode_query(ALL))
    assert close(model.encode_query(ALL), live.encode_query(ALL))
    model.strength = 0
    assert close(model.tower.sentence_transformer.encode(ALL), live.encode_query(ALL))


def test_its_parameters_are_the_prompts(toy_tower: ToyTower) -> None:
    model = BiEncoder(toy_tower("bert")).attach("both", length=3)
    ours = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for parameter in model.as_sentence_transformer().parameters()} == ours


def test_moving_it_moves_the_model(toy_tower: ToyTower, kind: str) -> None:
    model = BiEncoder(toy_tower("bert")).attach("both", kind=kind, length=3)
    live = model.as_sentence_transformer().double()
    assert model.tower.embeddings.weight.dtype == torch.float64
    assert live.encode_query(ALL).dtype == np.float64
    assert live.encode_query(ALL).shape == (len(ALL), WIDTH)


@pytest.mark.parametrize("save", ["save", "save_pretrained"])
def test_it_is_saved_as_a_prompt_folder(save: str, toy_tower: ToyTower, kind: str, tmp_path: Path) -> None:
    model = BiEncoder(toy_tower("bert")).attach("both", kind=kind, length=3)
    live = model.as_sentence_transformer()
    (tmp_path / "notes.txt").write_text("kept")
    getattr(live, save)(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "prompt.json", "prompt.safetensors", "README.md"}
    loaded = BiEncoder.with_prompts(model.tower, load_prompts(tmp_path))
    assert np.array_equal(loaded.encode_query(ALL), model.encode_query(ALL))
    with torch.no_grad():
        model.get_parameter("prompts.query.vectors").neg_()
    getattr(live, save)(str(tmp_path), create_model_card=False)
    loaded = BiEncoder.with_prompts(model.tower, load_prompts(tmp_path))
    assert np.array_equal(loaded.encode_query(ALL), model.encode_query(ALL))


def test_its_card_says_how_to_load_it(toy_tower: ToyTower, tmp_path: Path) -> None:
    model = BiEncoder(toy_tower("bert")).attach("query", length=3)
    model.as_sentence_transformer().save_pretrained(str(tmp_path / "prompts"))
    card = (tmp_path / "prompts" / "README.md").read_text(encoding="utf-8")
    assert "Input prompts (query) for a frozen retriever, 96 numbers" in card
    code = card.split("```python\n")[1].split("```")[0].replace("this folder", str(tmp_path / "prompts"))
    found: dict[str, Any] = {}
    exec(code, found)
    assert np.array_equal(found["queries"], model.encode_query(["..."]))


@pytest.mark.parametrize(("encoder", "common"), [("table", True), ("mlp", False), ("lstm", True)])
def test_what_made_the_prompts_is_saved_too(encoder: str, common: bool, toy_tower: ToyTower, tmp_path: Path) -> None:
    """So that training can go on; the prompt folder itself holds plain vectors."""
    options: dict[str, Any] = {"length": 3, "encoder": encoder, "common": common}
    model = BiEncoder(toy_tower("bert")).attach("both", **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model.as_sentence_transformer().save(str(tmp_path))
    other = BiEncoder(model.tower).attach("both", **options, seed=1)
    live = other.as_sentence_transformer()
    live.load_state_dict(SavedPrompts(tmp_path).state_dict())
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))
    assert np.array_equal(live.encode_query(ALL), model.as_sentence_transformer().encode_query(ALL))
    file = tmp_path / "prompt_encoder.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1]))
    with pytest.raises(UserError, match=r"prompt_encoder\.safetensors was changed after it was written; take another"):
        SavedPrompts(tmp_path).state_dict()
    BiEncoder(model.tower).attach("query", length=3).as_sentence_transformer().save(str(tmp_path))
    assert not (tmp_path / "prompt_encoder.safetensors").exists(), "tables need none, and that of before is gone"


def test_what_cannot_be_saved(toy_tower: ToyTower, tmp_path: Path) -> None:
    frozen = BiEncoder(toy_tower("bert"))
    with pytest.raises(UserError, match="there is no prompt to save; attach one first"):
        frozen.as_sentence_transformer().save(str(tmp_path / "folder"))
    assert not (tmp_path / "folder").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file cannot be made a folder \(File exists\); choose another name"):
        frozen.attach("query", length=3).as_sentence_transformer().save(str(tmp_path / "file"))


def test_training_texts_without_a_side_is_refused(toy_tower: ToyTower) -> None:
    live = BiEncoder(toy_tower("bert")).attach("query", length=3).as_sentence_transformer()
    assert not live.training
    plain = live.preprocess(["fox"])
    assert live(dict(plain))["sentence_embedding"].shape == (1, WIDTH), "no mistake where nothing is trained"
    live.train()
    with pytest.raises(UserError, match=r'pass router_mapping=\{"anchor": "query", "positive": "document"'):
        live(plain)
    assert live(live.preprocess(["fox"], task="query"))["sentence_embedding"].requires_grad
    assert not live(live.preprocess(["fox"], task="document"))["sentence_embedding"].requires_grad


def test_the_tokenizer_is_the_models_own(toy_tower: ToyTower) -> None:
    model = BiEncoder(toy_tower("bert"))
    live = model.as_sentence_transformer()
    assert live.tokenizer is model.tower.tokenizer
    assert live.max_seq_length == model.tower.text_length("document")
    assert live.device == model.tower.device


def test_padding_is_the_models_own(toy_tower: ToyTower) -> None:
    """Losses with a guide of another vocabulary read the texts back from the ids."""
    live = BiEncoder(toy_tower("roberta")).attach("query", length=3).as_sentence_transformer()
    ids = live.preprocess(["fox", "search the corpus"], task="query")["input_ids"]
    assert live.tokenizer.batch_decode(ids, skip_special_tokens=True) == ["fox", "search the corpus"]
    assert ids[0, -1] == live.tokenizer.pad_token_id != 0


# --- copies ---------------------------------------------------------------------------------------------------------


def test_a_copy_gives_the_same_vectors(tower: TextTower, kind: str) -> None:
    model = BiEncoder(tower).attach("both", kind=kind, length=3)
    model.strength = 0.5
    live = model.as_sentence_transformer()
    other: Any
    for other in (copy.deepcopy(live), pickle.loads(pickle.dumps(live))):
        assert other[0].biencoder.tower is not tower
        assert np.array_equal(other.encode_query(ALL), live.encode_query(ALL))
        assert np.array_equal(other.encode_document(ALL), live.encode_document(ALL))
        assert np.array_equal(other.encode(ALL), live.encode(ALL))
    with torch.no_grad():
        model.get_parameter("prompts.query.vectors").neg_()
    assert not close(other.encode_query(ALL), live.encode_query(ALL)), "a copy has prompts of its own"


def test_copies_of_what_it_is_made_of(toy_tower: ToyTower, kind: str) -> None:
    model = BiEncoder(toy_tower("mpnet")).attach("query", kind=kind, length=3)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.encode_query(ALL), model.encode_query(ALL))
        assert other.tower.fingerprint == model.tower.fingerprint
    frozen = pickle.loads(pickle.dumps(model.tower.sentence_transformer))
    assert np.array_equal(frozen.encode(ALL), model.tower.sentence_transformer.encode(ALL))


@pytest.mark.parametrize("architecture", ["bert", "mpnet"])
def test_other_processes_give_the_same_vectors(architecture: str, toy_tower: ToyTower) -> None:
    """A process that is started anew knows nothing of what was registered or replaced in this one."""
    model = BiEncoder(toy_tower(architecture)).attach("both", kind="prefix", length=3)
    live = model.as_sentence_transformer()
    expected = [live.encode_query(ALL), live.encode_document(ALL), live.encode(ALL)]
    pool = live.start_multi_process_pool(["cpu", "cpu"])
    try:
        found = [
            live.encode_query(ALL, pool=pool, chunk_size=2),
            live.encode_document(ALL, pool=pool, chunk_size=2),
            live.encode(ALL, pool=pool, chunk_size=2),
        ]
    finally:
        live.stop_multi_process_pool(pool)
    assert all(close(ours, theirs) for ours, theirs in zip(expected, found, strict=True))
