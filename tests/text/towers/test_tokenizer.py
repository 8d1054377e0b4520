"""A tokenizer answers one call at a time, whoever calls it, and is otherwise what it was."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from threads import at_once
from toys import ARCHITECTURES, LONG, TEXTS, TOKENIZERS
from transformers import AutoTokenizer

from retrieval_prompts.towers.text import TextTower, load_tower
from retrieval_prompts.towers.tokenizer import guard

MANY = [LONG, *TEXTS, *[f"{LONG} {number}" for number in range(30)]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_calls_at_once_are_not_cut_at_each_others_length(architecture: str) -> None:
    tokenizer = guard(TOKENIZERS[architecture](32))

    def call(length: int) -> Callable[[], Any]:
        options: dict[str, Any] = {"truncation": True, "max_length": length, "padding": length == 20}
        return lambda: tokenizer(MANY, **options)["input_ids"]

    calls = [call(length) for length in (8, 20, 31)]
    calls += [lambda: tokenizer(list(TEXTS))["input_ids"], lambda: tokenizer.tokenize(TEXTS[1])]
    expected = [each() for each in calls]
    assert at_once(calls, times=20) == [[each] * 20 for each in expected]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_guarded_tokenizer_is_what_it_was(architecture: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[architecture](32)
    plain, ids = type(tokenizer), tokenizer(list(TEXTS))["input_ids"]
    assert guard(tokenizer) is tokenizer
    guarded = type(tokenizer)
    assert guard(tokenizer) is tokenizer
    assert type(tokenizer) is guarded
    assert issubclass(guarded, plain)
    assert (guarded.__name__, guarded.__module__) == (plain.__name__, plain.__module__)
    for other in (copy.copy(tokenizer), copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert type(other) is guarded
        assert other(list(TEXTS))["input_ids"] == ids
    tokenizer.save_pretrained(tmp_path)
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is type(AutoTokenizer.from_pretrained(tmp_path))
    assert not issubclass(type(AutoTokenizer.from_pretrained(tmp_path)), guarded)
    assert AutoTokenizer.from_pretrained(tmp_path)(list(TEXTS))["input_ids"] == ids


def test_what_is_no_tokenizer_of_transformers_is_left_alone() -> None:
    given = object()
    assert guard(given) is given
    assert type(given) is object


def test_a_tower_shares_its_guarded_tokenizer_with_its_model(toy: Callable[..., Path]) -> None:
    """Text lengths differ by side, and sentence-transformers tokenises with the same object."""
    tower = load_tower(toy("bert"), device="cpu")
    tower.transformer.query_length, tower.transformer.document_length = 8, 30
    again = TextTower(tower.sentence_transformer, "the same model")
    assert again.tokenizer is tower.tokenizer is tower.sentence_transformer.tokenizer
    calls: list[Callable[[], Any]] = [
        lambda: tower.tokenize(MANY, "query", prompt=3),
        lambda: again.tokenize(MANY, "document"),
        lambda: again.tokenize(MANY, "query"),
        lambda: tower.sentence_transformer.preprocess(MANY, task="document")["input_ids"].tolist(),
        lambda: tower.tokenizer(list(TEXTS), padding="max_length", max_length=40)["input_ids"],
    ]
    expected = [each() for each in calls]
    assert at_once(calls, times=20) == [[each] * 20 for each in expected]
