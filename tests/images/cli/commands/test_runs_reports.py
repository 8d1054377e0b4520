"""Runs, reports, and what is missing beside finished prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Command
from image_commands import ALL, QUICK, refused
from tiny_clip import NAMES, TEST

from retrieval_prompts.evaluation.metrics import means, per_query
from retrieval_prompts.evaluation.trec_runs import read_run
from retrieval_prompts.files import sealed


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
