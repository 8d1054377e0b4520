"""Measure a CLIP folder on a folder of pictures: zero-shot, linear probe, retrieval of captions, and some word pairs.

    python -m eval.small_clip.measure multimodal/small_clip eval/data/pictures --json eval/results/small_clip.json

Loads the model as anybody would, by open_clip's `local-dir:`. The linear probe's strength is chosen by
cross-validation on train; test is only reported. `--training FILE` copies training.json of the model's run.
"""

from __future__ import annotations

import argparse
import collections
import csv
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV
from torch import Tensor
from torch.nn import functional as F

TEMPLATES = ["a photo of a {}.", "a picture of a {}.", "an emoji of a {}", "a drawing of a {}", "clip art of {}", "{}"]
PAIRS = [  # (word, near, far)
    ("dog", "dogs", "chair"),
    ("car", "automobile", "banana"),
    ("mammal", "animal", "hammer"),
    ("insect", "bug", "building"),
    ("happy face", "smiling face", "umbrella"),
    ("physician", "doctor", "pizza"),
    ("saxophone", "trumpet", "apple"),
    ("spanner", "wrench", "cloud"),
    ("clothes", "clothing", "river"),
    ("ship", "boat", "pencil"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="open_clip's local-dir folder")
    parser.add_argument("pictures", type=Path, help="folder with train/<class>, test/<class> and captions.csv")
    parser.add_argument("--json", type=Path, help="the result file")
    parser.add_argument("--training", type=Path, help="training.json to copy into the result")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    result = measure(options.model, options.pictures, options.seed)
    if options.training:
        result["training"] = json.loads(options.training.read_text())
    print(json.dumps({name: result[name] for name in ("classification", "retrieval")}, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


@torch.inference_mode()
def measure(folder: Path, pictures: Path, seed: int) -> dict[str, Any]:
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()

    def texts(lines: list[str]) -> Tensor:
        return F.normalize(model.encode_text(tokenizer(lines)), dim=1)

    def images(paths: list[Path]) -> Tensor:
        return F.normalize(model.encode_image(torch.stack([preprocess(Image.open(path)) for path in paths])), dim=1)

    classes = sorted(path.name for path in (pictures / "train").iterdir())
    paths = {split: sorted((pictures / split).glob("*/*.png")) for split in ("train", "test")}
    labels = {split: np.array([classes.index(path.parent.name) for path in found]) for split, found in paths.items()}
    started = time.perf_counter()
    features = {split: images(found) for split, found in paths.items()}
    seconds = time.perf_counter() - started
    names = [name.replace("_", " ") for name in classes]
    by_template = {template: texts([template.format(name) for name in names]) for template in TEMPLATES}
    ensemble = F.normalize(sum(by_template.values(), torch.zeros(())), dim=1)
    guesses = (features["test"] @ ensemble.T).argmax(dim=1).numpy()
    counts = collections.Counter(labels["train"])
    majority = max(counts, key=lambda label: (counts[label], -label))
    return {
        "model": {"bytes": sum(path.stat().st_size for path in folder.iterdir())},
        "pictures": {"train": len(paths["train"]), "test": len(paths["test"]), "classes": names},
        "classification": {
            "chance": 1 / len(classes),
            "majority": float((labels["test"] == majority).mean()),
            "zero_shot": {
                **{
                    template: float(((features["test"] @ vectors.T).argmax(1).numpy() == labels["test"]).mean())
                    for template, vectors in by_template.items()
                },
                "mean of the templates": float((guesses == labels["test"]).mean()),
            },
            "linear_probe": probe(features, labels, seed),
            "zero_shot_by_class": {
                name: float((guesses == labels["test"])[labels["test"] == number].mean())
                for number, name in enumerate(names)
            },
        },
        "retrieval": retrieval(features["test"], paths["test"], pictures, texts),
        "similarity": [
            {"word": word, near: float(texts([word]) @ texts([near]).T), far: float(texts([word]) @ texts([far]).T)}
            for word, near, far in PAIRS
        ],
        "padding_changes_text_by": float((texts(["a dog"]) - unpadded(model, tokenizer, "a dog")).abs().max()),
        "seconds_for_pictures": round(seconds, 2),
    }


def probe(features: dict[str, Tensor], labels: dict[str, np.ndarray], seed: int) -> float:
    """Accuracy on test of a logistic regression on the training pictures' features."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        regression = LogisticRegressionCV(
            Cs=np.logspace(-1, 3, 9),
            cv=4,
            max_iter=2000,
            random_state=seed,
            scoring="accuracy",
            use_legacy_attributes=False,
        )
        regression.fit(features["train"].numpy(), labels["train"])
    return float(regression.score(features["test"].numpy(), labels["test"]))


def retrieval(features: Tensor, paths: list[Path], pictures: Path, texts: Any) -> dict[str, Any]:
    """R@1, R@5 and R@10 both ways between the test pictures and the captions of the same pictures."""
    with (pictures / "captions.csv").open(newline="") as file:
        caption = {row["image"]: row["caption"] for row in csv.DictReader(file)}
    lines = [caption[path.relative_to(pictures).as_posix()] for path in paths]
    scores = features @ texts(lines).T  # [N, N], picture, caption
    own = torch.arange(len(lines))

    def recall(scores: Tensor) -> dict[str, float]:
        place = (scores > scores[own, own][:, None]).sum(dim=1)
        return {f"R@{k}": float((place < k).float().mean()) for k in (1, 5, 10)}

    return {"candidates": len(lines), "image_to_text": recall(scores), "text_to_image": recall(scores.T)}


def unpadded(model: Any, tokenizer: Any, line: str) -> Tensor:
    """The text's unit vector [1, E] with another token, of no meaning, in place of the padding."""
    tokens = tokenizer([line])
    tokens[tokens == 0] = 1
    return F.normalize(model.encode_text(tokens), dim=1)


if __name__ == "__main__":
    main()
