"""retrieval-prompts tune."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.launched import helped
from retrieval_prompts.cli.options import (
    AS_SAID,
    Also,
    Cache,
    DataFolder,
    Description,
    Device,
    JsonFile,
    Model,
    Name,
    Overwrite,
    PromptVersion,
    Report,
    Trust,
    with_conventions,
    with_settings,
)
from retrieval_prompts.cli.progress import Progress
from retrieval_prompts.cli.results import say_results
from retrieval_prompts.cli.sources import AS_IT_IS, Documents, Reading, data_folder, loader, with_sources
from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.label import Label
from retrieval_prompts.towers.conventions import Conventions
from retrieval_prompts.training.settings import TuneSettings, check_given

if TYPE_CHECKING:
    from collections.abc import Callable

    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.data.beir_folder import Dataset
    from retrieval_prompts.experiments.retrieval import RetrievalResult
    from retrieval_prompts.training.training_data import TrainingData
    from retrieval_prompts.vectors.index import Index


@with_settings(TuneSettings)
@with_sources
@with_conventions
@helped
def tune(
    out: Annotated[Path, typer.Option(help="the prompt folder to write")],
    given: dict[str, Any],
    data: DataFolder = None,
    documents: Documents = None,
    reading: Reading = AS_IT_IS,
    model: Model = None,
    conventions: Conventions = AS_SAID,
    split: Annotated[
        str | None, typer.Option(help="split to evaluate on afterwards  [default: test, if there is one]")
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(help="an index folder of these documents: its vectors are used, and nothing is encoded"),
    ] = None,
    name: Name = None,
    description: Description = None,
    prompt_version: PromptVersion = None,
    also: Also = None,
    report: Report = None,
    json_file: JsonFile = None,
    cache: Cache = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Tune soft prompts on a data set, and compare them with the frozen model and BM25.

    Documents are encoded once, which takes most of the time (two CPU cores: a minute or two for 5,000 abstracts and
    MiniLM; a GPU: seconds); training then takes a few minutes. It needs judged queries: a few hundred to learn from,
    and from about 50 that are set aside a gain can be shown; with fewer, cross-validation judges, and the advice is
    mostly BM25 beside the frozen model. Without any it learns from a log of queries, or from titles (--pairs).

    Examples:

      retrieval-prompts tune DATA --out PROMPTS --report page.html

      retrieval-prompts tune --documents products.parquet --judgements clicks.csv --out PROMPTS
    """
    from retrieval_prompts.experiments.run import PromptOutput

    console.lock(out, json_file, report)
    missing = console.missing(json_file, report)
    output = console.hold(PromptOutput(out, overwrite=overwrite, again=bool(missing)))
    if output.there:  # a run that was cut short behind its training: what it has written stays
        json_file, report = (each if each in (*missing, Path("-")) else None for each in (json_file, report))
    console.check_outputs(json_file, report, overwrite=overwrite)
    settings = TuneSettings.of(**given)
    check_given(settings, given)
    label = Label(name, description, prompt_version)
    from retrieval_prompts.data.beir_folder import load, with_test
    from retrieval_prompts.experiments.elsewhere import also_json, elsewhere, load_others
    from retrieval_prompts.training.training_data import TrainingData

    say = console.printer(json_file)
    stored, made_by = _opened(index)
    model, conventions = model or made_by.get("model"), conventions.or_else(Conventions.recorded(made_by))
    frozen = loader(model, device=device, trust_remote_code=trust_remote_code, **asdict(conventions))
    folder = data_folder(data, documents, reading, frozen, say, cache)
    dataset, test_held_out = with_test(load(folder, judged=settings.pairs == "labelled"))
    others = load_others(also or [])
    learned = TrainingData.of(dataset) if settings.labelled(dataset.qrels) else None
    split = split or ("test" if "test" in dataset.qrels else None)
    if report is not None and split is None:
        raise UserError(f"--report shows an evaluation, and {folder} has no test split; name another with --split")
    say(_described(dataset, learned, split) + (" (held out of train)" if test_held_out and split == "test" else ""))
    from retrieval_prompts.experiments import retrieval
    from retrieval_prompts.experiments.workbench import Workbench
    from retrieval_prompts.training.processes.share import sharing

    if learned is not None and learned.few and settings.side == "query" and settings.folds > 1:
        idle = "; --patience plays no part in it" if settings.patience is not None else ""
        say(f"too few dev queries to choose by: cross-validation judges, {settings.folds} more training runs{idle}")
    biencoder = frozen()
    _say_precision(say, settings.precision, biencoder)
    biencoder.tower.made(made_by)
    bench = Workbench(biencoder.tower, dataset, cache, given=stored)
    with sharing(biencoder.tower), Progress("nDCG@10", "frozen") as on_step:
        found = retrieval.tune(biencoder, bench, settings, label=label, split=split, out=output, on_step=on_step)
    if found.failed is not None:  # it was warned of
        raise typer.Exit(1)
    lost = elsewhere(biencoder, others, cache)
    if json_file is not None:
        console.write_result(json_file, found.to_json() | also_json(lost))
    if report is not None:
        from retrieval_prompts.report.assemble import experiment_report
        from retrieval_prompts.report.page import write_report

        page = experiment_report(found, biencoder, bench)
        write_report(report, page, overwrite=overwrite)
        say(f"report: {report}")
    _say_training(say, found, biencoder)
    say_results(say, found)
    for each in lost:
        say(each.sentence())
    size = sum(file.stat().st_size for file in out.iterdir())
    say(f"\nprompt folder: {out} ({size / 1000:.1f} kB); {_encoded(found, len(dataset.corpus))}")
    say(_next(folder, out, index, model, conventions, found, biencoder))


def _opened(folder: Path | None) -> tuple[Index | None, dict[str, Any]]:
    """An index, and what made it."""
    from retrieval_prompts.interop.stores.opening import open_index

    opened = open_index(folder) if folder is not None else None
    return opened, {} if opened is None else opened.manifest["encoder"]


def _encoded(found: RetrievalResult, count: int) -> str:
    """How many document vectors were made."""
    if found.documents_reencoded:
        return f"documents encoded again, with their prompt: {found.documents_reencoded:,}"
    if found.documents_encoded:
        return f"documents encoded once: {found.documents_encoded:,} of {count:,}, and none for the prompts"
    return f"documents encoded: none, the vectors of all {count:,} were there"


def _say_precision(say: Callable[[Any], None], precision: str, biencoder: BiEncoder) -> None:
    from retrieval_prompts.training.task import in_bfloat16

    if precision == "auto" and in_bfloat16("auto", biencoder.tower.device):
        say("a step multiplies in bfloat16, which is faster here; --precision float32 does not")


def _described(dataset: Dataset, learned: TrainingData | None, split: str | None) -> str:
    """The data in a line, as they were read."""
    from retrieval_prompts.data.groups import counted

    said = f"{dataset.name}: {counted(len(dataset.corpus), dataset.corpus.groups)}; "
    if learned is None:
        said += "judged queries are not learned from" if "train" in dataset.qrels else "no judged queries to learn from"
    else:
        held_out = " (held out of train)" if learned.held_out else ""
        said += f"queries: {len(learned.train):,} train, {len(learned.dev):,} dev{held_out}"
    return said + (f", {len(dataset.split(split)[1]):,} {split}" if split else ", no test split")


def _next(
    data: Path,
    out: Path,
    index: Path | None,
    model: str | None,
    conventions: Conventions,
    found: RetrievalResult,
    biencoder: BiEncoder,
) -> str:
    """The commands that use what was recommended."""
    assert found.recommendation is not None
    options = {"--model": model} | conventions.options()
    again = "".join(f" {name} {shlex.quote(value)}" for name, value in options.items() if value is not None)
    tuned = "tuned" in found.recommendation.system and not found.recommendation.harmful
    prompts = f" --prompts {shlex.quote(str(out))}"
    with_prompts = prompts if tuned and "document" in biencoder.prompts else ""
    searched = shlex.quote(str(index or "INDEX"))
    search = f'retrieval-prompts search {searched} "a question"' + (prompts if tuned else "")
    if index is not None and not with_prompts:
        return f"next:\n  {search}"
    return f"next:\n  retrieval-prompts index {shlex.quote(str(data))} --out INDEX{again}{with_prompts}\n  {search}"


def _say_training(say: Any, found: RetrievalResult, biencoder: BiEncoder) -> None:
    """What was chosen, and by which queries."""
    from retrieval_prompts.evaluation.words import system_name

    choice = found.choice
    assert choice is not None
    if choice.how.startswith("made"):
        say(f"learned from {found.settings['pairs']}")
    unseen = f", {choice.unseen:,} ask for unseen documents" if choice.unseen else ""
    asked = f"{choice.queries:,} queries, {choice.how}{unseen}"
    means = ", ".join(f"{system_name(name)} {100 * values['all']:.1f}" for name, values in choice.systems.items())
    if found.settings["given_up"]:
        first = found.settings["stages"][0]
        say(
            "no dev score beat the frozen model in the first third of training: "
            f"ended at step {first['step']} of {first['of']}"
            + (", on the query side alone" if len(found.settings["stages"]) > 1 else "")
        )
    say(f"nDCG@10 on dev ({asked}): {means}")
    if tried := found.settings["encoders"]:
        dev = ", ".join(f"{name} {100 * values['all']:.1f}" for name, values in tried["dev"].items())
        say(f"prompt encoders on dev, each as it would be used: {dev}; used: {tried['used']}")
    earned = found.settings["document_prompt_on_dev"]
    if earned and "document" not in biencoder.prompts:
        say(
            f"the document prompt was dropped: on dev it changes nDCG@10 by {100 * earned['difference']:+.1f} "
            f"(p = {earned['p_value']:.2f}), too little to encode the corpus for; the query prompt is saved alone"
        )
    if biencoder.strength == 0:
        say("no prompt helped here: this folder is the frozen model (strength 0)")
        if found.settings["encoder"] == "table" and found.settings["side"] == "query":
            say("prompts that read what a first search finds may do better: --encoder feedback")
