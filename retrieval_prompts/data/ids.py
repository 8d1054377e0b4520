"""Ids: as text, whatever type they come in; and in columns that white space divides, where what would break the columns
is percent-encoded, reversibly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from retrieval_prompts.errors import UserError

MISSING = ("", "None", "nan", "NaT", "<NA>")  # as text, of what is no text
Held = TypeVar("Held")

# White space divides columns, NUL ends C's strings, a byte order mark is taken off, half a character cannot be written
BREAKING = re.compile(r"[\s\0\ufeff\ud800-\udfff]")
ENCODED = re.compile(rf"{BREAKING.pattern}|%")


def portable(name: str) -> str:
    """A name as an id of a TREC file: white space and "%" are percent-encoded, as in an address; all else is kept.

    >>> portable("cats/my cat.jpg")
    'cats/my%20cat.jpg'
    """
    return ENCODED.sub(lambda match: quote(match[0], errors="surrogatepass"), name)


def original(id: str) -> str:
    """The name that `portable` was given.

    >>> original("cats/my%20cat.jpg")
    'cats/my cat.jpg'
    """
    return unquote(id, errors="surrogatepass")


def breaks(id: str) -> bool:
    """Whether an id cannot stand in a column as it is."""
    return BREAKING.search(id) is not None


def id_text(value: Any) -> str | None:
    """An id of any type as text, bytes as UTF-8; None for a missing value: None, NaN, an empty text.

    >>> id_text(7), id_text(b"d7"), id_text("None"), id_text(None), id_text(float("nan"))
    ('7', 'd7', 'None', None, None)
    """
    if isinstance(value, str):
        return str(value) or None
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return None if text in MISSING else text


def id_texts(values: Iterable[Any], where: object) -> list[str]:
    """Ids as text.

    Raises:
        UserError: for a missing one, with its position.
    """
    found = [id_text(each) for each in values]
    if None in found:
        raise UserError(
            f"{where}: expected an id for each, got none at {found.count(None):,} of {len(found):,} places, the first "
            f"at {found.index(None)} (counted from 0); fill them in, or leave their rows out"
        )
    return [each for each in found if each is not None]


def by_id(given: Mapping[Any, Held], what: str) -> dict[str, Held]:
    """A dictionary by ids as text.

    Raises:
        UserError: for a missing id, and for two that are the same as text.
    """
    found: dict[str, Held] = {}
    for id, (key, value) in zip(id_texts(given, what), given.items(), strict=True):
        if id in found:
            raise UserError(f"{what}: {key!r} and another key are both the id {id!r}; give each an id of its own")
        found[id] = value
    return found
