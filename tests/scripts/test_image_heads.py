"""The script of the heads: what one run holds, and that systems which are scored anew come back."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from multimodal.data.images import ImageData
from multimodal.heads import HEADS
from multimodal.prompts.contexts import Classes
from multimodal.towers.clip import Clip
from multimodal.training.settings import Settings

SCRIPT = Path(__file__).parents[2] / "eval" / "image_heads.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("image_heads", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_systems_that_are_scored_anew_come_back(
    script: Any, tiny_model: Clip, colours: ImageData, tmp_path: Path
) -> None:
    options = argparse.Namespace(cache=tmp_path, method="none")
    known = Classes(tiny_model, colours.classes, Settings())
    texts = known.frozen, known.ensemble
    whole = script.one(tiny_model, colours, texts, None, (4, 1), options)
    assert whole["systems"].keys() == {"zero-shot", "zero-shot-ensemble", "linear-probe", *HEADS, "auto"}
    again = ("proker", "zero-shot-ensemble")
    left = {name: scores for name, scores in whole["systems"].items() if name not in again}
    redone = script.one(tiny_model, colours, texts, {**whole, "systems": left}, (4, 1), options)
    assert redone["systems"] == whole["systems"] and redone["chosen"] == whole["chosen"]


def test_a_name_that_is_no_system_is_refused(
    script: Any, tiny_model: Clip, picture_folder: Path, tmp_path: Path
) -> None:
    options = argparse.Namespace(
        data=[f"folder:{picture_folder}={tiny_model.name}"], json=tmp_path / "out.json", method="none", again="prokr"
    )
    with pytest.raises(script.UserError, match=r"--again: .*out\.json has no system prokr of colours"):
        script.run(options)
