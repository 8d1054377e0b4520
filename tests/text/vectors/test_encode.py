"""Texts to vectors: parity with sentence-transformers, and blocks on disk that are computed once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from toys import LONG, TEXTS, WIDTH

from retrieval_prompts.prompts.initialize import initial_vectors
from retrieval_prompts.towers.injection import prompt_room
from retrieval_prompts.towers.text import TextTower
from retrieval_prompts.vectors import encode
from retrieval_prompts.vectors.encode import embed_texts, encode_texts

ToyTower = Callable[..., TextTower]
MANY = [f"{text} {number}" for number in range(3) for text in (*TEXTS, LONG)]


def test_frozen_vectors_are_those_of_sentence_transformers(tower: TextTower) -> None:
    expected = tower.sentence_transformer.encode(MANY)
    for side in ("query", "document"):
        ours = encode_texts(tower, MANY, side)
        assert ours.dtype == np.float32
        assert np.abs(ours - expected).max() < 1e-6


def test_one_text_at_a_time_not_a_bit_differs(tower: TextTower) -> None:
    for text in (*TEXTS, LONG):
        assert np.array_equal(encode_texts(tower, [text], "query"), tower.sentence_transformer.encode([text]))


@pytest.mark.parametrize("budget", [1, 100])
def test_batches_do_not_matter(budget: int, tower: TextTower, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = initial_vectors(tower, kind, 3, "vocab", 0)
    expected = np.concatenate([encode_texts(tower, [text], "query", kind, vectors) for text in MANY])
    monkeypatch.setattr(encode, "token_budget", lambda *_: budget)
    monkeypatch.setattr(encode, "BLOCK", 11)
    assert np.abs(encode_texts(tower, MANY, "query", kind, vectors) - expected).max() < 1e-6
    order = np.random.default_rng(0).permutation(len(MANY))
    shuffled = encode_texts(tower, [MANY[index] for index in order], "query", kind, vectors)
    assert np.abs(shuffled - expected[order]).max() < 1e-6
    ids = tower.tokenize(MANY, "query", prompt=prompt_room(kind, vectors))
    assert np.abs(embed_texts(tower, ids, "query", kind, vectors).numpy() - expected).max() < 1e-6


def test_progress_and_no_texts(toy_tower: ToyTower, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = toy_tower("bert")
    monkeypatch.setattr(encode, "token_budget", lambda *_: 100)
    done: list[int] = []
    encode_texts(tower, MANY, "query", progress=done.append)
    assert sum(done) == len(MANY)
    assert len(done) > 1
    assert encode_texts(tower, [], "query").shape == (0, WIDTH)
    assert embed_texts(tower, [], "query", "input", None).shape == (0, WIDTH)


def test_saving_memory_changes_no_gradient(tower: TextTower, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "token_budget", lambda *_: 100)
    vectors = initial_vectors(tower, kind, 3, "vocab", 0).requires_grad_()
    ids = tower.tokenize(list(TEXTS), "query", prompt=prompt_room(kind, vectors))
    direction = torch.linspace(-1, 1, WIDTH)
    values = [embed_texts(tower, ids, "query", kind, vectors, saving=saving) for saving in (False, True)]
    assert torch.equal(*values)
    assert torch.equal(*(torch.autograd.grad((value * direction).sum(), vectors)[0] for value in values))


def test_batches_keep_to_the_budget() -> None:
    lengths = [3, 3, 4, 9, 20, 100]
    assert list(encode._batches([0, 1, 2, 3, 4, 5], lengths, 12, 99)) == [[0, 1, 2], [3], [4], [5]]
    assert list(encode._batches([5, 4, 3, 2, 1, 0], lengths, 40, 99)) == [[5], [4, 3], [2, 1, 0]]
    assert list(encode._batches([], [], 12, 99)) == []


def test_batches_end_where_padding_would_cost_more_than_another() -> None:
    lengths = [3, 3, 4, 9, 20, 100]
    assert list(encode._batches([0, 1, 2, 3, 4, 5], lengths, 999, 2)) == [[0, 1, 2], [3], [4], [5]]
    assert list(encode._batches([5, 4, 3, 2, 1, 0], lengths, 999, 11)) == [[5], [4, 3], [2, 1, 0]]
    assert list(encode._batches([5, 4, 3, 2, 1, 0], lengths, 999, 999)) == [[5, 4, 3, 2, 1, 0]]
