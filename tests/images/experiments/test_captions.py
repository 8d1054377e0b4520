"""One experiment on captions: tuned, saved, compared both ways; the formats, strengths, runs that are cut short."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny_clip
import torch

from multimodal.classifier import PromptClassifier
from multimodal.data.images import ImageData
from multimodal.experiments import captions as captions
from multimodal.experiments.classes import tune as tune_on_labels
from multimodal.prompts.folder import load
from multimodal.training.captions import Task
from multimodal.training.settings import Settings
from retrieval_prompts.errors import UserError
from retrieval_prompts.training.loop import Step

KEYS = {"dataset", "model", "pretrained", "protocol", "systems", "images_encoded", "seconds", "settings"}
RECALLS = {"r@1", "r@5", "r@10"}


def quick(**given: Any) -> Settings:
    return Settings.of(**{"epochs": 2, "learning_rate": 0.05, "shots": None, "batch_size": 8, **given})


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path, caption_folder: Path) -> tuple[Path, Any]:
    """A prompt folder, and the result that came with it."""
    out = tmp_path_factory.mktemp("tuned") / "some" / "prompts"
    given: Any = {"model": str(clip_folder), "device": "cpu", "cache": out.parent.parent / "cache"}
    return out, captions.tune(caption_folder / "captions.csv", quick(), out, **given)


def check(result: dict[str, Any], systems: list[str]) -> None:
    assert json.loads(json.dumps(result)) == result and set(result) >= KEYS
    assert (result["dataset"], result["protocol"]) == ("captions", "retrieval")
    assert list(result["systems"]) == systems
    for both in result["systems"].values():
        assert list(both) == ["i2t", "t2i"] and all(set(scores) == RECALLS for scores in both.values())
        assert all(0 <= value <= 1 for scores in both.values() for value in scores.values())


def test_tune_saves_and_compares(tuned: tuple[Path, Any], clip_folder: Path, caption_folder: Path) -> None:
    out, result = tuned
    check(result, ["zero-shot", "tuned"])
    assert result["model"] == "tiny", "no path of this machine"
    assert result["images_encoded"] == 24 and result["captions"] == 16, "two captions a test picture"
    assert result["settings"]["method"] == "coop" and result["settings"]["dev"]["images"] == 2
    assert set(result["seconds"]) == {"images", "training", "zero-shot", "tuned"}
    assert set(result["tests"]["tuned_vs_zero-shot"]) == {"i2t", "t2i"}
    assert [path.name for path in out.parent.iterdir()] == ["prompts"], "no checkpoint is left"
    saved = load(out)
    assert saved.classes == () and saved.training["captions"] == 28 and saved.training["split"] == "train"
    again = captions.evaluate(caption_folder / "captions.csv", out, device="cpu", cache=out.parent.parent / "cache")
    check(again, ["zero-shot", "tuned"])
    assert again["systems"] == result["systems"] and again["tests"] == result["tests"]
    assert again["images_encoded"] == 0
    assert again["settings"] == {"split": "test", "prompts": str(out), "strength": saved.strength}


def test_both_formats_say_the_same(
    tuned: tuple[Path, Any], clip_folder: Path, caption_folder: Path, tmp_path: Path
) -> None:
    out, expected = tuned
    said: list[str] = []
    file = caption_folder / "captions.jsonl"
    result = captions.tune(file, quick(), tmp_path / "prompts", model=str(clip_folder), device="cpu", say=said.append)
    assert result["systems"] == expected["systems"]
    one, other = load(out).state, load(tmp_path / "prompts").state
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert said[0] == "captions: 16 training images, 32 captions"
    dev = result["settings"]["dev"]
    assert said[1] == f"dev {dev['metric']}: zero-shot {dev['zero-shot']:.4f}, tuned {dev['tuned']:.4f}"


def test_strength(tuned: tuple[Path, Any], caption_folder: Path, tmp_path: Path) -> None:
    out, _ = tuned
    file = caption_folder / "captions.csv"
    none = captions.evaluate(file, out, device="cpu", strength=0)
    assert none["systems"]["tuned"] == none["systems"]["zero-shot"] and none["settings"]["strength"] == 0
    classifier = PromptClassifier.load(out, device="cpu", strength=0)
    classifier.save(tmp_path / "none")
    assert captions.evaluate(file, tmp_path / "none", device="cpu")["systems"] == none["systems"], "as saved"


def test_zero_shot_alone(clip_folder: Path, caption_folder: Path) -> None:
    file = caption_folder / "captions.csv"
    result = captions.evaluate(file, model=str(clip_folder), device="cpu")
    check(result, ["zero-shot"])
    assert result["settings"] == {"split": "test", "prompts": None, "strength": None}
    train = captions.evaluate(file, model=str(clip_folder), device="cpu", split="train")
    assert (train["captions"], train["settings"]["split"]) == (32, "train")


def test_captions_without_splits(clip_folder: Path, caption_folder: Path, tmp_path: Path) -> None:
    rows = [line.rsplit(",", 1)[0] for line in (caption_folder / "captions.csv").read_text().splitlines()]
    (tmp_path / "all.csv").write_text("\n".join(rows) + "\n")
    said: list[str] = []
    given: Any = {"images": caption_folder, "model": str(clip_folder), "device": "cpu"}
    result = captions.tune(tmp_path / "all.csv", quick(), tmp_path / "prompts", **given, say=said.append)
    assert set(result) == KEYS and result["systems"] == {}
    assert said[-1] == f"{tmp_path / 'all.csv'} has no test split, so there is no evaluation"
    assert load(tmp_path / "prompts").training["captions"] == 44, "of 24 pictures without two for dev"
    everything = captions.evaluate(tmp_path / "all.csv", tmp_path / "prompts", images=caption_folder, device="cpu")
    assert everything["captions"] == 48 and everything["settings"]["split"] is None


def test_a_table_of_percentages(tuned: tuple[Path, Any]) -> None:
    from rich.console import Console

    page = io.StringIO()
    Console(width=120, file=page).print(captions.table(tuned[1]))
    text = page.getvalue()
    assert "captions, retrieval" in text
    for title in ("I→T R@1", "I→T R@5", "I→T R@10", "T→I R@1", "T→I R@5", "T→I R@10"):
        assert title in text
    for name, both in tuned[1]["systems"].items():
        (row,) = (line for line in text.splitlines() if name in line.replace("│", " ").split())
        shown = [f"{100 * both[way][metric]:.1f}" for way in ("i2t", "t2i") for metric in ("r@1", "r@5", "r@10")]
        assert row.replace("│", " ").split()[1:] == shown


def test_it_goes_on_where_it_was(
    tuned: tuple[Path, Any], clip_folder: Path, caption_folder: Path, tmp_path: Path
) -> None:
    def stop(step: Step, total: int) -> None:
        if step.step == 3:
            raise KeyboardInterrupt

    def tune(**given: Any) -> None:
        file = caption_folder / "captions.csv"
        captions.tune(file, quick(), tmp_path / "prompts", model=str(clip_folder), device="cpu", **given)

    with pytest.raises(KeyboardInterrupt):
        tune(on_step=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.partial"]
    steps: list[int] = []
    tune(on_step=lambda step, total: steps.append(step.step))
    assert steps[0] == 3 and [path.name for path in tmp_path.iterdir()] == ["prompts"]
    one, other = load(tmp_path / "prompts").state, load(tuned[0]).state
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_what_is_refused_writes_nothing(
    clip_folder: Path, caption_folder: Path, colours: ImageData, tmp_path: Path
) -> None:
    file, out = caption_folder / "captions.csv", tmp_path / "prompts"
    model: Any = {"model": str(clip_folder), "device": "cpu"}
    for settings, message in (
        (quick(method="kgcoop"), "which the method kgcoop does not go with; use coop or deep"),
        (quick(method="maple"), "which the method maple does not go with; use coop or deep"),
        (quick(method="cocoop"), "these prompts cannot serve a search: they depend on the picture"),
        (quick(class_specific=True), "class-specific contexts need the number of classes; give it, or leave them"),
    ):
        with pytest.raises(UserError, match=message) as error:
            captions.tune(file, settings, out, **model)
        assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"no\.csv is no file; expected captions"):
        captions.tune(tmp_path / "no.csv", quick(), out, **model)
    with pytest.raises(UserError, match="has no captions of the split 'val'; it has test, train"):
        captions.evaluate(file, split="val", **model)
    tune_on_labels(colours, Settings.of(epochs=1, shots=1, class_specific=True), out, **model)
    with pytest.raises(UserError, match="these prompts cannot serve a search: each class has its own"):
        captions.evaluate(file, out, device="cpu")
    with pytest.raises(UserError, match="prompts exists already; choose another name or pass --overwrite"):
        captions.tune(file, quick(), out, **model)


def test_a_run_that_diverged_begins_anew(
    clip_folder: Path, caption_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, losses = Task.loss, iter([1.0, 1.0, 1.0, math.nan])
    monkeypatch.setattr(Task, "loss", lambda task, batch: next(losses) * plain(task, batch))
    with pytest.raises(UserError, match=r"the loss is not finite .* at step 4 of 4; .*try a smaller --lr"):
        captions.tune(caption_folder / "captions.csv", quick(), tmp_path / "prompts", model=str(clip_folder))
    assert list(tmp_path.iterdir()) == [], "its checkpoint would only diverge again"


def test_prompts_of_another_model(tuned: tuple[Path, Any], caption_folder: Path, tmp_path: Path) -> None:
    other = tiny_clip.write_clip(tmp_path / "other", seed=3)
    with pytest.raises(UserError, match=r"prompts was tuned on .*, got .*other .*; load that model, or tune again"):
        captions.evaluate(caption_folder / "captions.csv", tuned[0], model=str(other), device="cpu")
