"""Several systems on several data sets: runs, metrics, paired tests; a finished part is not run again.

The folder of a benchmark holds
    results.json             settings, and for each data set the means, tests, times and what each baseline learned
    <dataset>.<system>.trec  each system's ranking
    prompts/<dataset>/       prompts that were tuned here
    table.md, .csv, .tex     nDCG@10 over data sets
Conventions are BEIR's (Thakur et al. 2021): title + " " + text, cutoffs 1 to 1000, the document of a query's own id
left out, every query counted, CQADupStack averaged, MS MARCO scored on dev.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data import beir_sets
from retrieval_prompts.errors import Diverged, UserError
from retrieval_prompts.evaluation.significance import adjust
from retrieval_prompts.evaluation.words import system_title
from retrieval_prompts.experiments.benchmark_dataset import HEADLINE, METRICS, SYSTEMS, BenchmarkSettings, Lab
from retrieval_prompts.experiments.result_file import made_on, resume
from retrieval_prompts.files import write_bytes, write_json
from retrieval_prompts.vectors import faiss_index

if TYPE_CHECKING:
    from retrieval_prompts.evaluation.tables import Table


def run(
    biencoder: BiEncoder,
    names: list[str],
    data_dir: Path,
    out: Path,
    settings: BenchmarkSettings,
    *,
    cache: Path | None = None,
    overwrite: bool = False,
    on_system: Callable[[str, str, dict[str, float]], object] | None = None,
) -> dict[str, Any]:
    """Run every system on every data set that the folder `out` lacks; returns the content of its results.json.

    Args:
        biencoder: the frozen model.
        names: data sets, see `beir_sets.expand`.
        on_system: called with data set, system and means after each.

    Raises UserError when `out` was made with another model or settings, or a data set has changed since.
    """
    expanded = beir_sets.expand(names)
    faiss_index.check(settings.factory, biencoder.tower.dimension, nprobe=settings.nprobe, ef_search=settings.ef_search)
    recorded = asdict(settings)
    systems = recorded.pop("systems")  # more of them may be asked for later
    wanted = {"model": biencoder.tower.name, "fingerprint": biencoder.tower.fingerprint, "settings": recorded}
    packages = ("retrieval-prompts", "torch", "transformers", "sentence-transformers", "faiss-cpu", "bm25s")
    empty = {"datasets": {}, "average": {}, "tests": {}, **made_on(packages)}
    result = resume(out / "results.json", wanted, empty, overwrite)
    if overwrite:
        result = {**wanted, **empty}
    for name in expanded:
        lab = Lab(name, beir_sets.folder_of(name, data_dir), biencoder, settings, out, cache, overwrite)
        found = result["datasets"].setdefault(name, lab.record())
        lab.kept = found["systems"]
        if found["digest"] != lab.digest:
            raise UserError(f"{name} is not the data of {out / 'results.json'}; choose another --out")
        if found["prompts"] is not None and lab.prompts_given and found["prompts"] != lab.prompt_identity:
            raise UserError(f"{out / 'results.json'} was made with other prompts for {name}; choose another --out")
        for system in SYSTEMS:
            if system not in systems or system in found["systems"] or system in found["left_out"]:
                continue
            if why := lab.impossible(system):
                found["left_out"][system] = why
                continue
            try:
                lab.keep(system, found)
            except Diverged as error:
                found["left_out"][system] = f"its training diverged: {error}"
                continue
            write_json(out / "results.json", result)
            if on_system is not None:
                on_system(name, system, found["systems"][system])
        if lab.values or not found["tests"]:
            found["tests"] = lab.tests(found["systems"], found)
        summarize(result)
        write_json(out / "results.json", result)
        write_tables(out, result)
    return result


def summarize(result: dict[str, Any]) -> None:
    """Fill in averages over the data sets that all systems have, and p-values adjusted for the number of data sets."""
    datasets = beir_sets.for_average({name: found["systems"] for name, found in result["datasets"].items()})
    systems = list(dict.fromkeys(system for found in datasets.values() for system in found))
    shared = [found for found in datasets.values() if all(system in found for system in systems)]
    result["average"] = {
        "datasets": len(shared),
        "systems": {
            system: {metric: sum(each[system][metric] for each in shared) / len(shared) for metric in METRICS}
            for system in (systems if shared else ())
        },
    }
    result["tests"] = {}
    for system in systems:
        name = f"{system}_vs_frozen"
        pairs = {
            data: found["tests"][name]["p_value"]
            for data, found in result["datasets"].items()
            if name in found["tests"]
        }
        if len(pairs) > 1:
            result["tests"][name] = dict(zip(pairs, adjust(list(pairs.values()), "holm"), strict=True))


def write_tables(out: Path, result: Mapping[str, Any]) -> None:
    """table.md, table.csv and table.tex: nDCG@10 x 100 of each system on each data set, and the average.

    Where test queries share documents with training queries, table.md has a second table, of the other queries.
    """
    from retrieval_prompts.evaluation import tables

    header, rows = headline_table(result)
    if not rows:
        return
    text = f"nDCG@10 x 100\n\n{tables.markdown(rows, header)}"
    unseen = {
        f"{name} ({found['unseen_documents']['queries']} of {found['queries']})": found["unseen_documents"]["systems"]
        for name, found in result["datasets"].items()
        if found["unseen_documents"]
    }
    if unseen:
        again, fewer = _table(unseen)
        text += f"\nOnly the queries whose relevant documents no training query has\n\n{tables.markdown(fewer, again)}"
    write_bytes(out / "table.md", text.encode())
    write_bytes(out / "table.tex", tables.latex(rows, header).encode())
    write_bytes(out / "table.csv", tables.csv(rows, header).encode())


def headline_table(result: Mapping[str, Any]) -> Table:
    """nDCG@10 x 100 of a benchmark: a row for each system, a column for each data set, and the average."""
    return _table(beir_sets.for_average({name: found["systems"] for name, found in result["datasets"].items()}))


def _table(datasets: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    from retrieval_prompts.evaluation.tables import systems_table

    named = {
        name: {system_title(system): found[system] for system in SYSTEMS if system in found}
        for name, found in datasets.items()
    }
    return systems_table(named, HEADLINE)
