"""Classes and the vectors beside them: names that cannot be told apart, frozen texts, features, initial contexts."""

from __future__ import annotations

import unicodedata

import pytest
import torch
from tiny_clip import DIMENSION, WIDTH
from torch.nn import functional as F

from multimodal.data import templates
from multimodal.prompts.contexts import Classes, Prompts, _check_words, initial_context
from multimodal.towers.clip import Clip
from multimodal.training.settings import Settings
from retrieval_prompts.errors import DataWarning, UserError

NAMES = ("dog", "red_panda", "Sea horse", "a  cup")
M = 3


def classes(clip: Clip, names: tuple[str, ...] = NAMES, **given: object) -> Classes:
    return Classes(clip, names, Settings.of(context=M, **given))


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


# --- names


def test_names_are_kept_as_they_are_and_written_with_spaces(tiny_model: Clip) -> None:
    made = classes(tiny_model)
    assert (made.names, len(made)) == (NAMES, 4)
    written = ["dog", "red panda", "Sea horse", "a cup"]
    assert made.rows == tiny_model.text.rows(written, M, "end")
    assert classes(tiny_model, position="front").rows == tiny_model.text.rows(written, M, "front")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "expected at least one class name, got none"),
        (("dog", " _ "), "class name 2 of 2 is empty; name every class"),
        (
            ("dog", "n01440764"),
            "1 classes are called by WordNet's ids, n01440764, which say nothing to a text tower; .*",
        ),
        (("dog", "cat", "dog"), "class names must differ, got 'dog' and 'dog'; rename one"),
        (("a b", "cat", "owl", "A_b", "cat"), "class names must differ, got 'a b' and 'A_b'; rename one"),
        (("café", unicodedata.normalize("NFD", "café")), "class names must differ, got 'café' and .*; rename one"),
        (
            ("dog", "very " * 30 + "long"),
            r"the class name 'very very .*' has 32 tokens; 15 fit beside 3 context vectors; shorten the name or .*",
        ),
    ],
)
def test_names_that_cannot_be(tiny_model: Clip, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        classes(tiny_model, names)


def test_a_context_that_leaves_no_room(tiny_model: Clip) -> None:
    with pytest.raises(UserError, match="a context of 18 vectors leaves no room for a name in 20 positions"):
        Classes(tiny_model, NAMES, Settings.of(context=18))


# --- frozen texts


def test_frozen_texts_are_the_template_read_by_the_model(tiny_model: Clip) -> None:
    made = classes(tiny_model, template="a photo of a {}, a type of pet.")
    texts = [f"a photo of a {name}, a type of pet." for name in ("dog", "red panda", "Sea horse", "a cup")]
    assert torch.equal(made.frozen, tiny_model.encode_texts(texts))
    tokens = tiny_model.tokenizer(texts)
    assert torch.allclose(made.frozen, F.normalize(tiny_model.model.encode_text(tokens), dim=-1), atol=1e-6)
    assert not made.frozen.requires_grad and made.frozen.shape == (4, DIMENSION)


def test_the_ensemble_is_the_mean_over_templates(tiny_model: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "ENSEMBLE", ("a {}.", "many {}.", "{} drawn"))
    one, two, three = (
        tiny_model.encode_texts([text.format(name) for name in ("dog", "red panda")])
        for text in ("a {}.", "many {}.", "{} drawn")
    )
    expected = F.normalize((one + two + three) / 3, dim=-1)
    assert torch.allclose(classes(tiny_model, NAMES[:2]).ensemble, expected, atol=1e-6)


def test_a_step_in_half_precision_changes_no_frozen_text(tiny_model: Clip) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        asked_first = classes(tiny_model)
        halves = asked_first.frozen, asked_first.ensemble
    assert torch.equal(halves[0], classes(tiny_model).frozen)
    assert torch.equal(halves[1], classes(tiny_model).ensemble)


# --- features under prompts


def test_features_are_the_towers_at_unit_length(tiny_model: Clip) -> None:
    made, context, deep = classes(tiny_model), vectors(M), {1: vectors(M, seed=1)}
    expected = tiny_model.text.encode(made.rows, context, deep)
    found = made.features(Prompts(context, deep=deep))
    assert torch.equal(found, F.normalize(expected, dim=-1))
    assert torch.allclose(found.norm(dim=1), torch.ones(4))


def test_the_context_of_words_is_the_text_with_these_words(tiny_model: Clip) -> None:
    made = Classes(tiny_model, NAMES, Settings.of(context=4))
    words = initial_context(tiny_model, "a photo of a", 4, seed=1)
    texts = [f"a photo of a {name}." for name in ("dog", "red panda", "Sea horse", "a cup")]
    assert torch.allclose(made.features(Prompts(words)), tiny_model.encode_texts(texts), atol=1e-6)


def test_class_specific_contexts(tiny_model: Clip) -> None:
    made, own = classes(tiny_model), vectors(4, M)
    found = made.features(Prompts(own))
    for number in range(4):
        alone = made.features(Prompts(own[number]))[number]
        assert torch.allclose(found[number], alone, atol=1e-6)


def test_contexts_of_images(tiny_model: Clip) -> None:
    made, contexts = classes(tiny_model), vectors(2, M)
    found = made.features(Prompts(contexts, per_image=True))
    assert found.shape == (2, 4, DIMENSION)
    for context, own in zip(contexts, found, strict=True):
        assert torch.allclose(own, made.features(Prompts(context)), atol=1e-6)


def test_text_that_nothing_trains() -> None:
    context, learned = vectors(M), vectors(M).requires_grad_()
    assert Prompts(context).text_is_frozen
    assert Prompts(context, visual={0: learned}).text_is_frozen
    assert not Prompts(learned).text_is_frozen
    assert not Prompts(context, deep={1: learned}).text_is_frozen
    assert not Prompts(context[None], per_image=True).text_is_frozen, "it differs from image to image"


# --- initial contexts


@pytest.mark.parametrize(
    ("init", "length", "words"),
    [
        ("a photo of a", 4, "a photo of a"),
        ("text:a photo of a", 4, "a photo of a"),
        ("a photo of a", 2, "of a"),
        ("a photo of a", 6, "of a a photo of a"),
        ("a photo of a", 8, "a photo of a a photo of a"),
        ("dog", 3, "dog dog dog"),
    ],
)
def test_words_to_start_from(tiny_model: Clip, init: str, length: int, words: str) -> None:
    found = initial_context(tiny_model, init, length, seed=0)
    rows = tiny_model.text.embeddings.weight[tiny_model.tokenizer.encode(words)]
    assert torch.equal(found, rows)
    found.zero_()
    assert rows.any(), "a copy: the model's own rows stay"


def test_a_random_start(tiny_model: Clip) -> None:
    found = initial_context(tiny_model, "gaussian", 200, seed=3)
    assert found.shape == (200, WIDTH)
    assert torch.equal(found, initial_context(tiny_model, "gaussian", 200, seed=3))
    assert not torch.equal(found, initial_context(tiny_model, "gaussian", 200, seed=4))
    table = tiny_model.text.embeddings.weight
    assert float(found.std()) == pytest.approx(float(table.std()), rel=0.05)
    assert float(found.mean()) == pytest.approx(float(table.mean()), abs=0.05)


def test_starts_that_cannot_be(tiny_model: Clip) -> None:
    with pytest.raises(UserError, match='--init "a photo of a" or --init gaussian'):
        initial_context(tiny_model, "  ", 4, seed=0)
    with pytest.raises(UserError, match="--context must be 1 or more, got 0"):
        initial_context(tiny_model, "a", Settings(context=0).context, seed=0)


def test_names_that_the_model_reads_as_one_are_refused(tiny_model: Clip) -> None:
    with pytest.raises(
        UserError, match=r"reads the class names 'salt &amp; pepper' and 'salt & pepper' as the same tok"
    ):
        Classes(tiny_model, ["sugar", "salt &amp; pepper", "salt & pepper"], Settings())
    with pytest.raises(
        UserError, match=r"'飞机' and '轮船' as the same tokens, for its vocabulary lacks them; give them"
    ):
        _check_words(("飞机", "轮船"), ((0, 1, 1, 9), (0, 1, 1, 9)), 1)


def test_words_that_the_vocabulary_lacks_are_said() -> None:
    with pytest.warns(
        DataWarning, match=r"1 of 2 class names have words that the model does not know: 自行车; --class"
    ):
        _check_words(("bird", "自行车"), ((0, 7, 9), (0, 1, 9)), 1)


def test_clips_tokenizers_lack_nothing(tiny_model: Clip) -> None:
    assert tiny_model.text.tokens.unknown is None
    Classes(tiny_model, ["飞机", "轮船"], Settings())
