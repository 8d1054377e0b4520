"""Where a result comes from: when it was made, with which version, and by which command."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

from retrieval_prompts.errors import encodable, without_passwords

COMMAND: ContextVar[str] = ContextVar("COMMAND", default="")  # which this process runs; set by the command lines


@dataclass(frozen=True)
class Provenance:
    """Of a result; empty for what was made before this was kept.

    Args:
        date: ISO 8601, in local time with its offset.
        version: of this package.
        command: as it was typed; empty where there was none, as in Python.
    """

    date: str = ""
    version: str = ""
    command: str = ""

    @classmethod
    def now(cls) -> Self:
        package = sys.modules[__name__.partition(".")[0]]  # which no floor below it may import
        return cls(datetime.now().astimezone().isoformat(timespec="seconds"), package.__version__, COMMAND.get())

    @classmethod
    def recorded(cls, result: Mapping[str, Any]) -> Self:
        """What a result says of itself."""
        found = result.get("provenance")
        known = found if isinstance(found, Mapping) else {}
        return cls(**{name: str(known.get(name, "")) for name in cls.__dataclass_fields__})

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def typed(arguments: Sequence[str]) -> str:
    """Arguments as a line that a shell reads as they were; passwords in addresses are left out, and bytes of a file's
    name that are no text are written as escapes.

    >>> typed(["search", "a question", "--in", "pgvector:postgresql://me:secret@host/db#table"])
    "search 'a question' --in 'pgvector:postgresql://me@host/db#table'"
    """
    return without_passwords(encodable(shlex.join(arguments)))
