"""retrieval-prompts beir."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import (
    AS_SAID,
    Cache,
    DataFolder,
    Device,
    JsonFile,
    Model,
    Overwrite,
    Report,
    Trust,
    with_conventions,
    with_settings,
)
from retrieval_prompts.cli.sources import AS_IT_IS, Documents, Reading, data_folder, loader, with_sources
from retrieval_prompts.errors import UserError
from retrieval_prompts.towers.conventions import Conventions
from retrieval_prompts.training.settings import TuneSettings

if TYPE_CHECKING:
    from retrieval_prompts.experiments.benchmark import BenchmarkResult

BASELINES = "bm25, linear, lora, nudge, rrf; or none"


@with_settings(TuneSettings, "kind", "encoder", "pairs", "seed")
@with_sources
@with_conventions
def beir(
    out: Annotated[Path, typer.Option(help="the folder of results; what it holds already is not run again")],
    given: dict[str, Any],
    datasets: Annotated[
        str | None, typer.Option(help="names of BEIR, or of folders in --data-dir, with commas; or all")
    ] = None,
    data_dir: Annotated[Path, typer.Option(help="where data sets are, and are fetched to")] = Path("datasets"),
    data: DataFolder = None,
    documents: Documents = None,
    reading: Reading = AS_IT_IS,
    model: Model = None,
    conventions: Conventions = AS_SAID,
    prompts: Annotated[str | None, typer.Option(help="a prompt folder; {} stands for the data set's name")] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="tune query prompts on each data set's training queries")
    ] = False,
    baselines: Annotated[str, typer.Option(help=f"{BASELINES}; bm25 stands alone and beside dense rows")] = "bm25",
    factory: Annotated[str, typer.Option(help="FAISS index string: Flat, HNSW32, IVF256,SQ8 ...")] = "Flat",
    nprobe: Annotated[int | None, typer.Option(help="lists that an IVF index visits")] = None,
    ef_search: Annotated[int | None, typer.Option(help="candidates that an HNSW index keeps")] = None,
    split: Annotated[str | None, typer.Option(help="the split to score  [default: dev of msmarco, else test]")] = None,
    precision: Annotated[str, typer.Option(help="of the documents' encoding: float32, or bfloat16")] = "float32",
    report: Report = None,
    json_file: JsonFile = None,
    cache: Cache = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Evaluate on BEIR data sets, or on one of your own: frozen model, prompts and baselines; results.json, TREC runs,
    tables, a page."""
    from retrieval_prompts.data.beir_sets import expand, folder_of
    from retrieval_prompts.experiments.benchmark import run
    from retrieval_prompts.experiments.benchmark_dataset import BenchmarkSettings
    from retrieval_prompts.files import locked

    say = console.printer(json_file)
    replace = console.cut_short(json_file, report) or overwrite
    console.check_outputs(json_file, report, overwrite=replace)
    console.hold(locked(out / "results.json"))
    if not tune and (of_prompts := sorted(set(given) - {"seed"})):
        raise UserError(f"--{of_prompts[0]} applies to prompts that are tuned; pass --tune as well")
    learned = TuneSettings.of(**given)
    settings = BenchmarkSettings(
        systems=_systems(baselines, prompts is not None or tune),
        prompts=prompts,
        tune=learned if tune else None,
        factory=factory,
        nprobe=nprobe,
        ef_search=ef_search,
        split=split,
        precision=precision,
        seed=learned.seed,
    )
    if datasets is None:
        conventions = conventions.or_else(_recorded(prompts, ["{}"]))
        frozen = loader(model, device=device, trust_remote_code=trust_remote_code, **asdict(conventions))
        folder = data_folder(data, documents, reading, frozen, say, cache).resolve()
        names, data_dir = [folder.name], folder.parent
    elif data is not None or documents or reading != AS_IT_IS:
        raise UserError("--datasets names data sets of BEIR; leave it out for data of your own")
    else:
        names = [name.strip() for name in datasets.split(",") if name.strip()]
    names = expand(names, data_dir)
    for name in names:  # what is missing is said, or fetched, before anything is run
        folder_of(name, data_dir)
    from retrieval_prompts.biencoder import BiEncoder

    def on_system(name: str, system: str, found: dict[str, float]) -> None:
        say(f"{name}, {system}: nDCG@10 {found['ndcg@10']:.4f}, recall@100 {found['recall@100']:.4f}")

    conventions = conventions.or_else(_recorded(prompts, names))
    biencoder = BiEncoder.load(model, device=device, trust_remote_code=trust_remote_code, **asdict(conventions))
    result = run(biencoder, names, data_dir, out, settings, cache=cache, overwrite=overwrite, on_system=on_system)
    with console.together(json_file, report):
        if report is not None:
            from retrieval_prompts.report.assemble import benchmark_report
            from retrieval_prompts.report.page import write_report

            write_report(report, benchmark_report(result, out, data_dir, biencoder, cache), overwrite=replace)
        if json_file is not None:
            console.write_result(json_file, result.to_json())
    _say(say, result)
    say(f"\n{out / 'results.json'}, {out / 'table.md'} (.csv, .tex)" + (f", {report}" if report else ""))


def _recorded(prompts: str | None, names: list[str]) -> Conventions:
    """How the model was used when the prompts were made: those of the first data set that has some."""
    from retrieval_prompts.prompts.folder import DESCRIPTION, read_description

    for folder in [] if prompts is None else [prompts.replace("{}", name) for name in names]:
        if (Path(folder) / DESCRIPTION).is_file():
            return Conventions.recorded(read_description(folder)["base"])
    return AS_SAID


def _systems(baselines: str, tuned: bool) -> tuple[str, ...]:
    from retrieval_prompts.experiments.benchmark_dataset import SYSTEMS

    given = [name.strip() for name in baselines.split(",") if name.strip() and name.strip() != "none"]
    if odd := [name for name in given if name not in SYSTEMS]:
        raise UserError(f"--baselines: expected {BASELINES}, got {odd[0]!r}")
    wanted = {"frozen", *given} | ({"frozen+bm25"} if "bm25" in given else set())
    if tuned:
        wanted |= {"tuned"} | ({"rrf-tuned"} if "rrf" in given else set())
        wanted |= {"tuned+bm25"} if "bm25" in given else set()
    return tuple(system for system in SYSTEMS if system in wanted)


def _say(say: Any, result: BenchmarkResult) -> None:
    from retrieval_prompts.evaluation.tables import rich_table
    from retrieval_prompts.evaluation.words import paired_tests, system_title
    from retrieval_prompts.experiments.benchmark import headline_table

    header, rows = headline_table(result)
    if rows:
        say(rich_table(rows, header, title="nDCG@10 x 100"))
    adjusted = False
    for name, found in result.datasets.items():
        for test in paired_tests(found.to_json()["tests"], found.systems):
            say(f"{name}: {test.sentence()}")
            adjusted = adjusted or test.p_adjusted is not None
        for system, why in found.left_out.items():
            say(f"{name}: {system_title(system)} left out: {why}")
    if adjusted:
        say("Adjusted values of p are for the number of systems.")
