"""Visual prompts: none is a no-op, each layer's rows go where the papers put them, other towers are refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal.towers.image import encode_images, visual_layers, visual_width
from retrieval_prompts.errors import UserError

WIDTH, LAYERS = 32, 3
TEXT = {"context_length": 16, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
PLAIN = {"layers": LAYERS, "width": WIDTH, "head_width": 16, "patch_size": 8, "image_size": 16}
TOWERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "average": {"pool_type": "avg", "final_ln_after_pool": True},
    "no first norm": {"no_ln_pre": True},
    "patch dropout": {"patch_dropout": 0.5},
    "tokens too": {"output_tokens": True},
    "custom blocks": {"qk_norm": True, "scale_fc": True},
    "attentional pool": {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2},
}
ROWS = torch.randn(LAYERS, 2, WIDTH, generator=torch.Generator().manual_seed(1))
PIXELS = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def toy(**vision: Any) -> Any:
    """A random frozen CLIP of 3 image layers, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(embed_dim=8, vision_cfg={**PLAIN, **vision}, text_cfg=TEXT)
    return SimpleNamespace(model=model.eval().requires_grad_(False), name="toy")


@pytest.mark.parametrize("options", TOWERS.values(), ids=TOWERS.keys())
def test_without_prompts_it_is_the_models_own_forward(options: dict[str, Any]) -> None:
    clip = toy(**options)
    expected = clip.model.visual(PIXELS)
    expected = F.normalize(expected[0] if options.get("output_tokens") else expected, dim=-1)
    assert torch.equal(encode_images(clip, PIXELS, {}), expected)
    assert torch.allclose(encode_images(clip, PIXELS, {0: torch.zeros(0, WIDTH)}), expected, atol=1e-6), "no rows"
    assert (visual_width(clip), visual_layers(clip)) == (WIDTH, LAYERS)


def test_coca_and_custom_text_clip_have_the_same_tower() -> None:
    for kind in (open_clip.CustomTextCLIP, open_clip.CoCa):
        decoder = {"multimodal_cfg": {**TEXT, "mlp_ratio": 2}} if kind is open_clip.CoCa else {}
        vision = {"attentional_pool": True, "output_tokens": True} if kind is open_clip.CoCa else {}
        text = {**TEXT, "embed_cls": True, "output_tokens": True} if kind is open_clip.CoCa else TEXT
        pool = {"attn_pooler_heads": 2} if kind is open_clip.CoCa else {}
        model = kind(embed_dim=16, vision_cfg={**PLAIN, **vision, **pool}, text_cfg=text, **decoder)
        clip: Any = SimpleNamespace(model=model.eval().requires_grad_(False), name="toy")
        expected = model.encode_image(PIXELS, normalize=True)
        assert torch.allclose(encode_images(clip, PIXELS, {}), expected, atol=1e-6)
        assert not torch.allclose(encode_images(clip, PIXELS, {0: ROWS[0]}), expected, atol=1e-3)


def published(model: Any, pixels: Tensor, rows: Tensor) -> Tensor:
    """Deep visual prompts as the public implementations of MaPLe and PromptSRC run them, sequence first.

    The first layer's rows follow the positioned patches, before the first norm; the class token is read.
    """
    tower = model.visual
    x = tower.conv1(pixels).flatten(2).transpose(1, 2)
    x = torch.cat([tower.class_embedding.expand(len(x), 1, -1), x], dim=1) + tower.positional_embedding
    x = torch.cat([x, rows[0].expand(len(x), -1, -1)], dim=1)
    x = tower.ln_pre(x).transpose(0, 1)
    for layer, block in enumerate(tower.transformer.resblocks):
        if 0 < layer < len(rows):
            x = torch.cat([x[: -rows.shape[1]], rows[layer][:, None].expand(-1, x.shape[1], -1)])
        x = block(x.transpose(0, 1)).transpose(0, 1)
    return F.normalize(tower.ln_post(x[0]) @ tower.proj, dim=-1)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_prompts_enter_where_the_public_implementations_put_them(depth: int) -> None:
    clip = toy()
    nn.init.normal_(clip.model.visual.ln_pre.weight, mean=1.0, std=0.3)
    got = encode_images(clip, PIXELS, {layer: ROWS[layer] for layer in range(depth)})
    assert torch.allclose(got, published(clip.model, PIXELS, ROWS[:depth]), atol=1e-6)


def test_rows_of_one_layer_live_until_the_next_ones() -> None:
    clip = toy()
    shallow = encode_images(clip, PIXELS, {0: ROWS[0]})
    deep = encode_images(clip, PIXELS, {0: ROWS[0], 2: ROWS[2]})
    assert not torch.allclose(shallow, deep, atol=1e-4), "layer 0's rows reach layer 2, until those of layer 2 come"
    only = encode_images(clip, PIXELS, {1: ROWS[1]})
    assert not torch.allclose(only, encode_images(clip, PIXELS, {}), atol=1e-4)
    longer = encode_images(clip, PIXELS, {0: ROWS[0], 1: torch.cat([ROWS[1], ROWS[2]])})
    assert longer.shape == (4, 8), "layers may have prompts of different lengths"


@pytest.mark.parametrize("options", TOWERS.values(), ids=TOWERS.keys())
def test_every_row_learns_and_nothing_else_does(options: dict[str, Any]) -> None:
    clip = toy(**options)
    rows = ROWS.clone().requires_grad_()
    encode_images(clip, PIXELS, dict(enumerate(rows)))[:, 0].sum().backward()
    assert rows.grad is not None
    assert (rows.grad.abs().sum(dim=-1) > 0).all()
    assert all(parameter.grad is None for parameter in clip.model.parameters())


def test_images_do_not_see_each_other() -> None:
    clip = toy()
    visual = dict(enumerate(ROWS))
    together = encode_images(clip, PIXELS, visual)
    alone = torch.cat([encode_images(clip, image[None], visual) for image in PIXELS])
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.allclose(together.norm(dim=-1), torch.ones(4))


def test_other_towers_are_refused_by_name() -> None:
    network = open_clip.CLIP(embed_dim=8, vision_cfg={**PLAIN, "layers": (1, 1, 1, 1)}, text_cfg=TEXT)
    clip: Any = SimpleNamespace(model=network, name="toy-resnet")
    for refused in (visual_width, visual_layers, lambda clip: encode_images(clip, PIXELS, {})):
        with pytest.raises(UserError, match=r"toy-resnet is a ModifiedResNet.*VisionTransformer.*as coop") as raised:
            refused(clip)
        assert "\n" not in str(raised.value)


def test_a_tower_that_pools_to_many_vectors_is_refused() -> None:
    clip = toy(pool_type="none")
    with pytest.raises(UserError, match="the image tower of toy pools to 5 vectors an image, and one was expected"):
        encode_images(clip, PIXELS, {0: ROWS[0]})


def test_rows_that_do_not_fit_are_refused() -> None:
    clip = toy()
    with pytest.raises(UserError, match=r"\(rows, 32\) for layers 0 to 2, got \(2, 32\) for layer 3"):
        encode_images(clip, PIXELS, {3: ROWS[0]})
    with pytest.raises(UserError, match=r"got \(2, 31\) for layer 0"):
        encode_images(clip, PIXELS, {0: ROWS[0, :, 1:]})
    with pytest.raises(UserError, match=r"got \(4, 2, 32\) for layer 1"):
        encode_images(clip, PIXELS, {1: ROWS[0].expand(4, -1, -1)})
