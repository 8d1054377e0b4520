"""A live SentenceTransformer gives our vectors for every kind of prompt and strength, however it is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from toys import LONG, TEXTS, WIDTH

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.errors import UserError
from retrieval_prompts.tower import TextTower

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


def test_it_is_not_saved(toy_tower: ToyTower, tmp_path: Path) -> None:
    live = BiEncoder(toy_tower("bert")).attach("query", length=3).as_sentence_transformer()
    for save in (live.save, live.save_pretrained):
        with pytest.raises(UserError) as error:
            save(str(tmp_path / "folder"))
        assert str(error.value) == (
            "a live model is not saved as a checkpoint: save the prompts with BiEncoder.save, or write a stock "
            "checkpoint with BiEncoder.export (input prompts)"
        )
    assert not (tmp_path / "folder").exists()


def test_the_tokenizer_is_the_models_own(toy_tower: ToyTower) -> None:
    model = BiEncoder(toy_tower("bert"))
    live = model.as_sentence_transformer()
    assert live.tokenizer is model.tower.tokenizer
    assert live.max_seq_length == model.tower.text_length("document")
