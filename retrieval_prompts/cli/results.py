"""What tune and evaluate print of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval_prompts.experiments.retrieval import RetrievalResult


def say_results(say: Any, found: RetrievalResult) -> None:
    """Print the table, the paired tests, and who is best."""
    from retrieval_prompts.evaluation.tables import metrics_table, rich_table
    from retrieval_prompts.evaluation.words import paired_tests

    systems = found.systems
    if not systems:
        return
    say(f"\n{found.dataset}, {found.split} (x 100)")
    header, rows = metrics_table(systems)
    say(rich_table(rows, header))
    for test in paired_tests(found.to_json()["tests"], systems):
        say(test.sentence())
    if "bm25" in systems:
        best = max(systems, key=lambda system: systems[system]["ndcg@10"])
        if best == "bm25":
            say("BM25 is the best here")
