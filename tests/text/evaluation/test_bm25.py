"""BM25 against scores computed by hand."""

from __future__ import annotations

import math

import pytest

from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation import bm25


def test_bm25_ranks_the_rarer_and_stemmed_word_first() -> None:
    texts = ["the cat sat", "a dog and a cat", "running dogs", "of the"]
    run = bm25.bm25_run(iter(texts), ["a", "b", "c", "d"], {"q": "dog runs", "none": "zebra", "stop": "the"}, k=100)
    assert list(run) == ["q", "none", "stop"]
    assert sorted(run["q"], key=run["q"].__getitem__, reverse=True) == ["c", "b"]  # a and d share no word with it
    assert run["none"] == run["stop"] == {}
    assert list(bm25.bm25_run(texts, ["a", "b", "c", "d"], {"q": "dog runs"}, k=1)["q"]) == ["c"]
    assert bm25.bm25_run(texts, ["a", "b", "c", "d"], {}) == {}


def test_bm25_score_by_hand() -> None:
    run = bm25.bm25_run(["cat", "dog bird"], ["a", "b"], {"q": "cat"})
    idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    assert run == {"q": {"a": pytest.approx(idf * 1 / (1 + 1.5 * (1 - 0.75 + 0.75 * 1 / 1.5)), rel=1e-6)}}


def test_bm25_is_silent_unless_asked(capfd: pytest.CaptureFixture[str]) -> None:
    bm25.bm25_run(["cat", "dog"], ["a", "b"], {"q": "cat"})
    assert capfd.readouterr() == ("", "")


def test_bm25_refuses_what_it_cannot_index() -> None:
    with pytest.raises(UserError, match="found no words in the 2 documents"):
        bm25.bm25_run(["", "the"], ["a", "b"], {"q": "cat"})
    with pytest.raises(UserError, match="one id for each text, got 1 texts and 2 ids"):
        bm25.bm25_run(["cat"], ["a", "b"], {"q": "cat"})
