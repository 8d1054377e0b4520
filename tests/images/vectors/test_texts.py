"""Texts behind a context: the same vectors as writing the context's words, and no end of text is ever lost."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_clip
import torch
import toy_clips

from multimodal.prompts.contexts import Prompts
from multimodal.prompts.methods import method
from multimodal.towers.clip import Clip, load_clip
from multimodal.training.settings import Settings
from multimodal.vectors.texts import Texts, context_length, encode_texts, text_prompts, text_vectors
from retrieval_prompts.errors import DataWarning, UserError

TEXTS = ["a red boat", "Two dogs, running!", "box", "", "a red boat"]
WORDS = 18  # tokens that fit beside SOS and EOT


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return load_clip(str(tiny_clip.write_clip(tmp_path_factory.mktemp("clip") / "clip")), device="cpu")


def prompter(clip: Clip, classes: int | None = None, **given: Any) -> Any:
    return method(given.get("method", "coop")).build(clip, Settings.of(**given), classes).prompter


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool((ours - theirs).abs().max() < 1e-5)


def test_without_a_prompt_they_are_the_models_own(clip: Clip) -> None:
    ours = text_vectors(clip, TEXTS)
    assert close(ours, clip.encode_texts(TEXTS))
    plain = clip.model.encode_text(clip.tokenizer(TEXTS), normalize=True)
    assert close(ours, plain)


def test_a_context_of_words_is_the_words(clip: Clip) -> None:
    found = text_vectors(clip, TEXTS, prompter(clip, init="a photo of a", context=4))
    assert close(found, clip.encode_texts([f"a photo of a {text}" for text in TEXTS]))
    assert not close(found, text_vectors(clip, TEXTS))


@pytest.mark.parametrize("name", sorted(toy_clips.TOYS))
def test_on_every_kind_of_tower(name: str) -> None:
    tower = toy_clips.tower(name)
    toy: Any = SimpleNamespace(text=tower, dimension=tower.dimension, device=tower.device)
    texts = Texts(toy, [*toy_clips.NAMES, "fox " * 100])
    own = toy_clips.FILLER
    found = texts.features(Prompts(tower.token_rows(tower.tokens.of(f"{own} {own}", first=True))))
    rows = tower.rows([f"{own} {own} {text}" for text in texts.names], 0, suffix="", cut=True)
    written = torch.nn.functional.normalize(tower.encode(rows, torch.zeros(0, tower.width)), dim=-1)
    assert close(found, written)


def test_a_long_text_is_cut_before_its_end(clip: Clip) -> None:
    length = 4
    long = " ".join(["dog"] * 30)
    texts = Texts(clip, [long, "dog " * (WORDS - length), "dog " * (WORDS - length + 1)])
    ids = texts.rows(length).ids
    assert [len(row) for row in ids] == [tiny_clip.CONTEXT_LENGTH] * 3
    assert {row[-1] for row in ids} == {clip.tokenizer.eot_token_id}
    assert texts.cut(length) == [long, "dog " * (WORDS - length + 1)], "one that just fits is not cut"
    context = prompter(clip, context=length)
    with pytest.warns(DataWarning) as caught:
        found = text_vectors(clip, texts.names, context)
    assert [str(warning.message) for warning in caught] == [
        "2 of 3 texts are cut: 14 tokens fit beside a context of 4 vectors ('dog dog dog dog dog dog dog dog dog dog ')"
    ]
    assert close(found[:1], found[1:2]) and close(found[1:2], found[2:])
    with pytest.warns(DataWarning, match=r"^1 of 1 texts are cut: 18 tokens fit \('dog"):
        text_vectors(clip, [long])


def test_nothing_is_said_where_all_fit(clip: Clip) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text_vectors(clip, ["dog " * WORDS])
        text_vectors(clip, [])


def test_a_context_without_room(clip: Clip) -> None:
    with pytest.raises(UserError) as error:
        text_vectors(clip, ["dog"], prompter(clip, context=WORDS))
    assert str(error.value) == "a context of 18 vectors leaves no room for a text in 20 positions"


def test_strength_goes_from_frozen_to_prompted(clip: Clip) -> None:
    context = prompter(clip, init="gaussian")
    texts = Texts(clip, TEXTS)
    frozen, prompted = encode_texts(texts), encode_texts(texts, context)
    assert torch.equal(encode_texts(texts, context, 0.0), frozen)
    assert torch.equal(encode_texts(texts, context, 1.0), prompted)
    between = encode_texts(texts, context, 0.25)
    assert close(between, torch.nn.functional.normalize(0.75 * frozen + 0.25 * prompted, dim=1))


def test_order_and_company_do_not_matter(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ({"method": "coop"}, {"method": "deep", "depth": 2}, {"method": "tcp"}):
        context = prompter(clip, **given)
        together = text_vectors(clip, TEXTS, context)
        assert together.shape == (len(TEXTS), clip.dimension)
        assert close(together[0], together[4])
        monkeypatch.setattr("multimodal.vectors.texts.TEXTS", 2)
        assert close(text_vectors(clip, TEXTS[::-1], context).flip(0), together)


def test_take_keeps_what_is_known(clip: Clip) -> None:
    texts = Texts(clip, TEXTS)
    part = texts.take([2, 0])
    assert part.names == ("box", "a red boat") and len(part) == 2
    assert "frozen" not in vars(part)
    frozen = texts.frozen
    part = texts.take([2, 0])
    assert torch.equal(vars(part)["frozen"], frozen[[2, 0]])


def test_gradients_reach_the_context_alone(clip: Clip) -> None:
    context = prompter(clip)
    texts = Texts(clip, TEXTS)
    assert not texts.frozen.requires_grad
    texts.features(text_prompts(context, texts)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in context.parameters())
    assert not any(parameter.requires_grad for parameter in clip.model.parameters())


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"method": "coop", "class_specific": True}, "each class has its own, and a text is not a class"),
        ({"method": "cocoop"}, "they depend on the picture, and a search compares one text with all pictures"),
        ({"method": "maple", "depth": 2}, "they prompt the image tower too, and the pictures of a search are encoded "
         "without prompts"),
        ({"method": "vpt", "depth": 2}, "they prompt the image tower too, and the pictures of a search are encoded "
         "without prompts"),
    ],
)  # fmt: skip
def test_prompts_that_serve_no_search(clip: Clip, given: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError) as error:
        text_vectors(clip, TEXTS, prompter(clip, len(TEXTS), **given))
    assert str(error.value) == (
        f"these prompts cannot serve a search: {reason}; use prompts of the method coop, deep or tcp"
    )


def test_context_length(clip: Clip) -> None:
    texts = Texts(clip, TEXTS)
    assert context_length(None, texts) == 0
    assert context_length(prompter(clip, context=3), texts) == 3
    assert context_length(prompter(clip, context=3), Texts(clip, [])) == 3
