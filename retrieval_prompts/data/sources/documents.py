"""Sources of documents, tables and folders of files, read one document at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from retrieval_prompts.data.ids import portable
from retrieval_prompts.data.sources import columns as named
from retrieval_prompts.data.sources import named_sets
from retrieval_prompts.data.sources.chunks import Chunking, cut
from retrieval_prompts.data.sources.left_out import LeftOut
from retrieval_prompts.data.sources.opened import expand, files_in, is_named, kind
from retrieval_prompts.data.sources.prose import PROSE, Part, read_prose
from retrieval_prompts.data.sources.rows import TABLES, Table, hugging_face_splits, is_hugging_face, open_table
from retrieval_prompts.errors import MissingPackage, UserError, encodable


@dataclass(frozen=True)
class Columns:
    """The columns of a table of documents; what is not named is guessed. Several texts are joined by a line break."""

    id: str | None = None
    title: str | None = None
    text: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A document, or a chunk of one.

    Args:
        document: the id of the document that it is a chunk of; "" where documents are not cut.
        whole: the text of that document, of its first chunk; "" where judgements cannot name it by that.
        metadata: what is kept beside the text.
    """

    id: str
    title: str
    text: str
    place: str  # for messages: the file and line
    document: str = ""
    whole: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Documents:
    """What is read: `entries`, once, and how it was understood, a line a table."""

    entries: Iterator[Entry]
    said: list[str]
    prose: bool  # whether there are files of text among the sources


def read_documents(
    sources: Sequence[str], columns: Columns, chunking: Chunking | None, left: LeftOut, *, cut_tables: bool = False
) -> Documents:
    """Tables, Hugging Face data sets on disk, files of text, and folders of either.

    Args:
        chunking: how the texts of files are cut, and those of tables with `cut_tables`; None: not at all.
        left: gets what is not read, while the entries are.

    Raises:
        UserError: for sources that are none of these, and columns that a table does not have.
    """
    tables: list[Path] = []
    files: list[tuple[Path, Path]] = []  # and the folder that names are relative to
    for path in expand(sources):
        own_tables, own_files = _inside(path, left)
        tables += own_tables
        files += own_files
    if not tables and not files:
        expected = f"tables ({', '.join(TABLES)}) or files of text ({', '.join(PROSE)})"
        raise UserError(f"{' '.join(map(str, sources))} holds nothing to read{left.because()}; expected {expected}")
    read = [_table(_opened(path, left), columns, len(tables) > 1) for path in tables]
    whole = chain.from_iterable(each for each, _ in read)
    rows = _cut_rows(whole, chunking) if chunking is not None and cut_tables else whole
    said = [line for _, line in read]
    if files:
        how = f"in chunks of up to {chunking.size} tokens, {chunking.overlap} overlap" if chunking else "whole"
        said.append(f"{len(files):,} files of text, {how}")
    return Documents(chain(rows, _prose(files, chunking, left)), said, bool(files))


def has_prose(sources: Sequence[str]) -> bool:
    """Whether there are files of text among the sources.

    Raises:
        UserError: for a source that is nothing.
    """
    return any(_inside(path, LeftOut())[1] for path in expand(sources))


def tables_of(path: Path, left: LeftOut) -> list[Path]:
    """The tables at a path: a file, those in a folder, or the splits of a Hugging Face data set."""
    return _inside(path, left)[0]


def _inside(path: Path, left: LeftOut) -> tuple[list[Path], list[tuple[Path, Path]]]:
    """The tables and the files of text at a path."""
    if is_named(path):
        return [path], []
    if path.is_file():
        if path.suffix.lower() in PROSE:
            return [], [(path, path.parent)]
        return [path], []
    if corpus := next(
        (path / f"corpus.jsonl{end}" for end in ("", ".gz") if (path / f"corpus.jsonl{end}").is_file()), None
    ):
        return [corpus], []
    if is_hugging_face(path):
        return list(hugging_face_splits(path).values()) or [path], []
    tables, files = [], []
    for file in files_in(path):
        if file.is_dir():
            left.note("links to folders, which are not followed (name them to read them)", str(file))
        elif file.suffix.lower() in PROSE:
            files.append((file, path))
        elif kind(file) in TABLES:
            tables.append(file)
        else:
            left.note("files of other kinds", str(file))
    if files and tables:  # a folder of pages with a table among them is a folder of pages
        for file in tables:
            left.note("tables among files of text (name them to read them)", str(file))
        tables = []
    return tables, files


def _opened(path: Path, left: LeftOut) -> Table:
    return named_sets.table(path, "docs") if is_named(path) else open_table(path, named.known, left)


def _table(table: Table, wanted: Columns, several: bool) -> tuple[Iterator[Entry], str]:
    """The documents of a table, and a line on its columns."""
    named.check(table, [each for each in (wanted.id,) if each], "--id")
    named.check(table, [each for each in (wanted.title,) if each], "--title")
    named.check(table, wanted.text, "--text")
    taken = [each for each in (wanted.id, wanted.title, *wanted.text) if each]
    found = named.by_name([name for name in table.columns if name not in taken], named.DOCUMENTS)
    id, title = wanted.id or found.get("id"), wanted.title or found.get("title")
    texts = wanted.text or (named_sets.texts(table.path) if is_named(table.path) else ())
    texts = texts or tuple(filter(None, [found.get("text")]))
    if not texts:
        longest = named.longest_text(table, [each for each in (id, title) if each])
        texts = (longest,) if longest is not None else ()
    if not table.columns:
        raise UserError(f"{table.path} holds no rows with columns; expected objects with the text of a document")
    if not texts:
        raise UserError(
            f"{table.path}: no column looks like the text of a document, of {', '.join(table.columns)}; name it: --text"
        )
    parts = [f"text {' + '.join(map(repr, texts))}", f"title {title!r}" if title else "no title"]
    parts.insert(0, f"id {id!r}" if id else "ids are row numbers")
    line = f"{table.path}: {', '.join(parts)}"
    prefix = f"{portable(table.path.name)}:" if several and not id else ""
    return _rows(table, [id, title, *texts], prefix), line


def _rows(table: Table, columns: list[str | None], prefix: str) -> Iterator[Entry]:
    wanted = [name for name in columns if name is not None]
    has_id, has_title = (name is not None for name in columns[:2])
    for counted, (number, values) in enumerate(table.read(wanted), 1):
        at = has_id + has_title
        id = named.as_text(values[0]).strip() if has_id else f"{prefix}{counted}"
        title = named.as_text(values[has_id]) if has_title else ""
        text = named.as_text(values[at]) if len(values) == at + 1 else named.as_text(values[at:])
        yield Entry(id, title, text, f"{table.path}:{number}")


def _cut_rows(entries: Iterator[Entry], chunking: Chunking) -> Iterator[Entry]:
    for entry in entries:
        chunks = cut(entry.title, [Part(each) for each in entry.text.split("\n\n")], chunking)
        if len(chunks) < 2:
            yield Entry(entry.id, entry.title, entry.text, entry.place, entry.id)
            continue
        for number, chunk in enumerate(chunks, 1):
            whole = entry.text if number == 1 else ""
            yield Entry(f"{entry.id}#{number}", entry.title, chunk.text, entry.place, entry.id, whole)


def _prose(files: list[tuple[Path, Path]], chunking: Chunking | None, left: LeftOut) -> Iterator[Entry]:
    taken: set[str] = set()
    for path, folder in files:
        id = portable(path.relative_to(folder).as_posix())
        id = portable(path.as_posix()) if id in taken else id  # of two folders
        taken.add(id)
        try:
            prose = read_prose(path)
        except MissingPackage:
            raise
        except UserError as error:
            reason = str(error).removeprefix(f"{path} ")
            left.note(f"files that could not be read: {reason}", str(path))
            continue
        if not prose.parts:
            left.note("files without text" + (" (scans?)" if path.suffix.lower() == ".pdf" else ""), str(path))
            continue
        source = {"source": encodable(path.as_posix())}
        if chunking is None:
            yield Entry(id, prose.title, prose.text, str(path), metadata=source)
            continue
        chunks = cut(prose.title, prose.parts, chunking)
        for number, chunk in enumerate(chunks, 1):
            own = f"{id}#{number}" if len(chunks) > 1 else id
            metadata = source | ({"place": chunk.place} if chunk.place else {})
            yield Entry(own, prose.title, chunk.text, str(path), id, metadata=metadata)
