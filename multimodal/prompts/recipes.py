"""The published setting of each method: what "--recipe paper" takes where nothing else is given. Knows no torch.

Values are those of the papers and, where a paper leaves one open, of its authors' configurations. What cannot be made
the same is listed in docs/images.md.
"""

from __future__ import annotations

from typing import Any

from multimodal.data.templates import known_as, template_for
from retrieval_prompts.errors import UserError

RECIPES = ("default", "paper")
# How all of them train: SGD with momentum, a first epoch at 1e-5, then a cosine by the epoch; a new crop in each epoch
COMMON: dict[str, Any] = {
    **{"optimizer": "sgd", "weight_decay": 5e-4, "schedule": "epochs", "clip_norm": 0.0},
    **{"augment": "crops", "last_batch": "dropped", "head": "none"},
}
PAPER: dict[str, dict[str, Any]] = {
    "coop": {"context": 16, "init": "gaussian:0.02"},
    "cocoop": {"batch_size": 1},
    "kgcoop": {},
    "prograd": {"context": 16, "init": "zeros:a photo of a"},
    "tcp": {"init": "gaussian:0.02", "optimizer": "adam"},
    "deep": {"epochs": 5, "batch_size": 4, "learning_rate": 2.5e-3},
    "vpt": {},
    "maple": {"init": "a photo", "frame": "of a {}."},
    "mmrl": {
        **{"context": 5, "frame": "a photo of a {}.", "optimizer": "adamw"},
        **{"epochs": 50, "batch_size": 32, "weight": 0.5},
    },
    "promptsrc": {"epochs": 50, "average_at": 0.6, "average_width": 0.6},
}
SHOTS = {"coop": (50, 100, 200), "prograd": (50, 100, 200)}  # epochs for 1 shot, up to 4, and more
# Trained on base classes, to be scored on new ones as well; CoOp's is that of CoCoOp's paper
BASE: dict[str, dict[str, Any]] = {
    "coop": {"context": 4, "init": "a photo of a"},
    "prograd": {"epochs": 100},
    "mmrl": {"epochs": 10, "batch_size": 4},
    "promptsrc": {"epochs": 20, "average_at": 0.75, "average_width": 0.05},
}
LATE = {"average_at": 0.9, "average_width": 0.1}  # PromptSRC on sets that are far from what CLIP was trained on
OF_DATA: dict[str, dict[str, dict[str, Any]]] = {
    "kgcoop": {"dtd": {"template": "a photo of a {}, a type of texture."}},
    "tcp": {
        "oxfordpets": {"frame": "{}, a type of pet."},
        "oxfordflowers": {"frame": "{}, a type of flower."},
        "fgvcaircraft": {"frame": "{}, a type of aircraft.", "template": "a photo of an aircraft {}."},
        "dtd": {"frame": "{} texture.", "template": "a photo of a {}, a type of texture."},
        "stanfordcars": {"frame": "{}, a type of car"},
        "food101": {"frame": "{}, a type of food.", "template": "a photo of a {}, a type of food."},
        "ucf101": {"frame": "person doing {}."},
    },
    "mmrl": {
        name: {"weight": weight}
        for weight, names in {
            7.0: ("stanfordcars",),
            6.0: ("fgvcaircraft", "sun397", "dtd"),
            5.0: ("food101",),
            4.0: ("oxfordflowers",),
            3.0: ("ucf101",),
            0.5: ("imagenet", "caltech101"),
            0.2: ("oxfordpets",),
            0.01: ("eurosat",),
        }.items()
        for name in names
    },
    "promptsrc": dict.fromkeys(("stanfordcars", "oxfordflowers", "fgvcaircraft", "dtd", "eurosat"), LATE),
}
PROGRAD = {  # its templates, whose words before the name begin the context as well
    "oxfordpets": "a type of pet, a photo of a {}.",
    "oxfordflowers": "a type of flower, a photo of a {}.",
    "fgvcaircraft": "a type of aircraft, a photo of a {}.",
    "dtd": "a texture of {}.",
    "eurosat": "a centered satellite photo of {}.",
    "food101": "a type of food, a photo of {}.",
    "ucf101": "a photo of a person doing {}.",
}
LIGHTER = ("oxfordflowers", "dtd", "eurosat")  # where ProGrad's weight is 0.8 from 8 shots on
EPOCHS = {
    **{("coop", "imagenet"): 50, ("prograd", "imagenet"): 50},
    **{("tcp", "imagenet"): 25, ("tcp", "sun397"): 25, ("mmrl", "imagenet"): 5},
}


def paper(method: str, shots: int | None = 16, dataset: str = "", *, base: bool = False) -> dict[str, Any]:
    """The published settings of a method by name, for some shots (None: all) of a data set.

    Args:
        dataset: its name, however that is spelt; what a paper has for it is taken.
        base: trained on base classes, to be scored on new ones as well.

    Raises:
        UserError: for a method without a published setting here.
    """
    if method not in PAPER:
        raise UserError(f"--recipe paper: there is none for {method}, only for {', '.join(PAPER)}")
    name, many = known_as(dataset), shots is None or shots > 4
    found = COMMON | PAPER[method] | OF_DATA.get(method, {}).get(name, {})
    if method in SHOTS:
        found["epochs"] = SHOTS[method][2 if many else min(1, (shots or 0) - 1)]
    if method == "prograd" and name in PROGRAD:
        found |= {"template": PROGRAD[name]} | _begun(PROGRAD[name].removesuffix(" {}."))
    if method == "prograd" and name in LIGHTER and many and not base:
        found["weight"] = 0.8
    if method == "mmrl":
        found["frame"] = template_for(dataset)
        found["weight"] = found["weight"] if name in OF_DATA[method] or not base else 1.0
    if base and (method, name) != ("mmrl", "imagenet"):  # there one has the same batches for both
        found |= BASE.get(method, {})
    if (method, name) in EPOCHS:
        found["epochs"] = EPOCHS[method, name]
    return found


def _begun(words: str) -> dict[str, Any]:
    """ProGrad's context begins with a template's words. Its code takes as many tokens as words, and a comma is one
    more: the last word is then left behind the context as it is."""
    if "," not in words:
        return {"init": f"zeros:{words}"}
    first, _, last = words.rpartition(" ")
    return {"init": f"zeros:{first}", "frame": f"{last} {{}}."}
