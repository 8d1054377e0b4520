"""retrieval-prompts evaluate."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import (
    AS_SAID,
    Also,
    Cache,
    DataFolder,
    Device,
    JsonFile,
    Model,
    Overwrite,
    Prompts,
    Report,
    Strengths,
    Trust,
    check_also,
    check_strength,
    strengths_of,
    with_conventions,
)
from retrieval_prompts.cli.results import say_results, say_sweep, write_runs
from retrieval_prompts.cli.sources import AS_IT_IS, Documents, Reading, data_folder, loader, with_sources
from retrieval_prompts.towers.conventions import Conventions


@with_sources
@with_conventions
def evaluate(
    data: DataFolder = None,
    documents: Documents = None,
    reading: Reading = AS_IT_IS,
    model: Model = None,
    conventions: Conventions = AS_SAID,
    prompts: Prompts = None,
    split: Annotated[str, typer.Option(help="the split to evaluate on")] = "test",
    strength: Strengths = None,
    also: Also = None,
    report: Report = None,
    json_file: JsonFile = None,
    run: Annotated[
        Path | None, typer.Option(help="write each system's ranking as a TREC run, with judgements, into this folder")
    ] = None,
    bm25: Annotated[bool, typer.Option(help="with BM25 beside it")] = True,
    cache: Cache = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Compare frozen and tuned, each alone and beside BM25, on a split, with paired tests; say what to use.

    With several strengths, as in --strength 0,0.25,...,1, dev queries choose the one with the best trade of what is
    gained here and lost elsewhere (--also), and it is the one that is evaluated.
    """
    console.lock(run, json_file, report)
    overwrite = console.cut_short(json_file, report, run) or overwrite
    console.check_outputs(json_file, report, overwrite=overwrite)
    from retrieval_prompts.files import RUNS

    if run is not None:
        console.claim(run, overwrite=overwrite, holds=RUNS)
    from retrieval_prompts.data.beir_folder import load, with_test
    from retrieval_prompts.data.groups import counted
    from retrieval_prompts.experiments import retrieval
    from retrieval_prompts.experiments.elsewhere import also_json, elsewhere, load_others
    from retrieval_prompts.experiments.selection.sweep import sweep, sweep_json
    from retrieval_prompts.experiments.workbench import Workbench

    check_strength(strength, prompts)
    check_also(also, prompts)
    wanted = strengths_of(strength)
    one = wanted[0] if len(wanted) == 1 else None
    say = console.printer(json_file)
    loaded = loader(
        model, prompts, device=device, strength=one, trust_remote_code=trust_remote_code, **asdict(conventions)
    )
    folder = data_folder(data, documents, reading, loaded, say, cache)
    (dataset, held_out), others = with_test(load(folder)), load_others(also or [])
    queries, _ = dataset.split(split)
    say(
        f"{dataset.name}: {counted(len(dataset.corpus), dataset.corpus.groups)}, {len(queries):,} {split} queries"
        + (" (held out of train, as there is no test split)" if held_out and split == "test" else "")
    )
    biencoder = loaded()
    bench = Workbench(biencoder.tower, dataset, cache)
    swept = sweep(biencoder, bench, others, wanted, split, cache) if len(wanted) > 1 else None
    if swept is not None:
        biencoder.strength = swept.best
    found = retrieval.evaluate(biencoder, bench, split, bm25=bm25)
    lost = elsewhere(biencoder, others, cache) if swept is None else []
    with console.together(json_file, report, run):
        if json_file is not None:
            console.write_result(json_file, found.to_json() | also_json(lost) | sweep_json(swept))
        if report is not None:
            from retrieval_prompts.report.assemble import experiment_report
            from retrieval_prompts.report.page import write_report

            page = experiment_report(found, biencoder, bench, swept)
            write_report(report, page, overwrite=overwrite)
            say(f"report: {report}")
        if run is not None:
            write_runs(run, found, dataset.qrels[split], overwrite=overwrite)
    if swept is not None:
        say_sweep(say, swept)
    say_results(say, found)
    for each in lost:
        say(each.sentence())
    if run is not None:
        say(f"runs: {run}")
