"""multimodal-prompts tune."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multimodal.cli.options import (
    Cache,
    ClassFile,
    Data,
    Device,
    ImagesRoot,
    JsonFile,
    Model,
    Overwrite,
    Pretrained,
    ReportFile,
    check_kind,
    load,
)
from multimodal.cli.results import say_result, write_page
from retrieval_prompts.cli import console
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.experiments.results import Found
    from retrieval_prompts.training.loop import Step

CAPTION_EPOCHS = 10  # an epoch of captions has several texts an image


def tune(
    data: Data,
    out: Annotated[Path, typer.Option(help="the prompt folder to write")],
    model: Model = None,
    pretrained: Pretrained = None,
    method: Annotated[
        str, typer.Option(help="coop, cocoop, kgcoop, prograd, tcp, deep, vpt, maple or promptsrc")
    ] = "coop",
    shots: Annotated[str | None, typer.Option(help="training images a class: a number, or all  [default: 16]")] = None,
    subset: Annotated[str, typer.Option(help="all classes, or their base or new half")] = "all",
    context: Annotated[int | None, typer.Option(help="context vectors  [default: the method's, mostly 4]")] = None,
    init: Annotated[str | None, typer.Option(help="words, or gaussian  [default: a photo of a]")] = None,
    position: Annotated[str | None, typer.Option(help="of the class name: end, middle or front")] = None,
    class_specific: Annotated[bool, typer.Option("--class-specific", help="each class its own context")] = False,
    encoder: Annotated[str | None, typer.Option(help="table, mlp or lstm")] = None,
    template: Annotated[str | None, typer.Option(help="of the frozen class texts  [default: the data set's]")] = None,
    class_file: ClassFile = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the training images")] = None,
    lr: Annotated[float | None, typer.Option(help="peak learning rate")] = None,
    batch_size: Annotated[int | None, typer.Option(help="images a step")] = None,
    weight: Annotated[float | None, typer.Option(help="of the method's regulariser")] = None,
    depth: Annotated[int | None, typer.Option(help="layers with prompts, for deep methods")] = None,
    visual: Annotated[int | None, typer.Option(help="vectors in the image tower, for vpt and promptsrc")] = None,
    views: Annotated[int | None, typer.Option(help="cached views of each image: 1, and random crops")] = None,
    precision: Annotated[str | None, typer.Option(help="of training: auto, float32 or bfloat16")] = None,
    calibrate: Annotated[bool, typer.Option(help="fit the temperature of the probabilities")] = True,
    seed: Annotated[int, typer.Option(help="of the shots, the initial vectors and the batches")] = 1,
    images: ImagesRoot = None,
    json_file: JsonFile = None,
    report: ReportFile = None,
    cache: Cache = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Tune prompts on a few images a class, or on captions, and compare them with zero-shot."""
    from retrieval_prompts.files import check_output

    check_output(out, overwrite=overwrite, holds="prompt.json")
    console.check_json(json_file, overwrite)
    if report is not None:
        check_output(report, overwrite=overwrite)
    from multimodal.data.captions import is_captions
    from multimodal.training.settings import Settings

    captions = is_captions(data)
    if captions and epochs is None:
        epochs = CAPTION_EPOCHS
    labelled = {"--subset": subset != "all", "--class-file": class_file is not None, "--shots": shots is not None}
    check_kind(captions, images, {**labelled, "--template": template is not None, "--no-calibrate": not calibrate})
    given = dict(
        method=method,
        context=context,
        init=init,
        position=position,
        class_specific=class_specific,
        encoder=encoder,
        template=template,
        epochs=epochs,
        learning_rate=lr,
        batch_size=batch_size,
        weight=weight,
        depth=depth,
        visual=visual,
        views=views,
        precision=precision,
        calibrate=calibrate,
        seed=seed,
    )
    settings = Settings.of(**given, shots=None if captions else _shots(shots or "16"))
    say = console.printer(json_file)
    from multimodal.towers.clip import load_clip

    result: Found
    if captions:
        from multimodal.experiments.captions import CaptionSplits
        from multimodal.experiments.captions import tune as tune_on_captions

        described = CaptionSplits.read(Path(data), images)
        clip = load_clip(model, pretrained, device=device)
        with progress() as on_step:
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
        if template is None:
            settings = classes.with_template(settings, loaded)
        watch = Stopwatch()
        with watch("load model"):
            clip = load_clip(model, pretrained, device=device)
        with progress() as on_step:
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


def _shots(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal() or not int(text):
        raise UserError(f"--shots must be a number from 1, or all, got {text!r}")
    return int(text)


@contextmanager
def progress() -> Iterator[Callable[[Step, int], None]]:
    """A callback that draws a progress bar of training steps, closed before anything else is printed."""
    bar: Any = None

    def on_step(step: Step, total: int) -> None:
        nonlocal bar
        if bar is None:
            from tqdm import tqdm

            bar = tqdm(total=total, desc="tune", unit="step", initial=max(0, step.step - 1), delay=1)
        bar.update(step.step - bar.n)
        bar.set_postfix_str(f"loss {step.loss:.3f}", refresh=False)
        if step.step == total:
            bar.close()

    try:
        yield on_step
    finally:
        if bar is not None:
            bar.close()
