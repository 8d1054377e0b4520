"""What script.js reads: the queries, rankings and documents of a section, bounded in size, as JSON that cannot break
out of its script element. Knows no HTML beyond that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.words import metric_name, system_name
from retrieval_prompts.report.content import Item, Query, Section
from retrieval_prompts.report.summary import pair

RANKED = 1_000  # queries of a section that keep their rankings
LISTED = 10_000  # queries of a section in the list
HITS = 10  # of each ranking
RELEVANT = 20  # relevant documents of a query
TEXT = 600  # characters of a text
SHORTEST = 120  # where there are many documents
BUDGET = 6_000_000  # characters of all documents of a section


def payload(section: Section) -> dict[str, Any]:
    """The section as script.js reads it. Lists instead of objects where there are many; documents are numbered.

    "queries": [id, text, score of each system or null, relevant or null, rankings or null, picture]; "relevant":
    [document, grade, rank in each system or null]; "rankings": of each system [document, score]. The queries with the
    largest changes come first; the first RANKED of them have rankings.

    Raises:
        UserError: for a picture that is not a data: address.
    """
    systems = scored_systems(section)
    numbers: dict[str, int] = {}
    queries = []
    for place, query in enumerate(by_change(section)[:LISTED]):
        row: list[Any] = [query.id, cut(query.text), [_round(query.scores.get(name)) for name in systems]]
        if place < RANKED:
            row += [_relevant(query, systems, numbers), _rankings(query, systems, numbers)]
            row += [picture(query.picture, f"query {query.id!r}")] if query.picture else []
        queries.append(row)
    limit = max(SHORTEST, min(TEXT, BUDGET // max(1, len(numbers))))
    baseline, system = compared(section) or (systems[:1] * 2 if systems else ("", ""))
    return {
        "name": section.name,
        "metric": metric_name(section.metric),
        "unit": list(section.unit),
        "systems": [[name, system_name(name)] for name in systems],
        "baseline": baseline,
        "system": system,
        "queries": queries,
        "documents": [_document(id, section.documents, limit) for id in numbers],
    }


def by_change(section: Section) -> list[Query]:
    """The queries, the largest change first whichever way it goes; equal ones in their own order."""
    chosen = compared(section)
    return sorted(section.queries, key=lambda query: -abs(change(query, chosen)))


def change(query: Query, chosen: tuple[str, str] | None) -> float:
    """What the second system changes for this query; 0 where that is not known."""
    if chosen is None or not all(name in query.scores for name in chosen):
        return 0.0
    return query.scores[chosen[1]] - query.scores[chosen[0]]


def compared(section: Section) -> tuple[str, str] | None:
    """(baseline, system) whose changes are listed: the section's own pair, where its queries have scores of both."""
    chosen, scored = pair(section), scored_systems(section)
    if chosen is not None and set(chosen) <= set(scored):
        return chosen
    return (scored[0], scored[1]) if len(scored) > 1 else None


def scored_systems(section: Section) -> list[str]:
    """The systems that say something about single queries, in the order of the section's table."""
    names = dict.fromkeys(name for query in section.queries for name in (*query.scores, *query.rankings))
    known = [name for name in section.systems if name in names]
    return known + [name for name in names if name not in known]


def embedded(value: Any) -> str:
    """JSON in which no HTML parser finds a tag, a comment or an entity."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def cut(text: str, limit: int = TEXT) -> str:
    """The text on one line, cut at `limit` characters."""
    text = " ".join(text[: 4 * limit].split())
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…"


def picture(address: str, of: str) -> str:
    """The data: address of a picture.

    Raises:
        UserError: for another one: a report loads nothing from anywhere.
    """
    if address and not address.startswith("data:image/"):
        raise UserError(f"the picture of {of} must be a data:image/ address, got {address[:40]!r}")
    return address


def _relevant(query: Query, systems: list[str], numbers: dict[str, int]) -> list[Any]:
    ranks = {
        name: {id: rank for rank, (id, _) in enumerate(query.rankings.get(name, ()), 1) if id in query.relevant}
        for name in systems
    }
    ordered = sorted(query.relevant.items(), key=lambda item: -item[1])
    rows = [
        [_number(id, numbers), grade, [ranks[name].get(id) for name in systems]] for id, grade in ordered[:RELEVANT]
    ]
    # Those beyond the limit are still marked where they are found
    top = {id for hits in query.rankings.values() for id, _ in hits[:HITS]}
    return rows + [[_number(id, numbers), grade, None] for id, grade in ordered[RELEVANT:] if id in top]


def _rankings(query: Query, systems: list[str], numbers: dict[str, int]) -> list[Any]:
    return [
        [[_number(id, numbers), _round(score)] for id, score in query.rankings[name][:HITS]]
        if name in query.rankings
        else None
        for name in systems
    ]


def _number(id: str, numbers: dict[str, int]) -> int:
    return numbers.setdefault(id, len(numbers))


def _document(id: str, documents: Mapping[str, Item], limit: int) -> list[str]:
    item = documents.get(id, Item())
    row = [id, cut(item.title), cut(item.text, limit)]
    return [*row, picture(item.picture, f"document {id!r}")] if item.picture else row


def _round(value: float | None) -> float | None:
    return float(f"{value:.4g}") if value is not None and math.isfinite(value) else None
