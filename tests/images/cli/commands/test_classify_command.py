"""classify: labels, other classes, the page, files that are no pictures."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import Command
from image_commands import refused
from tiny_clip import NAMES, TEST

from multimodal.classifier import PromptClassifier


def test_classify(command: Command, prompts: Path, picture_folder: Path, tmp_path: Path) -> None:
    files = sorted((picture_folder / "test" / "blue").iterdir())
    done = command("classify", prompts, *files, "--json", "-", "-k", "2", "--device", "cpu")
    assert (done.code, done.err) == (0, "")
    assert [row["image"] for row in done.json] == [str(file) for file in files]
    expected = PromptClassifier.load(prompts).predict_proba(files)
    for row, probabilities in zip(done.json, expected, strict=True):
        assert [list(one) for one in row["top"]] == [["class", "probability"]] * 2
        best = np.argsort(-probabilities)[:2]
        assert [one["class"] for one in row["top"]] == [NAMES[at] for at in best]
        assert [one["probability"] for one in row["top"]] == pytest.approx(probabilities[best], abs=1e-6)
    done = command("classify", prompts, files[0])
    first = " +".join(rf"{NAMES[at]} {100 * expected[0][at]:.1f} %" for at in np.argsort(-expected[0])[:3])
    assert re.fullmatch(f"{files[0]}: {first}\n", done.out)
    folder = command("classify", prompts, picture_folder / "test", "--json", "-").json
    assert len(folder) == 4 * TEST and len(folder[0]["top"]) == 3
    assert len(command("classify", prompts, files[0], "--json", "-", "-k", "99").json[0]["top"]) == 4


def test_hits_and_predictions_go_to_a_file(
    command: Command, prompts: Path, index: Path, picture_folder: Path, tmp_path: Path
) -> None:
    file = picture_folder / "test" / "blue" / "0.png"
    for name, arguments in (("classify", [prompts, file]), ("search", [index, "blue"])):
        out = tmp_path / f"{name}.json"
        assert command(name, *arguments, "--json", out).out == command(name, *arguments).out
        assert json.loads(out.read_text()) == command(name, *arguments, "--json", "-").json
        refused(command(name, *arguments, "--json", out), f"{name}.json exists already")


def test_classify_with_other_classes(command: Command, prompts: Path, picture_folder: Path, tmp_path: Path) -> None:
    file = picture_folder / "test" / "blue" / "0.png"
    done = command("classify", prompts, file, "--classes", "cat, sea horse,dog", "--json", "-")
    assert {one["class"] for one in done.json[0]["top"]} == {"cat", "sea horse", "dog"}
    assert sum(one["probability"] for one in done.json[0]["top"]) == pytest.approx(1)
    (tmp_path / "classes.txt").write_text("cat\nsea horse\ndog\n")
    assert command("classify", prompts, file, "--class-file", tmp_path / "classes.txt", "--json", "-").out == done.out
    assert command("classify", prompts, file, "--classes", "cat, sea horse,dog", "--strength", "0", "--json", "-").json


def test_classify_writes_a_page(command: Command, prompts: Path, picture_folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = command("classify", prompts, picture_folder / "test", "--html", page)
    assert done.code == 0 and done.out.endswith(f"page: {page}\n")
    text = page.read_text()
    assert text.count("<img") == 4 * TEST and "blue" in text and "8 images classified" in text
    refused(command("classify", prompts, picture_folder, "--html", page), r"page.html exists already; .*--overwrite")
    assert command("classify", prompts, picture_folder / "test" / "blue", "--html", page, "--overwrite").code == 0
    assert page.read_text().count("<img") == TEST


def test_unreadable_images_are_named_and_left_out(
    command: Command, prompts: Path, picture_folder: Path, tmp_path: Path
) -> None:
    shutil.copy(picture_folder / "test" / "blue" / "0.png", tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    done = command("classify", prompts, tmp_path, "--json", "-")
    assert [Path(row["image"]).name for row in done.json] == ["good.png"]
    assert done.err.startswith("warning: 1 of 2 pictures are skipped: ") and "bad.png" in done.err
    assert done.err.count("\n") == 1
    refused(command("classify", prompts, tmp_path / "bad.png"), "no picture can be read: .*bad.png")
