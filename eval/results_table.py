"""Print the committed results of tune_seeds.py as the Markdown table of the README.

python eval/results_table.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
HEADER = (
    "| data, queries | prompt | re-encoded | BM25 | frozen | tuned (seeds) | difference [95 %] | p |\n"
    "|---|---|---|---|---|---|---|---|"
)


def table(folder: Path = RESULTS) -> str:
    """One row a result file: nDCG@10 x 100, the mean over seeds with its standard deviation."""
    rows = [_row(json.loads(path.read_text())) for path in sorted(folder.glob("*-query*.json"))]
    rows += [_row(json.loads(path.read_text())) for path in sorted(folder.glob("*-both*.json"))]
    return "\n".join([HEADER, *rows])


def _row(result: dict[str, Any]) -> str:
    def percent(value: float, sign: str = "") -> str:
        return f"{100 * value:{sign}.1f}"

    mean, seeds = result["mean"], len(result["seeds"])
    spread = f" ± {percent(result['std']['tuned']['ndcg@10'])}" if result["std"] else ""
    test = result["tests"]["mean_over_seeds_vs_frozen"]
    settings = result["runs"][0]["settings"]
    count = test["helped"] + test["hurt"] + test["unchanged"]
    side = {"query": "query side", "both": "both sides"}[result["side"]]
    low, high = test["ci95"]
    return (
        f"| {result['dataset']}, {count} | {side}, {settings['kind']} "
        f"| {result['runs'][0]['documents_reencoded']:,} "
        f"| {percent(mean['bm25']['ndcg@10'])} | {percent(mean['frozen']['ndcg@10'])} "
        f"| **{percent(mean['tuned']['ndcg@10'])}**{spread} ({seeds}) "
        f"| {percent(test['difference'], '+')} [{percent(low, '+')}, {percent(high, '+')}] "
        f"| {max(test['p_value'], 0.0001):.4f} |"
    )


if __name__ == "__main__":
    print(table())
