"""CLIP-LoRA: at first the frozen model, then a better one, and the frozen model as it was."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from torch import nn

from multimodal.classifier import PromptClassifier
from multimodal.data.images import ImageData, subset
from multimodal.experiments import clip_lora
from multimodal.experiments.adapting import in_template
from multimodal.experiments.protocols import EvaluationProtocol, evaluate
from multimodal.experiments.which_system import advice
from multimodal.towers.clip import Clip
from retrieval_prompts.errors import UserError

NAMES = ["dog", "red panda", "water lilly"]
PIXELS = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def state(clip: Clip) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in clip.model.state_dict().items()}


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_in_parts_is_attention(batch_first: bool) -> None:
    torch.manual_seed(0)
    whole = nn.MultiheadAttention(12, 3, batch_first=batch_first).eval()
    nn.init.normal_(whole.in_proj_bias)
    x = torch.randn(2, 5, 12) if batch_first else torch.randn(5, 2, 12)
    for mask in (None, torch.full((5, 5), -math.inf).triu(1), torch.randn(2 * 3, 5, 5)):
        expected = whole(x, x, x, need_weights=False, attn_mask=mask)[0]
        assert torch.allclose(clip_lora.Attention(whole)(x, x, x, attn_mask=mask)[0], expected, atol=1e-6)


def test_at_first_it_changes_nothing(tiny_model: Clip) -> None:
    torch.manual_seed(0)
    random, before = torch.get_rng_state(), state(tiny_model)
    made = clip_lora.inject(tiny_model, seed=1)
    assert torch.equal(torch.get_rng_state(), random), "the caller's random state is left alone"
    with torch.no_grad():
        assert torch.allclose(made.encode_images(PIXELS), tiny_model.encode_images(PIXELS), atol=1e-5)
    assert torch.allclose(made.encode_texts(NAMES), tiny_model.encode_texts(NAMES), atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in tiny_model.model.state_dict().items())


def test_queries_keys_and_values_of_both_towers_are_adapted_as_published(tiny_model: Clip) -> None:
    made = clip_lora.inject(tiny_model, seed=1)
    learned = {name: part for name, part in made.model.named_parameters() if part.requires_grad}
    layers = {name.rpartition(".lora_")[0] for name in learned}
    blocks = [f"{tower}transformer.resblocks.{number}.attn" for tower in ("", "visual.") for number in range(2)]
    assert layers == {f"{block}.{which}_proj" for block in blocks for which in "qkv"}
    assert {min(part.shape) for part in learned.values()} == {2}
    layer = made.model.get_submodule(f"{blocks[0]}.q_proj")
    assert layer.scaling["default"] == pytest.approx(1 / math.sqrt(2))
    assert layer.lora_dropout["default"].p == 0.25


def test_it_learns_and_leaves_the_frozen_model_alone(tiny_model: Clip, colours: ImageData) -> None:
    train, before = colours.split("train"), state(tiny_model)
    texts = in_template("a photo of a {}.", colours.classes)

    def likelihood(clip: Clip) -> float:
        found = torch.from_numpy(clip_lora.logits(clip, train.pictures, texts)).log_softmax(dim=1)
        return float(found[np.arange(len(found)), train.labels].mean())

    one, same, other = (
        clip_lora.fit(tiny_model, train.pictures, train.labels, texts, seed=seed, steps=steps)
        for seed, steps in ((1, 20), (1, 20), (2, 2))
    )
    assert likelihood(one) > likelihood(tiny_model)
    assert likelihood(one) == likelihood(same) != likelihood(other)
    after = tiny_model.model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert not any(part.requires_grad for part in tiny_model.model.parameters())
    theirs = {part.data_ptr() for part in one.model.state_dict().values()}
    assert theirs.isdisjoint(part.data_ptr() for part in after.values()), "the copy shares nothing"


def test_another_kind_of_tower_is_refused() -> None:
    image = {"layers": (1, 1, 1, 1), "width": 8, "image_size": 32}
    text = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    model = open_clip.CLIP(embed_dim=16, vision_cfg=image, text_cfg=text)
    clip = Clip(model, lambda picture: picture, open_clip.SimpleTokenizer(context_length=20), "toy")
    with pytest.raises(UserError, match=r"^clip-lora adapts .* and the image tower of toy is another; leave it out"):
        clip_lora.inject(clip, seed=1)


def test_it_is_a_row_of_base_and_new_classes(tiny_model: Clip, colours: ImageData, tmp_path: Path) -> None:
    base = subset(colours, colours.classes[:2])
    train = base.split("train")
    labels = [base.classes[label] for label in train.labels]
    classifier = PromptClassifier(tiny_model, epochs=1, shots=None, calibrate=False, head="none")
    classifier.fit(train.pictures, labels, base.classes)
    systems = ("zero-shot", "tuned", "clip-lora")
    how = EvaluationProtocol("base-to-new", systems=systems, steps={"clip-lora": 2})
    result = evaluate(how, colours, [classifier], cache=tmp_path)
    assert list(result.systems) == list(systems)
    found = result.systems["clip-lora"]
    assert all(0 <= found[part] <= 1 for part in ("base", "new", "harmonic_mean"))
    assert (found["seeds"], result.images_encoded) == (1, 4 * 2 + 2 * 3 + 4 * 2), "and those to classify once more"
    assert "tuned_vs_clip-lora" in result.tests["base"] and "clip-lora" in result.seconds
    assert all("CLIP-LoRA" in line and "use CLIP-LoRA" not in line for line in advice(result).values())
    for protocol, prompts in (("base-to-new", []), ("cross-dataset", [classifier])):
        with pytest.raises(UserError, match="clip-lora learns from the images that prompts were tuned on"):
            evaluate(EvaluationProtocol(protocol, systems=systems), colours, prompts, clip=tiny_model)
