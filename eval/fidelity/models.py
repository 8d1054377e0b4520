"""One small CLIP of random weights for both sides: as a state dict, which OpenAI's code reads, and as our `Clip`.

Its sizes are those that authors' code has written out: widths of 512 and 768, heads of 64. It has few layers, but where
a layer's number is written out too.
"""

from __future__ import annotations

import math
from functools import cache

import open_clip
import torch
from torch import Tensor, nn

from multimodal.towers.clip import Clip

CLASSES = ("cat", "sea_horse", "grand_piano")
IMAGES, SIDE, PATCH, LAYERS = 4, 48, 16, 3
SCALE = 100.0
LABELS = torch.tensor([0, 1, 2, 1])


@cache
def make(seed: int = 0, dimension: int = 512, text_layers: int = LAYERS) -> nn.Module:
    """An open_clip model whose weights have the names that OpenAI's have."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(
            embed_dim=dimension,
            vision_cfg={"layers": LAYERS, "width": 768, "head_width": 64, "patch_size": PATCH, "image_size": SIDE},
            text_cfg={"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": text_layers},
            quick_gelu=True,
        )
        # Texts and images that differ as those of a trained model do
        nn.init.normal_(model.token_embedding.weight, std=0.3)
        nn.init.normal_(model.visual.conv1.weight, std=0.1)
    model.logit_scale.data.fill_(math.log(SCALE))
    return model


def state(model: nn.Module) -> dict[str, Tensor]:
    """A copy: code that reads it may take names out."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def ours(model: nn.Module) -> Clip:
    def no_preprocessing(_: object) -> Tensor:
        raise NotImplementedError("pictures are given as tensors here")

    return Clip(model, no_preprocessing, open_clip.get_tokenizer("ViT-B-16"), "random")


def pixels(seed: int = 0) -> Tensor:
    """(IMAGES, 3, SIDE, SIDE)"""
    return torch.randn(IMAGES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def features(clip: Clip, images: Tensor) -> Tensor:
    with torch.no_grad():
        return clip.encode_images(images)
