"""A CLIP and pictures to tune it on, made on the fly in a second: a random two-layer ViT, coloured noise.

The same arguments give the same bytes. Colours are called by their names, which the random model does not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {
    "blue": (30, 40, 220),
    "dark_green": (20, 110, 40),
    "orange": (240, 140, 20),
    "white": (245, 245, 245),
    "black": (12, 12, 12),
    "pink": (240, 130, 190),
    "violet": (110, 30, 150),
    "yellow": (235, 225, 40),
}
NAMES = tuple(sorted(list(COLOURS)[:4]))
OTHERS = tuple(sorted(list(COLOURS)[4:]))
TRAIN, TEST = 3, 2  # pictures a class
LAYERS, WIDTH, DIMENSION, CONTEXT_LENGTH = 2, 32, 24, 20
SCALE = 30.0
COUNTED = ("one", "two", "three", "four")
CAPTIONS = ("a {} picture.", "Something {}, all over.")


def write_clip(folder: Path, seed: int = 0, image_layers: int = LAYERS) -> Path:
    """A folder in open_clip's format: 2 + 2 layers, text width 32, 16 x 16 pixels in patches of 8, CLIP's tokenizer."""
    import open_clip
    import torch
    from safetensors.torch import save_file
    from torch import nn

    config = {
        "embed_dim": DIMENSION,
        "vision_cfg": {"layers": image_layers, "width": 24, "head_width": 12, "patch_size": 8, "image_size": 16},
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": 49408,
            "width": WIDTH,
            "heads": 2,
            "layers": LAYERS,
        },
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**config)
        # Words that differ as much as those of a trained model, and images that do not look all alike
        nn.init.normal_(model.token_embedding.weight, std=0.5)
        nn.init.normal_(model.visual.conv1.weight, std=0.3)
    model.logit_scale.data.fill_(float(np.log(SCALE)))
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"}
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def picture(colour: str, number: int) -> Image.Image:
    """Noise around a colour, different for each number."""
    random = np.random.default_rng([number, *COLOURS[colour]])
    values = np.array(COLOURS[colour]) + random.integers(-40, 40, (20, 24, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def write_picture(path: Path, colour: str, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(colour, number).save(path)
    return path


def write_images(root: Path, names: Iterable[str] = NAMES, first: int = 0) -> Path:
    """An image folder train/<colour>/0.png ... and test/..., TRAIN and TEST pictures a class, all different."""
    for split, count, start in (("train", TRAIN, first), ("test", TEST, first + 100)):
        for name in names:
            for number in range(count):
                write_picture(root / split / name / f"{number}.png", name, start + number)
    return root


def write_captions(root: Path, per_colour: int = 3) -> Path:
    """captions.csv and captions.jsonl beside pictures of all colours, the last of each colour in test."""
    rows = []
    for name in COLOURS:
        for number in range(per_colour):
            file = write_picture(root / "pictures" / f"{name}{number}.png", name, 200 + number).relative_to(root)
            texts = [text.format(f"{name.replace('_', ' ')} {COUNTED[number]}") for text in CAPTIONS]
            rows.append((file.as_posix(), texts, "test" if number == per_colour - 1 else "train"))
    lines = [f'{file},"{text}",{split}' for file, texts, split in rows for text in texts]
    (root / "captions.csv").write_text("\n".join(["image,caption,split", *lines]) + "\n")
    objects = [json.dumps({"file": file, "captions": texts, "split": split}) for file, texts, split in rows]
    (root / "captions.jsonl").write_text("\n".join(objects) + "\n")
    return root
