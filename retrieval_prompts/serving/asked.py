"""Bodies of requests -> rows of a batch, or a refusal that says what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retrieval_prompts.serving.answering import Query
from retrieval_prompts.serving.fields import Refused, checked_texts, hits_of, parsed, share, strength_of, value
from retrieval_prompts.serving.limits import Limits
from retrieval_prompts.serving.served import Loaded, TextShelf

SEARCH = ("query", "queries", "k", "prompt", "strength", "bm25_weight", "text", "frozen")


@dataclass(frozen=True)
class Search:
    """What a search asked for: its rows, whether it was one query and not a list, and whether texts are wanted."""

    rows: list[Query]
    prompt: Loaded | None
    single: bool
    text: bool


def search_of(body: bytes, shelf: TextShelf, limits: Limits) -> Search:
    """Raises Refused, and UserError for prompts that there are not."""
    given = parsed(body, SEARCH)
    if ("query" in given) == ("queries" in given):
        raise Refused(422, "expected either query, a text, or queries, a list of texts")
    single = "query" in given
    texts = checked_texts([given["query"]] if single else given["queries"], "query" if single else "queries", limits)
    k = hits_of(given, limits)
    prompt = shelf.get(value(given, "prompt", str, None))
    strength = query_strength(given, prompt)
    weight = share(given, "bm25_weight")
    if weight and shelf.searcher.hybrid is None:
        raise Refused(422, f"the index holds no words for a bm25_weight of {weight:g}; leave it out")
    beside = value(given, "frozen", bool, False)
    if beside:
        shelf.get(None)
    weight = shelf.weight(prompt) if weight is None else weight
    rows = [Query(text, prompt, strength, k, weight, beside) for text in texts]
    return Search(rows, prompt, single, value(given, "text", bool, False))


def query_strength(given: Mapping[str, Any], prompt: Loaded | None) -> float | None:
    """As `strength_of`. Raises Refused also for another than that of the documents."""
    strength = strength_of(given, prompt)
    if strength is not None and prompt is not None and prompt.both_sides and strength != prompt.strength:
        own = prompt.strength
        raise Refused(422, f"the documents were encoded with this prompt at strength {own:g}; leave strength out")
    return strength
