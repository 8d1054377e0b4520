"""The fields of a request's JSON, each checked, or a refusal that says what was expected. Knows not what is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from retrieval_prompts.data.plain_texts import as_texts
from retrieval_prompts.errors import UserError, clipped, few
from retrieval_prompts.serving.limits import Limits

MOST = 500  # characters of what a refusal repeats


class Refused(Exception):
    """A request that is not answered: its status, and a line that says why."""

    def __init__(self, status: int, message: str, *, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, clipped(message, MOST), code, headers


def parsed(body: bytes, known: tuple[str, ...]) -> dict[str, Any]:
    """A JSON object with no other fields than those that are known. Raises Refused."""
    try:
        found = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refused(400, f"expected a JSON object in UTF-8: {reason}") from None
    if not isinstance(found, dict):
        raise Refused(400, f"expected a JSON object, got {kind_of(found)}")
    if others := [repr(clipped(name, 40)) for name in found if name not in known]:
        raise Refused(422, f"unknown field {few(others)}; the fields are {', '.join(known)}")
    return found


def hits_of(given: Mapping[str, Any], limits: Limits) -> int:
    """How many hits are wanted. Raises Refused."""
    k: int = value(given, "k", int, min(10, limits.k))
    if not 1 <= k <= limits.k:
        raise Refused(422, f"k must be from 1 to {limits.k}, got {k}")
    return k


def checked_texts(given: Any, name: str, limits: Limits) -> list[str]:
    """A list of texts within the limits. Raises Refused."""
    if not isinstance(given, list):
        raise Refused(422, f"expected {name} to be a list of texts, got {kind_of(given)}")
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


def share(given: Mapping[str, Any], name: str) -> float | None:
    """A number from 0 to 1; None where there is none. Raises Refused."""
    found = given.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 1:
        raise Refused(422, f"{name} must be a number from 0 to 1, got {clipped(json.dumps(found), 40)}")
    return float(found)


def strength_of(given: Mapping[str, Any], prompt: object) -> float | None:
    """Of a prompt; None where none was given. Raises Refused for what is no strength, and for one without a prompt."""
    strength = share(given, "strength")
    if strength is not None and prompt is None:
        raise Refused(422, "strength applies to a prompt; name one as well")
    return strength


def value(given: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    """A field of a kind; the default where it is absent or null. Raises Refused."""
    found = given.get(name)
    if found is None:
        return default
    if type(found) is not kind:
        words = {int: "an integer", str: "a text", bool: "true or false"}
        raise Refused(422, f"expected {name} to be {words[kind]}, got {kind_of(found)}")
    return found


def kind_of(found: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", int: "an integer", float: "a number", bool: "a boolean"}
    return kinds.get(type(found), "null")
