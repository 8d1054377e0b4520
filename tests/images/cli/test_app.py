"""multimodal-prompts as a user meets it: every command, machine output, what is refused, help; what imports cost."""

from __future__ import annotations

import ast
import gzip
import json
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clip
import torch
import typer
from command_line import Command, Done, command_line
from fresh_process import HEAVY
from tiny_clip import NAMES, OTHERS, TEST

import multimodal
import retrieval_prompts
from multimodal.classifier import PromptClassifier
from multimodal.cli import app as cli
from multimodal.prompts import folder as artifacts
from retrieval_prompts.cli import console
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.evaluation.metrics import means, per_query
from retrieval_prompts.evaluation.tables import rich_table
from retrieval_prompts.evaluation.trec_runs import read_run
from retrieval_prompts.files import sealed
from retrieval_prompts.prompts.folder import PromptFolder, save_prompts
from retrieval_prompts.vectors.index import Index

QUICK = ["--epochs", "2", "--lr", "0.05", "--batch-size", "8", "--device", "cpu"]
RESULT = {"dataset", "model", "pretrained", "protocol", "systems", "images_encoded", "seconds", "settings"}


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return command_line("multimodal-prompts", cli.main, monkeypatch, capsys)


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


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path, picture_folder: Path) -> Path:
    return fitted(tmp_path_factory.mktemp("prompts") / "coop", clip_folder, picture_folder)


@pytest.fixture(scope="module")
def caption_prompts(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path, caption_folder: Path) -> Path:
    from multimodal.experiments.captions import CaptionSplits, tune
    from multimodal.towers.clip import load_clip
    from multimodal.training.settings import Settings

    out = tmp_path_factory.mktemp("prompts") / "captions"
    settings = Settings.of(epochs=2, learning_rate=0.05, batch_size=8, shots=None)
    data = CaptionSplits.read(caption_folder / "captions.csv")
    tune(load_clip(str(clip_folder), device="cpu"), data, settings, out)
    return out


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path, caption_folder: Path) -> Path:
    """Of the captioned pictures, without their captions."""
    from multimodal.data.pictures import load_pictures
    from multimodal.towers.clip import load_clip
    from multimodal.vectors.image_index import build_index

    folder = tmp_path_factory.mktemp("index") / "index"
    clip = load_clip(str(clip_folder), device="cpu")
    build_index(clip, load_pictures(caption_folder), root=caption_folder).save(folder)
    return folder


# --- tune, evaluate -----------------------------------------------------------------------------------------------


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
        "warning: again has the classes that the prompts were tuned on; this is no cross-dataset test\n"
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


# --- captions -----------------------------------------------------------------------------------------------------


def check_captions(result: dict[str, Any], systems: list[str]) -> None:
    check(result, "retrieval", systems, set())
    for both in result["systems"].values():
        assert list(both) == ["i2t", "t2i"]
        assert all(list(scores) == ["r@1", "r@5", "r@10"] for scores in both.values())


@pytest.mark.parametrize("name", ["captions.csv", "captions.jsonl"])
def test_captions(
    command: Command, clip_folder: Path, caption_folder: Path, caption_prompts: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "prompts"
    done = command("tune", caption_folder / name, "--out", out, "--model", clip_folder, "--json", "-", *QUICK)
    assert done.code == 0
    check_captions(done.json, ["zero-shot", "tuned"])
    assert f'multimodal-prompts search INDEX "words" --prompts {out}' in done.err
    state, expected = artifacts.load(out).state, artifacts.load(caption_prompts).state
    assert all(torch.equal(value, expected[key]) for key, value in state.items())

    evaluated = command("evaluate", caption_folder / name, "--prompts", out, "--json", "-", "--device", "cpu")
    check_captions(evaluated.json, ["zero-shot", "tuned"])
    assert evaluated.json["systems"] == done.json["systems"]
    done = command("evaluate", caption_folder / name, "--model", clip_folder, "--protocol", "retrieval")
    assert done.code == 0 and "I→T R@1" in done.out and "zero-shot" in done.out


def test_captions_elsewhere_gzipped(command: Command, clip_folder: Path, caption_folder: Path, tmp_path: Path) -> None:
    for name in ("captions.csv", "captions.jsonl"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((caption_folder / name).read_bytes()))
        options = ["--images", caption_folder, "--model", clip_folder, "--split", "test"]
        done = command("evaluate", tmp_path / f"{name}.gz", *options, "--json", "-")
        assert done.code == 0, done.err
        check_captions(done.json, ["zero-shot"])


def test_strength_of_captions(command: Command, caption_folder: Path, caption_prompts: Path) -> None:
    evaluate = ["evaluate", caption_folder / "captions.csv", "--prompts", caption_prompts, "--json", "-"]
    systems = command(*evaluate, "--strength", "0").json["systems"]
    assert systems["tuned"] == systems["zero-shot"]


# --- runs and reports ---------------------------------------------------------------------------------------------


def test_evaluate_writes_runs_and_a_report(
    command: Command, prompts: Path, picture_folder: Path, tmp_path: Path
) -> None:
    folder, page = tmp_path / "runs", tmp_path / "report.html"
    written = ["--run", folder, "--report", page]
    done = command("evaluate", picture_folder, "--prompts", prompts, "--json", "-", *written)
    assert done.code == 0 and f"runs: {folder}\nreport: {page}\n" in done.err
    names = ["SHA256SUMS", "results.json", "colours.qrels.tsv", *(f"colours.{system}.trec" for system in ALL)]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert json.loads((folder / "results.json").read_text()) == sealed(done.json)
    run = read_run(folder / "colours.tuned.trec")
    assert len(run) == 4 * TEST and set(run["test/blue/0.png"]) == set(NAMES)
    text = page.read_text()
    assert "colours, few-shot" in text and "test/blue/0.png" in text and text.count("<img") >= 4 * TEST

    refused(command("evaluate", picture_folder, "--prompts", prompts, *written), "runs exists already; .*--overwrite")
    refused(command("evaluate", picture_folder, "--report", page), "report.html exists already; .*--overwrite")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("")
    mine = ["--run", tmp_path / "mine", "--overwrite"]
    refused(command("evaluate", picture_folder, *mine), r"mine is not replaced, .*: it holds no results.json")
    again = command("evaluate", picture_folder, "--prompts", prompts, "--json", "-", *written, "--overwrite")
    assert again.code == 0 and again.json["systems"] == done.json["systems"]


def test_runs_of_captions(command: Command, caption_folder: Path, caption_prompts: Path, tmp_path: Path) -> None:
    folder, page = tmp_path / "runs", tmp_path / "report.html"
    evaluate = ["evaluate", caption_folder / "captions.csv", "--prompts", caption_prompts, "--json", "-"]
    done = command(*evaluate, "--run", folder, "--report", page)
    assert done.code == 0
    ways = [f"captions.{way}" for way in ("i2t", "t2i")]
    files = [f"{way}.{name}" for way in ways for name in ("qrels.tsv", "zero-shot.trec", "tuned.trec")]
    assert sorted(path.name for path in folder.iterdir()) == sorted(["SHA256SUMS", "results.json", *files])
    for way in ways:
        rows = (line.split("\t") for line in (folder / f"{way}.qrels.tsv").read_text().splitlines()[1:])
        qrels: dict[str, dict[str, int]] = {}
        for query, document, grade in rows:
            qrels.setdefault(query, {})[document] = int(grade)
        for system in ("zero-shot", "tuned"):
            hits = means(per_query(qrels, read_run(folder / f"{way}.{system}.trec"), ["hit@1", "hit@5"]))
            expected = done.json["systems"][system][way[-3:]]
            assert hits == {"hit@1": pytest.approx(expected["r@1"]), "hit@5": pytest.approx(expected["r@5"])}
    assert set(read_run(folder / "captions.t2i.tuned.trec")) >= {"pictures/blue2.png#0", "pictures/blue2.png#1"}
    assert "text to image" in page.read_text()


def test_tune_writes_a_report(command: Command, clip_folder: Path, picture_folder: Path, caption_folder: Path) -> None:
    out = caption_folder.parent / "reported"
    model = ["--model", clip_folder, *QUICK]
    for number, data in enumerate((picture_folder, caption_folder / "captions.csv")):
        page = out / f"{number}.html"
        done = command("tune", data, "--out", out / f"prompts{number}", "--report", page, *model)
        assert done.code == 0, done.err
        assert f"report: {page}\n" in done.out and "Training loss" in page.read_text()
        assert ("Strength of the prompt" in page.read_text()) == (number == 1)
        refused(command("tune", data, "--out", out / "new", "--report", page, *model), "exists already; .*--overwrite")
    rows = [line.rsplit(",", 1)[0] for line in (caption_folder / "captions.csv").read_text().splitlines()]
    (out / "all.csv").write_text("\n".join(rows) + "\n")
    there = ["--images", caption_folder, "--report", out / "none.html"]
    done = command("tune", out / "all.csv", "--out", out / "prompts", *there, *model)
    assert "nothing was evaluated, so there is no report\n" in done.out and not (out / "none.html").exists()


def test_what_is_missing_beside_finished_prompts_is_made_without_training(
    command: Command,
    clip_folder: Path,
    picture_folder: Path,
    caption_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, result = tmp_path / "out", tmp_path / "result.json"
    runs = []
    for number, data in enumerate((picture_folder, caption_folder / "captions.csv")):
        options = ["--out", out / str(number), "--json", result, "--model", clip_folder, *QUICK]
        assert command("tune", data, *options).code == 0
        runs.append((data, options, json.loads(result.read_text())))
        result.unlink()
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    monkeypatch.setattr("multimodal.training.classes.fit", None)
    monkeypatch.setattr("multimodal.training.captions.fit", None)
    for data, options, found in runs:
        assert "exists already, made by a run with other settings" in command("tune", data, *options, "--seed", "9").err
        done = command("tune", data, *options)
        assert done.code == 0, done.err
        again = json.loads(result.read_text())
        assert again["systems"] == found["systems"]
        assert again["settings"] == found["settings"]
        refused(command("tune", data, *options), "exists already; choose another name or pass --overwrite")
        result.unlink()
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before


# --- classify -----------------------------------------------------------------------------------------------------


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


# --- index and search ---------------------------------------------------------------------------------------------


def test_index_then_search(command: Command, clip_folder: Path, caption_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    options = ["--captions", caption_folder / "captions.csv", "--model", clip_folder, "--device", "cpu"]
    done = command("index", caption_folder, "--out", out, *options)
    assert (done.code, done.err) == (0, "")
    assert done.out == f'{out}: 24 images, Flat\nnext: multimodal-prompts search {out} "a red boat" --html boats.html\n'
    assert len(Index.open(out)) == 24

    done = command("search", out, "a blue picture", "-k", "5", "--json", "-")
    assert (done.code, done.err) == (0, "")
    assert [list(hit) for hit in done.json] == [["id", "score", "text", "path"]] * 5
    scores = [hit["score"] for hit in done.json]
    assert scores == sorted(scores, reverse=True)
    for hit in done.json:
        assert Path(hit["path"]) == caption_folder / hit["id"] and " / Something " in hit["text"]
    lines = command("search", out, "a blue picture", "-k", "5").out.splitlines()
    first = done.json[0]
    assert lines[0].split("  ")[-2:] == [first["id"], first["text"][:100]] and len(lines) == 5
    assert len(command("search", out, "blue", "-k", "100", "--json", "-").json) == 24


def test_search_by_image(command: Command, index: Path, caption_folder: Path, tmp_path: Path) -> None:
    image, page = caption_folder / "pictures" / "pink1.png", tmp_path / "like.html"
    done = command("search", index, "--image", image, "--json", "-", "--html", page, "-k", "3")
    assert done.json[0]["id"] == "pictures/pink1.png"
    assert done.json[0]["score"] == pytest.approx(1, abs=1e-3)
    assert all("pink" in hit["id"] for hit in done.json), "the model sees colours, if it cannot name them"
    text = page.read_text()
    assert text.count("<img") == 4 and "Like pink1.png" in text
    refused(command("search", index, "--image", image, "--html", page), "like.html exists already")


def test_a_page_shows_no_picture_that_was_not_indexed(
    command: Command, clip_folder: Path, caption_folder: Path, tmp_path: Path
) -> None:
    images, out, page = tmp_path / "images", tmp_path / "index", tmp_path / "page.html"
    shutil.copytree(caption_folder / "pictures", images)
    assert command("index", images, "--out", out, "--model", clip_folder).code == 0
    (images / "pink1.png").write_bytes((images / "pink0.png").read_bytes())
    for name in ("blue0.png", "blue1.png"):
        (images / name).unlink()
    done = command("search", out, "--image", images / "pink0.png", "--html", page, "-k", "24")
    assert done.code == 0 and page.read_text().count("<img") == 1 + 21
    assert done.err.startswith("warning: 3 of 24 pictures are not on the page: ") and done.err.count("\n") == 1
    command("search", out, "pink", "--html", page, "-k", "24", "--overwrite", "--images", caption_folder / "pictures")
    assert page.read_text().count("<img") == 24
    refused(command("search", out, "pink", "--images", page), "page.html is no folder; --images expects the one that")


def test_search_with_prompts(
    command: Command, index: Path, caption_prompts: Path, prompts: Path, tmp_path: Path
) -> None:
    def hits(*options: object) -> list[tuple[str, float]]:
        done = command("search", index, "a pink picture", "--json", "-", *options)
        assert done.code == 0, done.err
        return [(hit["id"], hit["score"]) for hit in done.json]

    plain, tuned = hits(), hits("--prompts", caption_prompts, "--strength", 1)
    assert plain != tuned
    assert hits("--prompts", caption_prompts, "--strength", "0") == plain
    assert hits("--prompts", caption_prompts, "--strength", "0.5") not in (plain, tuned)
    assert hits("--prompts", prompts) not in (plain, tuned), "those of classes serve, too"
    page = tmp_path / "page.html"
    done = command("search", index, "a pink picture", "--prompts", caption_prompts, "--html", page)
    assert done.out.endswith(f"page: {page}\n")
    assert page.read_text().count("<img") == 10 and "“a pink picture”" in page.read_text()


def test_a_model_that_moved(
    command: Command, clip_folder: Path, index: Path, prompts: Path, picture_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(clip_folder, tmp_path / "moved")
    expected = command("search", index, "pink", "--json", "-")
    assert command("search", index, "pink", "--json", "-", "--model", tmp_path / "moved").out == expected.out
    file = picture_folder / "test" / "blue" / "0.png"
    assert command("classify", prompts, file, "--model", tmp_path / "moved").code == 0
    other = tiny_clip.write_clip(tmp_path / "other", seed=1)
    refused(
        command("classify", prompts, file, "--model", other), "was tuned on .*tiny .*, got .*other .*; load that mo"
    )
    refused(command("search", index, "pink", "--model", other), "other")
    described = json.loads((prompts / "prompt.json").read_text())
    gone = shutil.copytree(prompts, tmp_path / "gone")
    described["base"]["name"] = f"local-dir:{tmp_path / 'nowhere'}"
    (gone / "prompt.json").write_text(json.dumps(sealed(described)))
    refused(command("classify", gone, file), r"nowhere is no open_clip model folder: expected open_clip_config.json")


# --- export -------------------------------------------------------------------------------------------------------


def test_export(command: Command, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "export"
    done = command("export", prompts, "--out", out, "--device", "cpu")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{out}: classes.safetensors, classes.json, index/ (4 classes)\n"
    assert sorted(path.name for path in out.iterdir()) == [
        *("SHA256SUMS", "classes.json", "classes.safetensors", "index")
    ]
    assert json.loads((out / "classes.json").read_text())["names"] == list(NAMES)
    refused(command("export", prompts, "--out", out), r"export exists already; .*--overwrite")
    done = command("export", prompts, "--out", out, "--classes", "cat,dog", "--overwrite")
    assert done.out.endswith("(2 classes)\n")
    assert json.loads((out / "classes.json").read_text())["names"] == ["cat", "dog"]
    refused(command("search", out / "index", "cat"), "index is no index of images; texts are searched by")


def test_export_says_where_the_head_is(
    command: Command, clip_folder: Path, picture_folder: Path, tmp_path: Path
) -> None:
    headed = fitted(tmp_path / "headed", clip_folder, picture_folder, head="proker")
    for given, said in (
        ((), "with the head that answers for them: proker"),
        (("--classes", "cat,dog"), "without the head, .* of the training alone, at full strength: the prompt's class"),
        (("--strength", "0.5"), "without the head, .* of the training alone, at full strength: the prompt's class"),
    ):
        done = command("export", headed, "--out", tmp_path / "out", "--overwrite", *given)
        assert done.code == 0 and re.match(said, done.out.splitlines()[1])


def test_verify(command: Command, prompts: Path, index: Path, picture_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(prompts, tmp_path / "prompts")
    shutil.copytree(index, tmp_path / "index")
    assert command("export", prompts, "--out", tmp_path / "export").code == 0
    picture = picture_folder / "test" / "blue" / "0.png"
    assert command("classify", prompts, picture, "--cache", tmp_path / "cache").code == 0
    kinds = {"cache": "image features", "export": "classifier", "index": "index", "prompts": "prompts"}
    done = command("verify", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert [line.rpartition(": ")[2] for line in done.out.splitlines()] == [f"{each}, sound" for each in kinds.values()]
    tried = 0
    for name, kind in kinds.items():
        for path in sorted((tmp_path / name).rglob("*.*")):
            if path.is_file():
                whole = path.read_bytes()
                path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
                done = command("verify", tmp_path)
                path.write_bytes(whole)
                assert done.code == 1, path
                (wrong,) = [line for line in done.out.splitlines() if "NOT SOUND" in line]
                assert wrong.startswith(str(tmp_path / name)) and f": {kind}, NOT SOUND: " in wrong
                tried += 1
    assert tried > 14


# --- mistakes -----------------------------------------------------------------------------------------------------


def test_outputs_that_exist_are_refused(
    command: Command, clip_folder: Path, picture_folder: Path, caption_folder: Path, prompts: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    (tmp_path / "file").write_text("mine")
    model = ["--model", clip_folder]
    exists, file = r"out exists already; choose another name or pass --overwrite", r"file exists already"
    for data in (picture_folder, caption_folder / "captions.csv"):
        refused(command("tune", data, "--out", tmp_path / "out", *model), exists)
        refused(command("tune", data, "--out", tmp_path / "new", "--json", tmp_path / "file", *model), file)
    refused(command("index", picture_folder, "--out", tmp_path / "out", *model), exists)
    refused(command("export", prompts, "--out", tmp_path / "out"), exists)
    refused(command("evaluate", picture_folder, "--json", tmp_path / "file", *model), file)
    not_ours = r"out is not replaced, for it is something else: it holds no (prompt|manifest|classes).json"
    refused(command("tune", picture_folder, "--out", tmp_path / "out", "--overwrite", *model), not_ours)
    refused(command("index", picture_folder, "--out", tmp_path / "out", "--overwrite", *model), not_ours)
    refused(command("export", prompts, "--out", tmp_path / "out", "--overwrite"), not_ours)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]
    assert (tmp_path / "file").read_text() == "mine" and [path.name for path in (tmp_path / "out").iterdir()] == [
        "mine"
    ]


TUNE = "tune PICTURES --out NEW --shots 2 --model MODEL"
CAPTIONS = "CAPTIONS/captions.csv"
BLUE = "PICTURES/test/blue/0.png"
TEXTS_GIVEN = "TEXTS/prompt.json: expected prompts for CLIP, got prompts for texts; use retrieval-prompts"
MISTAKES = [
    ("tune NOWHERE --out NEW", "NOWHERE does not exist; expected an image folder"),
    ("tune NOWHERE.jsonl --out NEW", "NOWHERE.jsonl is no file; expected captions"),
    ("tune ONE --out NEW --model MODEL", "ONE has the class 'cat' only; expected two classes or more"),
    ("tune TWICE --out NEW --model MODEL", "TWICE.*A_cat"),
    ("tune EMPTY --out NEW --model MODEL", r"EMPTY/cat has no pictures; expected files that end in"),
    ("tune LONG --out NEW --model MODEL --shots 1", "the class name 'very very .*' has 32 tokens; 14 fit beside 4 con"),
    (f"{TUNE} --shots 0", "--shots must be a number from 1, or all, got '0'"),
    (f"{TUNE} --shots -3", "--shots must be a number from 1, or all, got '-3'"),
    (f"{TUNE} --shots some", "--shots must be a number from 1, or all, got 'some'"),
    (f"{TUNE} --method copo", "--method must be coop, cocoop, .* or promptsrc, got 'copo'"),
    (f"{TUNE} --subset old", "--subset must be all, base or new, got 'old'"),
    (f"{TUNE} --epochs 0", "--epochs must be 1 or more, got 0"),
    (f"{TUNE} --lr 0", r"--lr must be above 0 and at most 1e\+06, got 0"),
    (f"{TUNE} --batch-size 0", "--batch-size must be 1 or more, got 0"),
    (f"{TUNE} --views 300", "expected from 1 to 256 views, got 300"),
    (f"{TUNE} --context 18", "a context of 18 vectors leaves no room for a name in 20 positions"),
    (f"{TUNE} --init ' '", '--init .* has no words; write --init "a photo of a" or --init gaussian'),
    (f"{TUNE} --position behind", "--position must be end, middle or front"),
    (f"{TUNE} --template 'a photo'", "expected a template with one {} for the class name"),
    (f"{TUNE} --class-file NOWHERE", "NOWHERE does not exist"),
    (f"{TUNE} --images PICTURES", "--images is the folder of a caption file's images; leave it out"),
    (
        f"{TUNE} --method tcp --class-specific",
        "--class-specific is read with --method coop, .* not with --method tcp",
    ),
    (f"{TUNE} --pretrained openai", "has its own weights; leave out --pretrained openai"),
    (f"{TUNE} --device abacus", "could not be loaded by open_clip: .*abacus"),
    ("tune PICTURES --out NEW --model NOWHERE", "there is no model NOWHERE: expected a folder, hf-hub:NAME"),
    ("tune PICTURES --out NEW --model PICTURES", "PICTURES is no open_clip model folder: expected open_clip_config.js"),
    ("tune PICTURES --out NEW --model ViT-B-32", "model ViT-B-32 needs --pretrained: a checkpoint file, or one of"),
    (f"tune {CAPTIONS} --out NEW --subset base", "captions have no classes; leave out --subset"),
    (
        f"tune {CAPTIONS} --out NEW --model MODEL --method kgcoop",
        "the method kgcoop does not go with; use coop or deep",
    ),
    (f"classify NOWHERE {BLUE}", "NOWHERE is no prompt folder: expected prompt.safetensors and prompt.json in it"),
    (f"classify TEXTS {BLUE}", TEXTS_GIVEN),
    (f"classify WORDS {BLUE}", "these prompts were tuned on captions and have no classes of their own; give --classes"),
    ("classify PROMPTS NOWHERE", "NOWHERE does not exist; expected a picture or a folder of pictures"),
    ("classify PROMPTS TEXTS", "no picture found in TEXTS; expected files that end in"),
    (f"classify PROMPTS {BLUE} --classes ''", "--classes '' has an empty name; write --classes cat,dog,horse"),
    (f"classify PROMPTS {BLUE} --classes cat,,dog", "--classes 'cat,,dog' has an empty name"),
    (f"classify PROMPTS {BLUE} --classes cat,dog,Cat", "class names must differ, got 'cat' and 'Cat'; rename one"),
    (
        f"classify PROMPTS {BLUE} --classes 'cat,{'o ' * 30}'",
        "the class name 'o o .*; shorten the name or use a shorter",
    ),
    (f"classify PROMPTS {BLUE} --classes a,b --class-file x", "give either --classes or --class-file, not both"),
    (
        f"classify PROMPTS {BLUE} --strength 2",
        r"strength must be from 0 .* to 1 .*, got 2.0",
    ),
    ("evaluate NOWHERE --model MODEL", "NOWHERE does not exist; expected an image folder"),
    ("evaluate PICTURES --prompts TEXTS", TEXTS_GIVEN),
    ("evaluate PICTURES --model MODEL --protocol zero", "there is no protocol 'zero'; the protocols are few-shot, bas"),
    ("evaluate PICTURES --model MODEL --protocol retrieval", "PICTURES has no captions; expected Karpathy JSON, JSONL"),
    ("evaluate PICTURES --model MODEL --split val", "has no split 'val'; it has train, test"),
    ("evaluate PICTURES --model MODEL --strength 1", "--strength is that of a prompt; pass --prompts as well"),
    (
        f"evaluate {CAPTIONS} --model MODEL --protocol few-shot",
        "has captions: expected --protocol retrieval, got few-s",
    ),
    (f"evaluate {CAPTIONS} --prompts WORDS --prompts WORDS", "retrieval evaluates one prompt folder at a time, got 2"),
    (f"evaluate {CAPTIONS} --prompts TEXTS", TEXTS_GIVEN),
    (f"evaluate {CAPTIONS} --source PICTURES", "captions have no classes; leave out --source"),
    ("index NOWHERE --out NEW --model MODEL", "NOWHERE does not exist; expected a picture or a folder of pictures"),
    ("index PICTURES --out NEW --model MODEL --factory Round", "Round"),
    ("search INDEX", "give either words to look for, or --image"),
    (f"search INDEX a --image {BLUE}", "give either words to look for, or --image"),
    ("search INDEX ' '", "the query is empty; write what you look for in quotes"),
    ("search INDEX a --strength 0.5", "--strength is that of a prompt; pass --prompts as well"),
    (f"search INDEX --image {BLUE} --prompts WORDS", "--prompts belong to words; a search by image has none"),
    ("search INDEX --image NOWHERE", "NOWHERE does not exist"),
    ("search INDEX --image PICTURES", "PICTURES is a folder; --image expects one picture"),
    ("search NOWHERE a", "NOWHERE"),
    ("search INDEX a --prompts TEXTS", TEXTS_GIVEN),
    ("export NOWHERE --out NEW", "NOWHERE is no prompt folder"),
    ("export TEXTS --out NEW", TEXTS_GIVEN),
    ("export WORDS --out NEW", "these prompts were tuned on captions and have no classes of their own; give --classes"),
    ("export PROMPTS --out NEW --classes a --class-file x", "give either --classes or --class-file, not both"),
]


@pytest.fixture(scope="module")
def desk(
    tmp_path_factory: pytest.TempPathFactory,
    clip_folder: Path,
    picture_folder: Path,
    caption_folder: Path,
    prompts: Path,
    caption_prompts: Path,
    index: Path,
) -> Path:
    """A folder with all that a mistake can be made with."""
    desk = tmp_path_factory.mktemp("desk")
    there = {"PICTURES": picture_folder, "CAPTIONS": caption_folder, "MODEL": clip_folder}
    for name, folder in {**there, "PROMPTS": prompts, "WORDS": caption_prompts, "INDEX": index}.items():
        (desk / name).symlink_to(folder)
    for name in ("ONE/cat", "TWICE/a cat", "TWICE/A_cat", "LONG/cat", "LONG/" + "very " * 30 + "long"):
        for number in range(2):
            tiny_clip.write_picture(desk / name / f"{number}.png", "blue", number)
    for name in ("cat", "dog"):
        (desk / "EMPTY" / name).mkdir(parents=True)
    base = {"name": "bert", "fingerprint": "0" * 64, "dimension": 4, "width": 4}
    save_prompts(desk / "TEXTS", PromptFolder("input", {"query": torch.ones(1, 2, 4)}, base))
    return desk


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[line[:70] for line, _ in MISTAKES])
def test_a_mistake_is_one_line(
    command: Command, desk: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    monkeypatch.chdir(desk)
    before = sorted(path.name for path in desk.iterdir())
    refused(command(*shlex.split(line)), message)
    assert sorted(path.name for path in desk.iterdir()) == before, "nothing is written"


def test_what_the_system_refuses_is_one_line(
    command: Command, clip_folder: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("retrieval_prompts.prompts.folder.write_bytes", fail)
    tune = ["tune", picture_folder, "--model", clip_folder, "--out", tmp_path / "out", "--shots", "1", *QUICK]
    refused(command(*tune), "No space left on device")
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"], "the work is not lost"


# --- the console --------------------------------------------------------------------------------------------------


def test_the_console(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(error: BaseException) -> tuple[Any, str]:
        def app() -> None:
            raise error

        with pytest.raises(SystemExit) as ended:
            console.run(app)
        return ended.value.code, capsys.readouterr().err

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    assert ends(UserError("two\n  lines")) == (2, "error: two lines\n")
    assert ends(FileNotFoundError(2, "No such file", "a")) == (2, "error: [Errno 2] No such file: 'a'\n")
    assert ends(SystemExit(130)) == (130, "interrupted; the same command goes on from where it was\n")
    assert ends(SystemExit(0)) == (0, "")
    with pytest.raises(ZeroDivisionError):
        console.run(lambda: 1 / 0)  # a mistake of ours keeps its traceback
    for _ in range(2):
        warnings.showwarning(DataWarning("odd\ndata"), DataWarning, "file.py", 1)
    warnings.showwarning(DeprecationWarning("not the user's"), DeprecationWarning, "file.py", 1)
    assert capsys.readouterr().err == "warning: odd data\n"

    console.printer(None)("for people")
    console.printer(Path("-"))("beside JSON")
    console.printer(tmp_path / "result.json")("for people")
    console.write_result(Path("-"), {"name": "café"})
    captured = capsys.readouterr()
    assert captured.out == 'for people\nfor people\n{\n  "name": "café"\n}\n' and captured.err == "beside JSON\n"
    console.write_result(tmp_path / "result.json", {"name": "café"})
    assert json.loads((tmp_path / "result.json").read_text()) == {"name": "café"}
    odd = "\x1b[2J\x9b31m\u202etxt\x07\ta\nb"
    console.say(odd)
    console.warn(odd)
    console.printer(None)(rich_table([[odd, 1.0]], ["name", odd]))
    console.write_result(Path("-"), {"name": odd})
    captured = capsys.readouterr()
    assert not set("\x1b\x9b\u202e\x07") & set(captured.out + captured.err)
    assert captured.out.startswith("\\x1b[2J\\x9b31m\\u202etxt\\x07\ta\nb\n")
    assert captured.err == "warning: \\x1b[2J\\x9b31m\\u202etxt\\x07 a b\n"
    assert json.loads(captured.out[captured.out.index("{") :])["name"] == odd
    assert ends(UserError(odd)) == (2, "error: \\x1b[2J\\x9b31m\\u202etxt\\x07 a b\n")
    console.check_outputs(None, overwrite=False)
    console.check_outputs(Path("-"), overwrite=False)
    console.check_outputs(tmp_path / "result.json", overwrite=True)
    with pytest.raises(UserError, match=r"result.json exists already"):
        console.check_outputs(tmp_path / "result.json", overwrite=False)


# --- help and imports ---------------------------------------------------------------------------------------------

OPTIONS = {
    "tune": (
        "--out --model --pretrained --method --shots --context --init --class-file --template --epochs --lr --seed "
        "--views --json --report --overwrite"
    ),
    "classify": "--classes --top-k -k --model --html --json",
    "evaluate": "--prompts --protocol --split --json --run --report --source",
    "index": "--out --model --captions --factory --overwrite",
    "search": "--prompts --image --images --html --json --top-k -k",
    "export": "--out --classes --overwrite",
    "inspect": "--data --html --json --overwrite",
    "verify": "--json --overwrite",
}


def test_help_lists_every_command_and_option(command: Command) -> None:
    done = command("--help")
    assert done.code == 0
    group: Any = typer.main.get_command(cli.app)
    assert set(group.commands) == set(OPTIONS)
    for name, sub in group.commands.items():
        assert re.search(rf"^ +{name} +\S", done.out, re.MULTILINE)
        shown = command(name, "--help")
        assert shown.code == 0
        declared = {option for parameter in sub.params for option in parameter.opts if option.startswith("-")}
        for option in declared | set(OPTIONS[name].split()):
            assert re.search(rf"(^|[ ,]){option}\b", shown.out, re.MULTILINE), (name, option)
    assert command().code in (0, 2) and command("tune").code == 2


def test_imports_and_help_are_light() -> None:
    program = f"""
import sys
import multimodal, multimodal.cli.app
from multimodal import Settings
from multimodal.cli.app import main
for arguments in [["--help"], *([name, "--help"] for name in {list(OPTIONS)})]:
    sys.argv = ["multimodal-prompts", *arguments]
    try:
        main()
    except SystemExit as end:
        assert end.code == 0, end.code
print("loaded", *[name for name in {(*HEAVY, "numpy", "PIL", "sklearn", "torchvision")} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded"


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).parent / "multimodal-prompts"
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "classify" in done.stdout


def test_all_is_what_can_be_imported() -> None:
    namespace: dict[str, object] = {}
    exec("from multimodal import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(multimodal.__all__) == set(multimodal._HOMES)
    assert set(multimodal.__all__) <= set(dir(multimodal))
    assert sorted(multimodal.__all__) == multimodal.__all__
    with pytest.raises(AttributeError, match="module 'multimodal' has no attribute 'Promptclassifier'"):
        multimodal.Promptclassifier  # noqa: B018


def test_the_core_knows_nothing_of_images() -> None:
    for path in Path(retrieval_prompts.__path__[0]).glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "multimodal"], path
        assert 'import_module("multimodal' not in path.read_text()
