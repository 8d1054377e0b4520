"""One experiment on captions: tuned, saved, compared both ways; the formats, strengths, runs that are cut short."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import tiny_clip
import torch

from multimodal.classifier import PromptClassifier
from multimodal.data.captions import Captioned, load_captions
from multimodal.data.images import ImageData
from multimodal.evaluation.metrics import recall_at
from multimodal.experiments import captions
from multimodal.experiments.captions import CaptionSplits
from multimodal.experiments.classes import tune as tune_on_labels
from multimodal.experiments.results import CaptionResult
from multimodal.prompts.folder import load
from multimodal.prompts.methods import method
from multimodal.towers.clip import Clip, load_clip
from multimodal.training.captions import Task
from multimodal.training.settings import Settings
from multimodal.vectors.image_index import picture_vector
from multimodal.vectors.texts import text_vectors
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.training.loop import Step

KEYS = {
    *("dataset", "model", "pretrained", "protocol", "systems", "images_encoded", "seconds", "settings"),
    "provenance",
}
RECALLS = {"r@1", "r@5", "r@10"}


def quick(**given: Any) -> Settings:
    return Settings.of(**{"epochs": 2, "learning_rate": 0.05, "shots": None, "batch_size": 8, **given})


@pytest.fixture(scope="module")
def tuned(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Clip, caption_folder: Path
) -> tuple[Path, CaptionResult]:
    """A prompt folder, and the result that came with it."""
    out = tmp_path_factory.mktemp("tuned") / "some" / "prompts"
    data = CaptionSplits.read(caption_folder / "captions.csv")
    return out, captions.tune(tiny_model, data, quick(), out, cache=out.parent.parent / "cache")


def evaluated(clip: Clip, file: Path, folder: Path, split: str | None = "test", **given: Any) -> CaptionResult:
    """What the prompts of a folder find."""
    cache = given.pop("cache", None)
    data = load_captions(file, split, images=given.pop("images", None))
    return captions.evaluate(clip, data, PromptClassifier.load(folder, clip, **given).search_prompts(), cache=cache)


def check(result: CaptionResult, systems: list[str]) -> None:
    written = result.to_json()
    assert json.loads(json.dumps(written)) == written and set(written) >= KEYS
    assert (result.dataset, result.protocol) == ("captions", "retrieval")
    assert list(result.systems) == systems
    for both in result.systems.values():
        assert list(both) == ["i2t", "t2i"] and all(set(scores) == RECALLS for scores in both.values())
        assert all(0 <= value <= 1 for scores in both.values() for value in scores.values())


def test_tune_saves_and_compares(tuned: tuple[Path, CaptionResult], tiny_model: Clip, caption_folder: Path) -> None:
    out, result = tuned
    check(result, ["zero-shot", "tuned"])
    assert result.model == "tiny", "no path of this machine"
    assert result.images_encoded == 24 and result.captions == 16, "two captions a test picture"
    assert result.settings["method"] == "coop" and result.settings["dev"]["images"] == 2
    assert set(result.seconds) == {"images", "training", "zero-shot", "tuned"}
    assert set(result.tests) == set(result.to_json()["tests"]["tuned_vs_zero-shot"]) == {"i2t", "t2i"}
    assert [path.name for path in out.parent.iterdir()] == ["prompts"], "no checkpoint is left"
    saved = load(out)
    assert saved.classes == () and saved.training["captions"] == 28 and saved.training["split"] == "train"
    again = evaluated(tiny_model, caption_folder / "captions.csv", out, cache=out.parent.parent / "cache")
    check(again, ["zero-shot", "tuned"])
    assert again.systems == result.systems and again.tests == result.tests
    assert again.images_encoded == 0
    assert again.settings == {"split": "test", "prompts": None, "strength": saved.strength}


def test_both_formats_say_the_same(
    tuned: tuple[Path, CaptionResult], tiny_model: Clip, caption_folder: Path, tmp_path: Path
) -> None:
    out, expected = tuned
    data = CaptionSplits.read(caption_folder / "captions.jsonl")
    result = captions.tune(tiny_model, data, quick(), tmp_path / "prompts")
    assert result.systems == expected.systems
    one, other = load(out).state, load(tmp_path / "prompts").state
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert result.facts[0] == "captions: 16 training images, 32 captions"
    dev = result.settings["dev"]
    assert result.facts[1] == f"dev {dev['metric']}: zero-shot {dev['zero-shot']:.4f}, tuned {dev['tuned']:.4f}"


def test_strength(tuned: tuple[Path, CaptionResult], tiny_model: Clip, caption_folder: Path, tmp_path: Path) -> None:
    out, _ = tuned
    file = caption_folder / "captions.csv"
    none = evaluated(tiny_model, file, out, strength=0)
    assert none.systems["tuned"] == none.systems["zero-shot"] and none.settings["strength"] == 0
    classifier = PromptClassifier.load(out, tiny_model, strength=0)
    classifier.save(tmp_path / "none")
    assert evaluated(tiny_model, file, tmp_path / "none").systems == none.systems, "as saved"


def test_zero_shot_alone(tiny_model: Clip, caption_folder: Path) -> None:
    file = caption_folder / "captions.csv"
    result = captions.evaluate(tiny_model, load_captions(file, "test"))
    check(result, ["zero-shot"])
    assert result.settings == {"split": "test", "prompts": None, "strength": None}
    train = captions.evaluate(tiny_model, load_captions(file, "train"))
    assert (train.captions, train.settings["split"]) == (32, "train")


def test_captions_without_splits(tiny_model: Clip, caption_folder: Path, tmp_path: Path) -> None:
    rows = [line.rsplit(",", 1)[0] for line in (caption_folder / "captions.csv").read_text().splitlines()]
    (tmp_path / "all.csv").write_text("\n".join(rows) + "\n")
    data = CaptionSplits.read(tmp_path / "all.csv", caption_folder)
    result = captions.tune(tiny_model, data, quick(), tmp_path / "prompts")
    assert set(result.to_json()) == KEYS and result.systems == {}
    assert result.facts[-1] == f"{tmp_path / 'all.csv'} has no test split, so there is no evaluation"
    assert load(tmp_path / "prompts").training["captions"] == 44, "of 24 pictures without two for dev"
    everything = evaluated(tiny_model, tmp_path / "all.csv", tmp_path / "prompts", None, images=caption_folder)
    assert everything.captions == 48 and everything.settings["split"] is None


def test_a_table_of_percentages(tuned: tuple[Path, CaptionResult]) -> None:
    from rich.console import Console

    page = io.StringIO()
    Console(width=120, file=page).print(captions.table(tuned[1]))
    text = page.getvalue()
    assert "captions, retrieval" in text
    for title in ("I→T R@1", "I→T R@5", "I→T R@10", "T→I R@1", "T→I R@5", "T→I R@10"):
        assert title in text
    for name, both in tuned[1].systems.items():
        (row,) = (line for line in text.splitlines() if name in line.replace("│", " ").split())
        shown = [f"{100 * both[way][metric]:.1f}" for way in ("i2t", "t2i") for metric in ("r@1", "r@5", "r@10")]
        assert row.replace("│", " ").split()[1:] == shown


def test_it_goes_on_where_it_was(
    tuned: tuple[Path, CaptionResult], tiny_model: Clip, caption_folder: Path, tmp_path: Path
) -> None:
    def stop(step: Step, total: int) -> None:
        if step.step == 3:
            raise KeyboardInterrupt

    def tune(**given: Any) -> None:
        data = CaptionSplits.read(caption_folder / "captions.csv")
        captions.tune(tiny_model, data, quick(), tmp_path / "prompts", **given)

    with pytest.raises(KeyboardInterrupt):
        tune(on_step=stop)
    (kept,) = (path.name for path in tmp_path.iterdir())
    assert re.fullmatch(r"prompts\.[0-9a-f]{8}\.partial", kept), "named by what the run depends on"
    steps: list[int] = []
    tune(on_step=lambda step, total: steps.append(step.step))
    assert steps[0] == 3 and [path.name for path in tmp_path.iterdir()] == ["prompts"]
    one, other = load(tmp_path / "prompts").state, load(tuned[0]).state
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_what_is_refused_writes_nothing(
    tiny_model: Clip, caption_folder: Path, colours: ImageData, tmp_path: Path
) -> None:
    file, out = caption_folder / "captions.csv", tmp_path / "prompts"
    data = CaptionSplits.read(file)
    for settings, message in (
        (quick(method="kgcoop"), "which the method kgcoop does not go with; use coop, deep or feedback"),
        (quick(method="maple"), "which the method maple does not go with; use coop, deep or feedback"),
        (quick(method="cocoop"), "these prompts cannot serve a search: they depend on the picture"),
        (quick(class_specific=True), "class-specific contexts need the number of classes; give it, or leave them"),
    ):
        with pytest.raises(UserError, match=message) as error:
            captions.tune(tiny_model, data, settings, out)
        assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"no\.csv is not a file; expected captions"):
        CaptionSplits.read(tmp_path / "no.csv")
    with pytest.raises(UserError, match="has no captions of the split 'val'; it has test, train"):
        load_captions(file, "val")
    tune_on_labels(tiny_model, colours, Settings.of(epochs=1, shots=1, class_specific=True), out)
    with pytest.raises(UserError, match="these prompts cannot serve a search: each class has its own"):
        evaluated(tiny_model, file, out)
    with pytest.raises(UserError, match="prompts exists already; choose another name or pass --overwrite"):
        captions.tune(tiny_model, data, quick(), out)


def test_a_run_that_diverged_begins_anew(
    tiny_model: Clip, caption_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, losses = Task.loss, iter([1.0, 1.0, 1.0, math.nan])
    monkeypatch.setattr(Task, "loss", lambda task, batch: next(losses) * plain(task, batch))
    with pytest.raises(UserError, match=r"the loss is not finite .* at step 4 of 4; .*try a smaller --lr"):
        captions.tune(tiny_model, CaptionSplits.read(caption_folder / "captions.csv"), quick(), tmp_path / "prompts")
    assert list(tmp_path.iterdir()) == [], "its checkpoint would only diverge again"


def test_prompts_of_another_model(tuned: tuple[Path, CaptionResult], caption_folder: Path, tmp_path: Path) -> None:
    other = tiny_clip.write_clip(tmp_path / "other", seed=3)
    with pytest.raises(UserError, match=r"prompts was tuned on .*, got .*other .*; load that model, or tune again"):
        evaluated(load_clip(str(other), device="cpu"), caption_folder / "captions.csv", tuned[0])


def prompter(clip: Clip, **given: Any) -> Any:
    return method(given.get("method", "coop")).build(clip, Settings.of(**given)).prompter


def test_evaluate_captions(tiny_model: Clip, caption_folder: Path, tmp_path: Path) -> None:
    test = load_captions(caption_folder / "captions.csv", "test")
    context = prompter(tiny_model, init="gaussian")
    found = captions.evaluate(tiny_model, test, (context, 1.0), cache=tmp_path)
    assert set(found.systems) == {"zero-shot", "tuned"}
    assert (found.images, found.captions, found.captions_cut, found.images_encoded) == (8, 16, 0, 8)
    images = torch.cat([picture_vector(tiny_model, picture) for picture in test.pictures])
    texts = text_vectors(tiny_model, [caption for own in test.captions for caption in own], context)
    t2i = recall_at((texts @ images.T).numpy(), [[at // 2] for at in range(16)])
    assert found.systems["tuned"]["t2i"] == pytest.approx(t2i, abs=0.07)  # half precision may swap neighbours
    assert set(found.tests) == {"i2t", "t2i"}
    again = captions.evaluate(tiny_model, test, (context, 0.0), cache=tmp_path)
    assert again.images_encoded == 0
    assert again.systems["tuned"] == again.systems["zero-shot"] == found.systems["zero-shot"]
    alone = captions.evaluate(tiny_model, test, cache=tmp_path)
    assert alone.systems == {"zero-shot": found.systems["zero-shot"]} and alone.tests == {}


def test_cut_captions_are_counted(tiny_model: Clip, caption_folder: Path) -> None:
    test = load_captions(caption_folder / "captions.csv", "test")
    long = Captioned("long", test.pictures[:2], [["dog " * 17], ["dog " * 30, "cat"]])
    with pytest.warns(DataWarning, match="2 of 3 texts are cut: 14 tokens fit beside a context of 4 vectors"):
        found = captions.evaluate(tiny_model, long, (prompter(tiny_model), 1.0))
    assert found.captions_cut == 2
