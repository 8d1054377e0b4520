"""Where memory does not hold a pass: smaller ones, the same vectors, one line; in training a line says what to do."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from command_line import command_line
from toys import LONG, TEXTS

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.cli import app as cli
from retrieval_prompts.cli import console
from retrieval_prompts.errors import UserError, out_of_memory
from retrieval_prompts.towers import text as towers
from retrieval_prompts.towers.text import TextTower, load_tower
from retrieval_prompts.vectors.encode import embed_texts, encode_texts

ToyTower = Callable[..., TextTower]
MANY = [f"{text} {number}" for number in range(4) for text in (*TEXTS, LONG)]
SAID = "CUDA out of memory. Tried to allocate 20.00 MiB.\nSee the documentation"


class Card:
    """A stand-in for a GPU: its memory holds passes of so many tokens, and knows which were tried."""

    def __init__(self, tower: TextTower, tokens: int, error: Exception | None = None) -> None:
        self.tokens, self.error = tokens, error or torch.OutOfMemoryError(SAID)
        self.tried: list[int] = []
        self._model: Any = tower.model.forward
        tower.model.forward = self

    def __call__(self, *given: Any, **options: Any) -> Any:
        read = options.get("inputs_embeds")
        read = read if read is not None else options["input_ids"]
        self.tried.append(read.shape[0] * read.shape[1])
        if self.tried[-1] > self.tokens:
            raise self.error
        return self._model(*given, **options)

    @property
    def failed(self) -> int:
        return sum(tokens > self.tokens for tokens in self.tried)


def same(one: Any, other: Any) -> bool:
    return bool(np.abs(one - other).max() < 1e-6)


def test_passes_are_halved_until_they_fit_and_stay_so(toy_tower: ToyTower, kind: str) -> None:
    tower = toy_tower("bert")
    model = BiEncoder(tower).attach("query", kind=kind, length=3)
    queries, documents = model.encode_query(MANY), model.encode_document(MANY)
    card = Card(tower, 100)
    with pytest.warns(UserWarning) as found:
        assert same(model.encode_query(MANY), queries)
    (said,) = [str(each.message) for each in found]
    texts = rf"the memory of cpu does not hold a pass over \d+ texts \({card.tried[0]:,} tokens\)"
    ends = "they are encoded in smaller passes from here on"
    assert re.fullmatch(rf"model {re.escape(tower.name)}: {texts}; {ends}", said)
    assert card.failed > 1, "halved more than once, and said once"
    assert tower.pass_tokens is not None
    assert 50 < tower.pass_tokens <= 100
    before = card.failed
    assert same(model.encode_document(MANY), documents)
    assert same(BiEncoder(tower).encode_document(MANY), documents)
    assert card.failed == before, "no pass is tried again that cannot fit"


def test_embeddings_without_a_gradient_are_halved(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert")
    ids = tower.tokenize(MANY, "query")
    with torch.no_grad():
        expected = embed_texts(tower, ids, "query", "input", None).numpy()
        card = Card(tower, 60)
        with pytest.warns(UserWarning, match="smaller passes from here on"):
            assert same(embed_texts(tower, ids, "query", "input", None).numpy(), expected)
    card.tokens = 1
    with pytest.raises(torch.OutOfMemoryError):
        embed_texts(tower, ids, "query", "input", None)


@pytest.mark.parametrize("strength", [1, 0.5])
def test_a_live_model_halves_its_batches(strength: float, kind: str, toy_tower: ToyTower) -> None:
    live = BiEncoder(toy_tower("bert")).attach("query", kind=kind, length=3).as_sentence_transformer()
    biencoder: Any = live[0].biencoder
    biencoder.strength = strength
    expected = [live.encode_query(MANY), live.encode_document(MANY), live.encode(MANY)]
    Card(biencoder.tower, 100)
    with pytest.warns(UserWarning, match="smaller passes from here on") as found:
        assert same(live.encode(MANY), expected[2])
    assert len(found) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(live.encode_query(MANY), expected[0])
        assert same(live.encode_document(MANY), expected[1])


def test_a_text_that_does_not_fit_by_itself(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert")
    Card(tower, 20)
    with pytest.warns(UserWarning), pytest.raises(UserError) as error:
        encode_texts(tower, MANY, "query")
    assert str(error.value) == (
        f"the memory of cpu does not hold a pass of model {tower.name} over one text of 32 tokens (CUDA out of memory. "
        "Tried to allocate 20.00 MiB.); free some of it, use --device cpu, or cut the texts"
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError(SAID), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_the_ways_in_which_it_is_said(error: Exception, expected: bool, toy_tower: ToyTower) -> None:
    assert out_of_memory(error) is expected
    tower = toy_tower("bert")
    vectors = encode_texts(tower, MANY, "query")
    Card(tower, 100, error)
    if expected:
        with pytest.warns(UserWarning, match="smaller passes from here on"):
            assert same(encode_texts(tower, MANY, "query"), vectors)
    else:
        with pytest.raises(type(error)):
            encode_texts(tower, MANY, "query")


def test_a_model_that_does_not_fit(toy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError(SAID)

    monkeypatch.setattr("sentence_transformers.SentenceTransformer", full)
    with pytest.raises(UserError) as error:
        load_tower(toy("bert"))
    assert str(error.value) == (
        f"model {toy('bert')} does not fit into memory (CUDA out of memory. Tried to allocate 20.00 MiB.); free some "
        'of it, use --device cpu (device="cpu"), or take a smaller model'
    )


def test_training_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = tiny.write_model(tmp_path), tiny.write_data(tmp_path / "data", dev=True)
    pool = towers.TextTower.pool

    def full(self: TextTower, features: Any, **arguments: Any) -> Any:
        if torch.is_grad_enabled() and features.get("inputs_embeds") is not None and len(features["inputs_embeds"]) > 3:
            raise torch.OutOfMemoryError(SAID)
        return pool(self, features, **arguments)

    monkeypatch.setattr(towers.TextTower, "pool", full)
    command = command_line("retrieval-prompts", cli.main, monkeypatch, capsys)
    options = ("--model", model, "--length", "3", "--folds", "1", "--device", "cpu", "--epochs", "1")
    done = command("tune", data, "--out", tmp_path / "prompts", *options)
    assert done.code == 2
    assert done.err.endswith(
        "error: this training does not fit into memory (CUDA out of memory. Tried to allocate 20.00 MiB.); use a "
        "smaller --batch-size, a smaller model, or --device cpu\n"
    )
    assert not (tmp_path / "prompts").exists()


def test_a_command_that_runs_out_of_memory_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise torch.OutOfMemoryError(SAID)

    done = command_line("retrieval-prompts", lambda: console.run(full), monkeypatch, capsys)()
    assert (done.code, done.err) == (
        2,
        "error: there is not enough memory (CUDA out of memory. Tried to allocate 20.00 MiB.); free some of it, or use "
        "--device cpu\n",
    )
