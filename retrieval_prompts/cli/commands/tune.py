"""retrieval-prompts tune."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import Cache, DataFolder, Device, JsonFile, Model, Overwrite, Report, Trust
from retrieval_prompts.cli.results import say_results
from retrieval_prompts.errors import UserError
from retrieval_prompts.training.settings import DEFAULTS, TuneSettings


def _help(text: str, name: str) -> str:
    """Help that ends with a setting's default, or with one for each kind of prompt."""
    kinds = {kind: defaults[name] for kind, defaults in DEFAULTS.items() if name in defaults}
    default = ", ".join(f"{value} {kind}" for kind, value in kinds.items()) or getattr(TuneSettings, name)
    return f"{text}  [default: {default}]"


def tune(
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="the prompt folder to write")],
    model: Model = None,
    side: Annotated[str, typer.Option(help="query, document or both")] = "query",
    kind: Annotated[str, typer.Option(help="input or prefix")] = "input",
    encoder: Annotated[str, typer.Option(help="table, mlp or lstm")] = "table",
    length: Annotated[int | None, typer.Option(help=_help("vectors a prompt", "length"))] = None,
    init: Annotated[str | None, typer.Option(help=_help("text:WORDS, vocab or gaussian", "init"))] = None,
    common: Annotated[bool, typer.Option("--common", help="with both sides: add a part that they share")] = False,
    epochs: Annotated[
        int | None, typer.Option(help=_help("passes over the training queries, at most", "epochs"))
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(help=_help("end training after so many steps at the latest", "max_steps"))
    ] = None,
    document_steps: Annotated[
        int | None, typer.Option(help=_help("the same for steps that encode documents", "document_steps"))
    ] = None,
    lr: Annotated[float | None, typer.Option(help=_help("peak learning rate", "learning_rate"))] = None,
    document_lr: Annotated[
        float | None, typer.Option(help=_help("lr of steps that encode documents", "document_learning_rate"))
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help=_help("queries a step", "batch_size"))] = None,
    temperature: Annotated[float | None, typer.Option(help="of the softmax  [default: 0.05 cosine, 1 dot]")] = None,
    negatives: Annotated[str | None, typer.Option(help="corpus, in-batch or mined  [default: corpus]")] = None,
    symmetric: Annotated[bool, typer.Option("--symmetric", help="also compare documents with queries")] = False,
    precision: Annotated[str, typer.Option(help="of training: auto, float32 or bfloat16")] = "auto",
    patience: Annotated[
        int | None, typer.Option(help="stop after so many dev scores (of 10) without a better one")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the initial vectors, the batches and the draws")] = 0,
    split: Annotated[
        str | None, typer.Option(help="split to evaluate on afterwards  [default: test, if there is one]")
    ] = None,
    report: Report = None,
    json_file: JsonFile = None,
    cache: Cache = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Tune soft prompts on a data set, and compare them with the frozen model and BM25."""
    from retrieval_prompts.files import check_output

    check_output(out, overwrite=overwrite, holds="prompt.json")
    console.check_json(json_file, overwrite)
    if report is not None:
        check_output(report, overwrite=overwrite)
    from retrieval_prompts.data.beir_folder import load
    from retrieval_prompts.training.training_data import TrainingData

    settings = TuneSettings.of(
        side=side,
        kind=kind,
        encoder=encoder,
        length=length,
        init=init,
        common=common,
        epochs=epochs,
        max_steps=max_steps,
        document_steps=document_steps,
        learning_rate=lr,
        document_learning_rate=document_lr,
        batch_size=batch_size,
        temperature=temperature,
        negatives=negatives,
        symmetric=symmetric,
        precision=precision,
        patience=patience,
        seed=seed,
    )
    dataset = load(data)
    learned = TrainingData.of(dataset)
    say = console.printer(json_file)
    split = split or ("test" if "test" in dataset.qrels else None)
    if report is not None and split is None:
        raise UserError(f"--report shows an evaluation, and {data} has no test split; name another with --split")
    say(
        f"{dataset.name}: {len(dataset.corpus):,} documents; "
        f"queries: {len(learned.train):,} train, {len(learned.dev):,} dev"
        + (" (no dev split: held out of train)" if learned.held_out else "")
        + (f", {len(dataset.split(split)[1]):,} {split}" if split else ", no test split")
    )
    from tqdm import tqdm

    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.experiments import retrieval
    from retrieval_prompts.experiments.workbench import Workbench

    biencoder = BiEncoder.load(model, device=device, trust_remote_code=trust_remote_code)
    bar: Any = None

    def on_step(step: Any, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total, desc="tune", unit="step", initial=step.step)
        bar.update(step.step - bar.n)
        if not math.isnan(step.loss):  # the record of a dev score before training has none
            bar.set_postfix_str(f"loss {step.loss:.3f}", refresh=False)
        if step.dev is not None:
            name = f"step {step.step}" if step.step else "before training"
            bar.write(f"{name}: dev nDCG@10 {step.dev:.4f}{' *' if step.best else ''}", file=sys.stderr)

    try:
        bench = Workbench(biencoder.tower, dataset, cache)
        found = retrieval.tune(biencoder, bench, settings, split=split, out=out, overwrite=overwrite, on_step=on_step)
    finally:
        if bar is not None:
            bar.close()  # so that an error stands on a line of its own
    if json_file is not None:
        console.write_result(json_file, found.to_json())
    if report is not None:
        from retrieval_prompts.report.assemble import experiment_report
        from retrieval_prompts.report.page import write_report

        page = experiment_report(found, biencoder, bench)
        write_report(report, page, overwrite=overwrite)
        say(f"report: {report}")
    say_results(say, found)
    dev_scores = found.settings["dev"]
    say(f"dev nDCG@10: frozen {dev_scores['frozen']:.4f}, tuned {dev_scores['tuned']:.4f}")
    if side == "both" and "document" not in biencoder.prompts:
        earned = found.settings["document_prompt_on_dev"]
        say(
            f"the document prompt was dropped: on dev it changes nDCG@10 by {100 * earned['difference']:+.1f} "
            f"(p = {earned['p_value']:.2f}), too little to encode the corpus for; the query prompt is saved alone"
        )
    if biencoder.strength == 0:
        say("no prompt beat the frozen model on dev: the saved one has strength 0, which is the frozen model")
    size = sum(file.stat().st_size for file in out.iterdir())
    say(f"\nprompt folder: {out} ({size / 1000:.1f} kB); documents re-encoded: {found.documents_reencoded:,}")
    again = f" --model {model}" if model else ""
    with_prompts = f" --prompts {out}" if "document" in biencoder.prompts else ""
    say(
        "next:\n"
        f"  retrieval-prompts index {data} --out INDEX{again}{with_prompts}\n"
        f'  retrieval-prompts search INDEX "a question" --prompts {out}'
    )
