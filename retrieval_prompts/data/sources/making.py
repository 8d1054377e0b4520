"""Sources -> a data folder: corpus.jsonl, queries.jsonl, qrels/<split>.tsv in BEIR's layout, and how they came about.

Documents are streamed; what stays in memory is an id and, where judgements may name documents by their text or where
duplicates are left out, 64 bits of each.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from retrieval_prompts.data.judgements import Qrels, write_qrels
from retrieval_prompts.data.sources import named_sets
from retrieval_prompts.data.sources.chunks import Chunking
from retrieval_prompts.data.sources.division import Shares, apart, divide
from retrieval_prompts.data.sources.documents import Columns, Documents, Entry, read_documents, tables_of
from retrieval_prompts.data.sources.duplicates import Near, digest
from retrieval_prompts.data.sources.judged import (
    Judged,
    Known,
    Queries,
    check_columns,
    may_name_texts,
    read_judgements,
    read_queries,
)
from retrieval_prompts.data.sources.left_out import LeftOut
from retrieval_prompts.data.sources.opened import expand, is_named
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import DATA, new_folder, write_json

MADE = "sources.json"
NAMED, SHARES = Columns(), Shares()
DUPLICATES = ("keep", "exact", "near")
COUNTED = 50_000  # documents of files up to which near-duplicates are counted though they are kept


@dataclass(frozen=True)
class Sources:
    """What a data folder is made from: files, folders, globs.

    Args:
        judged: role ("query", "id", "document", "grade", "clicks" ...) -> column, of queries and judgements.
        duplicates: which documents are left out: none (keep), those that say the same as an earlier one (exact), or
            nearly the same (near).
        cut_tables: whether texts of tables are cut into chunks, as those of files are.
    """

    documents: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()
    judgements: tuple[str, ...] = ()
    columns: Columns = NAMED
    judged: Mapping[str, str] = field(default_factory=dict)
    duplicates: str = "keep"
    shares: Shares = SHARES
    cut_tables: bool = False

    def __post_init__(self) -> None:
        if self.duplicates not in DUPLICATES:
            raise UserError(f"--duplicates must be {', '.join(DUPLICATES)}, got {self.duplicates!r}")
        if not (self.documents or self.judgements):
            raise UserError("there is nothing to make a corpus of; name documents, or judgements that hold their texts")

    def whole(self) -> Sources:
        """With the queries and judgements of a BEIR folder, or of a data set that is named, among the documents, where
        none are named."""
        if not self.queries and not self.judgements and any(map(is_named, self.documents)):
            known = {name: named_sets.parts(Path(name)) for name in self.documents if is_named(name)}
            asked, judged = (tuple(name for name in known if part in known[name]) for part in ("queries", "qrels"))
            return Sources(**{**vars(self), "queries": asked, "judgements": judged})
        folders = [path for path in map(Path, self.documents) if (path / "qrels").is_dir()]
        if len(folders) != 1 or self.queries or self.judgements:
            return self
        folder = folders[0]
        queries = [folder / name for name in ("queries.jsonl", "queries.jsonl.gz") if (folder / name).is_file()][:1]
        qrels = sorted((folder / "qrels").glob("[!.]*.[ct]sv*"))
        return Sources(**{**vars(self), "queries": tuple(map(str, queries)), "judgements": tuple(map(str, qrels))})


@dataclass(frozen=True)
class Made:
    """What a data folder holds.

    Args:
        chunks: of documents, where any were cut; each is a line of corpus.jsonl. 0: each document is one.
        splits: name -> judged queries.
        said: how the sources were understood, a sentence each.
        left_out: what was left out or changed and why, a sentence each.
    """

    documents: int
    chunks: int
    queries: int
    splits: dict[str, int]
    said: list[str]
    left_out: list[str]


def make(out: Path, sources: Sources, chunking: Chunking | None = None, *, overwrite: bool = False) -> Made:
    """Make a data folder, whole or not at all; with a progress bar.

    Raises:
        UserError: for sources that cannot be read, and that hold no document.
    """
    sources, left = sources.whole(), LeftOut()
    with new_folder(out, holds=DATA, overwrite=overwrite) as new:
        read = Documents(iter(()), [], False)
        if sources.documents:
            read = read_documents(sources.documents, sources.columns, chunking, left, cut_tables=sources.cut_tables)
        judgements = _paths(sources.judgements, left)
        asked = _paths(sources.queries, left)
        check_columns([*asked, *judgements], sources.judged)
        texts = may_name_texts(judgements, sources.judged)
        with _Corpus(new / "corpus.jsonl", sources.duplicates, left, texts=texts) as corpus:
            near = sources.duplicates == "near" or (read.prose and sources.duplicates == "keep")
            corpus.near = Near() if near else None
            for entry in tqdm(read.entries, desc="documents", unit="", delay=1, mininterval=0.5):
                corpus.write(entry)
            queries, said = read_queries(asked, sources.judged, left)
            known = Known(corpus.find, corpus.add)
            judged = read_judgements(judgements, sources.judged, queries, known, left)
        if not corpus.count:
            raise UserError(f"the sources hold no document with a text{left.because()}")
        splits, rule = _splits(judged, queries, sources.shares, left)
        with (new / "queries.jsonl").open("w", encoding="utf-8") as file:
            for id, text in queries.texts.items():
                file.write(json.dumps({"_id": id, "text": text}, ensure_ascii=False) + "\n")
        (new / "qrels").mkdir()
        for name, qrels in splits.items():
            write_qrels(new / "qrels" / f"{name}.tsv", qrels)
        counts = {name: len(qrels) for name, qrels in splits.items()}
        said = [*read.said, *corpus.said(), *said, *judged.said, *([rule] if rule else [])]
        chunks = corpus.count if corpus.count > corpus.documents else 0
        made = Made(corpus.documents, chunks, len(queries.texts), counts, said, left.lines())
        write_json(new / MADE, {"sources": _named(sources), **vars(made)})
    return made


class _Corpus:
    """corpus.jsonl while it is written, and how its documents are found by id and by text."""

    def __init__(self, path: Path, duplicates: str, left: LeftOut, *, texts: bool) -> None:
        """texts: whether documents are to be found by their text."""
        self.duplicates, self.left = duplicates, left
        self.count = self.documents = 0  # lines, and the documents that they are all of, or chunks of
        self.near: Near | None = None
        self._file = path.open("w", encoding="utf-8")
        self._ids: set[str] = set()
        self._cut: set[str] = set()  # documents of which there are chunks
        self._last = ("", "")  # of these the last one, and its place
        self._same: dict[str, str] = {}  # one that was left out -> the one that says the same
        self._by_text: dict[int, str] | None = {} if texts or duplicates != "keep" else None
        self._refused = ("", "")  # of documents with the id of another the last one, and its place
        self._again: Counter[str] = Counter()
        self._nearly: Counter[str] = Counter()
        self._added = 0
        self._seen: set[int] = set()

    def write(self, entry: Entry) -> None:
        """Add a document, unless it is empty, has no id of its own, or says what another one does."""
        content = f"{entry.title} {entry.text}".strip()
        if not entry.id or not content:
            self.left.note("documents without " + ("text" if entry.id else "id"), entry.place)
            return
        another = entry.document in self._cut and (entry.document, entry.place) != self._last  # with the same id
        if another or entry.id in self._ids or entry.id in self._same:
            if (id := entry.document or entry.id, entry.place) != self._refused:
                self.left.note("documents whose id an earlier one has", f"{id} in {entry.place}")
            self._refused = (id, entry.place)
            return
        what = "chunks" if entry.document not in ("", entry.id) else "documents"
        if (same := self._earlier(entry.id, content, what)) is not None:
            self._same[entry.id] = same
            if entry.document:
                self._same.setdefault(entry.document, same)
            self.left.note(f"{what} that say the same as an earlier one", f"{entry.id} as {same}")
            return
        self._ids.add(entry.id)
        self.count += 1
        self.documents += not entry.document or entry.document not in self._cut
        if entry.document:
            self._cut.add(entry.document)
            self._last = (entry.document, entry.place)
        if self._by_text is not None:
            for text in {entry.text, content}:
                self._by_text.setdefault(digest(text), entry.id)
            if entry.whole:
                for text in (entry.whole, f"{entry.title} {entry.whole}"):
                    self._by_text.setdefault(digest(text), entry.document)
        row: dict[str, Any] = {"_id": entry.id, "title": entry.title, "text": entry.text}
        metadata = entry.metadata | ({"document": entry.document} if entry.document else {})
        row |= {"metadata": metadata} if metadata else {}
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def find(self, id: str) -> Sequence[str]:
        """The id that stands for one: itself, also where it was cut into chunks, or the one that says the same."""
        if id in self._cut or id in self._ids:
            return [id]
        return [self._same[id]] if id in self._same else []

    def add(self, text: str) -> str:
        """The id of a document with this text, which is added where there is none."""
        assert self._by_text is not None
        if (found := self._by_text.get(digest(text))) is not None:
            return found
        self._added += 1
        id = next(id for id in (f"text{number}" for number in range(self._added, 10**12)) if id not in self._ids)
        self.write(Entry(id, "", text, "a judgement"))
        return self._same.get(id, id)

    def said(self) -> list[str]:
        """What was noticed of documents that are kept."""
        found = []
        if self._added:
            found.append(f"texts of judgements that no source has, added as documents: {self._added:,}")
        for what, count in self._again.items():
            found.append(f"{what} that say the same as an earlier one: {count:,} (--duplicates exact leaves them out)")
        for what, count in self._nearly.items():
            found.append(f"{what} that nearly say the same: {count:,} (--duplicates near leaves them out)")
        return found

    def _earlier(self, id: str, content: str, what: str) -> str | None:
        """The document in whose place one is left out; those that are kept are counted."""
        key = digest(content)
        if self.duplicates != "keep":
            assert self._by_text is not None
            same = self._by_text.get(key)
            return same if same is not None or self.near is None else self.near.first(id, content)
        if key in (self._seen if self._by_text is None else self._by_text):
            self._again[what] += 1
        elif self.near is not None and self.count < COUNTED and self.near.first(id, content) is not None:
            self._nearly[what] += 1
        if self._by_text is None:
            self._seen.add(key)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def _paths(names: Iterable[str], left: LeftOut) -> list[Path]:
    """Files, and the tables in folders.

    Raises:
        UserError: for a folder without any.
    """
    found: list[Path] = []
    for path in expand(names):
        tables = tables_of(path, left) if path.is_dir() else [path]
        if not tables:
            raise UserError(f"{path} holds no tables of queries or judgements{left.because()}")
        found += tables
    return found


def _splits(judged: Judged, queries: Queries, shares: Shares, left: LeftOut) -> tuple[dict[str, Qrels], str]:
    """The splits of the source, or its one set of judgements divided, and the rule of that."""
    splits = {name: qrels for name, qrels in judged.splits.items() if qrels}
    rule = ""
    if "" in splits:
        divided = divide(queries.texts, splits.pop(""), shares)
        rule = f"judged queries: {shares.rule()}" if len(divided) > 1 else "judged queries: all train, as they are few"
        for name, qrels in divided.items():
            splits[name] = {**qrels, **splits.get(name, {})}
    splits, dropped = apart(queries.texts, splits)
    for query in dropped:
        left.note("judged queries whose text a later split has too", query)
    return {name: qrels for name, qrels in splits.items() if qrels}, rule


def _named(sources: Sources) -> dict[str, Any]:
    names = {"documents": sources.documents, "queries": sources.queries, "judgements": sources.judgements}
    return {name: list(paths) for name, paths in names.items() if paths}
