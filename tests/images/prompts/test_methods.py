"""Methods: what each one's prompts are, what is saved of them, what learns and what stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import multimodal.prompts.methods
from multimodal.prompts.contexts import Classes, Prompts, projected
from multimodal.prompts.methods import Method, method
from multimodal.prompts.methods.tpt import adapt, marginal_entropy, surest
from multimodal.prompts.objectives import Outputs, cross_entropy, knowledge_guided
from multimodal.prompts.settings import METHODS, PromptSettings
from multimodal.towers.clip import Clip
from multimodal.towers.image import encode_images, encode_with_rows, last_projection
from multimodal.training.settings import Settings
from multimodal.vectors.prediction import predict
from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.settings import rule_of

NAMES = ("dog", "red panda", "water_lilly", "accordion")
OTHERS = ("ketch", "garfield", "brontosaurus", "Faces_easy", "cup", "sea horse")
TEXT_LAYERS, IMAGE_LAYERS, WIDTH, IMAGE_WIDTH, D = 3, 4, 32, 24, 64
PIXELS = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(2))
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])
SMALL: dict[str, Any] = {"depth": 3, "visual": 2}  # what a test of one method does not say otherwise
WITH_DEPTH = ("deep", "vpt", "maple", "mmrl", "promptkd", "promptsrc")


def toy(**vision: Any) -> Clip:
    """A random CLIP: ViT of 4 layers, text tower of 3."""
    image = {"layers": IMAGE_LAYERS, "width": IMAGE_WIDTH, "head_width": 12, "patch_size": 8, "image_size": 16}
    text = {"context_length": 20, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": TEXT_LAYERS}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(embed_dim=D, vision_cfg={**image, **vision}, text_cfg=text)
        # Words that differ as much as those of a trained model, so that gradients are not lost in rounding
        nn.init.normal_(model.token_embedding.weight, std=0.5)
    return Clip(model, lambda image: image, open_clip.SimpleTokenizer(context_length=20), "toy")


def toy_not_causal() -> Clip:
    found = toy()
    found.text.inner.attn_mask = None
    return found


@pytest.fixture(scope="module")
def clip() -> Clip:
    return toy()


@pytest.fixture(scope="module", autouse=True)
def teacher(clip_folder: Path) -> None:
    """Of the method that has one."""
    SMALL["teacher"] = str(clip_folder)


def made(clip: Clip, name: str, **given: Any) -> tuple[Any, Settings, Classes]:
    """The method, the settings it was built with, and the classes."""
    settings = Settings.of(method=name, **{**SMALL, **given})
    classes = Classes(clip, NAMES, settings)
    return method(name).build(clip, settings, len(classes)), settings, classes  # Any: tests look inside prompters


@pytest.mark.parametrize("name", METHODS)
def test_a_method_reads_the_settings_that_say_so_and_no_others(clip: Clip, name: str) -> None:
    declared = {each.name: rule_of(each).read_by.get("method", (name,)) for each in fields(PromptSettings)}
    read = set()

    class Watched(Settings):
        def __getattribute__(self, asked: str) -> Any:
            if asked in declared:
                read.add(asked)
            return super().__getattribute__(asked)

    watched = Watched.of(method=name, **SMALL)
    read.clear()
    method(name).build(clip, watched, len(NAMES))
    # By `Classes`, whatever the method; and what only some methods do otherwise
    elsewhere = {"method", "position", "template", "frame", "recipe"}
    assert read - elsewhere == {each for each, methods in declared.items() if name in methods} - elsewhere


def outputs(clip: Clip, made: Method, classes: Classes, pixels: Tensor = PIXELS, labels: Tensor = LABELS) -> Outputs:
    """One training step's outputs, as a training loop computes them."""
    frozen = clip.encode_images(pixels)
    prompts = made.prompter(classes, frozen)
    text = classes.features(prompts)
    images, rows = frozen, None
    if made.prompts_images:
        images, rows = encode_with_rows(clip, pixels, prompts.visual, prompts.last)
    images = projected(images, prompts.project)
    taught = None
    if (teacher := made.teacher) is not None:
        taught = teacher.clip.scale * teacher.clip.encode_images(pixels) @ teacher.vectors(classes.names).T
    return Outputs(
        logits=clip.scale * (images[:, None] * text).sum(dim=-1),
        labels=labels,
        text=text,
        images=images,
        frozen_text=classes.frozen,
        ensemble_text=classes.ensemble,
        frozen_images=frozen,
        scale=clip.scale,
        parameters=list(made.prompter.parameters()),
        teacher=taught,
        rows=None if rows is None else clip.scale * rows @ text.T,
    )


def gradient(clip: Clip, made: Method, classes: Classes) -> Tensor:
    loss = made.objective(outputs(clip, made, classes))
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(made.prompter.parameters()))])


def moved(prompter: Any, by: float = 0.1) -> Any:
    """Every parameter away from where it started."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in prompter.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return prompter


def vectors(prompts: Prompts) -> list[Tensor]:
    return [prompts.context, *prompts.deep.values(), *prompts.visual.values()]


# Of every method


def test_every_file_is_a_method_but_those_that_say_otherwise() -> None:
    files = {path.stem for path in Path(multimodal.prompts.methods.__path__[0]).glob("*.py")}
    assert files - {"__init__", "parts", "tpt"} == set(METHODS)
    for name in METHODS:
        assert Settings.of(method=name).method == name, "its defaults are settings"
    with pytest.raises(UserError, match="no method 'parts'; the methods are coop, cocoop, kgcoop, prograd"):
        method("parts")


@pytest.mark.parametrize("name", METHODS)
def test_what_is_saved_serves_any_classes(clip: Clip, name: str) -> None:
    built, settings, classes = made(clip, name)
    before = {key: tuple(value.shape) for key, value in built.prompter.state_dict().items()}
    others = Classes(clip, OTHERS, settings)
    moved(built.prompter)
    images = clip.encode_images(PIXELS)
    expected = [built.prompter(some, images) for some in (classes, others)]
    assert {key: tuple(value.shape) for key, value in built.prompter.state_dict().items()} == before
    learned = dict(built.prompter.named_parameters())
    assert set(before) == set(learned), "nothing frozen is saved"
    assert all(parameter.requires_grad for parameter in learned.values())
    again = method(name).build(clip, Settings.of(method=name, **SMALL, seed=9))
    again.prompter.load_state_dict(built.prompter.state_dict())
    for some, prompts in zip((classes, others), expected, strict=True):
        for one, other in zip(vectors(again.prompter(some, images)), vectors(prompts), strict=True):
            assert torch.equal(one, other)
        dimension = D if built.teacher is None else built.teacher.dimension
        assert classes.features(expected[0]).shape[-2:] == (len(NAMES), dimension)
        assert others.features(expected[1]).shape[-2:] == (len(OTHERS), dimension)


@pytest.mark.parametrize("name", METHODS)
def test_every_prompt_learns_and_nothing_frozen_does(clip: Clip, name: str) -> None:
    built, _, classes = made(clip, name)
    backbone = {key: value.clone() for key, value in clip.model.state_dict().items()}
    before = {key: value.clone() for key, value in built.prompter.state_dict().items()}
    optimizer = torch.optim.AdamW(built.prompter.parameters(), lr=1e-2, weight_decay=0.0)
    losses = []
    for _ in range(8):
        loss = built.objective(outputs(clip, built, classes))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert [key for key, value in built.prompter.state_dict().items() if torch.equal(value, before[key])] == []
    assert all(parameter.grad is None for parameter in clip.model.parameters())
    assert all(torch.equal(value, backbone[key]) for key, value in clip.model.state_dict().items())


@pytest.mark.parametrize("name", METHODS)
def test_the_seed_alone_decides_the_start(clip: Clip, name: str) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one = made(clip, name, seed=1)[0].prompter.state_dict()
    assert torch.equal(torch.get_rng_state(), state), "the caller's random state is left alone"
    torch.manual_seed(5)
    same, other = (made(clip, name, seed=seed)[0].prompter.state_dict() for seed in (1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    words = name in ("coop", "kgcoop", "prograd")  # nothing random
    assert all(torch.equal(one[key], other[key]) for key in one) == words


@pytest.mark.parametrize("name", METHODS)
def test_a_small_memory_gives_the_same_gradient(clip: Clip, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built, _, classes = made(clip, name)
    moved(built.prompter)
    expected = gradient(clip, built, classes)
    monkeypatch.setattr(clip.text, "memory", 1e-9)  # a class at a time, computed again in the backward pass
    assert torch.allclose(gradient(clip, built, classes), expected, rtol=1e-4, atol=1e-5 * float(expected.norm()))


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_says_of_itself_is_so(clip: Clip, name: str) -> None:
    built, _, classes = made(clip, name)
    moved(built.prompter)
    got = outputs(clip, built, classes)
    assert built.prompts_images == bool(built.prompter(classes, got.frozen_images).visual)
    expected = built.objective(got)
    nothing = replace(got, ensemble_text=torch.full_like(got.ensemble_text, torch.nan))
    assert bool(built.objective(nothing).isnan()) == built.ensemble, "only it reads the ensemble"
    assert not expected.isnan()


@pytest.mark.parametrize("name", METHODS)
def test_class_specific_contexts_only_where_there_are_any(clip: Clip, name: str) -> None:
    if name in ("coop", "kgcoop", "prograd"):
        assert tuple(made(clip, name, class_specific=True)[0].prompter.encoder().shape) == (len(NAMES), 4, WIDTH)
    else:
        with pytest.raises(
            UserError,
            match=rf"^--class-specific is used with --method coop, kgcoop or prograd, not with --method {name}$",
        ):
            made(clip, name, class_specific=True)


@pytest.mark.parametrize("name", ["vpt", "maple", "mmrl", "promptkd", "promptsrc"])
def test_methods_with_visual_prompts_refuse_other_image_towers(name: str) -> None:
    with pytest.raises(UserError, match="toy is a ModifiedResNet"):
        made(toy(layers=(1, 1, 1, 1), image_size=32), name)


@pytest.mark.parametrize("name", ["deep", "maple", "mmrl", "promptsrc", "tcp"])
def test_methods_with_deep_prompts_refuse_towers_without_layers(
    clip: Clip, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip.text, "layers", 0)  # as of a Hugging Face tower
    with pytest.raises(UserError, match=r"the text tower of toy .*use coop"):
        made(clip, name)


# CoOp and its kin


@pytest.mark.parametrize("encoder", ["table", "mlp", "lstm"])
@pytest.mark.parametrize("name", ["coop", "kgcoop", "prograd"])
def test_the_start_is_the_hand_written_prompt(clip: Clip, name: str, encoder: str) -> None:
    built, _, classes = made(clip, name, encoder=encoder)
    prompts = built.prompter(classes, None)
    assert tuple(prompts.context.shape) == (4, WIDTH)
    assert torch.allclose(classes.features(prompts), classes.frozen, atol=1e-5)
    assert not prompts.deep
    assert not prompts.visual


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_the_class_name_stands_where_the_settings_say(clip: Clip, position: str) -> None:
    built, _, classes = made(clip, "coop", position=position)
    texts = {"end": "a photo of a dog.", "middle": "a photo dog of a.", "front": "dog a photo of a."}
    got = classes.features(built.prompter(classes, None))[0]
    assert torch.allclose(got, clip.encode_texts([texts[position]])[0], atol=1e-5)


def test_a_class_learns_its_own_context_alone(clip: Clip) -> None:
    built, _, classes = made(clip, "coop", class_specific=True)
    prompts = built.prompter(classes, None)
    assert torch.allclose(classes.features(prompts), classes.frozen, atol=1e-5)
    classes.features(prompts)[2].sum().backward()
    assert built.prompter.encoder.vectors.grad.flatten(1).norm(dim=1).ne(0).tolist() == [False, False, True, False]
    gaussian = made(clip, "coop", class_specific=True, init="gaussian")[0].prompter.encoder()
    assert len({tuple(context.flatten().tolist()) for context in gaussian}) == len(NAMES)
    with pytest.raises(RuntimeError, match="size mismatch"):
        made(clip, "coop")[0].prompter.load_state_dict(built.prompter.state_dict())
    settings = Settings.of(method="coop", class_specific=True)
    with pytest.raises(UserError, match="class-specific contexts need the number of classes"):
        method("coop").build(clip, settings)


def test_without_its_weight_kgcoop_is_coop(clip: Clip) -> None:
    coop, _, classes = made(clip, "coop")
    for name in ("kgcoop", "prograd"):
        kin, _, _ = made(clip, name, weight=0.0)
        for prompter in (coop.prompter, kin.prompter):
            moved(prompter)
        assert kin.objective(outputs(clip, kin, classes)).item() == pytest.approx(
            coop.objective(outputs(clip, coop, classes)).item()
        )
        assert torch.allclose(gradient(clip, kin, classes), gradient(clip, coop, classes), atol=1e-6)
        coop = made(clip, "coop")[0]
    assert Settings(method="kgcoop").weight == 8


def test_kgcoop_starts_without_a_penalty_and_then_has_one(clip: Clip) -> None:
    built, _, classes = made(clip, "kgcoop")
    start = outputs(clip, built, classes)
    assert built.objective(start).item() == pytest.approx(cross_entropy(start).item(), abs=1e-5)
    moved(built.prompter, by=1.0)
    away = outputs(clip, built, classes)
    distance = 1 - F.cosine_similarity(away.text, classes.frozen).mean()
    assert distance > 0.01
    assert built.objective(away).item() == pytest.approx(cross_entropy(away).item() + 8 * distance.item(), rel=1e-5)


# CoCoOp


def test_cocoop_starts_at_coop(clip: Clip) -> None:
    built, _, classes = made(clip, "cocoop")
    prompts = built.prompter(classes, clip.encode_images(PIXELS))
    assert tuple(prompts.context.shape) == (len(PIXELS), 4, WIDTH)
    coop = made(clip, "coop")[0].prompter(classes, None)
    assert torch.equal(prompts.context, coop.context.expand_as(prompts.context))
    expected = classes.features(coop)
    assert torch.allclose(classes.features(prompts), expected.expand(len(PIXELS), -1, -1), atol=1e-5)


def test_cocoops_bias_is_drawn_where_that_is_published(clip: Clip) -> None:
    images = clip.encode_images(PIXELS)
    built, _, classes = made(clip, "cocoop", recipe="paper")
    contexts = built.prompter(classes, images).context
    assert len({tuple(each.flatten().tolist()) for each in contexts}) == len(PIXELS)


def test_cocoop_in_a_batch_is_cocoop_image_by_image(clip: Clip) -> None:
    built, _, classes = made(clip, "cocoop")
    moved(built.prompter)
    together = outputs(clip, built, classes)
    for index in range(len(PIXELS)):
        one = slice(index, index + 1)
        alone = outputs(clip, built, classes, PIXELS[one], LABELS[one])
        assert torch.allclose(together.logits[one], alone.logits, atol=1e-4)
        context = built.prompter(classes, clip.encode_images(PIXELS[one])).context[0]
        as_coop = classes.features(Prompts(context))
        assert torch.allclose(together.text[index], as_coop, atol=1e-5), "each image's context, for all its classes"


def test_cocoop_moves_all_vectors_by_the_images_bias(clip: Clip) -> None:
    built, _, classes = made(clip, "cocoop")
    down, _, up = moved(built.prompter).meta.children()
    images = clip.encode_images(PIXELS)
    hidden = (images @ down.weight.T + down.bias).clamp(min=0)
    bias = hidden @ up.weight.T + up.bias
    (context,) = built.prompter.context()
    got = built.prompter(classes, images).context
    for image in range(len(PIXELS)):
        for position in range(4):
            assert torch.allclose(got[image, position], context[position] + bias[image], atol=1e-6)
    assert down.weight.shape == (D // 16, D)


# TCP


def test_tcp_makes_each_classes_tokens_of_its_frozen_text(clip: Clip) -> None:
    built, _, classes = made(clip, "tcp")
    prompts = built.prompter(classes, None)
    (layer,) = prompts.deep
    assert layer == 2, "8 of 12"
    down, up = built.prompter.down, built.prompter.up
    hidden = classes.frozen @ down.weight.T + down.bias
    tokens = (hidden * (1.702 * hidden).sigmoid()) @ up.weight.T + up.bias
    assert torch.allclose(prompts.deep[2], tokens.view(len(NAMES), 4, WIDTH), atol=1e-6)
    assert down.weight.shape == (D // 4, D)
    assert len({tuple(own.flatten().tolist()) for own in prompts.deep[2]}) == len(NAMES)


def test_tcp_tokens_are_no_matter_of_the_other_classes(clip: Clip) -> None:
    built, settings, classes = made(clip, "tcp")
    alone = Classes(clip, NAMES[1:2], settings)
    together = classes.features(built.prompter(classes, None))
    assert torch.allclose(alone.features(built.prompter(alone, None))[0], together[1], atol=1e-5)


@pytest.mark.parametrize(("layers", "layer"), [(12, 8), (24, 16), (6, 4), (2, 1)])
def test_tcp_goes_two_thirds_deep(clip: Clip, layers: int, layer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip.text, "layers", layers)
    assert made(clip, "tcp")[0].prompter.layer == layer


def test_tcp_is_held_near_the_template(clip: Clip) -> None:
    built, _, classes = made(clip, "tcp")
    got = outputs(clip, built, classes)
    assert torch.equal(built.objective(got), knowledge_guided(got, 8.0))


# Deep prompts


def test_a_single_layer_of_deep_prompts_is_coop(clip: Clip) -> None:
    deep, _, classes = made(clip, "deep", depth=1)
    prompts = deep.prompter(classes, None)
    assert not prompts.deep
    assert torch.equal(prompts.context, made(clip, "coop")[0].prompter(classes, None).context)


@pytest.mark.parametrize("name", WITH_DEPTH)
def test_there_are_no_more_prompts_than_layers(clip: Clip, name: str) -> None:
    for depth in (1, 2, 3, 4, 12):
        built, _, classes = made(clip, name, depth=depth)
        prompts = built.prompter(classes, None)
        images = {"deep": 0, "maple": min(depth, TEXT_LAYERS)}.get(name, min(depth, IMAGE_LAYERS))
        texts = 1 if name in ("vpt", "promptkd") else min(depth, TEXT_LAYERS)
        if name == "mmrl":
            assert sorted(prompts.visual) == list(range(IMAGE_LAYERS))[-depth:]
            assert sorted(prompts.deep) == list(range(1, TEXT_LAYERS))[-depth:]
        else:
            assert sorted(prompts.visual) == list(range(images))
            assert sorted(prompts.deep) == list(range(1, texts))
        assert {tuple(rows.shape) for rows in (prompts.context, *prompts.deep.values())} == {
            (len(prompts.context), WIDTH)
        }


def test_deep_prompts_are_drawn_from_a_narrow_gaussian(clip: Clip) -> None:
    built, _, classes = made(clip, "promptsrc", visual=500, context=4)
    prompts = built.prompter(classes, None)
    for layer in range(3):
        assert prompts.visual[layer].std().item() == pytest.approx(0.02, rel=0.05)
        assert abs(prompts.visual[layer].mean().item()) < 0.001
    assert prompts.deep[1].std().item() == pytest.approx(0.02, rel=0.3)
    assert not torch.equal(prompts.deep[1], prompts.deep[2])


# VPT


def test_vpt_leaves_the_text_as_it_is(clip: Clip) -> None:
    built, _, classes = made(clip, "vpt")
    prompts = moved(built.prompter)(classes, None)
    assert prompts.text_is_frozen
    assert torch.allclose(classes.features(prompts), classes.frozen, atol=1e-5)
    assert list(built.prompter.state_dict()) == ["visual.vectors"]
    assert {tuple(rows.shape) for rows in prompts.visual.values()} == {(2, IMAGE_WIDTH)}
    with pytest.raises(UserError, match=r"vpt leaves the text as it is.*--init"):
        made(clip, "vpt", init="gaussian")


# MMRL


def test_mmrls_tokens_are_shared_by_all_higher_layers_of_both_towers(clip: Clip) -> None:
    built, _, classes = made(clip, "mmrl", depth=2)
    moved(built.prompter)
    prompts = built.prompter(classes, None)
    (tokens,) = built.prompter.tokens()
    assert tuple(tokens.shape) == (4, D)
    for side, layers in ((built.prompter.text, prompts.deep), (built.prompter.visual, prompts.visual)):
        for at, rows in layers.items():
            assert torch.allclose(rows, tokens @ side[str(at)].weight.T + side[str(at)].bias, atol=1e-6)
    vectors = built.prompter.tokens.vectors
    for loss in (classes.features(prompts)[:, 0].sum(), encode_images(clip, PIXELS, prompts.visual)[:, 0].sum()):
        assert torch.autograd.grad(loss, vectors, retain_graph=True)[0].abs().max() > 0, "each tower moves them"
    with pytest.raises(UserError, match="mmrl leaves the first layers as they are, so words stand there"):
        made(clip, "mmrl", init="gaussian")


def test_the_published_mmrls_tokens_stand_before_all_words_of_the_higher_layers(clip: Clip) -> None:
    built, _, classes = made(clip, "mmrl", depth=2, recipe="paper", frame="a photo of a {}.")
    moved(built.prompter)
    prompts = built.prompter(classes, None)
    assert prompts.context.shape == (0, WIDTH) and classes.rows.length == 0
    assert {layer: tuple(rows.shape) for layer, rows in prompts.deep.items()} == {1: (5, WIDTH), 2: (5, WIDTH)}
    text = classes.features(prompts)
    assert not torch.allclose(text, classes.frozen)
    bare = replace(prompts, deep={})
    assert torch.allclose(classes.features(bare), classes.frozen, atol=1e-6), "the words are the template's"
    with pytest.raises(UserError, match="the published mmrl puts tokens between words, which the text tower of toy"):
        made(toy_not_causal(), "mmrl", recipe="paper")


def test_what_becomes_of_mmrls_rows(clip: Clip) -> None:
    built, _, classes = made(clip, "mmrl", depth=2)
    assert torch.equal(built.prompter.last, clip.visual.proj), "it starts at the frozen projection"
    moved(built.prompter)
    prompts, seen = built.prompter(classes, None), []
    hook = clip.visual.transformer.resblocks[-1].register_forward_hook(lambda *passed: seen.append(passed[-1]))
    images, rows = encode_with_rows(clip, PIXELS, prompts.visual, prompts.last)
    hook.remove()
    assert torch.equal(images, encode_images(clip, PIXELS, prompts.visual))
    left = seen[0] if seen[0].shape[0] == len(PIXELS) else seen[0].transpose(0, 1)
    expected = clip.visual.ln_post(left[:, -4:]).mean(dim=1) @ built.prompter.last
    assert rows is not None and torch.allclose(rows, F.normalize(expected, dim=-1), atol=1e-6)
    pooled = toy(attentional_pool=True, attn_pooler_heads=2)
    with pytest.raises(UserError, match="toy has no projection behind its class token"):
        last_projection(pooled)


def test_mmrl_learns_from_both_and_is_held_near_the_frozen_model(clip: Clip) -> None:
    built, _, classes = made(clip, "mmrl", own=0.6, weight=2.0)
    moved(built.prompter)
    got = outputs(clip, built, classes)
    assert got.rows is not None
    images, text = F.cosine_similarity(got.images, got.frozen_images), F.cosine_similarity(got.text, classes.frozen)
    both = 0.6 * F.cross_entropy(got.logits, LABELS) + 0.4 * F.cross_entropy(got.rows, LABELS)
    expected = both + 2 * (1 - images.mean() + 1 - text.mean())
    assert built.objective(got).item() == pytest.approx(expected.item(), rel=1e-5)


def test_mmrl_answers_for_new_classes_by_the_class_token_alone(clip: Clip) -> None:
    built, settings, classes = made(clip, "mmrl")
    moved(built.prompter)

    class Images:
        def features(self, positions: Any, views: Any) -> Tensor:
            return clip.encode_images(PIXELS[positions])

        def pixels(self, positions: Any, views: Any) -> Tensor:
            return PIXELS[positions]

    def said(known: Classes, strength: float = 1.0) -> Tensor:
        return predict(clip, built, known, Images(), np.arange(len(PIXELS)), strength, NAMES)

    got = outputs(clip, built, classes)
    assert got.rows is not None
    assert torch.allclose(said(classes), 0.7 * got.logits + 0.3 * got.rows, atol=1e-4)
    others = Classes(clip, OTHERS, settings)
    plain = outputs(clip, built, others).logits
    assert torch.allclose(said(others), plain, atol=1e-4)
    mixed = said(Classes(clip, (*OTHERS, *NAMES), settings))
    assert torch.allclose(mixed, torch.cat([plain, said(classes)], dim=1), atol=1e-4)
    frozen = clip.scale * clip.encode_images(PIXELS) @ classes.frozen.T
    assert torch.allclose(said(classes, 1e-6), frozen, atol=1e-2), "a strength near 0 is near the frozen model"
    assert torch.allclose(said(classes, 1 - 1e-6), said(classes), atol=1e-2)


# PromptKD


def test_the_projector_starts_at_the_nearest_linear_map_of_its_hidden_layer(clip: Clip) -> None:
    built, _, classes = made(clip, "promptkd")
    student, own = built.prompter, F.normalize(torch.randn(300, D, generator=torch.Generator().manual_seed(1)), dim=-1)
    hidden = (D**0.5 * own @ student.first.weight.T + student.first.bias).clamp(min=0)
    weight = torch.randn(hidden.shape[1], hidden.shape[1], generator=torch.Generator().manual_seed(2))
    student.start(own, hidden @ weight + 3)
    assert torch.allclose(student.second(hidden), hidden @ weight + 3, atol=0.01), "where there is one, it is found"
    prompts = student(classes, None)
    expected = F.normalize(hidden @ weight + 3, dim=-1)
    assert torch.allclose(projected(own, prompts.project), expected, atol=0.01)
    noise = torch.randn(300, hidden.shape[1], generator=torch.Generator().manual_seed(3))
    student.start(own, noise)
    assert (student.second(hidden) - noise.mean(dim=0)).norm() < 0.4 * (noise - noise.mean(dim=0)).norm()
    student.start(own[:1], noise[:1])
    assert torch.allclose(student.second(hidden[:1]), noise[:1], atol=1e-4), "one image: its own"


def test_promptkd_learns_the_teachers_predictions_and_no_label(clip: Clip) -> None:
    built, settings, classes = made(clip, "promptkd", kd_temperature=2.0)
    got = outputs(clip, built, classes)
    teacher = built.teacher.clip
    texts = teacher.encode_texts([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
    assert torch.allclose(got.text, texts, atol=1e-6), "the class texts are the teacher's"
    taught = (teacher.scale * teacher.encode_images(PIXELS) @ texts.T / 2).softmax(dim=-1)
    own = (clip.scale * got.images @ texts.T / 2).softmax(dim=-1)
    expected = 4 * (taught * (taught.log() - own.log())).sum(dim=-1).mean()
    assert built.objective(got).item() == pytest.approx(expected.item(), rel=1e-4)
    assert torch.equal(built.objective(replace(got, labels=got.labels.flip(0))), built.objective(got))
    assert got.teacher is not None
    assert built.objective(replace(got, logits=got.teacher)).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(UserError, match="promptkd learns from a larger CLIP: give --teacher MODEL"):
        method("promptkd").build(clip, replace(settings, teacher=None))


# MaPLe


@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_maples_deeper_projections_start_alike_where_that_is_published(clip: Clip, recipe: str) -> None:
    first, second, third = made(clip, "maple", recipe=recipe)[0].prompter.project
    assert torch.equal(second.weight, third.weight) == torch.equal(second.bias, third.bias) == (recipe == "paper")
    assert not torch.equal(first.weight, second.weight)


def test_maple_makes_visual_prompts_of_those_of_the_text(clip: Clip) -> None:
    built, _, classes = made(clip, "maple")
    prompts = built.prompter(classes, None)
    text = {0: prompts.context, **prompts.deep}
    assert len(prompts.context) == 2
    for layer, rows in prompts.visual.items():
        linear = built.prompter.project[layer]
        assert torch.allclose(rows, text[layer] @ linear.weight.T + linear.bias, atol=1e-6)
        assert tuple(rows.shape) == (2, IMAGE_WIDTH)


def test_maples_text_prompts_learn_from_the_images_alone(clip: Clip) -> None:
    built, _, classes = made(clip, "maple")
    encode_images(clip, PIXELS, built.prompter(classes, None).visual)[:, 0].sum().backward()
    grad = built.prompter.text.vectors.grad
    assert (grad.flatten(1).norm(dim=1) > 0).all(), "through the coupling, in every layer"


# PromptSRC


def test_promptsrc_pulls_both_towers_back(clip: Clip) -> None:
    built, _, classes = made(clip, "promptsrc")
    moved(built.prompter, by=0.5)
    got = outputs(clip, built, classes)
    text, images = (got.text - classes.ensemble).abs().mean(), (got.images - got.frozen_images).abs().mean()
    frozen = (clip.scale * got.frozen_images @ classes.ensemble.T).softmax(dim=-1)
    divergence = (frozen * (frozen.log() - got.logits.log_softmax(dim=-1))).mean()
    expected = cross_entropy(got) + 25 * text + 10 * images + divergence
    assert built.objective(got).item() == pytest.approx(expected.item(), rel=1e-5)
    assert min(text.item(), images.item(), divergence.item()) > 0
    assert torch.equal(made(clip, "promptsrc", weight=0.0)[0].objective(got), cross_entropy(got))


def test_only_promptsrc_averages_its_prompts_over_epochs(clip: Clip) -> None:
    averages = {name: made(clip, name)[0].average for name in METHODS}
    assert averages.pop("promptsrc") == (0.75, 0.05), "epoch 15 of 20, give or take one"
    assert set(averages.values()) == {None}


# TPT


@pytest.fixture
def views(clip: Clip) -> Tensor:
    """An image and 29 others that resemble it."""
    noise = torch.randn(30, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    return clip.encode_images(PIXELS[:1] + 0.7 * noise)


def start(clip: Clip) -> tuple[Tensor, Classes]:
    built, _, classes = made(clip, "coop")
    return built.prompter(classes, None).context.detach(), classes


def test_tpt_without_steps_is_zero_shot(clip: Clip, views: Tensor) -> None:
    context, classes = start(clip)
    expected = clip.scale * views[0] @ classes.frozen.T
    assert torch.allclose(adapt(clip, classes, context, views, steps=0), expected, atol=1e-4)


def test_tpt_makes_the_surest_views_agree(clip: Clip, views: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    context, classes = start(clip)
    seen: list[float] = []

    def watched(logits: Tensor) -> Tensor:
        entropy = marginal_entropy(logits)
        assert len(logits) == 3, "a tenth of 30 views, in every step"
        seen.append(entropy.item())
        return entropy

    monkeypatch.setattr("multimodal.prompts.methods.tpt.marginal_entropy", watched)
    adapt(clip, classes, context, views, steps=6, learning_rate=1e-2)
    assert len(seen) == 6
    assert seen[1] < seen[0]
    assert seen[-1] < seen[1]


def test_tpt_takes_the_papers_step(clip: Clip, views: Tensor) -> None:
    context, classes = start(clip)
    tuned = nn.Parameter(context.clone())
    logits = clip.scale * views @ classes.features(Prompts(tuned)).T
    entropy = -(logits.softmax(dim=-1) * logits.log_softmax(dim=-1)).sum(dim=-1)
    mean = logits[entropy.topk(3, largest=False).indices].softmax(dim=-1).mean(dim=0)
    optimizer = torch.optim.AdamW([tuned], lr=5e-3)
    (-(mean * mean.log()).sum()).backward()
    optimizer.step()
    expected = clip.scale * views[0] @ classes.features(Prompts(tuned.detach())).T
    assert torch.allclose(adapt(clip, classes, context, views), expected, atol=1e-3)


def test_tpt_forgets(clip: Clip, views: Tensor) -> None:
    context, classes = start(clip)
    context.requires_grad_()
    kept, backbone = context.detach().clone(), {key: value.clone() for key, value in clip.model.state_dict().items()}
    state = torch.get_rng_state()
    with torch.no_grad():  # as a caller that only predicts may have it
        first = adapt(clip, classes, context, views)
        adapt(clip, classes, context, views.flip(0))
        again = adapt(clip, classes, context, views)
    assert torch.equal(first, again), "what one image taught is not there for the next"
    assert not first.requires_grad
    assert torch.equal(context, kept)
    assert context.grad is None
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, backbone[key]) for key, value in clip.model.state_dict().items())
    assert all(parameter.grad is None for parameter in clip.model.parameters())


def test_the_surest_views_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [9.0, 0.0], [1.0, 0.0], [0.0, 5.0]])
    assert surest(logits, 0.5).tolist() == [1, 3]
    assert surest(logits, 0.1).tolist() == [1], "one at least"
    assert surest(logits, 1.0).tolist() == [1, 3, 2, 0]


def test_marginal_entropy_by_hand() -> None:
    agree, differ = torch.tensor([[99.0, 0.0], [99.0, 0.0]]), torch.tensor([[99.0, 0.0], [0.0, 99.0]])
    assert marginal_entropy(agree).item() == pytest.approx(0.0, abs=1e-6)
    assert marginal_entropy(differ).item() == pytest.approx(torch.tensor(2.0).log().item()), "sure, of opposite things"
    certain = marginal_entropy(torch.tensor([[1000.0, 0.0, -1000.0]]).requires_grad_())
    assert certain.item() == pytest.approx(0.0), "without NaN"


@pytest.mark.parametrize(
    "wrong", [lambda views: (views[:0], 0.1), lambda views: (views, 0.0), lambda views: (views, 1.5)]
)
def test_tpt_refuses_no_views(clip: Clip, views: Tensor, wrong: Callable[[Tensor], tuple[Tensor, float]]) -> None:
    context, classes = start(clip)
    some, confident = wrong(views)
    with pytest.raises(UserError, match=r"needs 1 view or more and a share .* got \d+ views and"):
        adapt(clip, classes, context, some, confident=confident)
