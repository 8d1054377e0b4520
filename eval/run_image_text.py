"""Caption retrieval both ways, zero-shot and tuned, on Karpathy's JSON (Flickr30k, COCO), JSON lines or CSV.

    python eval/run_image_text.py --captions dataset_flickr30k.json --images flickr30k-images \\
        --model ViT-B-32-quickgelu --pretrained openai --prompts PROMPTS --out result.json
    python eval/run_image_text.py --captions captions.csv --tune coop --seeds 1,2,3 --set epochs=10 --out result.json

--prompts evaluates prompt folders; --tune trains prompts on the train split, one run a seed. Each run is written when
it is done; the same command again goes on with the runs that are missing. Nothing is chosen by test.

--runs writes the first 100 answers to each query as TREC runs, with their judgements, of both directions:
`retrieval-prompts compare` tests the difference of two, and their hit@k is R@k. --report makes a page of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from multimodal.classifier import PromptClassifier
from multimodal.data.captions import WAYS, Captioned, load_captions
from multimodal.evaluation import rankings as runs
from multimodal.evaluation.captions import Pairs, Ranks, paired_tests
from multimodal.evaluation.feedback import ranks
from multimodal.experiments.results import CaptionResult
from multimodal.report import sections as report
from multimodal.towers.clip import Clip, load_clip
from multimodal.training.captions import tune_captions
from multimodal.training.settings import Settings
from multimodal.vectors.texts import Texts, context_length, encode_texts, warn_of_cut
from retrieval_prompts.errors import UserError, few
from retrieval_prompts.experiments.records import result_file
from retrieval_prompts.experiments.records.result_file import made_on, resume
from retrieval_prompts.experiments.records.stopwatch import Stopwatch
from retrieval_prompts.files import PROMPTS, check_output
from retrieval_prompts.report.content import Report

Prompted = tuple[nn.Module, float, dict[str, Any]]  # prompter, strength, and what is recorded of the training


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=Path, required=True, help=".json (Karpathy's), .jsonl or .csv")
    parser.add_argument("--images", type=Path, help="the folder of the pictures; default: that of the captions")
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", help="as `multimodal-prompts tune` takes it")
    parser.add_argument("--pretrained")
    parser.add_argument("--prompts", type=Path, nargs="+", default=[], help="prompt folders to evaluate")
    parser.add_argument("--tune", metavar="METHOD", help="train prompts on the train split: coop, deep or feedback")
    parser.add_argument("--seeds", default="1,2,3", help="of --tune")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of --tune: epochs=5 ...")
    parser.add_argument("--keep", type=Path, help="write the prompts of --tune into this folder, one folder a seed")
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
    given = {name: _value(value) for name, _, value in (pair.partition("=") for pair in options.set)}
    settings = [Settings.of(**{**given, "method": options.tune, "seed": seed}) for seed in _seeds(options)]
    runs.check_beside(options.out, options.runs, options.report, overwrite=options.overwrite)
    clip = load_clip(options.model, options.pretrained)
    data = load_captions(options.captions, options.split, images=options.images)
    result = resume(
        options.out,
        {
            "protocol": "image-text",
            "dataset": data.name,
            "split": data.split,
            "data": digest(data),
            "model": clip.title,
            "pretrained": clip.pretrained,
            "fingerprint": clip.fingerprint,
            "settings": given,
        },
        {"systems": {}, "std": {}, "runs": {}, **made_on(("torch", "open-clip-torch", "numpy"))},
        options.overwrite,
    )
    keep = 0 if options.runs is None else runs.TOP
    watch = Stopwatch()
    with watch("images"):
        pairs = Pairs.of(clip, data, options.cache)
    texts = Texts(clip, pairs.captions)
    with watch("zero-shot"):
        zero_shot = pairs.ranks(encode_texts(texts), keep)
    write_runs(options.runs, data, pairs, "zero-shot", zero_shot)
    if not result["systems"]:
        result |= {"images": len(pairs.images), "captions": len(texts), "images_encoded": pairs.encoded}
        result |= {"systems": {"zero-shot": zero_shot.recalls()}, "seconds": watch.seconds}
        result_file.write(options.out, result)
    for name, prompted in prompt_sources(options, clip, settings):
        if name in result["runs"]:
            continue
        watch = Stopwatch()
        with watch("tune"):
            prompter, strength, training = prompted()
        length = context_length(prompter, texts)
        warn_of_cut(texts, length)
        with watch("evaluate"):
            tuned = ranks(pairs, texts, prompter, strength, keep)
        write_runs(options.runs, data, pairs, name, tuned)
        result["runs"][name] = {
            **tuned.recalls(),
            "tests": {way: test.as_dict() for way, test in paired_tests(zero_shot, [tuned]).items()},
            "captions_cut": len(texts.cut(length)),
            "strength": strength,
            "training": training,
            "seconds": watch.seconds,
        }
        result["systems"]["tuned"] = over_runs(list(result["runs"].values()), statistics.fmean)
        result["std"] = over_runs(list(result["runs"].values()), _deviation)
        result_file.write(options.out, result)
        print(f"{data.name}, {name}: {_line(result['runs'][name])}", flush=True)
    if options.report is not None:
        from retrieval_prompts.report.page import write_report

        write_report(options.report, page(result, pairs, options.runs), overwrite=True)  # of the result beside it
    return result


def prompt_sources(
    options: argparse.Namespace, clip: Clip, settings: list[Settings]
) -> Iterator[tuple[str, Callable[[], Prompted]]]:
    """(name, what gives its prompts) of each run; nothing is trained or loaded before it is called."""
    names = [folder.resolve().name for folder in options.prompts]
    if len(set(names)) < len(names):
        raise UserError(f"expected prompt folders of different names, got {few(names)}")
    for name, folder in zip(names, options.prompts, strict=True):
        yield name, partial(read, folder, clip)
    for each in settings:
        folder = options.keep / f"{each.method}-{each.seed}" if options.keep else None
        yield f"{each.method}, seed {each.seed}", partial(trained, options, clip, each, folder)


def read(folder: Path, clip: Clip) -> Prompted:
    classifier = PromptClassifier.load(folder, clip)
    return *classifier.search_prompts(), {"settings": asdict(classifier.settings), **classifier.training}


def trained(options: argparse.Namespace, clip: Clip, settings: Settings, folder: Path | None) -> Prompted:
    if folder is not None:
        check_output(folder, overwrite=options.overwrite, holds=PROMPTS)
    data = load_captions(options.captions, "train", images=options.images)
    tuned = tune_captions(clip, data, settings, cache=options.cache)
    if folder is not None:
        tuned.save(folder, clip, overwrite=options.overwrite)
    return tuned.prompter, tuned.strength, {"settings": asdict(settings), **tuned.training}


def write_runs(folder: Path | None, data: Captioned, pairs: Pairs, system: str, found: Ranks) -> None:
    """Write what a system ranked, in both directions, if there is a folder for it."""
    if folder is not None:
        runs.write(folder, data.name, pairs.rankings({_file_name(system): found}))


def page(result: dict[str, Any], pairs: Pairs, folder: Path) -> Report:
    """The report of all runs that are in the folder."""
    names = {"zero-shot": ["zero-shot"], "tuned": [_file_name(name) for name in result["runs"]]}
    members = {system: names[system] for system in result["systems"]}
    everything = [name for own in members.values() for name in own]
    one = CaptionResult(
        result["dataset"],
        result["model"],
        result["pretrained"],
        result["protocol"],
        result["systems"],
        result["images_encoded"],
        rankings=[runs.read(folder, result["dataset"], way, everything) for way in pairs.rankings({})],
        images=result["images"],
        captions=result["captions"],
        split=result["split"] or "all",
    )
    return report.report(one, report.captions(one, members=members))


def _file_name(run: str) -> str:
    """How a run is called in the names of files: "coop, seed 1" as "coop-1"."""
    return run.replace(", seed ", "-")


def over_runs(found: list[dict[str, Any]], function: Callable[[list[float]], float]) -> dict[str, dict[str, float]]:
    return {way: {at: function([each[way][at] for each in found]) for at in found[0][way]} for way in WAYS}


def digest(data: Captioned) -> str:
    listed = [[picture.name for picture in data.pictures], data.captions]
    return hashlib.sha256(json.dumps(listed).encode("utf-8", "surrogatepass")).hexdigest()


def show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("system", title=f"{result['dataset']}, {result['split'] or 'all'}: {result['images']:,} images")
    columns = [(way, at) for way in WAYS for at in result["systems"]["zero-shot"][way]]
    for way, at in columns:
        table.add_column(f"{'I→T' if way == 'i2t' else 'T→I'} {at.upper()}", justify="right")
    for system, values in result["systems"].items():
        count = f" ({len(result['runs'])} runs)" if system == "tuned" and len(result["runs"]) > 1 else ""
        table.add_row(f"{system}{count}", *(f"{100 * values[way][at]:.1f}" for way, at in columns))
    Console().print(table)


def _line(found: dict[str, Any]) -> str:
    shown = [f"{way} {' / '.join(f'{100 * value:.1f}' for value in found[way].values())}" for way in WAYS]
    tests = [f"{way} p = {found['tests'][way]['p_value']:.3f}" for way in WAYS]
    return f"R@1/5/10 {', '.join(shown)}; against zero-shot {', '.join(tests)}; strength {found['strength']:g}"


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _seeds(options: argparse.Namespace) -> list[int]:
    if options.tune is None:
        return []
    if odd := [seed for seed in options.seeds.split(",") if not (seed.isascii() and seed.isdigit())]:
        raise UserError(f"--seeds: expected whole numbers such as 1,2,3, got {odd[0]!r}")
    return [int(seed) for seed in options.seeds.split(",")]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
