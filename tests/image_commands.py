"""What the tests of multimodal-prompts share: quick options, prompts at hand, how a refusal looks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from command_line import Done

QUICK = ["--epochs", "2", "--lr", "0.05", "--batch-size", "8", "--device", "cpu"]


RESULT = {"dataset", "model", "pretrained", "protocol", "systems", "images_encoded", "seconds", "settings"}


def refused(done: Done, message: str) -> None:
    """One line on standard error, and status 2."""
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert done.err.startswith("error: ")
    assert re.search(message, done.err), f"{done.err!r} is not like {message!r}"


def fitted(folder: Path, clip_folder: Path, pictures: Path, **given: Any) -> Path:
    """A prompt folder of an untouched prompt: of the classes of an image folder."""
    from multimodal.data.images import load_images
    from multimodal.experiments.classes import tune
    from multimodal.towers.clip import load_clip
    from multimodal.training.settings import Settings

    subset = given.pop("subset", "all")
    settings = Settings.of(
        **{"epochs": 1, "learning_rate": 0.05, "shots": 2, "calibrate": False, "head": "none", **given}
    )
    tune(load_clip(str(clip_folder), device="cpu"), load_images(pictures), settings, folder, subset=subset)
    return folder


def check(result: dict[str, Any], protocol: str, systems: list[str], metrics: set[str]) -> None:
    assert RESULT | {"provenance"} <= set(result)
    assert (result["model"], result["pretrained"], result["protocol"]) == ("tiny", None, protocol)
    assert type(result["images_encoded"]) is int
    assert list(result["systems"]) == systems
    for scores in result["systems"].values():
        assert metrics <= set(scores)
        assert all(scores[name] is None or 0 <= scores[name] <= 1 for name in metrics)
    assert result["seconds"] and all(value >= 0 for value in result["seconds"].values())


ALL = ["zero-shot", "zero-shot-ensemble", "tuned", "linear-probe"]
