"""Heads over frozen features beside zero-shot and a prompt: base classes, new ones, and a list of both.

    python eval/image_heads.py folder:eval/data/pictures folder:DATA/caltech101=MODEL \\
        --json eval/results/image-heads.json

A head has 1, 4 and 16 shots of the base half of the classes, three seeds. Everything is chosen by held-out shots, by
the rule of `multimodal.training.head_choice`; test pictures are scored only. Pictures are encoded once. The same
command again goes on with what is missing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal.classifier import PromptClassifier
from multimodal.data.images import ImageData, few_shot, halves, load_images, subset
from multimodal.data.templates import template_for
from retrieval_prompts.evaluation.classification.linear_probe import linear_probe
from multimodal.evaluation.metrics import classification
from multimodal.heads import HEADS
from multimodal.heads.head import Shots
from multimodal.prompts.contexts import Classes
from multimodal.towers.clip import Clip, load_clip
from multimodal.training.head_choice import choose
from multimodal.training.settings import Settings
from multimodal.vectors.features import image_features
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.experiments.records import result_file
from retrieval_prompts.experiments.records.result_file import made_on, resume

SHOTS, SEEDS = (1, 4, 16), (1, 2, 3)
Scores = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="folder:PATH[=MODEL]")
    parser.add_argument("--method", default="coop", help="of the prompt")
    parser.add_argument("--cache", type=Path, help="the folder of image features")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    try:
        run(options)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    identity = {"method": options.method, "shots": list(SHOTS), "seeds": list(SEEDS)}
    versions = made_on(("torch", "open-clip-torch", "scikit-learn", "numpy"))
    result = resume(options.json, identity, {"datasets": {}, **versions}, False)
    for given in options.data:
        place, _, model = given.removeprefix("folder:").partition("=")
        data, clip = load_images(place), load_clip(model or None)
        found = result["datasets"].setdefault(
            data.name, {"model": clip.title, "fingerprint": clip.fingerprint, "runs": {}}
        )
        for shots in SHOTS:
            for seed in SEEDS:
                key = f"{shots} shots, seed {seed}"
                if key not in found["runs"]:
                    found["runs"][key] = one(clip, data, options.method, shots, seed, options.cache)
                    found["summary"] = summary(found["runs"])
                    result_file.write(options.json, result)
                    print(data.name, key, found["runs"][key]["chosen"], flush=True)
    print(table(result))


def one(clip: Clip, data: ImageData, method: str, shots: int, seed: int, cache: Path | None) -> dict[str, Any]:
    """{"systems": name -> scores, "seconds": name -> of its fit, choice included, "chosen": what auto took}"""
    base, _ = halves(data.classes)
    part, test = subset(data, base), data.split("test")
    split = part.split("train")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        chosen = split.take(few_shot(split, shots, seed))
    settings = Settings(method=method, seed=seed, shots=shots, template=template_for(data.name))
    known = Classes(clip, data.classes, settings)
    read = image_features(clip, test.pictures, cache=cache, progress=False)
    features, labels = read.take(np.arange(len(read))), test.labels[read.kept]
    seen = image_features(clip, chosen.pictures, cache=cache, progress=False)
    mine = Shots.of(
        seen.take(np.arange(len(seen))), torch.as_tensor(chosen.labels), known.frozen[: len(base)], clip.scale
    )
    systems: dict[str, Scores] = {}
    seconds: dict[str, float] = {}
    for name, text in (("zero-shot", known.frozen), ("zero-shot-ensemble", known.ensemble)):
        systems[name] = scores(clip.scale * features @ text.T, labels, len(base))
    began = time.perf_counter()
    probe = linear_probe(mine.features.numpy(), chosen.labels, len(base))
    seconds["linear-probe"] = time.perf_counter() - began
    systems["linear-probe"] = base_only(torch.from_numpy(np.log(probe.probabilities(features.numpy()))), labels)
    for name in HEADS:
        began = time.perf_counter()
        try:
            answer, _ = choose(name, mine, base)
        except UserError:  # too few shots for it
            continue
        seconds[name] = time.perf_counter() - began
        assert answer is not None, "a head that is asked for is given"
        systems[name] = base_only(answer.logits(features), labels)
    classifier = PromptClassifier(clip, settings)
    classifier.fit(chosen.pictures, [base[label] for label in chosen.labels], base, cache=cache)
    for name, system in ((method, classifier.without_head()), ("auto", classifier)):
        systems[name] = {
            **base_only(torch.from_numpy(system.logits(features)), labels),
            **new_only(torch.from_numpy(system.logits(features, data.classes[len(base) :])), labels, len(base)),
            **mixed(torch.from_numpy(system.logits(features, data.classes)), labels, len(base)),
        }
    began = time.perf_counter()
    choose("auto", mine, base)
    seconds["auto"] = time.perf_counter() - began
    return {"systems": systems, "seconds": seconds, "chosen": classifier.training["head"]}


def scores(logits: Tensor, labels: np.ndarray, base: int) -> Scores:
    found = base_only(logits[:, :base], labels) | new_only(logits[:, base:], labels, base)
    return found | mixed(logits, labels, base)


def base_only(logits: Tensor, labels: np.ndarray) -> Scores:
    rows = np.flatnonzero(labels < logits.shape[1])
    return _named("base", logits[rows], labels[rows])


def new_only(logits: Tensor, labels: np.ndarray, base: int) -> Scores:
    rows = np.flatnonzero(labels >= base)
    return _named("new", logits[rows], labels[rows] - base)


def mixed(logits: Tensor, labels: np.ndarray, base: int) -> Scores:
    right = logits.argmax(dim=1).numpy() == labels
    halves = {"mixed_base": float(right[labels < base].mean()), "mixed_new": float(right[labels >= base].mean())}
    return _named("mixed", logits, labels) | halves


def _named(name: str, logits: Tensor, labels: np.ndarray) -> Scores:
    found = classification(logits.double().softmax(dim=1).numpy(), labels)
    return {name: found["accuracy"], f"ece_{name}": found["ece"]}


def summary(runs: dict[str, Any]) -> dict[str, Any]:
    """shots -> system -> metric -> [mean, deviation] over the seeds that are there, and the mean "seconds"."""
    found: dict[str, Any] = {}
    for shots in SHOTS:
        mine = [each for key, each in runs.items() if key.startswith(f"{shots} shots,")]
        for name in mine[0]["systems"] if mine else ():
            columns = {metric: [each["systems"][name][metric] for each in mine] for metric in mine[0]["systems"][name]}
            row: dict[str, Any] = {metric: _spread(values) for metric, values in columns.items()}
            if name in mine[0]["seconds"]:
                row["seconds"] = statistics.fmean(each["seconds"][name] for each in mine)
            found.setdefault(str(shots), {})[name] = row
    return found


def _spread(values: list[float]) -> list[float]:
    return [statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0]


def table(result: dict[str, Any]) -> str:
    """The summary as a Markdown table: percentages, mean and deviation over seeds."""
    columns = ("base", "ece_base", "new", "mixed_base", "mixed_new", "ece_mixed")
    rows = [
        "| data | shots | system | base | ECE base | new | both: base | both: new | ECE both | s |",
        "|" + "---|" * 10,
    ]
    for data, found in result["datasets"].items():
        for shots, systems in found["summary"].items():
            for name, row in systems.items():
                cells = [
                    f"{100 * row[metric][0]:.1f} ± {100 * row[metric][1]:.1f}" if metric in row else "–"
                    for metric in columns
                ]
                seconds = f"{row['seconds']:.1f}" if "seconds" in row else "–"
                rows.append(f"| {data} | {shots} | {name} | {' | '.join(cells)} | {seconds} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
