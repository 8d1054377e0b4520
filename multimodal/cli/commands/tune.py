"""multimodal-prompts tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multimodal.cli.options import (
    ClassFile,
    DataOrNone,
    ImagesRoot,
    Model,
    Pretrained,
    QuickGelu,
    check_kind,
    class_list,
    load,
)
from multimodal.cli.results import say_result, write_page
from multimodal.prompts.settings import AUTO
from multimodal.training.settings import Settings, on_data
from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import Cache, Device, JsonFile, Overwrite, Report, with_settings
from retrieval_prompts.cli.progress import Progress
from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.settings import check_read

if TYPE_CHECKING:
    from multimodal.experiments.results import ClassResult, Found
    from multimodal.towers.clip import Clip
    from retrieval_prompts.experiments.run import PromptOutput

# Of captions an epoch has several texts an image, and all are trained on
CAPTIONS: dict[str, Any] = {"epochs": 10, "shots": None}


@with_settings(Settings)
def tune(
    out: Annotated[Path, typer.Option(help="the prompt folder to write")],
    given: dict[str, Any],
    data: DataOrNone = None,
    classes: Annotated[str | None, typer.Option(help="a,b,c, with --unlabelled and no data")] = None,
    model: Model = None,
    pretrained: Pretrained = None,
    quick_gelu: QuickGelu = None,
    subset: Annotated[str, typer.Option(help="all classes, or their base or new half")] = "all",
    class_file: ClassFile = None,
    images: ImagesRoot = None,
    json_file: JsonFile = None,
    report: Report = None,
    cache: Cache = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Tune prompts on a few images a class, or on captions, and compare them with zero-shot.

    A larger CLIP can teach them on pictures without labels: --method promptkd --teacher MODEL --unlabelled FOLDER, with
    data as ever, or without any and with --classes a,b,c.
    """
    from multimodal.data.caption_files import is_captions
    from retrieval_prompts.experiments.run import PromptOutput

    console.lock(out, json_file, report)
    missing = console.missing(json_file, report)
    output = console.hold(PromptOutput(out, overwrite=overwrite, again=bool(missing)))
    if output.there:  # a run that was cut short behind its training: what it has written stays
        json_file, report = (each if each in (*missing, Path("-")) else None for each in (json_file, report))
    console.check_outputs(json_file, report, overwrite=overwrite)
    captions = data is not None and is_captions(data)
    check_kind(
        captions,
        images,
        {"--subset": subset != "all", "--class-file": class_file is not None, "--classes": classes is not None},
    )
    settings = Settings.of(**(CAPTIONS if captions else {}) | given)
    if captions and settings.method == AUTO:
        raise UserError("--method auto chooses by labelled pictures, and captions have no labels; name a method")
    kind = "captions" if captions else "labelled pictures" if data is not None else "unlabelled pictures"
    check_read(settings, given, data=kind)
    say = console.printer(json_file)
    options: dict[str, Any] = {"cache": cache, "keep_rankings": report is not None}
    result: Found
    if data is None:
        names = _names(settings, classes, class_file, subset)
        result = _distil(_loaded(model, pretrained, device, quick_gelu), names, settings, output, cache)
    elif classes is not None:
        raise UserError("the data says which classes there are; leave out --classes, or rename them with --class-file")
    elif captions:
        from multimodal.experiments.captions import CaptionSplits
        from multimodal.experiments.captions import tune as tune_on_captions

        described = CaptionSplits.read(Path(data), images)
        clip, _ = _loaded(model, pretrained, device, quick_gelu)
        with Progress() as on_step:
            result = tune_on_captions(clip, described, settings, output, on_step=on_step, **options)
    else:
        from multimodal.experiments.classes import tune as tune_on_classes

        loaded = load(data, class_file)
        settings = on_data(given, loaded.name, base=subset != "all")
        clip, seconds = _loaded(model, pretrained, device, quick_gelu)
        with Progress() as on_step:
            result = tune_on_classes(clip, loaded, settings, output, subset=subset, on_step=on_step, **options)
        result.seconds = {**seconds, **result.seconds}
    if json_file is not None:
        console.write_result(json_file, result.to_json())
    say_result(say, result)
    if report is not None and not result.systems:
        say("nothing was evaluated, so there is no report")
    elif report is not None:
        write_page(report, result, overwrite=overwrite)
        say(f"report: {report}")
    size = sum(file.stat().st_size for file in out.iterdir())
    say(f"\nprompt folder: {out} ({size / 1000:.1f} kB); images encoded now: {result.images_encoded:,}")
    if captions:
        say("next:\n  multimodal-prompts index FOLDER --out INDEX")
        say(f'  multimodal-prompts search INDEX "words" --prompts {out}')
    else:
        say(f"next:\n  multimodal-prompts classify {out} IMAGE ...")


def _names(settings: Settings, classes: str | None, class_file: Path | None, subset: str) -> list[str]:
    """The classes to learn without data. Raises UserError for what such learning cannot do without, or with."""
    if settings.unlabelled is None or settings.method != "promptkd":
        raise UserError(
            "expected data to tune on; without any, --method promptkd --teacher MODEL --unlabelled FOLDER "
            "--classes a,b,c learns from a larger CLIP"
        )
    if subset != "all":
        raise UserError("--subset is a half of the data's classes; without data leave it out, and give half of them")
    names = class_list(classes, class_file)
    if names is None:
        raise UserError("without data the classes are not known; give --classes a,b,c or --class-file")
    return names


def _distil(
    loaded: tuple[Clip, dict[str, float]],
    names: list[str],
    settings: Settings,
    output: PromptOutput,
    cache: Path | None,
) -> ClassResult:
    from multimodal.data.pictures import load_pictures
    from multimodal.experiments.classes import distil

    clip, seconds = loaded
    assert settings.unlabelled is not None
    pictures = load_pictures(settings.unlabelled)
    with Progress() as on_step:
        result = distil(clip, pictures, names, settings, output, cache=cache, on_step=on_step)
    result.seconds = {**seconds, **result.seconds}
    return result


def _loaded(
    model: str | None, pretrained: str | None, device: str | None, quick_gelu: bool | None
) -> tuple[Clip, dict[str, float]]:
    """The frozen model, and the seconds that it took."""
    from multimodal.towers.clip import load_clip
    from retrieval_prompts.experiments.records.stopwatch import Stopwatch

    watch = Stopwatch()
    with watch("load model"):
        clip = load_clip(model, pretrained, device=device, quick_gelu=quick_gelu)
    return clip, watch.seconds
