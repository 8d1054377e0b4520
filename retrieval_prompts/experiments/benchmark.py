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

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data import beir_sets
from retrieval_prompts.errors import DataWarning, UserError, few
from retrieval_prompts.evaluation.metrics import HEADLINE
from retrieval_prompts.evaluation.significance import adjust
from retrieval_prompts.evaluation.words import system_title
from retrieval_prompts.experiments.benchmark_dataset import (
    METRICS,
    SYSTEMS,
    BenchmarkDataset,
    BenchmarkSettings,
    DatasetRecord,
    run_file,
)
from retrieval_prompts.experiments.records import result_file
from retrieval_prompts.experiments.records.provenance import Provenance
from retrieval_prompts.experiments.records.result_file import made_on, resume
from retrieval_prompts.files import list_digest, locked, sweep, write_bytes
from retrieval_prompts.vectors import faiss_index

if TYPE_CHECKING:
    from retrieval_prompts.evaluation.tables import Table


@dataclass
class BenchmarkResult:
    """What lies in a benchmark's results.json.

    Args:
        model, fingerprint: of the frozen model.
        settings: those of `BenchmarkSettings`, without the systems.
        datasets: data set -> what was found on it.
        average: {"datasets": how many, "systems": system -> metric -> mean over them}.
        tests: "<system>_vs_frozen" -> data set -> p, adjusted for the number of data sets (Holm).
        made_on: see `result_file.made_on`.
        provenance: of what was run last.
    """

    model: str
    fingerprint: str
    settings: dict[str, Any]
    datasets: dict[str, DatasetRecord] = field(default_factory=dict)
    average: dict[str, Any] = field(default_factory=dict)
    tests: dict[str, dict[str, float]] = field(default_factory=dict)
    made_on: dict[str, Any] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)

    def to_json(self) -> dict[str, Any]:
        """Every field by its name, and what `made_on` holds beside them."""
        plain = {name: value for name, value in vars(self).items() if name != "made_on"}
        datasets = {name: found.to_json() for name, found in self.datasets.items()}
        return plain | {"datasets": datasets, "provenance": self.provenance.to_json()} | self.made_on

    @classmethod
    def from_json(cls, found: Mapping[str, Any], place: Path) -> BenchmarkResult:
        """What `to_json` gave.

        Raises:
            UserError: that names `place` for anything else.
        """
        own = {each.name for each in fields(cls)} - {"made_on", "provenance"}
        rest = {name: value for name, value in found.items() if name not in (*own, "provenance")}
        try:
            made = cls(**{name: found[name] for name in own}, made_on=rest, provenance=Provenance.recorded(found))
            made.datasets = {name: DatasetRecord.from_json(each) for name, each in found["datasets"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{place} is not a benchmark's result ({error}); choose another --out") from None
        return made

    @property
    def for_average(self) -> dict[str, dict[str, dict[str, float]]]:
        """Data set -> system -> metric -> mean, the forums of CQADupStack as one."""
        return beir_sets.for_average({name: found.systems for name, found in self.datasets.items()})


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
) -> BenchmarkResult:
    """Run every system on every data set that the folder `out` lacks; returns the content of its results.json.

    A system whose run file is gone or was changed since is run again. Two runs do not write one folder.

    Args:
        biencoder: the frozen model.
        names: data sets, see `beir_sets.expand`.
        on_system: called with data set, system and means after each.

    Raises:
        UserError: when `out` was made with another model or settings, or a data set has changed since.
    """
    with locked(out / "results.json"):
        return _run(biencoder, names, data_dir, out, settings, cache, overwrite, on_system)


def _run(
    biencoder: BiEncoder,
    names: list[str],
    data_dir: Path,
    out: Path,
    settings: BenchmarkSettings,
    cache: Path | None,
    overwrite: bool,
    on_system: Callable[[str, str, dict[str, float]], object] | None,
) -> BenchmarkResult:
    expanded = beir_sets.expand(names, data_dir)
    faiss_index.check(settings.factory, biencoder.tower.dimension, nprobe=settings.nprobe, ef_search=settings.ef_search)
    file = out / "results.json"
    sweep(out)
    recorded = asdict(settings)
    del recorded["systems"]  # more of them may be asked for later
    wanted = {"model": biencoder.tower.name, "fingerprint": biencoder.tower.fingerprint, "settings": recorded}
    packages = ("retrieval-prompts", "torch", "transformers", "sentence-transformers", "faiss-cpu", "bm25s")
    empty = {"datasets": {}, "average": {}, "tests": {}, **made_on(packages)}
    result = BenchmarkResult.from_json(resume(file, wanted, empty, overwrite), file)
    _warn_of_others(file, {name: found for name, found in result.datasets.items() if name not in expanded})
    for name in expanded:
        folder = beir_sets.folder_of(name, data_dir)
        data = BenchmarkDataset.open(name, folder, biencoder, settings, out, cache=cache, overwrite=overwrite)
        if (found := result.datasets.setdefault(name, data.record)).digest != data.digest:
            raise UserError(f"{name} is not the data of {file}; choose another --out")
        data.record = found
        if found.prompts is not None and settings.prompts is not None and found.prompts != data.prompt_identity:
            raise UserError(f"{file} was made with other prompts for {name}; choose another --out")
        for system in [each for each in SYSTEMS if each in settings.systems]:
            done = system in found.left_out or (system in found.systems and data.intact(system))
            if done or not data.try_system(system):
                continue
            result.provenance = Provenance.now()
            result_file.write(file, result.to_json())
            if on_system is not None:
                on_system(name, system, found.systems[system])
        if data.values or not found.tests:
            data.test()
        summarize(result)
        result_file.write(file, result.to_json())
        write_tables(out, result)
    return result


def _warn_of_others(file: Path, others: Mapping[str, DatasetRecord]) -> None:
    """What is taken over from an earlier run, and cannot be shown."""
    gone = [
        run_file(file.parent, name, system).name
        for name, found in others.items()
        for system in found.systems
        if not run_file(file.parent, name, system).is_file()
    ]
    if gone:
        message = f"{file} has figures of {len(gone)} runs that are not there ({few(gone)}); they are kept as they are"
        warnings.warn(message, DataWarning, stacklevel=4)


def summarize(result: BenchmarkResult) -> None:
    """Fill in averages over the data sets that all systems have, and p-values adjusted for the number of data sets."""
    datasets = result.for_average
    systems = list(dict.fromkeys(system for found in datasets.values() for system in found))
    shared = [found for found in datasets.values() if all(system in found for system in systems)]
    result.average = {
        "datasets": len(shared),
        "systems": {
            system: {metric: sum(each[system][metric] for each in shared) / len(shared) for metric in METRICS}
            for system in (systems if shared else ())
        },
    }
    result.tests = {}
    for name in [f"{system}_vs_frozen" for system in systems]:
        pairs = {data: found.tests[name].p_value for data, found in result.datasets.items() if name in found.tests}
        if len(pairs) > 1:
            result.tests[name] = dict(zip(pairs, adjust(list(pairs.values()), "holm"), strict=True))


def write_tables(out: Path, result: BenchmarkResult) -> None:
    """table.md, table.csv and table.tex: nDCG@10 x 100 of each system on each data set, and the average.

    Where test queries share documents with training queries, table.md has a second table, of the other queries.
    """
    from retrieval_prompts.evaluation import tables

    header, rows = headline_table(result)
    if not rows:
        return
    text = f"nDCG@10 x 100\n\n{tables.markdown(rows, header)}"
    unseen = {
        f"{name} ({found.unseen_documents.queries} of {found.queries})": found.unseen_documents.systems
        for name, found in result.datasets.items()
        if found.unseen_documents
    }
    if unseen:
        again, fewer = _table(unseen)
        text += f"\nOnly the queries whose relevant documents no training query has\n\n{tables.markdown(fewer, again)}"
    for name, words in (
        ("table.md", text),
        ("table.tex", tables.latex(rows, header)),
        ("table.csv", tables.csv(rows, header)),
    ):
        write_bytes(out / name, words.encode())
        list_digest(out / name)


def headline_table(result: BenchmarkResult) -> Table:
    """nDCG@10 x 100 of a benchmark: a row for each system, a column for each data set, and the average."""
    return _table(result.for_average)


def _table(datasets: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    from retrieval_prompts.evaluation.tables import systems_table

    named = {
        name: {system_title(system): found[system] for system in SYSTEMS if system in found}
        for name, found in datasets.items()
    }
    return systems_table(named, HEADLINE)
