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
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal.classifier import PromptClassifier
from multimodal.data.images import ImageData, few_shot, halves, load_images, subset
from multimodal.data.templates import template_for
from multimodal.heads import HEADS
from multimodal.heads.head import Shots
from multimodal.prompts.contexts import Classes
from multimodal.towers.clip import Clip, load_clip
from multimodal.training.head_choice import choose
from multimodal.training.settings import Settings
from multimodal.vectors.features import image_features
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.evaluation.classification.linear_probe import linear_probe
from retrieval_prompts.evaluation.classification.scores import classification
from retrieval_prompts.experiments.records import result_file
from retrieval_prompts.experiments.records.result_file import made_on, resume

SHOTS, SEEDS = (1, 4, 16), (1, 2, 3)
Scores = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="folder:PATH[=MODEL]")
    parser.add_argument("--method", default="none", help="of a prompt that is tuned first; none: zero-shot's texts")
    parser.add_argument("--again", default="", help="systems to score anew: auto,... after a change of their rule")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
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
        if found["fingerprint"] != clip.fingerprint:
            raise UserError(f"{options.json} has {data.name} of another model, {found['model']}; choose another --json")
        again = set(filter(None, options.again.split(",")))
        if unknown := again - {name for run_ in found["runs"].values() for name in run_["systems"]}:
            raise UserError(f"--again: {options.json} has no system {', '.join(sorted(unknown))} of {data.name}")
        for run_ in found["runs"].values():
            for name in again:
                run_["systems"].pop(name, None)
        keys = {f"{shots} shots, seed {seed}": (shots, seed) for shots in reversed(SHOTS) for seed in SEEDS}
        missing = [key for key in keys if again or key not in found["runs"]]
        known = Classes(clip, data.classes, Settings(template=template_for(data.name)))
        ensemble = "zero-shot-ensemble" in again or bool(set(missing) - found["runs"].keys())
        texts = known.frozen, (known.ensemble if ensemble else None)
        with ProcessPoolExecutor(options.jobs, get_context("fork")) as pool:
            running = {
                pool.submit(one, clip, data, texts, found["runs"].get(key), keys[key], options): key for key in missing
            }
            for done in as_completed(running):
                found["runs"][running[done]] = done.result()
                found["summary"] = summary(found["runs"])
                result_file.write(options.json, result)
                print(data.name, running[done], done.result()["chosen"], flush=True)
    print(table(result))


def one(
    clip: Clip,
    data: ImageData,
    texts: tuple[Tensor, Tensor | None],
    done: dict[str, Any] | None,
    which: tuple[int, int],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """{"systems": name -> scores, "seconds": name -> of its fit, choice included, "chosen": what auto took}"""
    shots, seed = which
    base, new = halves(data.classes)
    part, test = subset(data, base), data.split("test")
    split = part.split("train")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        chosen = split.take(few_shot(split, shots, seed))
    read = image_features(clip, test.pictures, cache=options.cache, progress=False)
    features, labels = read.take(np.arange(len(read))), test.labels[read.kept]
    seen = image_features(clip, chosen.pictures, cache=options.cache, progress=False)
    frozen, ensemble = texts
    numbers = torch.as_tensor(chosen.labels)
    mine = Shots.of(seen.take(np.arange(len(seen))), numbers, frozen[: len(base)], clip.scale)
    cosines = clip.scale * features @ frozen.T
    systems: dict[str, Scores] = {"zero-shot": scores(cosines, labels, len(base))}
    if ensemble is not None:
        systems["zero-shot-ensemble"] = scores(clip.scale * features @ ensemble.T, labels, len(base))
    seconds: dict[str, float] = {}
    if done is not None:
        systems, seconds = systems | done["systems"], done["seconds"]
    said = "" if done is None else done["chosen"]
    began = time.process_time()
    probe = linear_probe(mine.features.numpy(), chosen.labels, len(base))
    seconds["linear-probe"] = time.process_time() - began
    systems["linear-probe"] = base_only(torch.from_numpy(np.log(probe.probabilities(features.numpy()))), labels)
    for name in (*HEADS, "auto"):
        if name in systems:
            continue
        began = time.process_time()
        try:
            answer, why = choose(name, mine, base)
        except UserError:  # too few shots for it
            continue
        seconds[name] = time.process_time() - began
        if name == "auto" and options.method == "none":
            said = why
        assert answer is not None, "without a prompt there is always a head"
        own, prompted = answer.logits(features), cosines / answer.temperature
        systems[name] = {
            **base_only(own, labels),
            **new_only(prompted[:, len(base) :], labels, len(base)),
            **mixed(answer.mixed(data.classes, own, cosines, prompted), labels, len(base)),
        }
    if options.method != "none" and not {options.method, f"{options.method} + auto"} <= systems.keys():
        settings = Settings.of(method=options.method, seed=seed, shots=shots, template=template_for(data.name))
        classifier = PromptClassifier(clip, settings)
        classifier.fit(chosen.pictures, [base[label] for label in chosen.labels], base, cache=options.cache)
        said = classifier.training["head"]
        for name, system in ((options.method, classifier.without_head()), (f"{options.method} + auto", classifier)):
            systems[name] = {
                **base_only(torch.from_numpy(system.logits(features)), labels),
                **new_only(torch.from_numpy(system.logits(features, new)), labels, len(base)),
                **mixed(torch.from_numpy(system.logits(features, data.classes)), labels, len(base)),
            }
    return {"systems": systems, "seconds": seconds, "chosen": said}


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
        for name in dict.fromkeys(name for each in mine for name in each["systems"]):
            made = [each for each in mine if name in each["systems"]]
            columns = {metric: [each["systems"][name][metric] for each in made] for metric in made[0]["systems"][name]}
            row: dict[str, Any] = {metric: spread(values) for metric, values in columns.items()}
            if name in made[0]["seconds"]:
                row["seconds"] = statistics.fmean(each["seconds"][name] for each in made)
            found.setdefault(str(shots), {})[name] = row
    return found


def spread(values: list[float]) -> list[float]:
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
