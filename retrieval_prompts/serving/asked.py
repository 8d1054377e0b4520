"""Bodies of requests -> rows of a batch, or a refusal that says what was expected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retrieval_prompts.data.plain_texts import as_texts
from retrieval_prompts.errors import UserError, clipped, few
from retrieval_prompts.serving.answering import Query
from retrieval_prompts.serving.limits import Limits
from retrieval_prompts.serving.served import Loaded, Shelf

SEARCH = ("query", "queries", "k", "prompt", "strength", "bm25_weight", "text", "frozen")
MOST = 500  # characters of what a refusal repeats


class Refused(Exception):
    """A request that is not answered: its status, and a line that says why."""

    def __init__(self, status: int, message: str, *, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, clipped(message, MOST), code, headers


@dataclass(frozen=True)
class Search:
    """What a search asked for: its rows, whether it was one query and not a list, and whether texts are wanted."""

    rows: list[Query]
    prompt: Loaded | None
    single: bool
    text: bool


def parsed(body: bytes, known: tuple[str, ...]) -> dict[str, Any]:
    """A JSON object with no other fields than those that are known. Raises Refused."""
    try:
        found = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refused(400, f"expected a JSON object in UTF-8: {reason}") from None
    if not isinstance(found, dict):
        raise Refused(400, f"expected a JSON object, got {_kind(found)}")
    if others := [repr(clipped(name, 40)) for name in found if name not in known]:
        raise Refused(422, f"unknown field {few(others)}; the fields are {', '.join(known)}")
    return found


def search_of(body: bytes, shelf: Shelf, limits: Limits) -> Search:
    """Raises Refused, and UserError for prompts that there are not."""
    given = parsed(body, SEARCH)
    if ("query" in given) == ("queries" in given):
        raise Refused(422, "expected either query, a text, or queries, a list of texts")
    single = "query" in given
    texts = checked_texts([given["query"]] if single else given["queries"], "query" if single else "queries", limits)
    k = value(given, "k", int, min(10, limits.k))
    if not 1 <= k <= limits.k:
        raise Refused(422, f"k must be from 1 to {limits.k}, got {k}")
    prompt = shelf.get(value(given, "prompt", str, None))
    strength = strength_of(given, prompt)
    weight = share(given, "bm25_weight")
    if weight and shelf.searcher.hybrid is None:
        raise Refused(422, f"the index holds no words for a bm25_weight of {weight:g}; leave it out")
    beside = value(given, "frozen", bool, False)
    if beside:
        shelf.get(None)
    weight = shelf.weight(prompt) if weight is None else weight
    rows = [Query(text, prompt, strength, k, weight, beside) for text in texts]
    return Search(rows, prompt, single, value(given, "text", bool, False))


def checked_texts(given: Any, name: str, limits: Limits) -> list[str]:
    """A list of texts within the limits. Raises Refused."""
    if not isinstance(given, list):
        raise Refused(422, f"expected {name} to be a list of texts, got {_kind(given)}")
    if not 1 <= len(given) <= limits.queries:
        raise Refused(422, f"expected from 1 to {limits.queries} texts in {name}, got {len(given)}")
    try:
        texts = as_texts(given)
    except UserError as error:
        raise Refused(422, f"{name}: {error}") from None
    for position, text in enumerate(texts):
        where = f"{name}: the text at position {position}" if len(texts) > 1 else name
        if not text.strip():
            raise Refused(422, f"{where} is empty; write what you look for")
        if len(text) > limits.text:
            raise Refused(422, f"{where} has {len(text):,} characters; at most {limits.text:,} are read")
    return texts


def strength_of(given: Mapping[str, Any], prompt: Loaded | None) -> float | None:
    """Raises Refused for what is no strength, and for one without prompts or other than that of the documents."""
    strength = share(given, "strength")
    if strength is None:
        return None
    if prompt is None:
        raise Refused(422, "strength applies to a prompt; name one as well")
    if prompt.both_sides and strength != prompt.biencoder.strength:
        own = prompt.biencoder.strength
        raise Refused(422, f"the documents were encoded with this prompt at strength {own:g}; leave strength out")
    return strength


def share(given: Mapping[str, Any], name: str) -> float | None:
    """A number from 0 to 1; None where there is none. Raises Refused."""
    found = given.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 1:
        raise Refused(422, f"{name} must be a number from 0 to 1, got {clipped(json.dumps(found), 40)}")
    return float(found)


def value(given: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    """A field of a kind; the default where it is absent or null. Raises Refused."""
    found = given.get(name)
    if found is None:
        return default
    if type(found) is not kind:
        words = {int: "an integer", str: "a text", bool: "true or false"}
        raise Refused(422, f"expected {name} to be {words[kind]}, got {_kind(found)}")
    return found


def _kind(found: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", int: "an integer", float: "a number", bool: "a boolean"}
    return kinds.get(type(found), "null")
