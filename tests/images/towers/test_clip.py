"""Frozen CLIPs: where they are loaded from, what is refused, what their vectors and fingerprints are."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import tiny_clip
import torch
import toy_clips
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.towers import clip as module
from multimodal.towers.clip import CONFIG, EMBEDDED, Clip, load_clip, reload_clip
from retrieval_prompts.errors import DataWarning, UserError

WEIGHTS = "open_clip_model.safetensors"
PIXELS = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TEXTS = ("a photo of a dog", "fox", "Überall naïve Füchse, & 3 dogs " * 9, "")


def of(toy: str) -> Clip:
    """A toy of toy_clips.py."""
    model = toy_clips.TOYS[toy].model()
    return Clip(model, lambda image: image, toy_clips.shared_tokenizer(toy), toy)


# --- where from -----------------------------------------------------------------------------------------------------


def test_a_folder_is_loaded_frozen(clip_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    clip = load_clip(str(clip_folder), device="cpu")
    assert (clip.name, clip.pretrained) == (f"local-dir:{clip_folder}", None)
    assert (clip.dimension, clip.text.width, clip.text.layers) == (tiny_clip.DIMENSION, tiny_clip.WIDTH, 2)
    assert (clip.image_size, clip.mean, clip.std) == ((16, 16), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert clip.scale == pytest.approx(tiny_clip.SCALE)
    assert clip.device == torch.device("cpu")
    assert not clip.model.training
    assert not any(parameter.requires_grad for parameter in clip.model.parameters())
    saved = load_file(clip_folder / WEIGHTS)
    assert all(torch.equal(value, saved[name]) for name, value in clip.model.state_dict().items())
    assert capfd.readouterr() == ("", ""), "no chatter"


def test_a_folder_is_called_by_one_name(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = load_clip(f"local-dir:{clip_folder}")
    assert named.name == load_clip(str(clip_folder)).name == load_clip(named.name).name
    monkeypatch.setenv("HOME", str(clip_folder.parent))
    assert load_clip(f"~/{clip_folder.name}").name == named.name
    monkeypatch.chdir(clip_folder.parent)
    assert load_clip(clip_folder.name).fingerprint == named.fingerprint


@pytest.fixture
def built_in(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tiny CLIP among open_clip's architectures."""
    config = json.loads((clip_folder / CONFIG).read_text())["model_cfg"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-Tiny-8", config)
    return "ViT-Tiny-8"


def test_an_architecture_takes_a_checkpoint_file(built_in: str, clip_folder: Path, tmp_path: Path) -> None:
    path = shutil.copy(clip_folder / WEIGHTS, tmp_path / "weights.safetensors")
    clip = load_clip(built_in, str(path), device="cpu", quick_gelu=False)
    assert (clip.name, clip.pretrained) == (built_in, str(path))
    folder = load_clip(str(clip_folder))
    assert torch.equal(clip.encode_images(PIXELS), folder.encode_images(PIXELS))
    assert clip.text_fingerprint == folder.text_fingerprint
    assert clip.image_fingerprint != folder.image_fingerprint, "CLIP's own mean and deviation, not the folder's"


def activations(clip: Clip) -> set[str]:
    parts = {type(part).__name__ for part in clip.model.modules()}
    return parts & {"GELU", "QuickGELU"}


def test_a_checkpoint_file_may_be_of_either_activation(built_in: str, clip_folder: Path, tmp_path: Path) -> None:
    path = str(shutil.copy(clip_folder / WEIGHTS, tmp_path / "weights.safetensors"))
    with pytest.warns(DataWarning) as caught:
        plain = load_clip(built_in, path, device="cpu")
    assert [str(warning.message) for warning in caught] == [
        f"{path} is read as model {built_in}, with GELU; if it was trained with QuickGELU, as OpenAI's CLIPs and what"
        " is made of them, its vectors are wrong: pass --quick-gelu then, else --no-quick-gelu (quick_gelu=False)"
    ]
    quick = load_clip(built_in, path, device="cpu", quick_gelu=True)
    assert (activations(plain), activations(quick)) == ({"GELU"}, {"QuickGELU"})
    assert (quick.name, quick.pretrained) == (f"{built_in}-quickgelu", path)
    model = open_clip.CLIP(**json.loads((clip_folder / CONFIG).read_text())["model_cfg"], quick_gelu=True).eval()
    model.load_state_dict(load_file(path))
    assert torch.allclose(quick.encode_images(PIXELS), F.normalize(model.encode_image(PIXELS), dim=-1), atol=1e-6)
    assert not torch.equal(quick.encode_images(PIXELS), plain.encode_images(PIXELS))
    for clip in (plain, quick):  # as its names say, without a word
        assert reload_clip(clip.name, path, device="cpu").fingerprint == clip.fingerprint
    assert plain.image_fingerprint != quick.image_fingerprint and plain.text_fingerprint != quick.text_fingerprint
    assert "is one with QuickGELU; for" in refused(f"{built_in}-quickgelu", path, quick_gelu=False)
    said = f"the model folder {clip_folder} has its own activation; leave out --quick-gelu (quick_gelu)"
    assert refused(str(clip_folder), quick_gelu=True) == said


@pytest.mark.parametrize("quick", [True, False])
def test_a_tag_knows_its_activation(
    quick: bool, built_in: str, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shutil.copy(clip_folder / WEIGHTS, tmp_path / "weights.safetensors")
    tags = {"openai": open_clip.pretrained._pcfg(url="https://nowhere/weights", quick_gelu=quick)}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, built_in, tags)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: str(path))
    clip = load_clip(built_in, "openai", device="cpu")
    assert activations(clip) == ({"QuickGELU"} if quick else {"GELU"})
    assert (clip.name, clip.pretrained) == (built_in, "openai")
    assert reload_clip(built_in, "openai", device="cpu").fingerprint == clip.fingerprint
    said = f"the weights openai of {built_in} were trained with{'' if quick else 'out'} QuickGELU; leave out what"
    assert refused(built_in, "openai", quick_gelu=not quick).startswith(said)


def test_openais_models_have_quick_gelu_whatever_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def stop(name: str, tag: str, **options: Any) -> None:
        asked.append((name, tag, options["force_quick_gelu"]))
        raise OSError("offline")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", stop)
    places = [("ViT-B-32", "openai"), ("ViT-B-32-quickgelu", "openai"), ("ViT-B-32", "laion2b_s34b_b79k")]
    places += [("ViT-B-16", "dfn2b"), ("RN50", "cc12m")]
    for name, tag in places:
        refused(name, tag)
    assert asked == [(name, tag, tag != "laion2b_s34b_b79k") for name, tag in places]


def test_half_precision_is_loaded_as_float32(clip_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(clip_folder, tmp_path / "half")
    weights = {name: value.half() for name, value in load_file(clip_folder / WEIGHTS).items()}
    save_file(weights, tmp_path / "half" / WEIGHTS)
    clip = load_clip(str(tmp_path / "half"))
    assert {parameter.dtype for parameter in clip.model.parameters()} == {torch.float32}
    model = open_clip.CLIP(**json.loads((clip_folder / CONFIG).read_text())["model_cfg"]).half()
    assert (
        Clip(model, lambda image: image, toy_clips.tokenizer("simple", 20), "half").encode_images(PIXELS).dtype
        == torch.float32
    )


# --- what is refused ------------------------------------------------------------------------------------------------


def refused(*arguments: str | None, **options: Any) -> str:
    level = logging.getLogger().level
    with pytest.raises(UserError) as caught:
        load_clip(*arguments, device="cpu", **options)
    assert logging.getLogger().level == level
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_that_are_none(built_in: str, tmp_path: Path) -> None:
    for name in ("ViT-B-33", str(tmp_path / "nothing"), "nothing"):
        assert refused(name) == (
            f"there is no model {name}: expected a folder, hf-hub:NAME, or an open_clip name like ViT-B-32"
        )
    for name in (str(tmp_path), f"local-dir:{tmp_path}"):
        assert refused(name) == f"{tmp_path} is not an open_clip model folder: expected {CONFIG} in it"
    nothing = tmp_path / "nothing"
    assert refused(f"local-dir:{nothing}") == f"{nothing} is not an open_clip model folder: expected {CONFIG} in it"


def test_weights_that_are_none(built_in: str, clip_folder: Path) -> None:
    assert refused(built_in) == f"model {built_in} needs --pretrained: a checkpoint file, or one of no tag"
    assert refused("ViT-B-16-SigLIP") == "model ViT-B-16-SigLIP needs --pretrained: a checkpoint file, or one of webli"
    assert refused("ViT-B-16-SigLIP", "openai") == (
        "--pretrained openai is neither a file nor a tag of ViT-B-16-SigLIP; there are webli"
    )
    assert refused(built_in, "gone.pt") == (
        f"--pretrained gone.pt is neither a file nor a tag of {built_in}; there are none"
    )
    assert refused(str(clip_folder), "openai") == (
        f"the model folder {clip_folder} has its own weights; leave out --pretrained openai"
    )
    for name in (None, "small_clip", "hf-hub:someone/clip"):
        said = f"the model {name or 'small_clip'} has its own weights; leave out --pretrained openai"
        assert refused(name, "openai") == said


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / WEIGHTS).unlink(), "Required pretrained weights .* could not be loaded"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"x" * 100), ""),
        (lambda folder: (folder / CONFIG).write_text("{"), "Could not load valid config"),
        (lambda folder: (folder / CONFIG).write_text("{}"), "Could not load valid config"),
        (lambda folder: edit(folder, lambda config: config["model_cfg"]["text_cfg"].update(width=64)), "width changed"),
        (lambda folder: edit(folder, lambda config: config["model_cfg"]["text_cfg"].update(depth=3)), "depth"),
        (lambda folder: edit(folder, lambda config: config["model_cfg"].pop("vision_cfg")), "vision_cfg"),
    ],
    ids=["no weights", "no safetensors", "no JSON", "no model", "other sizes", "unknown setting", "no image tower"],
)
def test_damaged_folders(damage: Callable[[Path], object], said: str, clip_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(clip_folder, folder)
    damage(folder)
    message = refused(str(folder))
    assert message.startswith(f"model local-dir:{folder} could not be loaded by open_clip: ")
    assert re.search(said, message)


def test_a_tower_without_a_place_for_vectors(clip_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(clip_folder, tmp_path / "model")
    edit(
        tmp_path / "model",
        lambda config: config["model_cfg"]["text_cfg"].update(tokenizer_kwargs={"reduction_mask": "simple"}),
    )
    assert refused(str(tmp_path / "model")).startswith("this tokenizer drops words at random (reduction_mask); ")


def test_a_hub_model_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("offline,\nand\tno cache " + "x" * 500)

    monkeypatch.setattr(open_clip, "create_model_and_transforms", fail)
    message = refused("hf-hub:someone/clip")
    assert message.startswith("model hf-hub:someone/clip could not be loaded by open_clip: offline, and no cache xxx")
    assert len(message) < 300


def test_a_model_without_images_is_refused() -> None:
    class TextOnly(nn.Module):
        def encode_text(self, ids: Tensor) -> Tensor:
            return ids.float()

    with pytest.raises(UserError, match=r"^model words has no image tower; expected an open_clip model with one$"):
        Clip(TextOnly(), lambda image: image, toy_clips.tokenizer("simple"), "words")


# --- vectors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("toy", ["fused", "custom text", "coca", "bert, mean", "siglip"])
def test_images_are_the_models_own_at_unit_length(toy: str) -> None:
    clip = of(toy)
    for _ in range(2):
        vectors = clip.encode_images(PIXELS)
        assert vectors.shape == (3, clip.dimension)
        assert torch.allclose(vectors, F.normalize(clip.model.encode_image(PIXELS), dim=-1), atol=1e-6)
        assert torch.allclose(vectors.norm(dim=-1), torch.ones(3))
    with torch.autocast("cpu", torch.bfloat16):
        assert clip.encode_images(PIXELS).dtype == torch.float32
    pixels = PIXELS.clone().requires_grad_()
    clip.encode_images(pixels)[0, 0].backward()  # as visual prompts need it
    assert pixels.grad is not None


@pytest.mark.parametrize("toy", ["fused", "custom text", "coca", "byte-level", "bert, mean", "mt5, mean", "siglip"])
def test_texts_are_the_models_own_at_unit_length(toy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = of(toy)
    texts = [text for text in TEXTS if text]
    found = clip.model.encode_text(clip.tokenizer(texts), normalize=False)
    expected = F.normalize(found[0] if isinstance(found, tuple) else found, dim=-1)
    got = clip.encode_texts(texts)
    assert torch.allclose(got, expected, atol=2e-6)
    assert torch.allclose(got.norm(dim=-1), torch.ones(len(texts)))
    monkeypatch.setattr(module, "BATCH", 2)
    assert torch.allclose(clip.encode_texts(texts), expected, atol=2e-6)
    assert clip.encode_texts([]).shape == (0, clip.dimension)
    with torch.enable_grad():
        assert not clip.encode_texts(texts).requires_grad


def test_an_empty_text_is_a_text(tiny_model: Clip) -> None:
    expected = F.normalize(tiny_model.model.encode_text(tiny_model.tokenizer(list(TEXTS))), dim=-1)
    assert torch.allclose(tiny_model.encode_texts(TEXTS), expected, atol=1e-6)


def test_preprocessing_is_the_models_own_and_no_augmentation(tiny_model: Clip) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 24, 3), dtype=np.uint8))
    pixels = tiny_model.preprocess(image)
    assert pixels.shape == (3, 16, 16)
    assert torch.equal(pixels, tiny_model.preprocess(image.copy()))
    assert tiny_model.preprocess(Image.new("RGB", (20, 20), (255, 255, 255))).unique().tolist() == [
        2.0
    ]  # (1 - 0.5) / 0.25


def test_a_scale_of_one_element() -> None:
    model = toy_clips.TOYS["fused"].model()
    model.logit_scale = nn.Parameter(torch.tensor([2.0]))  # nonscalar_logit_scale
    assert Clip(model, lambda image: image, toy_clips.shared_tokenizer("fused"), "toy").scale == pytest.approx(7.389056)


# --- fingerprints ---------------------------------------------------------------------------------------------------


def prints(folder: Path) -> tuple[str, str, str]:
    clip = load_clip(str(folder), device="cpu")
    return clip.image_fingerprint, clip.text_fingerprint, clip.fingerprint


def test_the_fingerprint_of_the_small_clip() -> None:
    """It stands in every prompt folder that was tuned on it."""
    assert load_clip(device="cpu").fingerprint == "44ce11b93d4ee2f5d7fb2ebd2cb9534c953767bda052556459ad9100c9e9b558"


def test_fingerprints_are_of_the_model_wherever_it_lies(clip_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(clip_folder, tmp_path / "elsewhere")
    image, text, both = prints(clip_folder)
    assert prints(tmp_path / "elsewhere") == (image, text, both)
    assert len({image, text, both}) == 3
    assert all(len(value) == 64 and int(value, 16) >= 0 for value in (image, text, both))


def test_use_does_not_change_a_fingerprint(clip_folder: Path) -> None:
    clip = load_clip(str(clip_folder))
    clip.encode_images(PIXELS)
    rows = clip.text.rows(["dog", "fox"], 2)
    context = torch.zeros(2, clip.text.width, requires_grad=True)
    for way in ("full", "truncated", "shared"):
        clip.text.encode(rows, context, way=way).sum().backward()
    assert (clip.image_fingerprint, clip.text_fingerprint, clip.fingerprint) == prints(clip_folder)


def weight(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        weights[name].view(-1)[-1] += 1e-3
        save_file(weights, folder / WEIGHTS)

    return change


def setting(part: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        def update(config: dict[str, Any]) -> None:
            section = config["preprocess_cfg"] if part == "preprocess" else config["model_cfg"]
            (section.setdefault(part, {}) if part.endswith("_cfg") else section).update(values)

        edit(folder, update)

    return change


@pytest.mark.parametrize(
    ("change", "image", "text"),
    [
        (weight("visual.proj"), True, False),
        (weight("visual.transformer.resblocks.1.mlp.c_fc.bias"), True, False),
        (weight("token_embedding.weight"), False, True),
        (weight("text_projection"), False, True),
        (weight("logit_scale"), False, True),
        (setting("preprocess", mean=[0.5, 0.5, 0.4]), True, False),
        (setting("preprocess", std=[0.25, 0.2, 0.25]), True, False),
        (setting("preprocess", interpolation="bilinear"), True, False),
        (setting("preprocess", resize_mode="squash"), True, False),
        (setting("text_cfg", tokenizer_kwargs={"clean": "whitespace"}), False, True),
        (setting("text_cfg", heads=4), False, True),
        (setting("text_cfg", pool_type="last"), False, True),
        (setting("text_cfg", no_causal_mask=True), False, True),
        (setting("vision_cfg", head_width=6), True, False),
        (setting("vision_cfg", pool_type="avg"), True, False),
        (setting("model", quick_gelu=True), True, True),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_fingerprint_changes_with_all_that_a_vector_depends_on(
    change: Callable[[Path], None], image: bool, text: bool, clip_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(clip_folder, tmp_path / "model")
    change(tmp_path / "model")
    before, after = prints(clip_folder), prints(tmp_path / "model")
    assert [one != other for one, other in zip(before, after, strict=True)] == [image, text, True]


def test_fingerprints_of_tokenizers() -> None:
    """The same weights with another tokenizer read other texts."""
    model = toy_clips.TOYS["fused"].model()
    found = {
        Clip(model, lambda image: image, toy_clips.tokenizer("simple", clean=clean), "toy").text_fingerprint
        for clean in ("lower", "canonicalize", "whitespace", "lower")
    }
    assert len(found) == 3


# --- the model that comes with the package ---------------------------------------------------------------------------


def test_the_small_clip_loads_and_takes_the_shared_way() -> None:
    clip = load_clip(device="cpu")
    assert (clip.name, clip.pretrained) == ("small_clip", None) == (load_clip("small_clip").name, None)
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) < 20e6
    names = ["dog", "tropical fish", "mobile phone with a rightwards arrow", "umbrella"]
    for length in (0, 4, 16):
        rows = clip.text.rows(names, length)
        context = clip.text.token_rows((clip.text.tokens.of("a photo of a") * 4)[:length]).requires_grad_(length > 0)
        assert clip.text.way(rows, context) == "shared"
        found = [clip.text.encode(rows, context, way=way) for way in ("full", "truncated", "shared")]
        assert all((way - found[0]).abs().max() < 1e-5 * found[0].abs().max() for way in found[1:])
        if length:
            slopes = [torch.autograd.grad(way[:, :9].sum(), context)[0] for way in found]
            assert all((slope - slopes[0]).abs().max() < 1e-5 * slopes[0].abs().max() for slope in slopes[1:])
    expected = F.normalize(clip.model.encode_text(clip.tokenizer([f"{name}." for name in names])), dim=-1)
    assert torch.allclose(clip.encode_texts([f"{name}." for name in names]), expected, atol=1e-6)
    pixels = clip.preprocess(Image.new("RGB", (90, 70), (200, 30, 30)))
    assert pixels.shape == (3, *clip.image_size)
    red, blue = clip.encode_images(torch.stack([pixels, clip.preprocess(Image.new("RGB", (64, 64), (20, 20, 230)))]))
    assert (red @ blue).item() < 0.999
