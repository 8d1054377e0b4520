"""tune and evaluate on labelled pictures, as a user meets them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny_clip
from command_line import Command
from image_commands import ALL, QUICK, check, fitted, refused
from tiny_clip import NAMES, OTHERS

from multimodal.prompts import folder as artifacts

PLAIN = {"accuracy", "mean_per_class", "ece"}


def test_tune_then_evaluate(command: Command, clip_folder: Path, picture_folder: Path, tmp_path: Path) -> None:
    out, json_file = tmp_path / "new" / "prompts", tmp_path / "result.json"
    options = ["--model", clip_folder, "--shots", "2", "--method", "kgcoop", "--context", "3", *QUICK]
    options += ["--head", "probe"]
    done = command("tune", picture_folder, "--out", out, "--json", json_file, *options)
    assert (done.code, done.err) == (0, "")
    tuned = json.loads(json_file.read_text())
    check(tuned, "few-shot", [*ALL, "with-head"], PLAIN)
    assert "\nhead: probe (strength " in done.out and "\nFor these classes use " in done.out
    assert {"load model", "tune", "tuned"} <= set(tuned["seconds"])
    given = {"method": "kgcoop", "shots": 2, "context": 3, "epochs": 2, "learning_rate": 0.05, "batch_size": 8}
    assert given.items() <= tuned["settings"].items()
    assert "colours: 4 classes, 8 training images, 8 test images\n" in done.out
    for words in (*ALL, "accuracy", "mean per class", "ece", f"{100 * tuned['systems']['tuned']['accuracy']:.1f}"):
        assert words in done.out
    assert re.search(rf"prompt folder: {out} \(\d+\.\d kB\); images encoded now: {tuned['images_encoded']}\n", done.out)
    assert done.out.endswith(f"next:\n  multimodal-prompts classify {out} IMAGE ...\n")
    assert [path.name for path in out.parent.iterdir()] == ["prompts"]

    done = command("evaluate", picture_folder, "--prompts", out, "--json", "-", "--device", "cpu")
    assert done.code == 0
    assert done.json["systems"] == tuned["systems"] and done.json["images_encoded"] == 0
    assert "linear-probe" in done.err, "what people read goes to standard error"
    done = command("evaluate", picture_folder, "--prompts", out, "--json", "-", "--strength", "0")
    systems = done.json["systems"]
    assert {name: systems["tuned"][name] for name in ("accuracy", "mean_per_class")} == {
        name: systems["zero-shot"][name] for name in ("accuracy", "mean_per_class")
    }


def test_zero_shot_alone(command: Command, clip_folder: Path, picture_folder: Path, tmp_path: Path) -> None:
    done = command("evaluate", picture_folder, "--model", clip_folder, "--json", "-")
    assert done.code == 0
    check(done.json, "few-shot", ALL[:2], PLAIN)
    assert done.json["settings"]["template"] == "a photo of a {}."
    other = ["--template", "{} all over", "--split", "train"]
    done = command("evaluate", picture_folder, "--model", clip_folder, "--json", "-", *other)
    settings = done.json["settings"]
    assert (settings["template"], settings["split"], settings["images"]) == ("{} all over", "train", 12)


def test_other_systems_are_compared_where_they_are_asked_for(
    command: Command, picture_folder: Path, prompts: Path
) -> None:
    options = ["evaluate", picture_folder, "--prompts", prompts, "--json", "-", "--baselines"]
    done = command(*options, "clip-lora:2,2sfs:2")
    assert done.code == 0
    check(done.json, "few-shot", [*ALL, "clip-lora", "2sfs"], PLAIN)
    for wrong in ("lora", "clip-lora:", "clip-lora:0", "2sfs:many", "2sfs,2sfs"):
        expected = "--baselines: expected clip-lora or 2sfs, or both, or with steps, such as clip-lora:200"
        refused(command(*options, wrong), expected)


def test_methods_are_compared_on_the_same_shots(
    command: Command, clip_folder: Path, picture_folder: Path, prompts: Path, tmp_path: Path
) -> None:
    options = ["evaluate", picture_folder, "--model", clip_folder, "--device", "cpu"]
    page = tmp_path / "page.html"
    done = command(*options, "--methods", "coop,kgcoop", "--shots", "2", "--epochs", "1", "--report", page)
    assert done.code == 0, done.err
    assert "by held-out shots, not by the pictures of the table, take " in done.out
    for row in ("zero-shot", "linear-probe", "coop", "kgcoop"):
        assert f"\u2502 {row}" in done.out
    assert "Held-out shots take " in page.read_text()
    for wrong, message in (
        (["--methods", "coop,x"], "--methods: expected some of coop, cocoop"),
        (["--methods", "coop,coop"], "--methods names a method twice: coop, coop"),
        (
            ["--methods", "coop", "--protocol", "domain"],
            "--methods tunes and compares on its own; leave out --protocol",
        ),
        (["--methods", "coop", "--prompts", prompts], "--methods tunes and compares on its own; leave out --prompts"),
        (["--source", picture_folder], "--source is used with --protocol domain, not few-shot"),
        (["--shots", "2"], "--shots is of the methods that --methods names"),
    ):
        refused(command(*options, *wrong), message)


def test_the_published_recipe(command: Command, clip_folder: Path, picture_folder: Path, tmp_path: Path) -> None:
    given = ["--model", clip_folder, "--recipe", "paper", "--method", "tcp", "--epochs", "2", "--shots", "all"]
    given += ["--no-calibrate", "--device", "cpu"]
    done = command("tune", picture_folder, "--out", tmp_path / "prompts", "--json", "-", *given)
    assert done.code == 0
    settings = done.json["settings"]
    expected = {"recipe": "paper", "optimizer": "adam", "epochs": 2, "augment": "crops", "init": "gaussian:0.02"}
    assert expected.items() <= settings.items() and settings["head_taken"] is None
    assert done.json["images_encoded"] >= 2 * 12, "a crop an epoch"
    done = command("evaluate", picture_folder, "--prompts", tmp_path / "prompts", "--json", "-")
    assert done.code == 0 and done.json["settings"]["prompts"]["recipe"] == "paper"


def test_seeds_are_averaged(
    command: Command, clip_folder: Path, picture_folder: Path, prompts: Path, tmp_path: Path
) -> None:
    second = fitted(tmp_path / "second", clip_folder, picture_folder, seed=2)
    done = command("evaluate", picture_folder, "--prompts", prompts, "--prompts", second, "--json", "-")
    assert done.code == 0
    check(done.json, "few-shot", ALL, PLAIN)
    tuned = done.json["systems"]["tuned"]
    assert tuned["seeds"] == 2 and set(tuned["per_seed"]) == {"1", "2"} and set(tuned["std"]) >= PLAIN
    assert tuned["accuracy"] == pytest.approx(np.mean([one["accuracy"] for one in tuned["per_seed"].values()]))
    refused(command("evaluate", picture_folder, "--prompts", prompts, "--prompts", prompts), "seed")


def test_base_to_new(command: Command, clip_folder: Path, picture_folder: Path, tmp_path: Path) -> None:
    halves = {"base", "new", "harmonic_mean", "ece_base", "ece_new"}
    options = ["--subset", "base", "--shots", "all", "--model", clip_folder, "--no-calibrate", *QUICK]
    done = command("tune", picture_folder, "--out", tmp_path / "prompts", "--json", "-", *options)
    assert done.code == 0
    check(done.json, "base-to-new", [*ALL, "with-head"], halves)
    evaluate = ["evaluate", picture_folder, "--protocol", "base-to-new", "--prompts", tmp_path / "prompts"]
    done = command(*evaluate, "--json", "-")
    check(done.json, "base-to-new", [*ALL, "with-head"], halves)
    tuned = done.json["systems"]["tuned"]
    base, new = tuned["base"], tuned["new"]
    assert tuned["harmonic_mean"] == pytest.approx(2 * base * new / (base + new) if base + new else 0)
    refused(
        command("evaluate", picture_folder, "--prompts", tmp_path / "prompts"),
        "few-shot needs prompts tuned on the classes of colours: .*see --protocol base-to-new and cross-dataset",
    )


def test_other_data_sets(command: Command, prompts: Path, picture_folder: Path, tmp_path: Path) -> None:
    others = tiny_clip.write_images(tmp_path / "others", OTHERS)
    again = tiny_clip.write_images(tmp_path / "again", NAMES, first=50)
    done = command("evaluate", others, "--protocol", "cross-dataset", "--prompts", prompts, "--json", "-")
    assert done.code == 0
    check(done.json, "cross-dataset", ALL[:3], PLAIN)
    assert done.json["settings"]["trained_on"] == "colours"
    domain = ["--protocol", "domain", "--prompts", prompts, "--json", "-"]
    done = command("evaluate", again, *domain, "--source", picture_folder)
    check(done.json, "domain", ALL, PLAIN)
    check(command("evaluate", again, *domain).json, "domain", ALL[:3], PLAIN)
    done = command("evaluate", again, "--protocol", "cross-dataset", "--prompts", prompts)
    assert done.code == 0
    assert done.err == (
        "warning: again has the classes that the prompts were tuned on; this is not a cross-dataset test\n"
    )


def test_a_csv_a_class_file_and_a_method_that_prompts_images(
    command: Command, clip_folder: Path, picture_folder: Path, tmp_path: Path
) -> None:
    rows = ["path,label,split"]
    for split in ("train", "test"):
        for path in sorted((picture_folder / split).glob("*/*.png")):
            rows.append(f"{path},c{NAMES.index(path.parent.name)},{split}")
    (tmp_path / "data.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "classes.txt").write_text("".join(f"c{at}\t{name}\n" for at, name in enumerate(NAMES)))
    options = ["--model", clip_folder, "--shots", "1", "--method", "maple", "--depth", "2", *QUICK]
    done = command(
        *("tune", tmp_path / "data.csv", "--out", tmp_path / "prompts", "--json", "-", *options),
        *("--class-file", tmp_path / "classes.txt"),
    )
    assert done.code == 0
    check(done.json, "few-shot", [*ALL, "with-head"], PLAIN)
    assert artifacts.load(tmp_path / "prompts").classes == NAMES
    assert "maple prompts the image tower: its images are encoded in every step" in done.err
    refused(
        command("evaluate", tmp_path / "data.csv", "--prompts", tmp_path / "prompts"), "needs prompts tuned on the cl"
    )
