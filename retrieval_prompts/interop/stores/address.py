"""Where a store is, as people write it: qdrant:PATH#collection."""

from __future__ import annotations

import re
from dataclasses import dataclass

from retrieval_prompts.errors import UserError

KINDS = ("qdrant", "lancedb", "milvus", "pgvector")
PASSWORD = re.compile(r"password\s*=\s*('(?:\\.|[^'\\])*'|[^\s&]*)")
FORM = "KIND:PLACE#NAME, such as qdrant:PATH#collection"


@dataclass(frozen=True)
class Address:
    """Where a store is: its kind, the place that its client opens, and the collection or table."""

    kind: str
    place: str
    name: str

    @property
    def shown(self) -> str:
        """Without a password, as it may be kept and said."""
        place = re.sub(r"(://[^/@:?#]*):[^/?#]*@", r"\1@", self.place)
        if self.kind == "pgvector" and "://" not in place:  # forgotten
            place = re.sub(r"^([^:@=]*):.*@", r"\1@", place)
        return f"{self.kind}:{PASSWORD.sub('', place)}#{self.name}"


@dataclass(frozen=True)
class Fields:
    """Which fields hold id and vector; None: by their usual names. `dimension`: makes the collection if it lacks."""

    id: str | None = None
    vector: str | None = None
    dimension: int | None = None


def is_address(text: object) -> bool:
    """Whether it names a store, not a file."""
    return isinstance(text, str) and text.partition(":")[0] in KINDS


def parse(text: str) -> Address:
    """Raises UserError for what is no address."""
    kind, _, rest = text.partition(":")
    place, _, name = rest.rpartition("#")
    if kind not in KINDS or not place or not name:
        came = re.sub(":.*@", ":***@", text)
        raise UserError(f"expected the address of a store as {FORM}, with one of {', '.join(KINDS)}; got {came}")
    return Address(kind, place, name)
