"""The documents of a corpus, in a file of JSON lines or in memory: checked once, then read where they are needed."""

from __future__ import annotations

import hashlib
import os
import warnings
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_prompts.data.groups import Groups, first_of
from retrieval_prompts.data.lines import characters, json_object, read_at, string
from retrieval_prompts.errors import DataWarning, UserError, encodable, few

# Of a line's "metadata", as `data.sources` writes it; other things may be there
ABOUT = ("document", "source", "place")
LINE = 1 << 13  # bytes that are read at once where a line begins


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
    """The documents of one corpus.jsonl in file order: the ids in memory, the texts on disk until they are asked for.

    A plain file is read again at each access, at byte offsets; the texts of a .gz, which cannot be entered in the
    middle, stay in memory. `fingerprint` is a sha256 over the ids, titles and texts.
    """

    def __init__(
        self,
        path: Path,
        ids: list[str],
        fingerprint: str,
        texts: np.ndarray | Sequence[Document],
        checks: np.ndarray | None = None,
        groups: Groups | None = None,
    ) -> None:
        """Trusts the parts; `open` makes and checks them. `texts`: byte offsets, int64 (n,), or the documents.
        `checks`: `line_check` of each line (n,), compared when it is read. `groups`: which are chunks of one document;
        None where each is a document."""
        self.path, self.ids, self.fingerprint, self.groups = path, ids, fingerprint, groups
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
        in_memory = path.suffix == ".gz"
        documents: list[Document] = []
        offsets, numbers = array("q"), array("q")  # of each document: where its line begins, and which line it is
        positions: dict[str, int] = {}
        empty: list[str] = []
        again: list[str] = []
        untexted: list[str] = []
        digest, groups = hashlib.sha256(), Groups()
        for number, offset, line in read_at(path):
            where = f"{path}:{number}"
            row = json_object(line, where)
            document = _document(row, where)
            first = positions.setdefault(document.id, len(numbers))
            if first < len(numbers):
                if document != (documents[first] if in_memory else _document_at(path, offsets[first])):
                    raise UserError(
                        f"{where}: document id {document.id!r} was used on line {numbers[first]} already, for another"
                        " title or text; give each document its own id"
                    )
                again.append(document.id)
                continue
            digest.update(frame(document))
            if not document.content:
                empty.append(document.id)
            if "text" not in row:
                untexted.append(document.id)
            groups.add(document.id, document.document or None, positions)
            numbers.append(number)
            if in_memory:
                documents.append(document)
            else:
                offsets.append(offset)
        if not positions:
            raise UserError(f"{path} holds no documents")
        if len(untexted) == len(positions):
            raise UserError(f'{path}:{numbers[0]}: expected the field "text", which no document of the file has')
        for odd, what in (
            (again, "lines left out, as they say the same as an earlier one: {}"),
            (untexted, f'{{}} of {len(positions)} documents have no field "text"'),
            (empty, f"{{}} of {len(positions)} documents have neither title nor text"),
        ):
            if odd:
                warnings.warn(f"{path}: {what.format(len(odd))} ({few(odd)})", DataWarning, stacklevel=2)
        texts = documents if in_memory else np.array(offsets)
        return cls(path, list(positions), digest.hexdigest(), texts, None, groups if groups else None)

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
        try:
            return self._positions[id]
        except KeyError:
            raise UserError(f"{self.path} has no document {id!r}") from None

    def stands_for(self, id: str) -> str | None:
        """The id that stands for a document in judgements and rankings: its own, or that of its first chunk, for the
        document and for any chunk; None for an unknown one."""
        if self.groups is None:
            return id if id in self._positions else None
        first = self.groups.first(id)
        if first is None and id in self._positions:
            first = int(self.groups.firsts[self._positions[id]])
        return None if first is None else self.ids[first]

    @cached_property
    def first_of(self) -> dict[str, str]:
        """Chunk, or document -> the id that stands for it, of those that do not stand for themselves."""
        if self.groups is None:
            return {}
        return first_of(self.ids, self.groups.firsts, self.groups.documents)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {id: position for position, id in enumerate(self.ids)}

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
