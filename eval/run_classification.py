"""The published protocol of few-shot prompt learning (CoOp, CoCoOp, MaPLe) on its 11 data sets, or on image folders.

    python eval/run_classification.py --data-dir DATA --datasets caltech101,dtd,folder:PICTURES \\
        --model ViT-B-16-quickgelu --pretrained openai --method coop,kgcoop --shots 16 --seeds 1,2,3 \\
        --protocol base-to-new --out result.json

DATA is laid out as CoOp's DATASETS.md says (see multimodal/published.py: splits, base and new classes, draws of shots),
templates are the published ones (multimodal/templates.py). With --recipe paper each method is trained as its authors
did; docs/images.md says what is not the same. Each run, one of (data set, method, seed), is written when it is done;
the same command again goes on with the runs that are missing. Nothing is chosen by test.

--runs writes every ranking of the classes as a TREC run, with its judgements: `retrieval-prompts compare` tests the
difference of two, and their precision@1 is the accuracy. --report makes a page of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.classifier import PromptClassifier
from multimodal.cli.options import baselines_of
from multimodal.data.images import ImageData, few_shot, load_images
from multimodal.data.published import LAYOUTS, draw, load_published
from multimodal.data.templates import template_for
from multimodal.evaluation import rankings as runs
from multimodal.evaluation.rankings import Rankings
from multimodal.experiments.protocols import EvaluationProtocol, evaluate, mean_scores, over_seeds, table
from multimodal.experiments.results import ClassResult
from multimodal.experiments.systems import ADAPTED, ClassGroup
from multimodal.prompts.recipes import RECIPES
from multimodal.prompts.settings import METHODS
from multimodal.report import sections as report
from multimodal.towers.clip import Clip, load_clip
from multimodal.training.settings import Settings, on_data
from retrieval_prompts.errors import UserError
from retrieval_prompts.experiments.records import result_file
from retrieval_prompts.experiments.records.result_file import made_on, resume
from retrieval_prompts.experiments.records.stopwatch import Stopwatch
from retrieval_prompts.report.content import Report, Section

SEEDLESS = ("zero-shot", "zero-shot-ensemble")
MEAN = "mean over data sets"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="the folder of the published data sets")
    parser.add_argument("--datasets", default=",".join(LAYOUTS), help="names, and folder:PATH; default: all 11")
    parser.add_argument("--model", help="as `multimodal-prompts tune` takes it")
    parser.add_argument("--pretrained")
    parser.add_argument("--method", default="coop", help=", ".join(METHODS))
    parser.add_argument("--shots", default="16", help="images a class, or all")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--protocol", default="few-shot", choices=["few-shot", "base-to-new"])
    parser.add_argument(
        "--recipe", default="default", choices=RECIPES, help="paper: what each method's authors trained"
    )
    parser.add_argument(
        "--baselines", help="rows of copies that are adapted to the shots, such as clip-lora,2sfs or 2sfs:200"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings, such as epochs=5")
    parser.add_argument("--cache", type=Path, help="the folder of image features")
    parser.add_argument("--out", type=Path, required=True, help="the result file")
    parser.add_argument("--runs", type=Path, help="the folder of TREC runs and their judgements")
    parser.add_argument("--report", type=Path, help="the page to make of them")
    parser.add_argument("--overwrite", action="store_true", help="begin anew instead of going on")
    options = parser.parse_args(arguments)
    try:
        show(run(options))
    except UserError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Do all runs that the result file lacks; returns its content. Raises UserError."""
    methods, seeds = options.method.split(","), [_whole("--seeds", seed) for seed in options.seeds.split(",")]
    shots = None if options.shots == "all" else _whole("--shots", options.shots)
    baselines_of(options.baselines)  # raises for what is wrong, before anything is read
    given = {
        "shots": shots,
        **({} if options.recipe == "default" else {"recipe": options.recipe}),
        **{name: _value(value) for name, _, value in (pair.partition("=") for pair in options.set)},
    }
    for method in methods:
        Settings.of(**{**given, "method": method})  # raises for what is wrong, before anything is read
    runs.check_beside(options.out, options.runs, options.report, overwrite=options.overwrite)
    clip = load_clip(options.model, options.pretrained)
    result = resume(
        options.out,
        {
            "protocol": options.protocol,
            "model": clip.title,
            "pretrained": clip.pretrained,
            "fingerprint": clip.fingerprint,
            "settings": given | ({} if options.baselines is None else {"baselines": options.baselines}),
        },
        {
            "summary": {},
            "datasets": {},
            **made_on(("torch", "open-clip-torch", "scikit-learn", "numpy")),
        },
        options.overwrite,
    )
    loaded = [(load(name, options.data_dir), name in LAYOUTS) for name in options.datasets.split(",")]
    if len({data.name for data, _ in loaded}) < len(loaded):
        raise UserError(f"expected data sets of different names, got {', '.join(data.name for data, _ in loaded)}")
    records = {data.name: record(result, data) for data, _ in loaded}  # raises before the first is tuned
    for data, published in loaded:
        done = records[data.name]
        for method in methods:
            for seed in seeds:
                if str(seed) in done["scores"].get(method, {}):
                    continue
                own = {"head": "none", **given, "method": method, "seed": seed}
                settings = on_data(own, data.name, base=options.protocol == "base-to-new")
                shot = with_shots(data, published, shots, seed)
                rankings = one_run(clip, shot, settings, options, done)
                if options.runs is not None:
                    runs.write(options.runs, data.name, rankings)
                result["summary"] = summary(result["datasets"])
                result_file.write(options.out, result)
                scores = done["scores"][method][str(seed)]
                shown = ", ".join(f"{name} {100 * value:.1f}" for name, value in scores.items() if value is not None)
                print(f"{data.name}, {method}, seed {seed}: {shown}", flush=True)
    if options.report is not None:
        from retrieval_prompts.report.page import write_report

        made = page(result, [data for data, _ in loaded], options.runs)
        write_report(options.report, made, overwrite=True)  # of the result that it stands beside
    return result


def one_run(
    clip: Clip, data: ImageData, settings: Settings, options: argparse.Namespace, done: dict[str, Any]
) -> Sequence[Rankings]:
    """Tune and score one (data set, method, seed), and the baselines that no run before it scored, into `done`.

    Returns what they ranked.
    """
    scores, seed, protocol, cache = done["scores"], str(settings.seed), options.protocol, options.cache
    baselines = baselines_of(options.baselines)
    watch = Stopwatch()
    with watch("tune"):
        classifier = tune(clip, data, settings, base_only=protocol == "base-to-new", cache=cache)
    systems = ["tuned", *(name for name in SEEDLESS if name not in scores)]
    if seed not in scores.get("linear-probe", {}):
        systems.append("linear-probe")
    wanted = set(baselines.get("systems", ())) & set(ADAPTED)
    systems += [name for name in ADAPTED if name in wanted and seed not in scores.get(name, {})]
    # Zero-shot's is the data set's, whatever a method's authors compare with
    template = settings.template if settings.recipe == "default" else template_for(data.name)
    how = EvaluationProtocol(protocol, systems=systems, template=template, steps=baselines.get("steps", {}))
    found = evaluate(how, data, [classifier], cache=cache, keep_rankings=True)
    for each in found.rankings:
        each.systems = {
            name if name in SEEDLESS else f"{settings.method if name == 'tuned' else name}-{seed}": best
            for name, best in each.systems.items()
        }
    for system, values in found.systems.items():
        if system in SEEDLESS:
            scores[system] = values
        else:
            name = settings.method if system == "tuned" else system
            scores.setdefault(name, {})[seed] = values["per_seed"][seed]
    done["runs"][f"{settings.method}, seed {seed}"] = {
        "settings": found.settings,
        "training": classifier.training,
        "temperature": classifier.temperature,
        "images_encoded": found.images_encoded,
        "seconds": {**watch.seconds, **found.seconds},
    }
    return found.rankings


def tune(clip: Clip, data: ImageData, settings: Settings, *, base_only: bool, cache: Path | None) -> PromptClassifier:
    """Prompts trained on the train split, or on its pictures of the base classes: the first half, rounded up."""
    train = data.split("train")
    count = (len(data.classes) + 1) // 2 if base_only else len(data.classes)
    train = train.take(np.flatnonzero(train.labels < count))
    labels = [data.classes[label] for label in train.labels]
    classifier = PromptClassifier(clip, settings).fit(train.pictures, labels, data.classes[:count], cache=cache)
    classifier.training |= {"dataset": data.name, "subset": "base" if base_only else "all"}
    return classifier


def load(name: str, data_dir: Path | None) -> ImageData:
    """A published data set, or "folder:PATH"."""
    if name.startswith("folder:"):
        return load_images(name.removeprefix("folder:"))
    if data_dir is None and name in LAYOUTS:
        raise UserError(f"{name} needs --data-dir: the folder that holds {LAYOUTS[name].folder}")
    return load_published(name, data_dir or Path())


def with_shots(data: ImageData, published: bool, shots: int | None, seed: int) -> ImageData:
    """The data with nothing in train but the shots: drawn over all classes, as published, before base is taken."""
    train = data.split("train")
    if shots is None:
        return data
    chosen = draw(train, shots, seed) if published else few_shot(train, shots, seed)
    return replace(data, splits={**data.splits, "train": train.take(chosen)})


def record(result: dict[str, Any], data: ImageData) -> dict[str, Any]:
    """The data set's part of the result. Raises UserError when it was made from other pictures or classes."""
    listed = [data.classes, *([[p.name for p in part.pictures], part.labels.tolist()] for part in data.splits.values())]
    digest = hashlib.sha256(json.dumps(listed).encode("utf-8", "surrogatepass")).hexdigest()
    counts = {"classes": len(data.classes), **{name: len(part) for name, part in data.splits.items()}}
    new = {"digest": digest, "counts": counts, "scores": {}, "runs": {}}
    found: dict[str, Any] = result["datasets"].setdefault(data.name, new)
    if found["digest"] != digest:
        raise UserError(f"{data.name} has other pictures or classes than in the result file; choose another --out")
    return found


def summary(datasets: dict[str, Any]) -> dict[str, Any]:
    """Data set -> system or method -> mean over seeds; and their mean over data sets, of those that all have."""
    found = {
        name: {
            system: scores if system in SEEDLESS else over_seeds(scores) for system, scores in done["scores"].items()
        }
        for name, done in datasets.items()
        if done["scores"]
    }
    if len(found) < 2:
        return found
    shared = [system for system in next(iter(found.values())) if all(system in systems for systems in found.values())]
    plain = {system: [only_metrics(systems[system]) for systems in found.values()] for system in shared}
    return {**found, MEAN: {system: mean_scores(scores) for system, scores in plain.items()}}


def page(result: dict[str, Any], loaded: list[ImageData], folder: Path) -> Report:
    """The report of all runs that are in the folder."""
    sections: list[Section] = []
    for data in loaded:
        names: list[str] = []
        for system, scores in result["datasets"][data.name]["scores"].items():
            names += [system] if system in SEEDLESS else [f"{system}-{seed}" for seed in scores]
        rankings = [runs.read(folder, data.name, part, names) for part in parts(data, result["protocol"])]
        one = summarised(result, data.name)
        one.rankings = [part for part in rankings if part.systems]
        sections += report.classification(one, limit=report.PICTURES // len(loaded))
    facts = [f"model {result['model']}", f"protocol {result['protocol']}"]
    facts += [f"{name} {value}" for name, value in result["settings"].items()]
    means = result["summary"].get(MEAN, {}) if result["protocol"] == "few-shot" else {}
    averages = {system: {"accuracy": scores["accuracy"]} for system, scores in means.items()}
    return Report("Few-shot classification", sections, facts, [report.CLASSES], averages)


def parts(data: ImageData, protocol: str) -> list[Rankings]:
    """The test pictures and the classes that they are told apart within, without a ranking."""
    middle = (len(data.classes) + 1) // 2 if protocol == "base-to-new" else len(data.classes)
    test = replace(data.split("test"), classes=data.classes)
    groups = {"base": np.arange(middle), "new": np.arange(middle, len(data.classes))}
    if protocol != "base-to-new":
        groups = {"": groups["base"]}
    return [ClassGroup.of(name, test, group).rankings(several=False) for name, group in groups.items()]


def summarised(result: dict[str, Any], name: str) -> ClassResult:
    """The summary of a data set, or the mean over them, as one evaluation of the test split."""
    model, systems = (result["model"], result["pretrained"]), result["summary"][name]
    return ClassResult(name, *model, result["protocol"], systems, settings={"split": "test"})


def only_metrics(scores: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scores.items() if name not in ("seeds", "std", "per_seed")}


def show(result: dict[str, Any]) -> None:
    from rich.console import Console

    for name in result["summary"]:
        Console().print(table(summarised(result, name)))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _whole(option: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise UserError(f"{option}: expected a whole number, got {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
