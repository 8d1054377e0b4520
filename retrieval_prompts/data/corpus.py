"""The documents of a corpus, in a file of JSON lines or in memory: checked once, then read where they are needed."""

from __future__ import annotations

import hashlib
import os
import warnings
import weakref
from array import array
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_prompts.data.groups import FirstOf, Groups
from retrieval_prompts.data.id_list import GrowingIds, Ids
from retrieval_prompts.data.lines import characters, json_object, read_at, string
from retrieval_prompts.errors import DataWarning, UserError, encodable, few

# Of a line's "metadata", as `data.sources` writes it; other things may be there
ABOUT = ("document", "source", "place")
LINE = 1 << 13  # bytes that are read at once where a line begins
AGAIN = "lines left out, as they say the same as an earlier one: {}"
UNTEXTED = '{} of {} documents have no field "text"'
EMPTY = "{} of {} documents have neither title nor text"


@dataclass(frozen=True, slots=True)
class Document:
    """A text to be found, whole or a chunk of one; equal to another whose id, title and text are the same.

    Args:
        document: the id of that of which it is a chunk; "" where it is all of it.
        source, place: the file that it is from, and where in it: headings, or a page; "" where that is not known.
    """

    id: str
    title: str
    text: str
    document: str = field(default="", compare=False)
    source: str = field(default="", compare=False)
    place: str = field(default="", compare=False)

    @property
    def content(self) -> str:
        """Title and text as one string, as BEIR encodes them."""
        return f"{self.title} {self.text}".strip()


class Corpus:
    """The documents of one corpus.jsonl in file order: ids and offsets in memory, texts on disk until they are read.

    A plain file is read again at each access, at byte offsets; the texts of a .gz, which cannot be entered in the
    middle, stay in memory. `fingerprint` is a sha256 over the ids, titles and texts.
    """

    def __init__(
        self,
        path: Path,
        ids: Iterable[str],
        fingerprint: str,
        texts: np.ndarray | Sequence[Document],
        checks: np.ndarray | None = None,
        groups: Groups | None = None,
    ) -> None:
        """Trusts the parts; `open` makes and checks them. `texts`: byte offsets, int64 (n,), or the documents.
        `checks`: `line_check` of each line (n,), compared when it is read. `groups`: which are chunks of one document;
        None where each is a document."""
        self.path, self.ids, self.fingerprint, self.groups = path, Ids.of(ids), fingerprint, groups
        self._texts, self._checks = texts, checks
        self._held: int | None = None  # the open file

    def hold(self) -> Corpus:
        """Keep the file open from here on, where the system can: another may then take its name. Returns self."""
        if hasattr(os, "pread"):
            self._held = os.open(self.path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._held)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_held": None}  # of another process, or of a copy that lives longer

    @classmethod
    def open(cls, path: Path | str) -> Corpus:
        """Read and check every line of corpus.jsonl or corpus.jsonl.gz, once.

        A document with neither title nor text is kept, so that ids stay valid, and counted in one DataWarning; so are
        the ids of lines that say the same again, which are left out, and those of documents without the field "text".

        Raises:
            UserError: with file and line for anything malformed, and for one id of two documents.
        """
        path = Path(path)
        found = _read_whole(path, frozenset())
        if repeated := found.ids.repeated():  # which are told from each other only where they are known
            found = _read_whole(path, repeated)
        if not found.ids:
            raise UserError(f"{path} holds no documents")
        found.warn(path)
        return cls(path, found.ids, found.fingerprint, found.texts, None, found.groups)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> Document:
        start = range(len(self))[position]  # as in a list: negative counts from the end, IndexError outside
        return next(self._read(start, start + 1))

    def __iter__(self) -> Iterator[Document]:
        return self._read(0, len(self))

    def contents(self, start: int, stop: int) -> list[str]:
        """The `content` of the documents start <= position < stop, clipped as a slice is."""
        start, stop, _ = slice(start, stop).indices(len(self))
        return [document.content for document in self._read(start, stop)]

    def only(self, ids: Sequence[str]) -> Corpus:
        """These documents, in this order. Its fingerprint is that of the whole.

        Raises:
            UserError: for an unknown id.
        """
        at = [self.position(id) for id in ids]
        texts = self._texts[at] if isinstance(self._texts, np.ndarray) else [self._texts[each] for each in at]
        checks = None if self._checks is None else self._checks[at]
        return Corpus(self.path, list(ids), self.fingerprint, texts, checks)

    def position(self, id: str) -> int:
        """Where the document stands in the file, from 0.

        Raises:
            UserError: for an unknown id.
        """
        if (position := self.ids.position(id)) is None:
            raise UserError(f"{self.path} has no document {id!r}")
        return position

    def stands_for(self, id: str) -> str | None:
        """The id that stands for a document in judgements and rankings: its own, or that of its first chunk, for the
        document and for any chunk; None for an unknown one."""
        position = self.ids.position(id)
        if self.groups is None:
            return id if position is not None else None
        first = self.groups.first(id)
        if first is None and position is not None:
            first = int(self.groups.firsts[position])
        return None if first is None else self.ids[first]

    @cached_property
    def first_of(self) -> Mapping[str, str]:
        """Chunk, or document -> the id that stands for it, of those that do not stand for themselves."""
        if self.groups is None:
            return {}
        return FirstOf(self.ids, self.groups.firsts, self.groups.documents)

    def _read(self, start: int, stop: int) -> Iterator[Document]:
        if not isinstance(self._texts, np.ndarray):
            yield from self._texts[start:stop]
        elif start < stop:
            offsets = map(int, self._texts[start:stop])
            lines = _lines_of(self.path, offsets) if self._held is None else map(partial(_line_of, self._held), offsets)
            try:
                for position, line in enumerate(lines, start):
                    where = f"{self.path}, document {position}"
                    document = _document(json_object(line.decode(), where), where)
                    if document.id != self.ids[position]:
                        raise ValueError(f"found {document.id!r} where {self.ids[position]!r} was")
                    if self._checks is not None and line_check(line) != self._checks[position]:
                        raise ValueError(f"the line of {document.id!r} is not the one that was written")
                    yield document
            except (OSError, ValueError) as error:
                raise UserError(f"{self.path} changed after it was opened; open it again ({error})") from None


class _Odd:
    """Documents of which something is odd: how many, and what the first are called."""

    def __init__(self) -> None:
        self.count, self._different, self._first = 0, 0, list[str]()

    def add(self, id: str, *, again: bool = False) -> None:
        """`again`: this one was added before."""
        self.count += 1
        self._different += not again
        if not again and len(self._first) < 3:
            self._first.append(id)

    def named(self) -> str:
        """As `few`, which would want all of them."""
        return few(self._first) + (f" and {self._different - 3} more" if self._different > 3 else "")


@dataclass
class _Found:
    """What was read of a file of documents, from end to end.

    Args:
        texts: byte offsets, or the documents.
        odd: what is to be said -> how often, and the first ids.
    """

    ids: Ids
    fingerprint: str
    texts: np.ndarray | list[Document]
    groups: Groups | None
    odd: dict[str, _Odd]
    first_line: int

    def warn(self, path: Path) -> None:
        """Say what is odd. Raises UserError where no document has a text."""
        untexted = self.odd[UNTEXTED]
        if untexted.count == len(self.ids):
            raise UserError(f'{path}:{self.first_line}: expected the field "text", which no document of the file has')
        for what, odd in self.odd.items():
            if odd.count:
                said = what.format(odd.count, len(self.ids))
                warnings.warn(f"{path}: {said} ({odd.named()})", DataWarning, stacklevel=3)


def _read_whole(path: Path, repeated: Container[str]) -> _Found:
    """Every line, checked.

    Args:
        repeated: ids that stand on several lines; only these are looked for.

    Raises:
        UserError: as `Corpus.open`.
    """
    in_memory = path.suffix == ".gz"
    documents: list[Document] = []
    offsets, first_line = array("q"), 0  # of each document: where its line begins
    lines: dict[str, tuple[int, int]] = {}  # of repeated ids: the first line, and the position
    again: set[str] = set()
    odd = {what: _Odd() for what in (AGAIN, UNTEXTED, EMPTY)}
    digest, groups, ids = hashlib.sha256(), Groups(), GrowingIds()
    for number, offset, line in read_at(path):
        where = f"{path}:{number}"
        row = json_object(line, where)
        document = _document(row, where)
        if document.id in repeated:
            first, position = lines.setdefault(document.id, (number, len(ids)))
            if first != number:
                if document != (documents[position] if in_memory else _document_at(path, offsets[position])):
                    raise UserError(
                        f"{where}: document id {document.id!r} was used on line {first} already, for another"
                        " title or text; give each document its own id"
                    )
                odd[AGAIN].add(document.id, again=document.id in again)
                again.add(document.id)
                continue
        digest.update(frame(document))
        if not document.content:
            odd[EMPTY].add(document.id)
        if "text" not in row:
            odd[UNTEXTED].add(document.id)
        groups.add(document.id, document.document or None)
        first_line = first_line or number
        ids.add(document.id)
        if in_memory:
            documents.append(document)
        else:
            offsets.append(offset)
    whole = ids.whole()
    groups.settle(whole)
    texts = documents if in_memory else np.frombuffer(offsets, dtype=np.int64)
    return _Found(whole, digest.hexdigest(), texts, groups if groups else None, odd, first_line)


def line_check(line: bytes) -> int:
    """A checksum of 64 bits of a line in a file of documents."""
    return int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "little")


def frame(document: Document) -> bytes:
    """The document as bytes in which every part is preceded by its length: what fingerprints are taken over."""
    parts = (document.id.encode(), document.title.encode(), document.text.encode())
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def _document_at(path: Path, offset: int) -> Document:
    with path.open("rb") as file:
        file.seek(offset)
        return _document(json_object(file.readline().decode(), str(path)), str(path))


def _document(row: dict[str, Any], where: str) -> Document:
    id, title, text = id_of(row, where), text_of(row, "title", where), text_of(row, "text", where)
    about = row.get("metadata")
    if not isinstance(about, dict) or not about:
        return Document(id, title, text)
    whole, source, place = (encodable(each) if isinstance(each := about.get(name), str) else "" for name in ABOUT)
    return Document(id, title, text, whole if whole != id else "", source, place)


def id_of(row: dict[str, Any], where: str) -> str:
    if "_id" not in row and "id" in row:
        row = {"_id": row["id"]}
    if type(row.get("_id")) is int:
        return str(row["_id"])
    return characters(string(row, "_id", where, empty=False), '"_id"', where)


def text_of(row: dict[str, Any], key: str, where: str) -> str:
    """The text of a field; empty where there is none, or it is null, as a missing value of a table is written."""
    value = row.get(key)
    if value is None or value != value:  # NaN
        return ""
    return characters(string(row, key, where), f'"{key}"', where)


def _lines_of(path: Path, offsets: Iterable[int]) -> Iterator[bytes]:
    """The lines of a file that begin there."""
    with path.open("rb") as file:
        at = -1
        for offset in offsets:
            if offset != at:  # behind blank lines, and repeated ones
                file.seek(offset)
            line = file.readline()
            at = offset + len(line)
            yield line


def _line_of(handle: int, offset: int) -> bytes:
    """The line of an open file that begins there; threads share the file."""
    line = b""
    while part := os.pread(handle, LINE, offset + len(line)):
        head, end, _ = part.partition(b"\n")
        line += head + end
        if end:
            break
    return line
