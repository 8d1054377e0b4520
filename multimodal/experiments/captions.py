"""One experiment on captioned images: tune a context, save it, and compare both directions of retrieval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal.classifier import PromptClassifier
from multimodal.data import captions
from multimodal.data.captions import load_captions
from multimodal.evaluation.rankings import Rankings
from multimodal.evaluation.retrieval import evaluate_captions, search_prompts
from multimodal.experiments.classes import fresh_after_divergence
from multimodal.towers.clip import Clip, load_clip
from multimodal.training.captions import tune_captions
from multimodal.training.settings import Settings
from retrieval_prompts.files import check_output
from retrieval_prompts.training.loop import Step

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

METRICS = tuple((way, f"r@{k}") for way in ("i2t", "t2i") for k in (1, 5, 10))


def tune(
    file: Path,
    settings: Settings,
    out: Path,
    *,
    images: Path | None = None,
    model: str | None = None,
    pretrained: str | None = None,
    device: str | None = None,
    cache: Path | None = None,
    overwrite: bool = False,
    on_step: Callable[[Step, int], object] | None = None,
    say: Callable[[str], object] = lambda line: None,
    rankings: list[Rankings] | None = None,
) -> dict[str, Any]:
    """Tune a context on the train split of a caption file, save it, and evaluate it on the test split if there is one.

    rankings: a list that gets what the systems ranked.

    Raises UserError for data or settings that cannot be trained on; nothing is then written.
    """
    check_output(out, overwrite=overwrite, holds="prompt.json")
    split = captions.splits(file)
    data = load_captions(file, "train" if split else None, images=images)
    clip = load_clip(model, pretrained, device=device)
    say(f"{data.name}: {len(data.pictures):,} training images, {sum(map(len, data.captions)):,} captions")
    checkpoint = out.parent / f"{out.name}.partial"
    with fresh_after_divergence(checkpoint):
        tuned = tune_captions(clip, data, settings, cache=cache, checkpoint=checkpoint, on_step=on_step)
    out.parent.mkdir(parents=True, exist_ok=True)
    tuned.save(out, clip, overwrite=overwrite)
    checkpoint.unlink(missing_ok=True)
    dev = tuned.training["dev"]
    say(f"dev {dev['metric']}: zero-shot {dev['zero-shot']:.4f}, tuned {dev['tuned']:.4f}")
    say(f"strength {tuned.strength:g}" + (": no prompt beat zero-shot on dev" if tuned.strength == 0 else ""))
    found: dict[str, Any] = {"systems": {}, "images_encoded": 0, "seconds": {}}
    if "test" in split:
        test = load_captions(file, "test", images=images)
        found = evaluate_captions(clip, test, tuned.prompter, strength=tuned.strength, cache=cache, rankings=rankings)
    else:
        say(f"{file} has no test split, so there is no evaluation")
    return {
        **_result(data.name, clip, found),
        "images_encoded": found["images_encoded"] + tuned.training["images_encoded"],
        "seconds": {**tuned.training["seconds"], **found["seconds"]},
        "settings": {**asdict(settings), "strength": tuned.strength, "dev": dev},
    }


def evaluate(
    file: Path,
    prompts: Path | None = None,
    *,
    images: Path | None = None,
    split: str | None = None,
    model: str | None = None,
    pretrained: str | None = None,
    device: str | None = None,
    strength: float | None = None,
    cache: Path | None = None,
    rankings: list[Rankings] | None = None,
) -> dict[str, Any]:
    """Both directions of retrieval on a split: zero-shot and, with a prompt folder, tuned.

    Args:
        split: None: test, or all captions of a file that is not split.
        strength: of the prompts; None: as saved.
        rankings: a list that gets what the systems ranked.
    """
    split = split or ("test" if captions.splits(file) else None)
    data = load_captions(file, split, images=images)
    if prompts is None:
        clip = load_clip(model, pretrained, device=device)
        prompter: nn.Module | None = None
    else:
        classifier = PromptClassifier.load(prompts, model, pretrained=pretrained, device=device, strength=strength)
        clip = classifier.clip
        prompter, strength = search_prompts(classifier)
    share = 1.0 if strength is None else strength
    found = evaluate_captions(clip, data, prompter, strength=share, cache=cache, rankings=rankings)
    settings = {"split": split, "prompts": str(prompts) if prompts else None, "strength": strength}
    return {**_result(data.name, clip, found), "settings": settings}


def table(result: Mapping[str, Any]) -> Table:
    """A result as a table to print: percentages, a row a system."""
    from retrieval_prompts.evaluation.tables import metrics_table, rich_table

    columns = {(way, metric): f"{'I→T' if way == 'i2t' else 'T→I'} {metric.upper()}" for way, metric in METRICS}
    header, rows = metrics_table(
        {
            name: {title: values[way][metric] for (way, metric), title in columns.items()}
            for name, values in result["systems"].items()
        }
    )
    return rich_table(rows, header, title=f"{result['dataset']}, retrieval")


def _result(name: str, clip: Clip, found: dict[str, Any]) -> dict[str, Any]:
    return {"dataset": name, "model": clip.title, "pretrained": clip.pretrained, "protocol": "retrieval", **found}
