"""Paths and globs -> the files that they name, in an order; files opened whatever compresses them."""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from retrieval_prompts.data.lines import LINE, PART
from retrieval_prompts.data.packed import COMPRESSED, cut_short, damage, opened
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import check_regular

NAMED = "ir_datasets:"  # what a data set of ir_datasets is called by


def expand(sources: Iterable[str]) -> list[Path]:
    """Files and folders, those of a glob sorted, and names of data sets as they are.

    Raises:
        UserError: for a name or glob that is nothing.
    """
    found: dict[Path, None] = {}
    for source in sources:
        if is_named(source):
            found[Path(source)] = None
            continue
        path = Path(source).expanduser()
        if path.exists():
            check_regular(path)
            found[path] = None
            continue
        matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(source) else []
        if not matches:
            what = "matches no file" if glob.has_magic(source) else "does not exist"
            raise UserError(f"{source} {what}; expected a file, a folder or a glob such as 'docs/*.csv'")
        found |= dict.fromkeys(map(Path, matches))
    return list(found)


def is_named(source: Path | str) -> bool:
    """Whether a source is the name of a data set, not a file: see `named_sets`."""
    return str(source).startswith(NAMED)


def kind(path: Path) -> str:
    """The ending of a name without that of its compression, in small letters: ".csv" of "log.CSV.gz"."""
    inner = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return inner.suffix.lower()


def files_in(folder: Path) -> Iterator[Path]:
    """The files of a folder and of those in it, sorted, and links to folders, which are not followed.

    What is hidden, and what is not a regular file, is left out.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        paths = (Path(place) / name for name in sorted([*names, *links]) if not name.startswith("."))
        yield from (path for path in paths if path.is_file() or path.is_symlink())


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """A file of UTF-8, a byte order mark taken off, line ends as they are; decompressed by its name. Read once.

    Raises UserError, also while it is read, for other bytes, for a file that cannot be read to its end, and for one
    that unpacks to what no text is packed from. Its lines are those of `text_lines`.
    """
    try:
        with io.TextIOWrapper(opened(path), encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UserError(f"{path}: expected UTF-8, got byte 0x{byte:02x}; convert the file") from None
    except damage() as error:
        raise cut_short(path, error) from None


def text_lines(file: IO[str], path: Path) -> Iterator[str]:
    """The lines of an open file, with their ends.

    Raises:
        UserError: for one of more than `LINE` characters.
    """
    number, size = 1, 0
    line: list[str] = []  # its parts
    while part := file.readline(PART):
        size += len(part)
        if size > LINE:
            raise UserError(f"{path}:{number}: the line has more than {LINE >> 20} MB; expected a text or a row a line")
        line.append(part)
        if part.endswith(("\n", "\r")) or len(part) < PART:
            yield "".join(line)
            number, size = number + 1, 0
            line.clear()
    if line:
        yield "".join(line)
