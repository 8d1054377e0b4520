"""The ids of a corpus in the bytes of a JSON list, in memory or mapped: a few dozen bytes each, where Python's strings,
a list of them and a dictionary take 200; none of those that lie on disk and are not asked for."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from retrieval_prompts.errors import UserError

HELD = 200_000  # so many, or fewer, are kept as Python's strings once they are asked for, which is faster
STRETCH = 8192  # ids that are read at once
CHECKED = 1 << 20  # ids that are checked at once
LARGE = 1 << 31  # bytes of a list of which the ends alone are checked when it is opened
QUOTE = ord('"')
NO_LIST = "ids.json is not a list of ids"


class IdList(Sequence[str]):
    """Ids in an order, that says where one stands; equal to a list of the same."""

    @abstractmethod
    def position(self, id: str) -> int | None:
        """Where an id stands; None for one that is not there."""

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self.position(id) is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(own == each for own, each in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class Ids(IdList):
    """Those of a corpus, or of an index.

    Args:
        content: the bytes of a JSON list of strings, as `json.dumps` writes it.
        starts: (n,) where each string's first quote is.
        lookup: (2, n) the ids' checksums (see `id_check`), ascending, and their positions; None: made when needed.
        where: for messages.
    """

    def __init__(
        self,
        content: NDArray[np.uint8],
        starts: NDArray[Any],
        lookup: NDArray[Any] | None = None,
        where: str = "the ids",
    ) -> None:
        self.content, self.starts, self.where = content, starts, where
        self._lookup = lookup

    @classmethod
    def of(cls, ids: Iterable[str]) -> Ids:
        """Ids that a program holds; those that are such a sequence already, as they are."""
        if isinstance(ids, Ids):
            return ids
        growing = GrowingIds()
        for id in ids:
            growing.add(id)
        return growing.whole()

    @classmethod
    def checked(cls, content: NDArray[np.uint8], table: NDArray[Any], where: str) -> Ids:
        """Of two files (see `table`); of large ones the first and the last are checked.

        Raises:
            ValueError: where they do not belong together.
        """
        if table.shape[0] != 3:
            raise ValueError(f"the table of ids has {table.shape[0]} rows")
        starts, size = table[0], len(content)
        parts = range(0, len(starts), CHECKED)
        if not parts and content.tobytes() != b"[]":
            raise ValueError(NO_LIST)
        for start in parts if size <= LARGE or not parts else {parts[0], parts[-1]}:
            begins = starts[start : start + CHECKED].astype(np.int64)
            behind = starts[start + CHECKED : start + CHECKED + 1].astype(np.int64)
            ends = np.concatenate([begins[1:], behind if len(behind) else [size + 1]])  # of `"an id", `
            sound = begins[0] == 1 if start == 0 else begins[0] > 1
            if not (sound and (ends - begins >= 4).all() and ends[-1] <= size + 1):
                raise ValueError(NO_LIST)
            if (content[begins] != QUOTE).any() or (content[ends - 3] != QUOTE).any():
                raise ValueError(NO_LIST)
        return cls(content, starts, table[1:], where)

    @overload
    def __getitem__(self, at: SupportsIndex) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> list[str]: ...

    def __getitem__(self, at: SupportsIndex | slice) -> str | list[str]:
        if self._held is not None:
            return self._held[at]
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            if step == 1:
                return self._stretch(start, stop)
            return [self[number] for number in range(start, stop, step)]
        return self._stretch(place := range(len(self))[at], place + 1)[0]

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[str]:
        if self._held is not None:
            yield from self._held
            return
        for start in range(0, len(self), STRETCH):
            yield from self._stretch(start, start + STRETCH)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Ids) and (self is other or self._same_bytes(other)):
            return True
        return super().__eq__(other)

    __hash__ = None

    def __repr__(self) -> str:
        return f"Ids({list(self[:3])}{', ...' if len(self) > 3 else ''})"

    def position(self, id: str) -> int | None:
        if self._places is not None:
            return self._places.get(id)
        checks, places = self.lookup
        key = np.uint64(id_check(id))
        at = int(np.searchsorted(checks, key))
        while at < len(self) and checks[at] == key:
            place = int(places[at])
            if place < len(self) and self[place] == id:
                return place
            at += 1
        return None

    def repeated(self) -> dict[str, int]:
        """Ids that stand there more than once, and how often."""
        if self._held is not None:
            if len(set(self._held)) == len(self):
                return {}
            counted = Counter(self._held)
        else:
            checks, places = self.lookup
            twice = np.flatnonzero(checks[1:] == checks[:-1])
            counted = Counter(self[int(places[at])] for at in np.unique([twice, twice + 1]))
        return {id: count for id, count in counted.items() if count > 1}

    @property
    def lookup(self) -> NDArray[Any]:
        """(2, n): checksums of the ids, ascending, and their positions."""
        if self._lookup is None:
            checks = np.fromiter((id_check(id) for id in self), np.uint64, len(self))
            found = np.empty((2, len(self)), dtype=np.uint64)
            found[1] = np.argsort(checks, kind="stable")
            np.take(checks, found[1].view(np.int64), out=found[0])
            self._lookup = found
        return self._lookup

    def save(self, path: Path, table: Path) -> None:
        """Write the list as JSON, and beside it a table, uint64 (3, n): `starts` and `lookup`."""
        with path.open("wb") as file:
            self.content.tofile(file)
        with table.open("wb") as file:
            head = {"descr": "<u8", "fortran_order": False, "shape": (3, len(self))}
            np.lib.format.write_array_header_1_0(file, head)
            for row in (self.starts, *self.lookup):
                np.ascontiguousarray(row, dtype="<u8").tofile(file)

    @cached_property
    def _held(self) -> list[str] | None:
        """All of them, where there are few."""
        return self._stretch(0, len(self)) if len(self) <= HELD else None

    @cached_property
    def _places(self) -> dict[str, int] | None:
        if self._held is None:
            return None
        return {id: place for place, id in enumerate(self._held)}

    def _stretch(self, start: int, stop: int) -> list[str]:
        stop = min(stop, len(self))
        if start >= stop:
            return []
        end = int(self.starts[stop]) - 2 if stop < len(self) else len(self.content) - 1
        part = self.content[int(self.starts[start]) : end].tobytes()
        try:
            found = json.loads(b"[%b]" % part)
        except (ValueError, RecursionError):
            found = []
        if len(found) != stop - start or set(map(type, found)) != {str}:
            raise UserError(f"{self.where}: expected a list of ids, got something else at {start}; index again")
        return found

    def _same_bytes(self, other: Ids) -> bool:
        size, step = len(self.content), 1 << 24
        return size == len(other.content) and all(
            np.array_equal(self.content[at : at + step], other.content[at : at + step]) for at in range(0, size, step)
        )


class GrowingIds:
    """Ids that come one after the other."""

    def __init__(self) -> None:
        self._content, self._starts = bytearray(b"["), array("Q")

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, id: str) -> None:
        self._starts.append(len(self._content))
        self._content += quoted(id).encode()
        self._content += b", "

    def whole(self) -> Ids:
        """All that came; nothing can be added from here on."""
        if self._starts:
            del self._content[-2:]
        self._content += b"]"
        return Ids(np.frombuffer(self._content, dtype=np.uint8), np.frombuffer(self._starts, dtype=np.uint64))


def id_check(id: str) -> int:
    """A checksum of 64 bits, by which an id is found among millions."""
    return int.from_bytes(hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
