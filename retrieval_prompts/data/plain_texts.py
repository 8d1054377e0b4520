"""Texts as people hand them over (a list, an array, a column, a generator) -> a list of strings, each one checked."""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping, Set
from typing import Any

from retrieval_prompts.errors import UserError


def as_texts(texts: Iterable[Any], *, first: int = 0) -> list[str]:
    """The texts in their order, as plain strings.

    Args:
        texts: a sequence, an array, a column of a table or an iterator, read once.
        first: the position of the first one, for messages.

    Raises:
        UserError: for what is no such thing, and for an element that is no text (None, a missing value, a number,
            bytes, a list) or that holds half a surrogate, with its position.
    """
    # A set has no order, and a table would give the names of its columns
    odd = hasattr(texts, "columns") or (isinstance(texts, Set) and not isinstance(texts, KeysView))
    if odd or isinstance(texts, str | bytes | bytearray | Mapping) or not hasattr(texts, "__iter__"):
        raise UserError(f"expected a list of texts, got {_named(texts)}; pass a string, or strings in a list")
    given = list(texts)
    return [text if type(text) is str and text.isascii() else _text(text, first + at) for at, text in enumerate(given)]


class Texts:
    """Texts that are read a stretch at a time, as those of a corpus are.

    Raises:
        UserError: as `as_texts` does.
    """

    def __init__(self, texts: Iterable[Any]) -> None:
        self._texts = as_texts(texts)

    def __len__(self) -> int:
        return len(self._texts)

    def contents(self, start: int, stop: int) -> list[str]:
        """The texts start <= position < stop."""
        return self._texts[start:stop]


def one_or_many(texts: Any) -> str | list[str]:
    """A single text as it is, or the list of `as_texts`.

    Raises:
        UserError: as that does.
    """
    if getattr(texts, "ndim", None) == 0:  # an array without dimensions
        texts = texts.item()
    return str(texts) if isinstance(texts, str) else as_texts(texts)


def _text(given: Any, position: int) -> str:
    if not isinstance(given, str):
        raise UserError(
            f"expected a text at position {position} (counted from 0), got {_named(given)}; leave it out, or make it a "
            "string"
        )
    text = str(given)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"the text at position {position} (counted from 0) has half a surrogate pair, {text[error.start]!a}, which "
            "is not a character; decode its source as UTF-8 or UTF-16, or leave it out"
        ) from None
    return text


def _named(value: Any) -> str:
    """For messages: None, or what kind of value it is, with a number itself."""
    if value is None:
        return "None"
    return f"the {type(value).__name__} {value}" if isinstance(value, int | float) else type(value).__name__
