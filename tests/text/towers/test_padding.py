"""Tokenizers without a padding token, as those of many decoders, and texts without a token."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from toys import LONG, TEXTS

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.experiments.baselines import lora
from retrieval_prompts.towers.injection import embed
from retrieval_prompts.towers.text import TextTower, load_tower

Toy = Callable[..., Path]
END = "<|endoftext|>"
SPECIAL = {"eos": {"eos_token": END}, "unk": {"unk_token": END}, "none": {}}
TEXTLESS = ["", "fox", " ", "the lazy dog, and the quick brown fox", ""]


def decoder(toy: Toy, to: Path, special: str = "eos", pooling: str = "lasttoken", padding: str | None = None) -> Path:
    """A decoder whose tokenizer adds no special tokens and has no padding token, unless one is named."""
    shutil.copytree(toy("qwen3", pooling=pooling), to)
    file = to / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 32, **SPECIAL[special]}
    about |= {} if padding is None else {"pad_token": padding}
    (to / "tokenizer_config.json").write_text(json.dumps(about))
    return to


@pytest.fixture(params=SPECIAL)
def bare(request: pytest.FixtureRequest, toy: Toy, tmp_path: Path) -> TextTower:
    return load_tower(decoder(toy, tmp_path / "model", request.param), device="cpu")


def test_an_existing_token_becomes_the_padding(toy: Toy, tmp_path: Path) -> None:
    for special, expected in (("eos", END), ("unk", END)):
        folder = decoder(toy, tmp_path / special, special)
        plain = SentenceTransformer(str(folder), device="cpu")
        assert plain.tokenizer.pad_token is None
        size = len(plain.tokenizer)
        tower = load_tower(folder, device="cpu")
        assert (tower.tokenizer.pad_token, len(tower.tokenizer)) == (expected, size)


def test_no_vector_and_no_fingerprint_changes(toy: Toy, tmp_path: Path) -> None:
    texts = [*TEXTS, LONG]
    tower = load_tower(decoder(toy, tmp_path / "chosen"), device="cpu")
    named = load_tower(decoder(toy, tmp_path / "named", padding=END), device="cpu")
    alone = np.concatenate([BiEncoder(tower).encode_query([text]) for text in texts])
    assert np.abs(BiEncoder(tower).encode_query(texts) - alone).max() < 1e-6
    assert np.array_equal(BiEncoder(tower).encode_query(texts), BiEncoder(named).encode_query(texts))
    plain = SentenceTransformer(str(tmp_path / "chosen"), device="cpu")
    with torch.no_grad():
        ids = [plain.tokenizer(text, truncation=True, max_length=32)["input_ids"] for text in texts]
        rows = [plain({"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row))}) for row in ids]
    assert np.abs(np.concatenate([row["sentence_embedding"].numpy() for row in rows]) - alone).max() < 1e-6
    fingerprint = tower.fingerprint
    tower.tokenizer.pad_token = None
    del tower.fingerprint
    assert tower.fingerprint == fingerprint


def test_prompts_are_attached_exported_and_trained(toy: Toy, kind: str, tmp_path: Path) -> None:
    tower = load_tower(decoder(toy, tmp_path / "model"), device="cpu")
    model = BiEncoder(tower).attach("both", kind=kind, length=3)
    texts = [*TEXTS, LONG]
    live = model.as_sentence_transformer()
    assert np.abs(live.encode_query(texts) - model.encode_query(texts)).max() < 1e-6
    assert np.array_equal(
        BiEncoder(lora.inject(tower, 2, 4, 0)).encode_query(texts), BiEncoder(tower).encode_query(texts)
    )
    if kind == "input":
        model.export(tmp_path / "export")
        stock = SentenceTransformer(str(tmp_path / "export"), device="cpu")
        assert np.abs(stock.encode_query(texts) - model.encode_query(texts)).max() < 1e-6


@pytest.mark.parametrize("pooling", ["lasttoken", "mean", "max", "weightedmean"])
def test_texts_without_a_token_have_finite_vectors(pooling: str, kind: str, toy: Toy, tmp_path: Path) -> None:
    tower = load_tower(decoder(toy, tmp_path / "model", pooling=pooling), device="cpu")
    assert tower.tokenizer("")["input_ids"] == []
    model = BiEncoder(tower).attach("query", kind=kind, length=3)
    for strength in (1, 0.5, 0):
        model.strength = strength
        live = model.as_sentence_transformer()
        for encode in (model.encode_query, model.encode_document, live.encode_query, live.encode_document, live.encode):
            alone: Any = np.stack([encode(text) for text in TEXTLESS])
            assert np.isfinite(alone).all()
            assert np.abs(encode(TEXTLESS) - alone).max() < 1e-6
            assert np.array_equal(alone[0], alone[-1])


def test_whatever_special_tokens_there_are(bare: TextTower) -> None:
    (ids,) = bare.tokenize([""], "query")
    assert len(ids) == 1
    assert bare.tokenize([""], "query", prompt=3) == [[]], "the prompt is there to be read"
    assert embed(bare, [ids], "query", "input", None).isfinite().all()
    assert np.isfinite(BiEncoder(bare).encode_query(TEXTLESS)).all()


def test_the_frozen_model_is_padded_on_its_own_side(toy: Toy, tmp_path: Path) -> None:
    tower = load_tower(decoder(toy, tmp_path / "model"), device="cpu")
    for side in ("left", "right"):
        tower.tokenizer.padding_side = side
        features = tower.filled(dict(tower.transformer.preprocess(["", "fox jumps"])))
        assert features["attention_mask"].sum(dim=1).tolist()[0] == 1
        assert features["attention_mask"][0, -1 if side == "left" else 0] == 1
        assert features["input_ids"][0, -1 if side == "left" else 0] == tower.tokenizer.eos_token_id
    untouched = dict(tower.transformer.preprocess(["dog", "fox jumps"]))
    assert tower.filled(untouched) is untouched
