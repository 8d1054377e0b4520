"""BEIR folders, read strictly and lazily: corpus.jsonl, queries.jsonl, qrels/<split>.tsv. Knows no model and no metric.

Each file may be gzipped (.gz); the plain one is preferred. Documents keep the order of the file. A file is read once
from end to end and every line is checked; whatever cannot be trusted raises UserError with `file:line`. Format: Thakur
et al. 2021, "BEIR".
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_prompts.data.judgements import Qrels, parse_qrels
from retrieval_prompts.data.lines import characters, json_object, json_rows, read_at, string
from retrieval_prompts.errors import DataWarning, UserError, few


@dataclass(frozen=True, slots=True)
class Document:
    id: str
    title: str
    text: str

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
    ) -> None:
        """Trusts the parts; `open` makes and checks them. `texts`: byte offsets, int64 (n,), or the documents.
        `checks`: `line_check` of each line (n,), compared when it is read."""
        self.path, self.ids, self.fingerprint = path, ids, fingerprint
        self._texts, self._checks = texts, checks

    @classmethod
    def open(cls, path: Path | str) -> Corpus:
        """Read and check every line of corpus.jsonl or corpus.jsonl.gz, once.

        A document with neither title nor text is kept, so that ids stay valid, and counted in one DataWarning.
        Raises UserError with file and line for anything malformed, and for an id that comes twice.
        """
        path = Path(path)
        in_memory = path.suffix == ".gz"
        documents: list[Document] = []
        offsets: list[int] = []
        lines: dict[str, int] = {}  # id -> line
        empty: list[str] = []
        digest = hashlib.sha256()
        for number, offset, line in read_at(path):
            document = _document(line, f"{path}:{number}")
            first = lines.setdefault(document.id, number)
            if first != number:
                raise UserError(f"{path}:{number}: document id {document.id!r} was used on line {first} already")
            digest.update(frame(document))
            if not document.content:
                empty.append(document.id)
            if in_memory:
                documents.append(document)
            else:
                offsets.append(offset)
        if not lines:
            raise UserError(f"{path} holds no documents")
        if empty:
            message = f"{path}: {len(empty)} of {len(lines)} documents have neither title nor text ({few(empty)})"
            warnings.warn(message, DataWarning, stacklevel=2)
        texts = documents if in_memory else np.array(offsets, dtype=np.int64)
        return cls(path, list(lines), digest.hexdigest(), texts)

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

    def position(self, id: str) -> int:
        """Where the document stands in the file, from 0. Raises UserError for an unknown id."""
        try:
            return self._positions[id]
        except KeyError:
            raise UserError(f"{self.path} has no document {id!r}") from None

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {id: position for position, id in enumerate(self.ids)}

    def _read(self, start: int, stop: int) -> Iterator[Document]:
        if not isinstance(self._texts, np.ndarray):
            yield from self._texts[start:stop]
        elif start < stop:
            try:
                with self.path.open("rb") as file:
                    file.seek(int(self._texts[start]))
                    lines = (line for line in file if line.strip())
                    for position in range(start, stop):
                        line = next(lines, b"")
                        document = _document(line.decode(), f"{self.path}, document {position}")
                        if document.id != self.ids[position]:
                            raise ValueError(f"found {document.id!r} where {self.ids[position]!r} was")
                        if self._checks is not None and line_check(line) != self._checks[position]:
                            raise ValueError(f"the line of {document.id!r} is not the one that was written")
                        yield document
            except (OSError, ValueError) as error:
                raise UserError(f"{self.path} changed after it was opened; open it again ({error})") from None


@dataclass(frozen=True)
class Dataset:
    name: str
    folder: Path
    corpus: Corpus
    queries: dict[str, str]
    qrels: dict[str, Qrels]  # split -> its judgements, without unknown queries and documents

    def split(self, name: str) -> tuple[dict[str, str], Qrels]:
        """The queries of a split that have a relevant document (grade > 0), in the order of its qrels file, and
        their judgements, grade 0 included. Raises UserError if there is no such split or no such query."""
        if name not in self.qrels:
            there = f"it has {', '.join(self.qrels)}" if self.qrels else "its qrels folder is empty"
            raise UserError(f"{self.folder} has no split {name!r}; {there}")
        qrels = {query: grades for query, grades in self.qrels[name].items() if max(grades.values()) > 0}
        if not qrels:
            raise UserError(f"split {name!r} of {self.folder} has no query with a relevant document")
        return {query: self.queries[query] for query in qrels}, qrels


def load(folder: Path | str) -> Dataset:
    """Read a BEIR folder. A qrels folder without files gives no splits: enough to index, not to train.

    Raises UserError for what is missing or malformed. Judgements of unknown queries or documents are dropped, and
    counted in one DataWarning for each split.
    """
    folder = _existing_folder(folder)
    corpus, queries = load_corpus(folder), _read_queries(_find(folder, "queries.jsonl"))
    if not (folder / "qrels").is_dir():
        raise UserError(f"{folder} has no folder qrels; expected qrels/<split>.tsv, for example qrels/test.tsv")
    splits: dict[str, Path] = {}
    for suffix in (".tsv.gz", ".tsv"):  # the plain file last: it wins
        for path in sorted((folder / "qrels").glob(f"[!.]*{suffix}")):
            splits[path.name.removesuffix(suffix)] = path
    qrels = {name: _read_qrels(splits[name], queries, corpus) for name in sorted(splits)}
    return Dataset(folder.resolve().name, folder, corpus, queries, qrels)


def load_corpus(folder: Path | str) -> Corpus:
    """Read only the corpus of a BEIR folder; queries and qrels may be absent. Raises UserError."""
    return Corpus.open(_find(_existing_folder(folder), "corpus.jsonl"))


def hold_out(qrels: Qrels, fraction: float, seed: int) -> tuple[Qrels, Qrels]:
    """Split judgements by query into (train, dev), both in the order of `qrels`.

    dev gets round(fraction * n) of the n queries, but at least one and at most n - 1, so neither side is empty. Who
    goes is decided by a hash of seed and query id: the same on every machine, whatever the order of the file, and a
    larger fraction only adds queries. Raises UserError if fraction is not within (0, 1) or there are under two queries.
    """
    if not 0 < fraction < 1:
        raise UserError(f"the held-out fraction must lie between 0 and 1, got {fraction}")
    if len(qrels) < 2:
        raise UserError(f"holding out queries needs at least 2 of them, got {len(qrels)}")
    count = min(max(round(fraction * len(qrels)), 1), len(qrels) - 1)
    shuffled = sorted(qrels, key=lambda query: hashlib.sha256(f"{seed}:{query}".encode()).digest())
    held_out = set(shuffled[:count])
    train = {query: grades for query, grades in qrels.items() if query not in held_out}
    dev = {query: grades for query, grades in qrels.items() if query in held_out}
    return train, dev


def with_test(dataset: Dataset, fraction: float = 0.2, least: int = 25) -> tuple[Dataset, bool]:
    """The data set, and whether a part of its training queries was made its test split, for it has none.

    Who goes does not depend on the order of the file. Fewer training queries than `least` stay together.
    """
    train = dataset.qrels.get("train", {})
    if "test" in dataset.qrels or len(train) < least:
        return dataset, False
    kept, test = hold_out(train, fraction, seed=1)
    return replace(dataset, qrels={**dataset.qrels, "train": kept, "test": test}), True


def line_check(line: bytes) -> int:
    """A checksum of 64 bits of a line in a file of documents."""
    return int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "little")


def frame(document: Document) -> bytes:
    """The document as bytes in which every part is preceded by its length: what fingerprints are taken over."""
    parts = (document.id.encode(), document.title.encode(), document.text.encode())
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def _text(row: dict[str, Any], key: str, where: str, *, empty: bool = True) -> str:
    return characters(string(row, key, where, empty=empty), f'"{key}"', where)


def _document(line: str, where: str) -> Document:
    row = json_object(line, where)
    title = "" if row.get("title") is None else _text(row, "title", where)
    return Document(_text(row, "_id", where, empty=False), title, _text(row, "text", where))


def _read_queries(path: Path) -> dict[str, str]:
    queries: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, row in json_rows(path):
        where = f"{path}:{number}"
        id, text = _text(row, "_id", where, empty=False), _text(row, "text", where)
        if id in queries:
            raise UserError(f"{where}: query id {id!r} was used on line {lines[id]} already")
        if not text.strip():
            raise UserError(f"{where}: the text of query {id!r} is empty; write it or remove the line")
        queries[id], lines[id] = text, number
    return queries


def _read_qrels(path: Path, queries: dict[str, str], corpus: Corpus) -> Qrels:
    no_query: list[str] = []
    no_document: list[str] = []

    def known(query: str, document: str) -> bool:
        if query not in queries:
            no_query.append(query)
        elif document not in corpus._positions:
            no_document.append(document)
        else:
            return True
        return False

    qrels = parse_qrels(path, trec=False, keep=known)
    dropped = [
        f"{len(names)} with an unknown {kind} ({few(names)})"
        for kind, names in (("query", no_query), ("document", no_document))
        if names
    ]
    if dropped:
        warnings.warn(f"{path}: dropped judgements: {', '.join(dropped)}", DataWarning, stacklevel=3)
    return qrels


def _existing_folder(folder: Path | str) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        came = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {came}; expected a BEIR folder (corpus.jsonl, queries.jsonl, qrels/<split>.tsv)")
    return folder


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"{folder} has neither {name} nor {name}.gz")
