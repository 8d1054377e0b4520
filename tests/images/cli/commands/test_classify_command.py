"""classify: labels, other classes, the page, files that are no pictures."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import Command
from image_commands import fitted, refused
from PIL import Image
from tiny_clip import NAMES, TEST

from multimodal.classifier import PromptClassifier
from multimodal.data.pictures import load_pictures
from multimodal.training.adaptation import adapted
from multimodal.training.settings import Adaptation


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


def test_a_prompt_for_each_picture(command: Command, prompts: Path, picture_folder: Path) -> None:
    files = sorted((picture_folder / "test" / "blue").iterdir())
    quick = ["--adapt", "tpt", "--views", "6", "--confident", "0.5", "--adapt-lr", "0.2"]
    done = command("classify", prompts, *files, *quick, "--json", "-", "-k", "4")
    plain = command("classify", prompts, *files, "--json", "-", "-k", "4").json
    assert (done.code, done.err) == (0, "")
    for row, as_before in zip(done.json, plain, strict=True):
        assert row["image"] == as_before["image"] and list(row) == ["image", "top", "before"]
        assert row["before"]["class"] == as_before["top"][0]["class"]
        assert row["before"]["probability"] == pytest.approx(as_before["top"][0]["probability"], abs=1e-5)
        assert row["top"] != as_before["top"], "the prompt was tuned"
    alone = command("classify", prompts, files[1], *quick, "--json", "-", "-k", "4").json
    assert alone[0]["top"] == done.json[1]["top"], "no picture learns of another"
    still = command("classify", prompts, *files, "--adapt", "tpt", "--views", "6", "--adapt-steps", "0", "--json", "-")
    assert all(row["top"][0] == row["before"] for row in still.json)
    lines = command("classify", prompts, *files, *quick).out.splitlines()
    others = [row["top"][0]["class"] != row["before"]["class"] for row in done.json]
    assert ["(before: " in line for line in lines[:-1]] == others
    assert lines[-1] == f"tpt: another answer than before for {sum(others)} of {len(files)} pictures"


def test_zero_shot_in_the_place_of_a_folder(command: Command, clip_folder: Path, picture_folder: Path) -> None:
    from multimodal.prompts.contexts import Classes
    from multimodal.towers.clip import load_clip

    file = picture_folder / "test" / "blue" / "0.png"
    model = ["--model", clip_folder, "--device", "cpu"]
    done = command("classify", "zero-shot", file, "--classes", "blue,white,red", *model, "--json", "-")
    classifier = PromptClassifier(load_clip(str(clip_folder), device="cpu"))
    frozen = Classes(classifier.clip, ["blue", "white", "red"], classifier.settings).frozen
    image = classifier.clip.encode_images(classifier.clip.preprocess(Image.open(file).convert("RGB"))[None])
    expected = (classifier.clip.scale * image @ frozen.T).softmax(dim=-1)[0]
    found = {one["class"]: one["probability"] for one in done.json[0]["top"]}
    assert [found[name] for name in ("blue", "white", "red")] == pytest.approx(expected.tolist(), abs=2e-3)
    adapted_too = command(
        "classify", "zero-shot", file, "--classes", "blue,red", *model, "--adapt", "tpt", "--views", "4"
    )
    assert adapted_too.code == 0
    refused(command("classify", "zero-shot", file, *model), "zero-shot knows no classes of its own; give --classes")
    refused(
        command("classify", "zero-shot", file, "--classes", "a,b", "--strength", "1"), "--strength .*zero-shot has none"
    )


def test_what_test_time_tuning_does_not_read(
    command: Command, prompts: Path, clip_folder: Path, picture_folder: Path, tmp_path: Path
) -> None:
    file = picture_folder / "test" / "blue" / "0.png"
    for option, value in (("--views", "3"), ("--adapt-steps", "1"), ("--adapt-lr", "1"), ("--confident", "1")):
        refused(
            command("classify", prompts, file, option, value), f"{option} is used with --adapt tpt, not with --adapt"
        )
    refused(command("classify", prompts, file, "--adapt", "tent"), "--adapt must be none or tpt, got 'tent'")
    refused(
        command("classify", prompts, file, "--adapt", "tpt", "--strength", "0.5"),
        "starts at the whole prompt, got .* 0.5",
    )
    for name, why in (("cocoop", "depend on the picture already"), ("vpt", "enter the image tower")):
        folder = fitted(tmp_path / name, clip_folder, picture_folder, method=name, shots=1)
        refused(
            command("classify", folder, file, "--adapt", "tpt"), f"the prompts of {name} {why}; use a folder of coop"
        )


def test_deep_prompts_stay_while_the_context_is_tuned(
    prompts: Path, clip_folder: Path, picture_folder: Path, tmp_path: Path
) -> None:
    classifier = PromptClassifier.load(fitted(tmp_path / "deep", clip_folder, picture_folder, method="deep", shots=1))
    pictures = load_pictures(picture_folder / "test")[:2]
    untouched = list(adapted(classifier, pictures, Adaptation.of(adapt="tpt", views=2, steps=0)))
    expected = classifier.predict_proba([picture.source for picture in pictures])
    for one, probabilities in zip(untouched, expected, strict=True):
        assert one.probabilities == pytest.approx(probabilities, abs=1e-5)
        assert one.before == pytest.approx(probabilities, abs=1e-5)
