"""The libraries that a vector depends on beside its model: their versions, noted in an index and compared with today's.

They are no part of a fingerprint, because most releases change no vector, or only its last digits.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

# What passes, tokens, decoded and scaled pictures, and compressed vectors depend on
LIBRARIES = ("torch", "transformers", "tokenizers", "sentence-transformers", "open_clip_torch", "Pillow", "faiss-cpu")


def versions() -> dict[str, str]:
    """Library -> its version, of those that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def created_with() -> str:
    """This package and its version."""
    try:
        return f"retrieval-prompts {version('retrieval-prompts')}"
    except PackageNotFoundError:  # run from a source tree
        return "retrieval-prompts"


def changed(noted: Any) -> list[str]:
    """What is to be said of libraries that are of another release now, "torch 2.13.0 (2.14.1 here)"; the third number
    of a version, which is that of repairs, does not count."""
    now = versions()
    return [
        f"{name} {then} ({now[name]} here)"
        for name, then in (noted if isinstance(noted, dict) else {}).items()
        if isinstance(then, str) and name in now and _release(then) != _release(now[name])
    ]


def _release(version: str) -> list[str]:
    return version.split("+")[0].split(".")[:2]
