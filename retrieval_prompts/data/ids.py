"""Ids in columns that white space divides: what would break the columns is percent-encoded, reversibly."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

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
