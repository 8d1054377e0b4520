"""One experiment on labelled images: tuned, saved and evaluated in one schema; cut short; refused."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_clip
import torch
from tiny_clip import NAMES, TEST, TRAIN

from multimodal.classifier import PromptClassifier
from multimodal.data import images
from multimodal.data.images import ImageData, few_shot, load_images
from multimodal.experiments import classes as experiment
from multimodal.experiments import protocols
from multimodal.prompts.folder import load
from multimodal.towers.clip import Clip
from multimodal.training.classes import Task
from multimodal.training.settings import Settings
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.experiments.run import PromptOutput
from retrieval_prompts.training.loop import Step

KEYS = {"dataset", "model", "pretrained", "protocol", "systems", "tests", "images_encoded", "seconds", "settings"} | {
    "provenance"
}
HALVES = {"base", "new", "harmonic_mean", "ece_base", "ece_new", "mean_per_class_base", "mean_per_class_new"}


def quick(**given: Any) -> Settings:
    return Settings.of(**{"epochs": 2, "learning_rate": 0.05, "shots": 2, "batch_size": 8, "head": "none", **given})


def without_seeds(scores: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scores.items() if name not in ("seeds", "std", "per_seed")}


def test_tune_saves_and_evaluates(tiny_model: Clip, colours: ImageData, tmp_path: Path) -> None:
    steps: list[int] = []
    out, cache = tmp_path / "some" / "prompts", tmp_path / "cache"
    result = experiment.tune(
        tiny_model,
        colours,
        quick(),
        out,
        cache=cache,
        on_step=lambda step, total: steps.append(total),
    )
    written = result.to_json()
    assert json.loads(json.dumps(written)) == written and set(written) == KEYS
    assert (result.dataset, result.model, result.protocol) == ("colours", "tiny", "few-shot")
    assert list(result.systems) == ["zero-shot", "zero-shot-ensemble", "tuned", "linear-probe"]
    for scores in result.systems.values():
        assert {"accuracy", "mean_per_class", "ece"} <= set(scores)
        assert all(0 <= scores[name] <= 1 for name in ("accuracy", "mean_per_class", "ece"))
    assert result.images_encoded == 4 * (2 + TEST)
    assert {"tune", "encode images", "zero-shot", "tuned"} <= set(result.seconds)
    expected = {"method": "coop", "shots": 2, "subset": "all", "train_images": 8, "text_tower": "shared", "seed": 1}
    assert expected.items() <= result.settings.items()
    assert result.facts == [
        "colours: 4 classes, 8 training images, 8 test images",
        f"text tower: shared; temperature {result.settings['temperature']:.2f}",
    ]
    assert steps == [2, 2] and [step.step for step in result.steps] == [1, 2] and not result.rankings

    assert sorted(path.name for path in out.parent.iterdir()) == ["prompts"], "no checkpoint is left"
    saved = load(out)
    assert saved.temperature == result.settings["temperature"] != 1
    train = colours.split("train")
    chosen = [train.pictures[at].name for at in few_shot(train, 2, 1)]
    assert saved.training["pictures"] == chosen and saved.training["dataset"] == "colours"
    again = protocols.evaluate("few-shot", colours, [PromptClassifier.load(out, tiny_model)], cache=cache)
    assert again.systems == result.systems and again.images_encoded == 0

    other = experiment.tune(tiny_model, colours, quick(seed=2, method="kgcoop"), cache=cache)
    named = {*load(out).training["pictures"], *(train.pictures[at].name for at in few_shot(train, 2, 2))}
    assert other.images_encoded == len(named) - 8, "only the shots that are new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "some"], "without a folder nothing is saved"


@pytest.mark.parametrize(("subset", "names"), [("base", NAMES[:2]), ("new", NAMES[2:])])
def test_half_of_the_classes(
    tiny_model: Clip, colours: ImageData, tmp_path: Path, subset: str, names: tuple[str, ...]
) -> None:
    result = experiment.tune(tiny_model, colours, quick(shots=None), tmp_path / "prompts", subset=subset)
    assert result.protocol == "base-to-new" and result.settings["classes"] == [2, 2]
    assert all(set(scores) >= HALVES for scores in result.systems.values())
    assert load(tmp_path / "prompts").classes == names
    assert load(tmp_path / "prompts").training["images"] == 2 * TRAIN
    probe = result.systems["linear-probe"]
    assert probe["base"] is not None and probe["new"] is None, "it has no answer for classes that it has not seen"
    again = protocols.evaluate("base-to-new", colours, [PromptClassifier.load(tmp_path / "prompts", tiny_model)])
    assert again.systems == result.systems


def test_with_a_head_what_is_saved_is_scored_beside_the_prompt(
    tiny_model: Clip, colours: ImageData, tmp_path: Path
) -> None:
    out, cache = tmp_path / "prompts", tmp_path / "cache"
    alone = experiment.tune(tiny_model, colours, quick(shots=None), subset="base", cache=cache)
    result = experiment.tune(tiny_model, colours, quick(shots=None, head="proker"), out, subset="base", cache=cache)
    found = PromptClassifier.load(out, tiny_model)
    assert found.answer is not None and found.answer.classes == NAMES[:2]
    assert result.settings["head_taken"] == "proker"
    assert f"head: {found.answer.why}" in result.facts and found.answer.why.startswith("proker (beta ")
    systems = result.systems
    assert without_seeds(systems["tuned"]) == without_seeds(alone.systems["tuned"]), "the prompt is as it was"
    assert systems["with-head"]["new"] == systems["tuned"]["new"], "new classes are the prompt's"
    base, _ = images.halves(colours.classes)
    test = images.subset(colours, base).split("test")
    labels = [base[label] for label in test.labels]
    assert systems["with-head"]["base"] == found.score(test.pictures, labels, cache=cache)
    tests = result.to_json()["tests"]
    assert tests["base"]["with-head_vs_tuned"]["difference"] == pytest.approx(
        systems["with-head"]["base"] - systems["tuned"]["base"]
    )
    assert "tuned_vs_linear-probe" in tests["base"] and "tuned_vs_linear-probe" not in tests["new"]


def test_a_head_that_knows_none_of_the_classes_is_no_system(
    tiny_model: Clip, colours: ImageData, tmp_path: Path
) -> None:
    base, new = images.halves(colours.classes)
    experiment.tune(tiny_model, colours, quick(shots=None, head="proker"), tmp_path / "prompts", subset="base")
    found = [PromptClassifier.load(tmp_path / "prompts", tiny_model)]
    assert "with-head" not in protocols.evaluate("cross-dataset", images.subset(colours, new), found).systems
    assert "with-head" in protocols.evaluate("cross-dataset", colours, found).systems


def test_images_are_not_counted_as_encoded_where_the_head_answers_alone(
    tiny_model: Clip, colours: ImageData, tmp_path: Path
) -> None:
    settings = quick(shots=None, head="proker", method="vpt")
    experiment.tune(tiny_model, colours, settings, tmp_path / "prompts", cache=tmp_path)
    result = protocols.evaluate(
        "few-shot", colours, [PromptClassifier.load(tmp_path / "prompts", tiny_model)], cache=tmp_path
    )
    assert {"tuned", "with-head"} <= result.systems.keys() and result.images_encoded == result.settings["images"]


def test_class_specific_prompts_have_no_answer_for_new_classes(tiny_model: Clip, colours: ImageData) -> None:
    result = experiment.tune(tiny_model, colours, quick(class_specific=True), subset="base")
    assert without_seeds(result.systems["tuned"]) == {
        **dict.fromkeys(HALVES),
        **{name: result.systems["tuned"][name] for name in HALVES if name.endswith("base")},
    }
    assert result.systems["tuned"]["base"] is not None
    assert result.settings["text_tower"] == "truncated"


def test_methods_that_prompt_images_say_so(tiny_model: Clip, colours: ImageData) -> None:
    result = experiment.tune(tiny_model, colours, quick(method="vpt"))
    assert "vpt prompts the image tower: its images are encoded in every step, no cached feature serves" in result.facts
    assert result.images_encoded >= 4 * TEST


def test_no_test_split(tiny_model: Clip, picture_folder: Path) -> None:
    data = load_images(picture_folder / "train")
    with pytest.warns(DataWarning, match="fewer than 16 pictures in 4 of the classes"):
        result = experiment.tune(tiny_model, data, quick(shots=16))
    assert (
        result.facts[0] == "train: 4 classes, 8 training images, 4 test images (no test split: held out of each class)"
    )


# --- cut short


def test_it_goes_on_where_it_was(tiny_model: Clip, colours: ImageData, tmp_path: Path) -> None:
    def stop(step: Step, total: int) -> None:
        if step.step == 3:
            raise KeyboardInterrupt

    settings = quick(epochs=5, method="promptsrc")
    experiment.tune(tiny_model, colours, settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        experiment.tune(tiny_model, colours, settings, tmp_path / "prompts", on_step=stop)
    with pytest.raises(KeyboardInterrupt):
        experiment.tune(tiny_model, colours, replace(settings, seed=2), tmp_path / "prompts", on_step=stop)
    kept = [re.sub(r"\.[0-9a-f]{8}\.", ".*.", path.name) for path in sorted(tmp_path.iterdir())]
    assert kept == ["prompts.*.partial", "prompts.*.partial", "whole"], "a run of other settings has its own"
    steps = [step.step for step in experiment.tune(tiny_model, colours, settings, tmp_path / "prompts").steps]
    assert steps[0] > 1 and sorted(path.name for path in tmp_path.iterdir()) == ["prompts", "whole"]
    one, other = load(tmp_path / "prompts"), load(tmp_path / "whole")
    assert all(torch.equal(value, other.state[name]) for name, value in one.state.items())
    assert one.temperature == other.temperature


def test_a_run_that_diverged_begins_anew(
    tiny_model: Clip, colours: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, losses = Task.loss, iter([1.0, 1.0, math.nan])
    monkeypatch.setattr(Task, "loss", lambda task, batch: next(losses) * plain(task, batch))
    with pytest.raises(UserError, match=r"the loss is not finite .* at step 3 of 5; .*try a smaller --lr"):
        experiment.tune(tiny_model, colours, quick(epochs=5), tmp_path / "prompts")
    assert list(tmp_path.iterdir()) == [], "its checkpoint would only diverge again"


# --- refused


def test_what_is_refused_writes_nothing(tiny_model: Clip, colours: ImageData, tmp_path: Path) -> None:
    def refused(message: str, data: ImageData = colours, settings: Settings | None = None, **given: Any) -> None:
        with pytest.raises(UserError, match=message) as error:
            experiment.tune(tiny_model, data, settings or quick(), tmp_path / "prompts", **given)
        assert "\n" not in str(error.value)
        assert list(tmp_path.iterdir()) == []

    refused("--subset must be all, base or new, got 'half'", subset="half")
    three = load_images(tiny_clip.write_images(tmp_path.parent / f"{tmp_path.name}-three", NAMES[:3]))
    refused("three has 3 classes; base-to-new needs 4 or more", three, subset="base")
    untested = replace(colours, splits={"train": colours.split("train")})
    refused("colours has no split 'test'; it has train", untested)
    refused("colours has no split 'train'; it has test", replace(colours, splits={"test": colours.split("test")}))
    refused("18 vectors leaves no room for a name", settings=quick(context=18))
    with pytest.raises(UserError, match="--class-specific is used with --method coop, kgcoop or prograd, not with "):
        quick(method="deep", class_specific=True)
    (tmp_path / "prompts").mkdir()
    for name in ("prompt.json", "prompt.safetensors"):
        (tmp_path / "prompts" / name).write_text("{}")
    with pytest.raises(UserError, match="prompts exists already"):
        experiment.tune(tiny_model, colours, quick(), tmp_path / "prompts")
    experiment.tune(tiny_model, colours, quick(), PromptOutput(tmp_path / "prompts", overwrite=True))
    assert load(tmp_path / "prompts").classes == NAMES
