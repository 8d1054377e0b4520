"""What a user reads when something is wrong: one line that says what was expected, what came, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable

# In an address, also one that a path has made of it, from the user's name to the last @; and as an option
PASSWORD = re.compile(r"(\w:/{1,2}[^\s/@:?#]*):\S*@|\b((?:ssl)?passw(?:or)?d\s*=\s*)('(?:\\.|[^'\\])*'|[^\s&'\"]+)")
UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


LONGEST = 2000  # characters of a message


class UserError(ValueError):
    """A mistake in the user's input. The command line prints it as one line and exits with status 2.

    What a message quotes may be of any length, and hold a password; the message is not and does not.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(clipped(without_passwords(str(message)), LONGEST))


class MissingPackage(UserError):
    """What was asked for needs a package that is not installed; the message says how to install it."""


class Diverged(UserError):
    """Training that went out of the finite numbers; what was trained holds its best weights so far."""


class DataWarning(UserWarning):
    """Input that is used although part of it is odd; the message counts what is odd and names a few."""


def out_of_memory(error: Exception) -> bool:
    """Whether a device, or the machine, had no memory left: torch says it in several ways."""
    signs = ("out of memory", "cublas_status_alloc_failed", "can't allocate memory", "not enough memory")
    said = str(error).lower()
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return known or (isinstance(error, RuntimeError) and any(sign in said for sign in signs))


def few(names: Iterable[str], between: str = ", ") -> str:
    """For messages: at most three different names, then how many more.

    >>> few("abracadabra")
    'a, b, r and 2 more'
    """
    different = list(dict.fromkeys(names))
    more = f" and {len(different) - 3} more" if len(different) > 3 else ""
    return between.join(clipped(name, 400) for name in different[:3]) + more


def clipped(text: str, most: int) -> str:
    """A text of at most so many characters: without its middle, where it is longer.

    >>> clipped("abcdefghijkl", 8)
    'abcd ... kl'
    """
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-(most // 4) :]}"


def without_passwords(text: str) -> str:
    """For messages: without the passwords of addresses, however they are written.

    >>> without_passwords("postgresql://me:se/cr@et@host/db and password='a b' host=h")
    'postgresql://me@host/db and password=*** host=h'
    """
    return PASSWORD.sub(lambda match: f"{match[1]}@" if match[1] else f"{match[2]}***", text)


def shown(text: str) -> str:
    r"""For terminals: control characters, which could move the cursor or rename the window, those that turn the
    direction of text, and what is not a character, as escapes. Line breaks and tabs stay.

    >>> shown("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return UNSHOWN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def encodable(text: str) -> str:
    r"""What is not a character, such as a byte of a file's name that is not UTF-8, as an escape.

    >>> encodable("caf\udce9.txt")
    'caf\\udce9.txt'
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def first_line(error: Exception) -> str:
    """For messages: what someone else's error says first, or its kind where it says nothing."""
    return clipped((str(error).strip().splitlines() or [type(error).__name__])[0], 400)
