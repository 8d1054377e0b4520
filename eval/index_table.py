"""Print the committed results of compare_indexes.py as the Markdown tables of the README.

python eval/index_table.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from retrieval_prompts.experiments.indexes.index_tradeoffs import label

RESULTS = Path(__file__).parent / "results"


def speed(file: Path = RESULTS / "indexes-sentences.json") -> str:
    """A row an index type, at its most thorough setting, with the frozen model's queries."""
    result = json.loads(file.read_text())
    lines = [
        "| index | setting | bytes a vector | built in | recall@10 | queries a second |",
        "|---|---|---|---|---|---|",
    ]
    for row in thorough(row for row in result["rows"] if row["queries"] == "frozen"):
        lines.append(
            f"| {row['factory']} | {label(row['setting'])} | {row['bytes_per_vector']:,.0f} "
            f"| {row['build_seconds']:.1f} s | {100 * row['recall']:.1f} | {row['queries_per_second']:,.0f} |"
        )
    return "\n".join(lines)


def gains(file: Path = RESULTS / "indexes-scifact.json") -> str:
    """A row an index type, at its most thorough setting: what tuned queries gain on it over frozen ones."""
    result = json.loads(file.read_text())
    names = list(result["prompts"])
    lines = [
        f"| index | setting | recall@10 frozen | {' | '.join(f'gain, {name}' for name in names)} |",
        f"|---|---|---{'|---' * len(names)}|",
    ]
    recall = {key(row): row["recall"] for row in result["rows"] if row["queries"] == "frozen"}
    tests = {(key(test), test["queries"]): test for test in result["tests"]}
    for row in thorough(test for test in result["tests"] if test["queries"] == names[0]):
        cells = [_gain(tests[key(row), name]) for name in names]
        lines.append(
            f"| {row['factory']} | {label(row['setting'])} | {100 * recall[key(row)]:.1f} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def key(row: dict[str, Any]) -> tuple[str, str]:
    return row["factory"], label(row["setting"])


def thorough(rows: Any) -> list[dict[str, Any]]:
    """The last setting of each index type: they go from the fastest to the most thorough."""
    return list({row["factory"]: row for row in rows}.values())


def _gain(test: dict[str, Any]) -> str:
    """The gain in points of nDCG@10; where it differs from that of exact search, by how much, with the interval."""
    lost, (low, high) = test["gain_lost"]["difference"], test["gain_lost"]["ci95"]
    cell = f"{100 * test['gain']['difference']:+.1f}"
    if round(100 * lost, 1) == 0:
        return cell
    return f"{cell} ({100 * lost:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}])"


def main() -> None:
    print(f"{speed()}\n\n{gains()}")


if __name__ == "__main__":
    main()
