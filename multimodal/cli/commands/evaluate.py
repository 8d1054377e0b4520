"""multimodal-prompts evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multimodal.cli.options import (
    Baselines,
    ClassFile,
    Data,
    ImagesRoot,
    Model,
    Pretrained,
    QuickGelu,
    baselines_of,
    check_kind,
    load,
    load_classifier,
)
from multimodal.cli.results import say_result, write_page, write_runs
from multimodal.prompts.settings import AUTO, QUICK
from multimodal.training.settings import Settings
from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import (
    Cache,
    Device,
    JsonFile,
    Overwrite,
    Report,
    Strength,
    check_strength,
    with_settings,
)
from retrieval_prompts.cli.progress import Progress
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.classifier import PromptClassifier
    from multimodal.data.images import ImageData
    from multimodal.experiments.protocols import EvaluationProtocol
    from multimodal.experiments.results import CaptionResult, ClassResult, Found

Split = Annotated[
    str | None, typer.Option(help="the split to evaluate on  [default: test; all of a caption file without splits]")
]


@with_settings(Settings, "shots", "epochs", "seed")
def evaluate(
    data: Data,
    given: dict[str, Any],
    prompts: Annotated[
        list[Path] | None, typer.Option(help="a prompt folder; several that differ in their seed are averaged")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="tune these on the same shots, and compare them: coop,tcp,... or auto: the quick ones"),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="few-shot, base-to-new, cross-dataset, domain or retrieval  [default: few-shot; retrieval]"),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="for domain: the images that were trained on, for the linear probe")
    ] = None,
    split: Split = None,
    template: Annotated[
        str | None, typer.Option(help="of zero-shot  [default: the prompts', or the data set's]")
    ] = None,
    class_file: ClassFile = None,
    images: ImagesRoot = None,
    model: Model = None,
    pretrained: Pretrained = None,
    quick_gelu: QuickGelu = None,
    baselines: Baselines = None,
    strength: Strength = None,
    json_file: JsonFile = None,
    run: Annotated[
        Path | None, typer.Option(help="write each system's ranking as a TREC run, with judgements, into this folder")
    ] = None,
    report: Report = None,
    cache: Cache = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare zero-shot, tuned prompts and a linear probe; for captions R@1, 5 and 10 both ways.

    With --methods coop,tcp each method is tuned on the same shots and scored on the same pictures; nothing is saved.
    """
    from multimodal.data.caption_files import is_captions
    from retrieval_prompts.files import RUNS

    console.lock(run, json_file, report)
    overwrite = console.cut_short(json_file, report, run) or overwrite
    console.check_outputs(json_file, overwrite=overwrite)
    if run is not None:
        console.claim(run, overwrite=overwrite, holds=RUNS)
    say = console.printer(json_file)
    folders = prompts or []
    check_strength(strength, prompts)
    captions = is_captions(data)
    if given and methods is None:
        raise UserError(f"--{next(iter(given))} is of the methods that --methods names; prompts have their own")
    check_kind(
        captions,
        images,
        {
            "--methods": methods is not None,
            "--source": source is not None,
            "--template": template is not None,
            "--class-file": class_file is not None,
            "--baselines": baselines is not None,
        },
    )
    result: Found
    options: dict[str, Any] = {"cache": cache, "keep_rankings": run is not None or report is not None}
    place = {"model": model, "pretrained": pretrained, "device": device, "quick_gelu": quick_gelu}
    if captions:
        if protocol not in (None, "retrieval"):
            raise UserError(f"{data} has captions: expected --protocol retrieval, got {protocol}")
        if len(folders) > 1:
            raise UserError(f"retrieval evaluates one prompt folder at a time, got {len(folders)}")
        result = _captions(data, images, split, folders[0] if folders else None, strength, place, options)
    else:
        if protocol == "retrieval":
            raise UserError(f"{data} has no captions; expected Karpathy JSON, JSONL or a CSV with image,caption")
        loaded = load(data, class_file)
        named = {"protocol": protocol, "split": split, "template": template}
        how = _protocol(named, None if source is None else load(source, class_file), baselines)
        if methods is not None:
            if folders:
                raise UserError("--methods tunes and compares on its own; leave out --prompts")
            result = _compared(place, loaded, methods, given, how, options)
        else:
            result = _evaluated(loaded, how, folders, strength, place, options)
    with console.together(json_file, report, run):
        if json_file is not None:
            console.write_result(json_file, result.to_json())
        say_result(say, result)
        if run is not None:
            write_runs(run, result, overwrite=overwrite)
            say(f"runs: {run}")
        if report is not None:
            write_page(report, result, overwrite=overwrite)
            say(f"report: {report}")


def _protocol(given: dict[str, str | None], source: ImageData | None, baselines: str | None) -> EvaluationProtocol:
    from multimodal.experiments.protocols import EvaluationProtocol

    named, split = given["protocol"] or "few-shot", given["split"] or "test"
    return EvaluationProtocol(named, source=source, split=split, template=given["template"], **baselines_of(baselines))


def _evaluated(
    data: ImageData,
    how: EvaluationProtocol,
    folders: list[Path],
    strength: float | None,
    place: dict[str, Any],
    options: dict[str, Any],
) -> ClassResult:
    """What is saved in the folders, or zero-shot alone. `place`: where the model is; `options`: of the evaluation."""
    from multimodal.experiments.protocols import evaluate as evaluate_on_classes
    from multimodal.towers.clip import load_clip

    classifiers: list[PromptClassifier] = []
    for folder in folders:
        clip: Any = classifiers[0].clip if classifiers else place["model"]
        classifiers.append(
            load_classifier(folder, clip, place["pretrained"], place["device"], strength, place["quick_gelu"])
        )
    frozen = None if classifiers else load_clip(**place)
    return evaluate_on_classes(how, data, classifiers, clip=frozen, **options)


def _compared(
    place: dict[str, Any],
    data: ImageData,
    methods: str,
    given: dict[str, Any],
    how: EvaluationProtocol,
    options: dict[str, Any],
) -> ClassResult:
    """The methods of --methods, tuned and scored."""
    from multimodal.experiments.method_table import compare_methods
    from multimodal.experiments.protocols import BASELINES
    from multimodal.towers.clip import load_clip

    if how.name != "few-shot" or set(how.systems) & set(BASELINES):
        raise UserError("--methods tunes and compares on its own; leave out --protocol and --baselines")
    names = list(QUICK) if methods == AUTO else [name.strip() for name in methods.split(",")]
    clip = load_clip(**place)
    with Progress() as on_step:
        return compare_methods(clip, data, names, given, how, on_step=on_step, **options)


def _captions(
    data: str,
    images: Path | None,
    split: str | None,
    prompts: Path | None,
    strength: float | None,
    place: dict[str, Any],
    options: dict[str, Any],
) -> CaptionResult:
    """Both directions of retrieval. `place`: where the model is; `options`: of the evaluation."""
    from multimodal.data.captions import load_captions, splits
    from multimodal.experiments.captions import evaluate as evaluate_on_captions
    from multimodal.towers.clip import load_clip

    split = split or ("test" if splits(data) else None)
    described = load_captions(data, split, images=images)
    tuned = load_classifier(prompts, strength=strength, **place) if prompts is not None else None
    result = evaluate_on_captions(
        load_clip(**place) if tuned is None else tuned.clip,
        described,
        None if tuned is None else tuned.search_prompts(),
        **options,
    )
    result.split = split or "all"
    result.settings |= {"split": split, "prompts": str(prompts) if prompts is not None else None}
    return result
