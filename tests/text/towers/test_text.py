"""What a tower says of its model, on toys of every architecture; models that are refused; the fingerprint."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from toys import LONG, MAXIMUM, POSITIONS, TEXTS, WIDTH, build

from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.towers.injection import embed
from retrieval_prompts.towers.text import TextTower, load_tower
from retrieval_prompts.vectors.encode import encode_texts

Toy = Callable[..., Path]
ToyTower = Callable[..., TextTower]
SIDES = ("query", "document")


@pytest.fixture
def loaded(toy: Toy) -> SentenceTransformer:
    """A toy BERT as sentence-transformers loads it."""
    return SentenceTransformer(str(toy("bert")), device="cpu")


# --- what a tower says ----------------------------------------------------------------------------------------------


def test_a_tower_is_frozen(tower: TextTower) -> None:
    assert not any(weight.requires_grad for weight in tower.sentence_transformer.parameters())
    assert not any(module.training for module in tower.sentence_transformer.modules())


def test_tokens_before_the_text(tower: TextTower) -> None:
    assert tower.lead == (0 if tower.model.config.model_type == "qwen3" else 1)


def test_lengths(tower: TextTower) -> None:
    assert tower.positions == POSITIONS, "RoBERTa's and MPNet's tables have two rows more"
    assert tower.text_length("query") == tower.text_length("document") == MAXIMUM
    assert tower.total_length("query", 8) == MAXIMUM + 8
    assert tower.total_length("query", POSITIONS) == POSITIONS
    assert (tower.width, tower.dimension) == (WIDTH, WIDTH)


def test_the_last_position_is_there_and_the_next_is_not(tower: TextTower) -> None:
    if tower.model.config.model_type in ("modernbert", "qwen3"):
        return  # rotary positions have no table to end
    token = tower.tokenizer("fox")["input_ids"][1]
    assert embed(tower, [[token] * POSITIONS], "query", "input", None).isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        embed(tower, [[token] * (POSITIONS + 1)], "query", "input", None)


@pytest.mark.parametrize("side", SIDES)
def test_tokens_are_those_of_sentence_transformers(tower: TextTower, side: str) -> None:
    for text in (*TEXTS, LONG, ""):
        expected = tower.sentence_transformer.preprocess([text], task=side)["input_ids"][0].tolist()
        assert tower.tokenize([text], side) == [expected]
    assert tower.tokenize([], side) == []


def test_a_long_text_keeps_its_last_special_token(tower: TextTower) -> None:
    (short,), (cut,), (room,) = (
        tower.tokenize(["fox"], "query"),
        tower.tokenize([LONG], "query"),
        tower.tokenize([LONG], "query", prompt=POSITIONS - MAXIMUM + 5),
    )
    assert len(cut) == MAXIMUM
    assert len(room) == MAXIMUM - 5
    assert short[-1] == cut[-1] == room[-1]
    assert cut[: MAXIMUM - 6] == room[:-1]


def test_lengths_of_each_side(loaded: SentenceTransformer) -> None:
    loaded[0].query_length, loaded[0].document_length = 8, 16  # type: ignore[assignment]
    tower = TextTower(loaded, "toy")
    assert [tower.text_length(side) for side in SIDES] == [8, 16]
    assert [len(tower.tokenize([LONG], side)[0]) for side in SIDES] == [8, 16]
    for side in SIDES:
        expected = loaded.preprocess([LONG], task=side)["input_ids"][0].tolist()
        assert tower.tokenize([LONG], side) == [expected]


def test_a_saved_processing_length(loaded: SentenceTransformer) -> None:
    loaded[0].processing_kwargs = {"text": {"max_length": 12, "padding": "max_length"}}  # type: ignore[assignment]
    tower = TextTower(loaded, "toy")
    assert tower.text_length("query") == 12
    assert tower.tokenize([LONG], "query") == [loaded.preprocess([LONG], task="query")["input_ids"][0].tolist()]
    assert np.abs(encode_texts(tower, list(TEXTS), "query") - loaded.encode_query(list(TEXTS))).max() < 1e-6


def test_a_model_without_limits(loaded: SentenceTransformer) -> None:
    tower = TextTower(loaded, "toy")
    tower.tokenizer.model_max_length = int(1e30)
    tower.positions = None
    assert tower.total_length("query", 8) == tower.text_length("query") == 10**9
    assert len(tower.tokenize([LONG], "query", prompt=8)[0]) > MAXIMUM


@pytest.mark.parametrize(
    ("prompts", "query", "document"),
    [
        (None, "", ""),
        ({"query": "query: "}, "query: ", ""),
        ({"query": "query: ", "document": "passage: "}, "query: ", "passage: "),
        # sentence-transformers adds an empty "document", which is nobody's wish where there are words for passages
        ({"query": "query: ", "passage": "passage: "}, "query: ", "passage: "),
    ],
)
def test_words_of_the_model_itself(toy: Toy, prompts: dict[str, str] | None, query: str, document: str) -> None:
    tower = load_tower(toy("bert", prompts=prompts))
    assert (tower.text_prompt("query"), tower.text_prompt("document")) == (query, document)
    texts = [*TEXTS, LONG]
    model = tower.sentence_transformer
    assert np.abs(encode_texts(tower, texts, "query") - model.encode_query(texts)).max() < 1e-6
    assert np.abs(encode_texts(tower, texts, "document") - model.encode_document(texts)).max() < 1e-6


def test_passage_and_default_prompts(loaded: SentenceTransformer) -> None:
    loaded.prompts = {"passage": "passage: ", "search": "search: "}
    tower = TextTower(loaded, "toy")
    assert (tower.text_prompt("query"), tower.text_prompt("document")) == ("", "passage: ")
    loaded.default_prompt_name = "search"
    assert (tower.text_prompt("query"), tower.text_prompt("document")) == ("search: ", "passage: ")
    for side, encode in (("query", loaded.encode_query), ("document", loaded.encode_document)):
        assert np.abs(encode_texts(tower, list(TEXTS), side) - encode(list(TEXTS))).max() < 1e-6


# --- vectors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"])
@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_vectors_are_those_of_sentence_transformers(toy: Toy, architecture: str, pooling: str) -> None:
    tower = load_tower(toy(architecture, pooling=pooling, prompts={"query": "query: "}))
    expected = tower.sentence_transformer.encode_query([*TEXTS, LONG])
    assert np.abs(encode_texts(tower, [*TEXTS, LONG], "query") - expected).max() < 1e-6


@pytest.mark.parametrize("architecture", ["bert", "qwen3", "xlm-roberta"])
def test_words_that_are_not_pooled(toy: Toy, architecture: str) -> None:
    tower = load_tower(toy(architecture, pooling="mean", include_prompt=False, prompts={"query": "query: "}))
    assert not tower.pools_prompt
    texts = [*TEXTS, LONG]
    model = tower.sentence_transformer
    assert np.abs(encode_texts(tower, texts, "query") - model.encode_query(texts)).max() < 1e-6
    assert np.abs(encode_texts(tower, texts, "document") - model.encode_document(texts)).max() < 1e-6


def test_a_dense_layer_after_pooling(toy: Toy) -> None:
    tower = load_tower(toy("bert", dense=12))
    assert (tower.width, tower.dimension) == (WIDTH, 12)
    expected = tower.sentence_transformer.encode(list(TEXTS))
    assert np.abs(encode_texts(tower, list(TEXTS), "query") - expected).max() < 1e-6


def test_a_truncated_dimension(toy: Toy) -> None:
    tower = load_tower(toy("bert", truncate_dim=12))
    assert tower.dimension == 12
    assert not tower.unit_length, "normalised first, cut afterwards"
    vectors = encode_texts(tower, list(TEXTS), "query")
    assert np.abs(vectors - tower.sentence_transformer.encode(list(TEXTS))).max() < 1e-6
    assert np.linalg.norm(tower.comparable(vectors), axis=1) == pytest.approx(1)


def test_comparable_vectors(toy: Toy) -> None:
    vectors = np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32)
    unit = np.array([[0.6, 0.8], [0.0, 0.0]], dtype=np.float32)
    for options, expected in (
        ({"normalize": False}, unit),
        ({"normalize": False, "similarity": "dot"}, vectors),
        ({}, vectors),  # at unit length already
    ):
        tower = load_tower(toy("bert", **options))
        assert tower.comparable(vectors) == pytest.approx(expected)
        assert torch.allclose(tower.comparable(torch.tensor(vectors)), torch.tensor(expected))


# --- the fingerprint ------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_the_model_alone(tower: TextTower, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(tower.name, moved)
    used = load_tower(moved, device="cpu")
    used.sentence_transformer.encode(list(TEXTS))
    used.tokenize([*TEXTS, LONG], "query", prompt=3)
    assert used.fingerprint == tower.fingerprint
    assert re.fullmatch("[0-9a-f]{64}", tower.fingerprint)


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 1},
        {"pooling": "cls"},
        {"include_prompt": False},
        {"maximum": 31},
        {"normalize": False},
        {"similarity": "dot"},
        {"dense": WIDTH},
        {"truncate_dim": 16},
        {"prompts": {"query": "query: "}},
        {"prompts": {"document": "passage: "}},
    ],
)
def test_the_fingerprint_changes_with(options: dict[str, Any], toy_tower: ToyTower) -> None:
    assert toy_tower("bert", **options).fingerprint != toy_tower("bert").fingerprint


def test_the_fingerprint_changes_with_one_weight(toy: Toy, toy_tower: ToyTower, tmp_path: Path) -> None:
    shutil.copytree(toy("bert"), tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["encoder.layer.1.output.dense.bias"][3] += 1e-6
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    assert load_tower(tmp_path / "model").fingerprint != toy_tower("bert").fingerprint


def test_the_fingerprint_changes_with_the_tokenizer(toy: Toy, toy_tower: ToyTower, tmp_path: Path) -> None:
    shutil.copytree(toy("bert"), tmp_path / "model")
    file = tmp_path / "model" / "tokenizer.json"
    settings = json.loads(file.read_text())
    vocabulary = settings["model"]["vocab"]
    vocabulary["fox"], vocabulary["dog"] = vocabulary["dog"], vocabulary["fox"]
    file.write_text(json.dumps(settings))
    assert load_tower(tmp_path / "model").fingerprint != toy_tower("bert").fingerprint


def test_a_head_that_no_vector_depends_on_is_not_in_the_fingerprint(toy: Toy, tmp_path: Path) -> None:
    shutil.copytree(toy("bert"), tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    headless = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    assert len(headless) == len(weights) - 2
    save_file(headless, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    # transformers makes up the missing weights at random, anew at each load
    assert load_tower(tmp_path / "model").fingerprint == load_tower(tmp_path / "model").fingerprint


# --- models that are refused ----------------------------------------------------------------------------------------


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load_tower(tmp_path / "missing")
    assert str(error.value) == (
        f"there is no model folder {tmp_path / 'missing'}; give a folder, a name on the hub, or all-MiniLM-L6-v2"
    )


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("")
    with pytest.raises(UserError) as error:
        load_tower(tmp_path / "model")
    assert str(error.value) == f"{tmp_path / 'model'} is a file; expected a model folder or a model's name"


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("")
    with pytest.raises(UserError) as error:
        load_tower(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} is not a model folder: expected config.json or modules.json in it; give the folder of a "
        "sentence-transformers or Hugging Face model"
    )


def test_a_name_that_cannot_be_fetched() -> None:
    with pytest.raises(UserError) as error:
        load_tower("nobody/no-such-model")
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("model nobody/no-such-model could not be loaded: expected a sentence-transformers or ")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text('{"model_type": "no such type"}'),
        lambda folder: (folder / "config.json").write_text("{}"),
        lambda folder: (folder / "modules.json").write_text("[{"),
        lambda folder: (folder / "modules.json").write_text('[{"idx": 0}]'),
        lambda folder: (folder / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "os.no"}]'),
        lambda folder: (folder / "1_Pooling" / "config.json").unlink(),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 100),
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1000]),
        lambda folder: (folder / "tokenizer.json").write_text("{"),
    ],
    ids=[
        "config cut",
        "unknown type",
        "empty config",
        "modules cut",
        "modules without fields",
        "unknown module",
        "no pooling",
        "no weights",
        "weights of zeros",
        "weights cut",
        "tokenizer cut",
    ],
)
def test_a_broken_model_folder_is_one_line(damage: Callable[[Path], Any], toy: Toy, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(toy("bert"), folder)
    damage(folder)
    with pytest.raises(UserError) as error:
        load_tower(folder)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"model {folder} could not be loaded: expected a sentence-transformers or Hugging Face ")


def test_a_plain_transformers_model_gets_mean_pooling(toy: Toy) -> None:
    with pytest.warns(DataWarning, match="it does not say how its vectors are compared: the cosine is assumed; "):
        tower = load_tower(toy("bert") / "network")
    assert not tower.unit_length
    assert tower.normalizes_for_search
    whole = load_tower(toy("bert", normalize=False))
    assert np.array_equal(encode_texts(tower, list(TEXTS), "query"), encode_texts(whole, list(TEXTS), "query"))


def test_a_folder_without_a_tokenizer(toy: Toy, tmp_path: Path) -> None:
    shutil.copytree(toy("bert"), tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).unlink()
    with pytest.raises(UserError) as error:  # transformers makes one of special tokens alone, and says nothing
        load_tower(tmp_path / "model")
    assert str(error.value) == (
        f"model {tmp_path / 'model'} cannot take soft prompts: its tokenizer has no words; is there a tokenizer.json "
        "in its folder?"
    )


def refusal(model: SentenceTransformer) -> str:
    with pytest.raises(UserError) as error:
        TextTower(model, "toy")
    return str(error.value)


def test_other_similarities_are_refused(loaded: SentenceTransformer) -> None:
    loaded.similarity_fn_name = "euclidean"
    assert refusal(loaded) == "model toy compares by euclidean; expected cosine or dot"


def test_left_truncation_is_refused(loaded: SentenceTransformer) -> None:
    loaded.tokenizer.truncation_side = "left"
    assert refusal(loaded) == (
        "model toy cannot take soft prompts: its tokenizer cuts long texts on the left, where the prompt stands"
    )


def test_query_expansion_is_refused(loaded: SentenceTransformer) -> None:
    loaded[0].query_expansion = {"strategy": "fixed", "length": 16}  # type: ignore[assignment]
    assert refusal(loaded) == (
        "model toy cannot take soft prompts: it pads queries with expansion tokens (ColBERT style)"
    )


def test_chat_models_are_refused(loaded: SentenceTransformer) -> None:
    modalities: Any = loaded[0].modality_config
    modalities["message"] = modalities["text"]
    assert refusal(loaded) == (
        "model toy cannot take soft prompts: it reads chat messages or other modalities, not plain text"
    )


def test_models_without_a_transformer_are_refused(loaded: SentenceTransformer) -> None:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    static = StaticEmbedding(loaded.tokenizer, embedding_dim=8)
    model = SentenceTransformer(modules=[static], device="cpu")
    assert refusal(model) == (
        "model toy cannot take soft prompts: its first module is StaticEmbedding; expected a sentence-transformers "
        "Transformer"
    )


def test_a_toy_is_the_same_each_time(toy: Toy, tmp_path: Path) -> None:
    again = build(tmp_path, "xlm-roberta")
    assert load_tower(again).fingerprint == load_tower(toy("xlm-roberta")).fingerprint
