"""A report of a few made-up queries whose every number can be checked by hand."""

from __future__ import annotations

from typing import Any

from retrieval_prompts.report.content import Curve, Item, Query, Report, Section

PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


def comparison(difference: float = 0.1, p: float = 0.01, **more: Any) -> dict[str, Any]:
    """What `evaluate.Comparison.as_dict` gives, with an interval of 0.05 to either side."""
    values = {"metric": "ndcg@10", "difference": difference, "ci95": [difference - 0.05, difference + 0.05]}
    return {**values, "p_value": p, "helped": 6, "hurt": 2, "unchanged": 42, **more}


def query(number: int, frozen: float, tuned: float, **more: Any) -> Query:
    """Query qN about document dN, which stands first for tuned and third for frozen."""
    right, others = f"d{number}", [f"x{other}" for other in range(12)]
    return Query(
        **{
            "id": f"q{number}",
            "text": f"question number {number}",
            "relevant": {right: 1},
            "rankings": {
                "frozen": [(id, 0.9 - rank / 20) for rank, id in enumerate([*others[:2], right, *others[2:]])],
                "tuned": [(id, 0.9 - rank / 20) for rank, id in enumerate([right, *others])],
            },
            "scores": {"frozen": frozen, "tuned": tuned},
            **more,
        }
    )


def section(count: int = 40, **more: Any) -> Section:
    """Queries in turn helped by 50 points, hurt by 25, unchanged and unchanged."""
    scores = [(0.5, 1.0), (0.75, 0.5), (0.25, 0.25), (1.0, 1.0)]
    queries = [query(number, *scores[number % 4]) for number in range(count)]
    documents = {f"d{number}": Item(f"Title of d{number}", f"text of document {number}") for number in range(count)}
    documents |= {f"x{number}": Item("", f"another text, number {number}") for number in range(12)}
    parts: dict[str, Any] = {
        "name": "toy",
        "split": "test",
        "metric": "ndcg@10",
        "systems": {"frozen": {"ndcg@10": 0.625}, "tuned": {"ndcg@10": 0.6875}},
        "tests": {"tuned_vs_frozen": comparison(0.0625, helped=10, hurt=10, unchanged=20)},
        "queries": queries,
        "documents": documents,
        "facts": ["52 documents"],
        "loss": [Curve("loss", [(1.0, 2.0), (2.0, 1.5), (3.0, 1.25)])],
        "dev": [Curve("dev", [(0.0, 0.5), (3.0, 0.625)])],
        "words": {"query": [[("fox", 0.31), ("dog", -0.2)]]},
    }
    return Section(**{**parts, **more})


def report(*sections: Section, **more: Any) -> Report:
    return Report(**{"title": "A toy report", "sections": sections or (section(),), "facts": ["seed 0"], **more})
