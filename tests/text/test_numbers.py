"""What numbers may do: the same seed gives the same bytes, threads move them by rounding, and none is ever NaN."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import toys

from retrieval_prompts import BiEncoder
from retrieval_prompts.data.beir_folder import load
from retrieval_prompts.errors import UserError
from retrieval_prompts.towers import text
from retrieval_prompts.towers.injection import prompt_shape
from retrieval_prompts.towers.text import TextTower
from retrieval_prompts.training import retrieval
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.training.training_data import TrainingData
from retrieval_prompts.vectors.encode import encode_texts

TOLERANCE = 1e-4  # of trained vectors, relative to their largest, between numbers of threads
EXTREMES = ("fox", "", " ", "x" * 100_000, "the lazy fox, " * 7_200)
ToyTower = Callable[..., TextTower]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_threads_move_a_trained_prompt_by_rounding_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "GIVE_UP", None)
    model, data = tiny.write_model(tmp_path / "model"), load(tiny.write_data(tmp_path / "data", dev=True))
    settings = TuneSettings(length=3, epochs=1, batch_size=10, learning_rate=0.01, seed=1)
    found = []
    for number in (1, 2, 1):
        torch.set_num_threads(number)
        biencoder = BiEncoder.load(model, device="cpu")
        # Scores of dev that are equal but for rounding may choose another step: the last one is compared
        biencoder.attach(settings)
        frozen = BiEncoder(biencoder.tower).encode_corpus(data.corpus, tmp_path / "cache")
        given = TrainingData(data.corpus, data.queries, data.qrels["train"], {})
        for _ in retrieval.train(biencoder, given, settings, documents=frozen):
            pass
        found.append(biencoder.prompts["query"]().detach().numpy().copy())
    assert np.array_equal(found[0], found[2]), "one machine, one seed, one number of threads: the same bytes"
    assert np.abs(found[0] - found[1]).max() <= TOLERANCE * np.abs(found[0]).max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["bert", "xlm-roberta", "modernbert"])
def test_no_text_gives_a_number_that_is_not_finite(architecture: str, toy_tower: ToyTower, dtype: torch.dtype) -> None:
    tower = toy_tower(architecture)
    tower.sentence_transformer.to(dtype)
    prompt = torch.full(prompt_shape(tower, "input", 2), 0.5)
    for vectors in (None, prompt):
        found = encode_texts(tower, EXTREMES, "query", "input", vectors)
        assert found.dtype == np.float32 and np.isfinite(found).all()


def test_a_prompt_of_huge_numbers_is_refused(toy_tower: ToyTower, kind: str) -> None:
    tower = toy_tower("bert")
    shape = prompt_shape(tower, kind, 2)
    assert np.isfinite(encode_texts(tower, ["fox"], "query", kind, torch.full(shape, 1e10))).all()
    with pytest.raises(
        UserError, match=r"gives no finite numbers for the text at position 0; lower the strength of its"
    ):
        encode_texts(tower, ["fox", "dog"], "query", kind, torch.linspace(-3e38, 3e38, shape[2]).expand(shape))


def test_a_long_text_is_cut_before_it_is_tokenised(tower: TextTower, monkeypatch: pytest.MonkeyPatch) -> None:
    long = [toys.LONG * 130, toys.LONG.replace(" ", "") * 140, "x" * 70_000 + " " + toys.LONG, "漢字" * 40_000]
    with monkeypatch.context() as patch:
        patch.setattr(text, "LONG", 1 << 40)
        whole = tower.tokenize(long, "document", prompt=2)
    sizes: list[int] = []
    tokenizer = tower.tokenizer

    def counted(given: Any, **options: Any) -> Any:
        if isinstance(given, list):
            sizes.extend(map(len, given))
        return tokenizer(given, **options)

    monkeypatch.setattr(tower, "tokenizer", _Counted(tokenizer, counted))
    assert tower.tokenize(long, "document", prompt=2) == whole
    assert sizes[0] <= text.LONG < len(long[0])


class _Counted:
    """A tokenizer whose calls are seen."""

    def __init__(self, tokenizer: Any, call: Callable[..., Any]) -> None:
        self._tokenizer, self._call = tokenizer, call

    def __call__(self, given: Any, **options: Any) -> Any:
        return self._call(given, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def test_steps_leave_no_tensors_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "GIVE_UP", None)
    biencoder = BiEncoder.load(tiny.write_model(tmp_path / "model"), device="cpu")
    data = load(tiny.write_data(tmp_path / "data", dev=True))
    settings = TuneSettings(length=3, epochs=6, batch_size=15, learning_rate=0.01)
    frozen = BiEncoder(biencoder.tower).encode_corpus(data.corpus, tmp_path / "cache")
    biencoder.attach(settings)
    counts = []
    given = TrainingData(data.corpus, data.queries, data.qrels["train"], data.qrels["dev"])
    for record in retrieval.train(biencoder, given, settings, documents=frozen):
        if record.epoch >= 1 and record.dev is not None:
            gc.collect()
            counts.append(sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()))
    assert len(counts) >= 4 and max(counts[1:]) <= counts[0], counts
