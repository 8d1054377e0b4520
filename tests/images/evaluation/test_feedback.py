"""Feedback prompts of CLIP: by hand both ways, the frozen model at the start, what is trained, kept and refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal.classifier import PromptClassifier
from multimodal.data.captions import WAYS, Captioned, load_captions
from multimodal.evaluation.captions import Pairs
from multimodal.evaluation.feedback import ask, ask_again, query_vectors, ranks, read_first
from multimodal.experiments.captions import evaluate
from multimodal.prompts.feedback import Feedback
from multimodal.towers.clip import Clip
from multimodal.training import captions as captioning
from multimodal.training.captions import FeedbackTask, tune_captions
from multimodal.training.settings import Settings
from multimodal.vectors.image_index import build_index
from multimodal.vectors.texts import Texts, context_length, encode_texts
from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.settings import check_read
from retrieval_prompts.training.losses import info_nce

D = tiny_clip.DIMENSION


def random_unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def moved(found: int = 2) -> Feedback:
    """Every parameter away from where it started."""
    prompter, generator = Feedback(D, found), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in prompter.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    return prompter


def by_hand(prompter: Feedback, way: str, query: Tensor, documents: Tensor) -> Tensor:
    """The formula, of one query; documents that are too few are read again from the first."""
    best = (documents @ query).argsort(descending=True).tolist()
    read = [best[rank % len(best)] for rank in range(prompter.found)]

    def made(prompt: Any, each: list[Tensor]) -> Tensor:
        kept = prompt.parts()
        vectors = [gate * (one @ kept["map"] + kept["bias"]) for gate, one in zip(kept["gate"], each, strict=True)]
        return torch.stack([prompt.vectors[0, 0], *vectors]).sum(dim=0)

    found = query + made(prompter.own[way], [query])
    if prompter.found:
        found = found + made(prompter.read[way], [documents[at] for at in read])
    return F.normalize(found, dim=0)


@pytest.mark.parametrize("found", [0, 2, 7])
@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_a_query_reads_what_it_finds(way: str, found: int) -> None:
    prompter, queries, documents = moved(found), random_unit(6, D), random_unit(5, D, seed=1)
    expected = torch.stack([by_hand(prompter, way, query, documents) for query in queries])
    assert torch.allclose(ask_again(prompter, way, queries, documents), expected, atol=1e-5)
    half = F.normalize((queries + expected) / 2, dim=1)
    assert torch.allclose(ask_again(prompter, way, queries, documents, 0.5), half, atol=1e-5)
    assert torch.equal(ask_again(prompter, way, queries, documents, 0), queries)
    alone = torch.cat([ask_again(prompter, way, query[None], documents) for query in queries])
    assert torch.allclose(alone, expected, atol=1e-5), "a query's vector does not depend on those beside it"


def test_it_starts_at_the_frozen_model() -> None:
    queries, documents = random_unit(6, D), random_unit(5, D, seed=1)
    for way in WAYS:
        assert torch.allclose(ask_again(Feedback(D, 3), way, queries, documents), queries, atol=1e-6)
    before = Feedback(D, 3)
    assert all(value.shape for value in before.state_dict().values())
    assert not any("start" in name for name in before.state_dict()), "zeros are not kept"


@pytest.fixture(scope="module")
def train(caption_folder: Path) -> Captioned:
    return load_captions(caption_folder / "captions.jsonl", "train")


def settings(**given: Any) -> Settings:
    return Settings.of(**{"method": "feedback", "feedback": 2, "epochs": 20, "batch_size": 8, **given})


@pytest.fixture(scope="module")
def tuned(tiny_model: Clip, train: Captioned) -> captioning.Tuned:
    return tune_captions(tiny_model, train, settings())


def test_training_helps_and_moves_nothing_frozen(tiny_model: Clip, train: Captioned) -> None:
    before = {name: value.clone() for name, value in tiny_model.model.state_dict().items()}
    losses: list[float] = []
    tuned = tune_captions(
        tiny_model, train, settings(learning_rate=0.05), on_step=lambda step, _: losses.append(step.loss)
    )
    assert all(torch.equal(value, before[name]) for name, value in tiny_model.model.state_dict().items())
    assert np.mean(losses[-3:]) < 0.8 * losses[1], "the first step is the frozen model's"
    dev = tuned.training["dev"]
    assert dev["initial"] == dev["zero-shot"] and dev["tuned"] >= max(dev["full_strength"], dev["zero-shot"])
    assert tuned.training["captions_cut"] == 0, "no context takes room from a caption"


def test_the_loss_of_a_batch_by_hand(tiny_model: Clip) -> None:
    """Pictures 1 and 3 are the batch; each query is compared with all that it may find."""
    pairs = Pairs(random_unit(4, D), [["a dog", "two"], ["one dog"], ["a boat"], ["two", "a fish"]])
    prompter = moved()
    task = FeedbackTask(tiny_model, prompter, lambda view: pairs.images, pairs, settings())
    texts = encode_texts(Texts(tiny_model, pairs.captions))
    words = ask_again(prompter, "t2i", texts, pairs.images)[[4, 5, 2]]
    pictures = ask_again(prompter, "i2t", pairs.images, texts)[[3, 1]]
    right = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 1], [0, 1, 0, 0]], dtype=torch.bool)
    own = torch.tensor([[0, 1, 0, 0, 1, 1], [0, 0, 1, 0, 0, 0]], dtype=torch.bool)
    temperature = 1 / tiny_model.scale
    expected = info_nce(words @ pairs.images.T, right, temperature) + info_nce(pictures @ texts.T, own, temperature)
    assert task.loss((0, np.array([3, 1]))).item() == pytest.approx(expected.item() / 2, rel=1e-4)
    positions = read_first(texts, pairs.images, 2)
    assert np.array_equal(task.read["t2i"], positions) and positions.shape == (6, 2)


def test_what_is_saved_finds_the_same(
    tiny_model: Clip, tuned: captioning.Tuned, caption_folder: Path, tmp_path: Path
) -> None:
    replace(tuned, strength=0.5).save(tmp_path / "prompts", tiny_model)
    prompter, strength = PromptClassifier.load(tmp_path / "prompts", tiny_model).search_prompts()
    assert strength == 0.5 and isinstance(prompter, Feedback) and prompter.found == 2
    test = load_captions(caption_folder / "captions.jsonl", "test")
    ours, theirs = (evaluate(tiny_model, test, (each, 0.5)).systems for each in (prompter, tuned.prompter))
    assert ours == theirs and ours["tuned"].keys() == ours["zero-shot"].keys()
    pairs = Pairs.of(tiny_model, test)
    texts = Texts(tiny_model, pairs.captions)
    both = ranks(pairs, texts, prompter)
    frozen = encode_texts(texts)
    queries = {"i2t": (pairs.images, frozen), "t2i": (frozen, pairs.images)}
    expected = pairs.ranks(frozen, 0, {way: ask_again(prompter, way, *queries[way]) for way in WAYS})
    assert np.array_equal(both.i2t, expected.i2t) and np.array_equal(both.t2i, expected.t2i)
    assert context_length(prompter, texts) == 0


def test_an_index_is_searched_twice(tiny_model: Clip, train: Captioned, tmp_path: Path) -> None:
    index, texts = build_index(tiny_model, train.pictures, root=tmp_path), Texts(tiny_model, ["a pink picture"])
    vectors = torch.from_numpy(index.vectors_at(np.arange(len(index))))
    with torch.no_grad():
        expected = by_hand(prompter := moved(), "t2i", encode_texts(texts)[0], vectors)
    assert torch.allclose(ask(texts, prompter, 1.0, index)[0], expected, atol=1e-5)
    assert torch.equal(ask(texts, prompter, 0.0, index), encode_texts(texts))
    assert torch.equal(ask(texts, None, 1.0, index), encode_texts(texts))
    again = query_vectors(tiny_model, texts.names, prompter, index, strength=0.5)
    assert torch.equal(again, ask(texts, prompter, 0.5, index))


ALONE = (
    "feedback prompts are made for each query from what a search of an index finds, and here there is none: they serve "
    "`multimodal-prompts search` and `serve`, and evaluate on captions; prompts of coop need no index"
)


def test_what_has_no_index_is_refused(tiny_model: Clip, tuned: captioning.Tuned, tmp_path: Path) -> None:
    tuned.save(tmp_path / "prompts", tiny_model)
    classifier = PromptClassifier.load(tmp_path / "prompts", tiny_model, strength=1.0)
    for refused in (
        lambda: classifier.predict_proba(random_unit(1, D), ["cat", "dog"]),
        lambda: classifier.export(tmp_path / "export", ["cat", "dog"]),
        classifier.as_sentence_transformer,
    ):
        with pytest.raises(UserError) as error:
            refused()
        assert str(error.value) == ALONE


def test_classes_are_refused(tiny_model: Clip, train: Captioned) -> None:
    with pytest.raises(UserError, match=r"^--method feedback learns how words and pictures find each other: give capt"):
        PromptClassifier(tiny_model, method="feedback").fit(train.pictures[:2], ["cat", "dog"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "feedback", "context": 4}, "--context is used with --method coop, "),
        ({"method": "feedback", "encoder": "mlp"}, "--encoder is used with --method coop, "),
        ({"method": "coop", "feedback": 3}, "--feedback is used with --method feedback, not with --method coop"),
    ],
)
def test_options_that_are_not_read_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        check_read(Settings.of(**given), given, data="captions")
