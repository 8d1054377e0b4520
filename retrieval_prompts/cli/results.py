"""What tune and evaluate print of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval_prompts.experiments.retrieval import Experiment


def say_results(say: Any, found: Experiment) -> None:
    """Print the table, the paired tests, and who is best."""
    from retrieval_prompts.evaluation.metrics import table

    systems = found.result["systems"]
    if not systems:
        return
    say(f"\n{found.result['dataset']}, {found.result['split']} (x 100)")
    say(table(systems))
    for name, test in found.result["tests"].items():
        low, high = test["ci95"]
        count = test["helped"] + test["hurt"] + test["unchanged"]
        baseline = "BM25" if name == "tuned_vs_bm25" else "frozen"
        seen = name.removeprefix(f"tuned_vs_{baseline.lower()}")
        which = f" on the {count} queries whose documents no training query had" if seen else ""
        verdict = "a significant" if test["p_value"] < 0.05 else "no significant"
        say(
            f"tuned - {baseline}{which}, {test['metric']}: {100 * test['difference']:+.1f} [{100 * low:+.1f}, "
            f"{100 * high:+.1f}], p = {test['p_value']:.4f}: {verdict} difference; {test['helped']} helped, "
            f"{test['hurt']} hurt, {test['unchanged']} unchanged"
        )
    if "bm25" in systems:
        best = max(systems, key=lambda system: systems[system]["ndcg@10"])
        if best == "bm25":
            say("BM25 is the best here")
