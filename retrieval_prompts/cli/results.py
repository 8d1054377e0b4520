"""What tune and evaluate print of a result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval_prompts.data.judgements import Qrels
    from retrieval_prompts.experiments.retrieval import RetrievalResult


def say_results(say: Any, found: RetrievalResult) -> None:
    """Print the table, the paired tests, and what to use."""
    systems = found.systems
    if systems:
        _say_tables(say, found)
    if found.recommendation is not None:
        say(f"\n{found.recommendation.sentence}")


def _say_tables(say: Any, found: RetrievalResult) -> None:
    from retrieval_prompts.evaluation.tables import metrics_table, rich_table
    from retrieval_prompts.evaluation.words import paired_tests

    systems = found.systems
    say(f"\n{found.dataset}, {found.split} (x 100)")
    header, rows = metrics_table(systems)
    say(rich_table(rows, header))
    for test in paired_tests(found.to_json()["tests"], systems):
        if test.test.unchanged < test.test.queries:  # prompts of strength 0 are the frozen model
            say(test.sentence())


def write_runs(folder: Path, found: RetrievalResult, qrels: Qrels, *, overwrite: bool = False) -> None:
    """Write <dataset>.<system>.trec for each system, the judgements and results.json into a new folder."""
    from retrieval_prompts.data.judgements import write_qrels
    from retrieval_prompts.evaluation.trec_runs import write_run
    from retrieval_prompts.files import new_folder, write_json

    with new_folder(folder, holds="results.json", overwrite=overwrite) as new:
        write_qrels(new / f"{found.dataset}.qrels.tsv", qrels)
        for system, run in found.runs.items():
            write_run(new / f"{found.dataset}.{system}.trec", run, system)
        write_json(new / "results.json", found.to_json())
