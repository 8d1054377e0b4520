"""tune --method promptkd: without data, beside data, and what it does not read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tiny_clip
from command_line import Command
from image_commands import QUICK, refused
from tiny_clip import NAMES, OTHERS, TEST, TRAIN

from multimodal.prompts.folder import load


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> list[object]:
    teacher = tiny_clip.write_clip(tmp_path_factory.mktemp("teacher") / "larger", seed=5)
    return ["--model", clip_folder, "--method", "promptkd", "--teacher", teacher, *QUICK]


def test_pictures_and_names_are_enough(
    command: Command, taught: list[object], picture_folder: Path, tmp_path: Path
) -> None:
    out, classes = tmp_path / "kd", ",".join(NAMES)
    learn = ["--unlabelled", picture_folder, "--classes", classes, "--out", out, "--json", tmp_path / "result.json"]
    done = command("tune", *taught, *learn)
    assert (done.code, done.err) == (0, "")
    count = len(NAMES) * (TRAIN + TEST)
    assert done.out.startswith(f"4 classes, {count} pictures without labels, teacher local-dir:")
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["protocol"], result["systems"], result["settings"]["train_images"]) == ("unlabelled", {}, count)
    saved = load(out)
    assert saved.classes == NAMES and saved.texts is not None and saved.texts.shape == (4, tiny_clip.DIMENSION)
    file = picture_folder / "test" / "blue" / "0.png"
    assert command("classify", out, file, "--json", "-").code == 0
    new = command("classify", out, file, "--classes", ",".join(OTHERS), "--json", "-", "-k", "4")
    assert {one["class"] for one in new.json[0]["top"]} == set(OTHERS)
    refused(command("classify", out, file, "--adapt", "tpt"), "the prompts of promptkd enter the image tower")
    found = command("inspect", out)
    assert found.code == 0 and "PromptKD trains no context" in found.out
    refused(command("export", out, "--out", tmp_path / "exported"), "promptkd prompts the image tower too")


def test_beside_labelled_data(command: Command, taught: list[object], picture_folder: Path, tmp_path: Path) -> None:
    learn = [
        picture_folder,
        "--unlabelled",
        picture_folder / "test",
        "--out",
        tmp_path / "kd",
        "--head",
        "none",
        "--shots",
        "all",
    ]
    done = command("tune", *taught, *learn)
    assert (done.code, done.err) == (0, "")
    assert f"12 training images, {4 * TEST} pictures without labels, {4 * TEST} test images" in done.out
    assert "text tower: the teacher's" in done.out
    assert re.search(r"right on the training images: the teacher [\d.]+ %, zero-shot [\d.]+ %", done.out)
    assert load(tmp_path / "kd").training["images"] == 4 * TEST


def test_what_is_missing_or_not_read(
    command: Command, taught: list[object], picture_folder: Path, caption_folder: Path, tmp_path: Path
) -> None:
    out = ["--out", tmp_path / "kd"]
    some = ["--unlabelled", picture_folder]
    refused(command("tune", *out), "expected data to tune on; without any, --method promptkd")
    refused(command("tune", *taught, *out), "expected data to tune on")
    refused(command("tune", *taught, *some, *out), "without data the classes are not known; give --classes a,b,c")
    named = [*some, "--classes", "a,b"]
    for option, value in (("--shots", "2"), ("--head", "probe")):
        message = f"{option} is used with labelled pictures, not with unlabelled pictures"
        refused(command("tune", *taught, *named, *out, option, value), message)
    refused(command("tune", *taught, *named, *out, "--subset", "base"), "--subset is a half of the data's classes")
    refused(command("tune", picture_folder, *taught, "--classes", "a,b", *out), "leave out --classes, or rename them")
    refused(command("tune", picture_folder, *out, "--teacher", "x"), "--teacher is used with --method promptkd")
    captions = [caption_folder / "captions.csv", "--method", "promptkd"]
    refused(
        command("tune", *captions, *out, "--teacher", "x"), "--teacher is used with labelled pictures or unlabelled"
    )
    assert not (tmp_path / "kd").exists()
