"""multimodal-prompts tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multimodal.cli.options import ClassFile, Data, ImagesRoot, Model, Pretrained, check_kind, load
from multimodal.cli.results import say_result, write_page
from multimodal.training.settings import Settings
from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import Cache, Device, JsonFile, Overwrite, Report, with_settings
from retrieval_prompts.cli.progress import Progress
from retrieval_prompts.prompts.settings import check_read

if TYPE_CHECKING:
    from multimodal.experiments.results import Found

# Of captions an epoch has several texts an image, and all are trained on
CAPTIONS: dict[str, Any] = {"epochs": 10, "shots": None}


@with_settings(Settings)
def tune(
    data: Data,
    out: Annotated[Path, typer.Option(help="the prompt folder to write")],
    given: dict[str, Any],
    model: Model = None,
    pretrained: Pretrained = None,
    subset: Annotated[str, typer.Option(help="all classes, or their base or new half")] = "all",
    class_file: ClassFile = None,
    images: ImagesRoot = None,
    json_file: JsonFile = None,
    report: Report = None,
    cache: Cache = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Tune prompts on a few images a class, or on captions, and compare them with zero-shot."""
    from retrieval_prompts.files import check_output

    check_output(out, overwrite=overwrite, holds="prompt.json")
    console.check_outputs(json_file, report, overwrite=overwrite)
    from multimodal.data.captions import is_captions

    captions = is_captions(data)
    check_kind(captions, images, {"--subset": subset != "all", "--class-file": class_file is not None})
    settings = Settings.of(**(CAPTIONS if captions else {}) | given)
    check_read(settings, given, data="captions" if captions else "labelled pictures")
    say = console.printer(json_file)
    from multimodal.towers.clip import load_clip

    result: Found
    if captions:
        from multimodal.experiments.captions import CaptionSplits
        from multimodal.experiments.captions import tune as tune_on_captions

        described = CaptionSplits.read(Path(data), images)
        clip = load_clip(model, pretrained, device=device)
        with Progress() as on_step:
            result = tune_on_captions(
                clip,
                described,
                settings,
                out,
                cache=cache,
                overwrite=overwrite,
                on_step=on_step,
                keep_rankings=report is not None,
            )
    else:
        from multimodal.experiments import classes
        from retrieval_prompts.experiments.stopwatch import Stopwatch

        loaded = load(data, class_file)
        if "template" not in given:
            settings = classes.with_template(settings, loaded)
        watch = Stopwatch()
        with watch("load model"):
            clip = load_clip(model, pretrained, device=device)
        with Progress() as on_step:
            result = classes.tune(
                clip,
                loaded,
                settings,
                out,
                subset=subset,
                cache=cache,
                overwrite=overwrite,
                on_step=on_step,
                keep_rankings=report is not None,
            )
        result.seconds = {**watch.seconds, **result.seconds}
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
