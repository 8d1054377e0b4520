"""Prompts and heads that were fitted on one folder of pictures, on others: other domains, other classes.

    python -m eval.image_transfer DATA/pacs/photo --on DATA/pacs/art_painting DATA/pacs/cartoon --model MODEL \\
        --method coop,tcp --json eval/results/images-transfer-pacs.json
    python -m eval.image_transfer DATA/caltech101 --on DATA/pacs/photo eval/data/pictures --model MODEL \\
        --method coop,tcp --shots 16 --json eval/results/images-transfer-caltech101.json

A folder with the classes of the first is another domain: every head answers there, and each prompt with and without
the head that `auto` takes. For other classes there are the prompts alone. Everything is chosen by held-out shots of the
first folder, by the rules of `tune`; all pictures of the others are scored, none is fitted on. The same command again
goes on with what is missing.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.image_heads import Scores, spread
from multimodal.classifier import PromptClassifier
from multimodal.data.images import ImageData, few_shot, load_images
from multimodal.data.templates import template_for
from multimodal.heads import HEADS
from multimodal.heads.head import Shots
from multimodal.prompts.contexts import Classes
from multimodal.prompts.settings import METHODS
from multimodal.towers.clip import Clip, load_clip
from multimodal.training.head_choice import choose
from multimodal.training.settings import Settings
from multimodal.vectors.features import image_features
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.evaluation.classification.linear_probe import linear_probe
from retrieval_prompts.evaluation.classification.scores import classification
from retrieval_prompts.experiments.records import result_file
from retrieval_prompts.experiments.records.result_file import made_on, resume


@dataclass(frozen=True)
class Target:
    """A folder that nothing is fitted on.

    Args:
        features: (n, D) of all its pictures; labels (n,).
        known: its classes before the frozen model.
        same: whether its classes are those that were fitted.
    """

    name: str
    classes: tuple[str, ...]
    features: Tensor
    labels: np.ndarray
    known: Classes
    same: bool

    def scores(self, logits: Tensor) -> Scores:
        found = classification(logits.double().softmax(dim=1).numpy(), self.labels)
        return {"accuracy": found["accuracy"], "ece": found["ece"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a folder of pictures, to fit on")
    parser.add_argument("--on", nargs="+", required=True, help="others, to score on")
    parser.add_argument("--model", help="as `multimodal-prompts tune` takes it")
    parser.add_argument("--method", default="coop", help=", ".join(METHODS))
    parser.add_argument("--shots", default="1,4,16", help="of each class")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--cache", type=Path, help="the folder of image features")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    try:
        run(options)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    data, clip, methods = load_images(options.source), load_clip(options.model or None), options.method.split(",")
    others = [load_images(place) for place in options.on]
    identity = {"source": data.name, "on": [each.name for each in others], "fingerprint": clip.fingerprint}
    versions = made_on(("torch", "open-clip-torch", "scikit-learn", "numpy"))
    result = resume(options.json, identity, {"model": clip.title, "runs": {}, "summary": {}, **versions}, False)
    targets = [target(clip, each, each.classes == data.classes, options.cache) for each in others]
    for shots in map(int, options.shots.split(",")):
        for seed in map(int, options.seeds.split(",")):
            done = result["runs"].setdefault(f"{shots} shots, seed {seed}", {})
            fitted = Fitted(clip, data, shots, seed, options.cache)
            if "linear-probe" not in done and any(each.same for each in targets):
                done |= fitted.heads([each for each in targets if each.same])
            for method in methods:
                if method not in done:
                    done |= fitted.prompt(method, targets)
                    result["summary"] = summary(result["runs"], frozen(targets))
                    result_file.write(options.json, result)
                    print(f"{shots} shots, seed {seed}, {method}: {done[method]}", flush=True)
    print(table(result["summary"]))


def target(clip: Clip, data: ImageData, same: bool, cache: Path | None) -> Target:
    pictures = [picture for split in data.splits.values() for picture in split.pictures]
    labels = np.concatenate([split.labels for split in data.splits.values()])
    read = image_features(clip, pictures, cache=cache, progress=False)
    known = Classes(clip, data.classes, Settings(template=template_for(data.name)))
    return Target(data.name, data.classes, read.take(np.arange(len(read))), labels[read.kept], known, same)


def frozen(targets: list[Target]) -> dict[str, dict[str, Scores]]:
    """Of what has no shots: name -> target -> scores."""
    found: dict[str, dict[str, Scores]] = {"zero-shot": {}, "zero-shot, ensemble": {}}
    for each in targets:
        cosines = each.known.clip.scale * each.features
        found["zero-shot"][each.name] = each.scores(cosines @ each.known.frozen.T)
        found["zero-shot, ensemble"][each.name] = each.scores(cosines @ each.known.ensemble.T)
    return found


class Fitted:
    """What so many shots of each class give."""

    def __init__(self, clip: Clip, data: ImageData, shots: int, seed: int, cache: Path | None) -> None:
        self.clip, self.data, self.shots, self.seed, self.cache = clip, data, shots, seed, cache
        train = data.split("train")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            self.chosen = train.take(few_shot(train, shots, seed))

    def heads(self, targets: list[Target]) -> dict[str, dict[str, Scores]]:
        """Name -> target -> scores, of the linear probe and of every head that so few shots can fit."""
        read = image_features(self.clip, self.chosen.pictures, cache=self.cache, progress=False)
        seen, labels = read.take(np.arange(len(read))), torch.as_tensor(self.chosen.labels)
        texts = Classes(self.clip, self.data.classes, Settings(template=template_for(self.data.name))).frozen
        mine = Shots.of(seen, labels, texts, self.clip.scale)
        probe = linear_probe(mine.features.numpy(), self.chosen.labels, len(self.data.classes))
        found = {
            "linear-probe": {
                each.name: each.scores(torch.from_numpy(np.log(probe.probabilities(each.features.numpy()))))
                for each in targets
            }
        }
        for name in (*HEADS, "auto"):
            try:
                answer, _ = choose(name, mine, self.data.classes)
            except UserError:  # too few shots for it
                continue
            assert answer is not None, "without a prompt there is always a head"
            found[name] = {each.name: each.scores(answer.logits(each.features)) for each in targets}
        return found

    def prompt(self, method: str, targets: list[Target]) -> dict[str, dict[str, Scores]]:
        """The same of a prompt alone, and with the head that is chosen for it where the classes are the same."""
        settings = Settings.of(method=method, seed=self.seed, shots=self.shots, template=template_for(self.data.name))
        classifier = PromptClassifier(self.clip, settings)
        classes = self.data.classes
        classifier.fit(self.chosen.pictures, [classes[at] for at in self.chosen.labels], classes, cache=self.cache)
        alone, found = classifier.without_head(), {}
        found[method] = {
            each.name: each.scores(torch.from_numpy(alone.logits(each.features, each.classes))) for each in targets
        }
        if same := [each for each in targets if each.same]:
            found[f"{method} + auto"] = {
                each.name: each.scores(torch.from_numpy(classifier.logits(each.features))) for each in same
            }
        return found


def summary(runs: dict[str, Any], plain: dict[str, dict[str, Scores]]) -> dict[str, Any]:
    """shots -> system -> target -> metric -> [mean, deviation] over the seeds that are there."""
    found: dict[str, Any] = {}
    for shots in dict.fromkeys(key.partition(" ")[0] for key in runs):
        mine = [plain | run for key, run in runs.items() if key.startswith(f"{shots} shots,")]
        for name in dict.fromkeys(name for run in mine for name in run):
            of = [run[name] for run in mine if name in run]
            found.setdefault(shots, {})[name] = {
                each: {metric: spread([run[each][metric] for run in of]) for metric in scores}
                for each, scores in of[0].items()
            }
    return found


def table(summary: dict[str, Any]) -> str:
    """Accuracies in percent as Markdown, a row a system, a column for each target and number of shots."""
    columns = [(each, shots) for each in summary[next(iter(summary))]["zero-shot"] for shots in summary]
    rows = ["| system | " + " | ".join(f"{each}, {shots}" for each, shots in columns) + " |"]
    rows.append("|" + "---|" * (len(columns) + 1))
    for name in dict.fromkeys(name for systems in summary.values() for name in systems):
        cells = []
        for each, shots in columns:
            mean, deviation = summary[shots].get(name, {}).get(each, {}).get("accuracy", (None, 0.0))
            said = f" ± {100 * deviation:.1f}" if deviation else ""
            cells.append("–" if mean is None else f"{100 * mean:.1f}{said}")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
