"""Documents in files of JSON lines or Parquet, as shards: stretches that each worker reads for itself.

Knows no model and no cluster.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from retrieval_prompts.data.corpus import Document, id_of, text_of
from retrieval_prompts.data.lines import json_object, json_rows, read_at
from retrieval_prompts.errors import UserError, first_line
from retrieval_prompts.vectors.encode import BLOCK

BYTES = 1 << 24  # of JSON lines, or rows of Parquet (uncompressed), in a shard of files that nobody has counted
MANY = 1 << 21  # documents; of a corpus of more of them a shard has eight blocks instead of one
LINES, PACKED, TABLES = (".jsonl", ".ndjson"), (".gz", ".zst"), (".parquet", ".pq")


@dataclass(frozen=True)
class Shard:
    """A stretch of a file.

    Args:
        unit: what `start` and `stop` count. "bytes": the lines that begin there, of a plain file; "rows": its lines
            without the blank ones, of a packed file, which is read from its beginning; "groups": row groups of Parquet.
        stop: None: to the end.
        line: the number, from 1, of the line at `start`; 0: nobody has counted.
    """

    path: str
    start: int = 0
    stop: int | None = None
    unit: str = "rows"
    line: int = 0

    def documents(self) -> list[Document]:
        """The documents, in the order of the file.

        Raises:
            UserError: with file and line, for what is no document; and where no document has the field "text".
        """
        read: dict[str, Callable[[Shard], Iterator[tuple[Place, dict[str, Any]]]]]
        read = {"bytes": _lines, "rows": _packed, "groups": _groups}
        found, first, texts = [], "", 0
        for place, row in read[self.unit](self):
            try:
                found.append(Document(id_of(row, AT), text_of(row, "title", AT), text_of(row, "text", AT)))
            except UserError as error:
                raise UserError(str(error).replace(AT, place(), 1)) from None
            first, texts = first or place(), texts + ("text" in row)
        if found and not texts:
            raise UserError(f'{first}: expected the field "text", which no document from there on has')
        return found


Place = Callable[[], str]  # where a row is, for messages: counted only when it is asked for
AT = "\0"


def of_corpus(path: Path, rows: int | None = None) -> list[Shard]:
    """The shards of a corpus.jsonl or corpus.jsonl.gz, of so many rows; all lines are read, and none is understood.

    Args:
        rows: None: 2,048, which is what one process encodes at a time, so that each text has the batch mates that it
            has there; eight times as many of a corpus of over two million.
    """
    path, step = path.absolute(), rows or BLOCK
    starts = [(number, offset) for place, (number, offset, _) in enumerate(read_at(path)) if place % step == 0]
    if rows is None and len(starts) * BLOCK > MANY:
        starts, step = starts[::8], 8 * BLOCK
    if path.suffix in PACKED:
        return [Shard(str(path), place * step, (place + 1) * step) for place in range(len(starts))]
    ends = [offset for _, offset in starts[1:]] + [path.stat().st_size]
    return [Shard(str(path), at, end, "bytes", line) for (line, at), end in zip(starts, ends, strict=True)]


def of_files(data: Path | str, size: int = BYTES) -> list[Shard]:
    """The shards of a BEIR folder's corpus, of a file, of all files in a folder, or of a glob, in the order of their
    names. Of each file only its size is read, of Parquet what it says of its row groups; packed files are not divided.

    Raises:
        UserError: where there are none.
    """
    return [shard for path in files_of(data) for shard in _divided(path, size)]


def files_of(data: Path | str) -> list[Path]:
    """The files of JSON lines and Parquet that are meant; see `of_files`. Raises UserError."""
    path = Path(data)
    expected = "expected a BEIR folder, or files of JSON lines (.jsonl, also .gz or .zst) or Parquet"
    if path.is_dir():
        corpus = [path / f"corpus.jsonl{end}" for end in ("", ".gz") if (path / f"corpus.jsonl{end}").is_file()]
        found = corpus[:1] or [each for each in sorted(path.rglob("*")) if each.is_file() and _kind(each)]
    elif path.exists():
        found = [path] if _kind(path) else []
    else:
        found = [Path(each) for each in sorted(glob.glob(str(data), recursive=True)) if _kind(Path(each))]
        if not found and not glob.has_magic(str(data)):
            raise UserError(f"{data} does not exist; {expected}")
    if not found:
        raise UserError(f"{data} holds no documents that can be read in shards; {expected}")
    return [each.absolute() for each in found]


def _kind(path: Path) -> str | None:
    ending = path.suffix.lower()
    inner = Path(path.stem).suffix.lower() if ending in PACKED else ending
    if inner in LINES:
        return "rows" if ending in PACKED else "bytes"
    return "groups" if inner in TABLES and ending == inner else None


def _divided(path: Path, size: int) -> list[Shard]:
    unit = _kind(path)
    if unit == "rows":
        return [Shard(str(path))]
    if unit == "bytes":
        whole = path.stat().st_size
        return [Shard(str(path), at, min(at + size, whole), "bytes", int(at == 0)) for at in range(0, whole, size)]
    with _parquet(path) as file:
        sizes = [file.metadata.row_group(number).total_byte_size for number in range(file.metadata.num_row_groups)]
    cuts, held = [0], 0
    for number, each in enumerate(sizes):
        if held and held + each > size:
            cuts.append(number)
            held = 0
        held += each
    return [Shard(str(path), a, b, "groups") for a, b in zip(cuts, [*cuts[1:], len(sizes)], strict=True) if a < b]


def _lines(shard: Shard) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The lines that begin in a stretch of bytes."""
    path = Path(shard.path)
    stop = shard.stop if shard.stop is not None else path.stat().st_size
    try:
        with path.open("rb") as file:
            file.seek(max(0, shard.start - 1))
            if shard.start:
                file.readline()  # the rest of a line that begins before
            while (at := file.tell()) < stop and (line := file.readline()):
                if at == 0:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line.strip():
                    place = _counted(path, at, shard)
                    yield place, _row(line, place)
    except OSError as error:
        raise UserError(f"{path} cannot be read on a worker: {first_line(error)}; all machines must see it") from None


def _row(line: bytes, place: Place) -> dict[str, Any]:
    try:
        return json_object(line.decode(), AT)
    except UnicodeDecodeError as error:
        raise UserError(f"{place()}: expected UTF-8, got byte 0x{line[error.start]:02x}; convert the file") from None
    except UserError as error:
        raise UserError(str(error).replace(AT, place(), 1)) from None


def _counted(path: Path, at: int, shard: Shard) -> Place:
    def place() -> str:
        start, number = (shard.start, shard.line) if shard.line else (0, 1)
        with path.open("rb") as file:
            file.seek(start)
            left = at - start
            while left and (part := file.read(min(left, 1 << 20))):
                number, left = number + part.count(b"\n"), left - len(part)
        return f"{path}:{number}"

    return place


def _packed(shard: Shard) -> Iterator[tuple[Place, dict[str, Any]]]:
    rows = islice(json_rows(Path(shard.path)), shard.start, shard.stop)
    return ((_known(f"{shard.path}:{number}"), row) for number, row in rows)


def _known(where: str) -> Place:
    return lambda: where


def _groups(shard: Shard) -> Iterator[tuple[Place, dict[str, Any]]]:
    path = Path(shard.path)
    with _parquet(path) as file:
        wanted = [name for name in ("_id", "id", "title", "text") if name in file.schema_arrow.names]
        stop = shard.stop if shard.stop is not None else file.metadata.num_row_groups
        number = sum(file.metadata.row_group(each).num_rows for each in range(shard.start))
        for batch in file.iter_batches(row_groups=list(range(shard.start, stop)), columns=wanted):
            for row in batch.to_pylist():
                number += 1
                yield _known(f"{path}, row {number}"), row


class _parquet:
    """An open Parquet file. Raises UserError for what is none, also while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Any:
        try:
            import pyarrow.parquet as pq
        except ImportError:
            raise UserError('Parquet files need a package: pip install "retrieval-prompts[parquet]"') from None
        try:
            self.file = pq.ParquetFile(self.path)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path} cannot be read as Parquet: {first_line(error)}") from None
        return self.file

    def __exit__(self, kind: Any, error: Any, _: Any) -> None:
        self.file.close()
        if isinstance(error, OSError | ValueError) and not isinstance(error, UserError):
            raise UserError(f"{self.path} cannot be read as Parquet: {first_line(error)}") from None
