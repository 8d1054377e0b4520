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
from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import Cache, Device, JsonFile, Overwrite, Report, Strength, check_strength
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.classifier import PromptClassifier
    from multimodal.experiments.results import CaptionResult, Found

Split = Annotated[
    str | None, typer.Option(help="the split to evaluate on  [default: test; all of a caption file without splits]")
]


def evaluate(
    data: Data,
    prompts: Annotated[
        list[Path] | None, typer.Option(help="a prompt folder; several that differ in their seed are averaged")
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
    """Compare zero-shot, tuned prompts and a linear probe; for captions R@1, 5 and 10 both ways."""
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
    check_kind(
        captions,
        images,
        {"--source": source is not None, "--class-file": class_file is not None, "--baselines": baselines is not None},
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
        from multimodal.experiments import protocols
        from multimodal.towers.clip import load_clip

        loaded = load(data, class_file)
        classifiers: list[PromptClassifier] = []
        for folder in folders:
            clip: Any = classifiers[0].clip if classifiers else model
            classifiers.append(load_classifier(folder, clip, pretrained, device, strength, quick_gelu))
        how = protocols.EvaluationProtocol(
            protocol or "few-shot",
            source=load(source, class_file) if source is not None else None,
            split=split or "test",
            template=template,
            **baselines_of(baselines),
        )
        frozen = None if classifiers else load_clip(model, pretrained, device=device, quick_gelu=quick_gelu)
        result = protocols.evaluate(how, loaded, classifiers, clip=frozen, **options)
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
