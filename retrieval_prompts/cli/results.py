"""What tune and evaluate print of a result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval_prompts.data.judgements import Qrels
    from retrieval_prompts.experiments.retrieval import RetrievalResult
    from retrieval_prompts.experiments.selection.sweep import Sweep


def say_results(say: Any, found: RetrievalResult) -> None:
    """Print the table, the paired tests, and what to use."""
    systems = found.systems
    if systems:
        _say_tables(say, found)
    if found.recommendation is not None:
        say(f"\n{found.recommendation.sentence}")


def say_sweep(say: Any, swept: Sweep) -> None:
    """Print what each strength changes, and the best trade."""
    from retrieval_prompts.evaluation.tables import rich_table

    header, rows = swept.table()
    say("\nchange of nDCG@10 (x 100) against the frozen model")
    say(rich_table(rows, header))
    for sentence in swept.sentences():
        say(sentence)


def _say_tables(say: Any, found: RetrievalResult) -> None:
    from retrieval_prompts.evaluation.tables import metrics_table, rich_table
    from retrieval_prompts.evaluation.words import paired_tests

    systems = found.systems
    say(f"\n{found.dataset}, {found.split} (x 100)")
    header, rows = metrics_table(systems)
    say(rich_table(rows, header))
    said = _pairs(systems)
    for test in paired_tests(found.to_json()["tests"], systems):
        # Prompts of strength 0 are the frozen model
        if (test.system, test.baseline) in said and test.test.unchanged < test.test.queries:
            say(test.sentence())


def _pairs(systems: Mapping[str, Mapping[str, float]]) -> set[tuple[str, str]]:
    """The tests that are put into words: all are in the JSON and on the page."""
    from retrieval_prompts.evaluation.metrics import HEADLINE
    from retrieval_prompts.experiments.workbench import UNTUNED

    def best(names: Iterable[str]) -> list[str]:
        there = [name for name in names if name in systems]
        return [max(there, key=lambda name: systems[name][HEADLINE])] if there else []

    with_prompts, without = best(("tuned", "tuned+bm25")), best(UNTUNED)
    return {("tuned", "frozen"), ("frozen+bm25", "frozen"), *product(with_prompts, without)}


def write_runs(folder: Path, found: RetrievalResult, qrels: Qrels, *, overwrite: bool = False) -> None:
    """Write <dataset>.<system>.trec for each system, the judgements and results.json into a new folder."""
    from retrieval_prompts.data.judgements import write_qrels
    from retrieval_prompts.evaluation.trec_runs import write_run
    from retrieval_prompts.files import RUNS, list_digest, new_folder, sealed, write_json

    with new_folder(folder, holds=RUNS, overwrite=overwrite) as new:
        write_qrels(new / f"{found.dataset}.qrels.tsv", qrels)
        for system, run in found.runs.items():
            write_run(new / f"{found.dataset}.{system}.trec", run, system)
        write_json(new / "results.json", sealed(found.to_json()))
        list_digest(new / "results.json")
