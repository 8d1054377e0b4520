"""retrieval-prompts evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import (
    Also,
    Cache,
    DataFolder,
    Device,
    JsonFile,
    Model,
    Overwrite,
    Prompts,
    Report,
    Strength,
    Trust,
    check_also,
    check_strength,
)
from retrieval_prompts.cli.results import say_results


def evaluate(
    data: DataFolder,
    model: Model = None,
    prompts: Prompts = None,
    split: Annotated[str, typer.Option(help="the split to evaluate on")] = "test",
    strength: Strength = None,
    also: Also = None,
    report: Report = None,
    json_file: JsonFile = None,
    run: Annotated[Path | None, typer.Option(help="write the ranking here as a TREC run")] = None,
    bm25: Annotated[bool, typer.Option(help="with BM25 beside it")] = True,
    cache: Cache = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Compare frozen, tuned and BM25 on a split, with a paired test. --run takes the tuned ranking, else the frozen."""
    console.check_outputs(json_file, report, run, overwrite=overwrite)
    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.data.beir_folder import load
    from retrieval_prompts.evaluation.trec_runs import write_run
    from retrieval_prompts.experiments import retrieval
    from retrieval_prompts.experiments.elsewhere import also_json, elsewhere, load_others
    from retrieval_prompts.experiments.workbench import Workbench

    check_strength(strength, prompts)
    check_also(also, prompts)
    dataset, others = load(data), load_others(also or [])
    queries, _ = dataset.split(split)
    say = console.printer(json_file)
    say(f"{dataset.name}: {len(dataset.corpus):,} documents, {len(queries):,} {split} queries")
    biencoder = BiEncoder.load(model, prompts, device=device, strength=strength, trust_remote_code=trust_remote_code)
    bench = Workbench(biencoder.tower, dataset, cache)
    found = retrieval.evaluate(biencoder, bench, split, bm25=bm25)
    lost = elsewhere(biencoder, others, cache)
    if json_file is not None:
        console.write_result(json_file, found.to_json() | also_json(lost))
    if report is not None:
        from retrieval_prompts.report.assemble import experiment_report
        from retrieval_prompts.report.page import write_report

        page = experiment_report(found, biencoder, bench)
        write_report(report, page, overwrite=overwrite)
        say(f"report: {report}")
    if run is not None:
        system = "tuned" if prompts is not None else "frozen"
        write_run(run, found.runs[system], system)
        say(f"{system} run: {run}")
    say_results(say, found)
    for each in lost:
        say(each.sentence())
