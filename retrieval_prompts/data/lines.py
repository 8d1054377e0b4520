"""Lines of text files, plain or gzipped, read strictly. Knows no format."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from retrieval_prompts.errors import UserError


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, text) of a UTF-8 file, gzipped if it ends in .gz; blank lines are left out.

    Raises UserError for bytes that are not UTF-8, and for a file that cannot be read or is cut short.
    """
    return ((number, line) for number, _, line in read_at(path))


def read_at(path: Path) -> Iterator[tuple[int, int, str]]:
    """(line number from 1, byte offset, text); see `read_lines`."""
    offset = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                start, offset = offset, offset + len(line)
                if number == 1 and line.startswith(codecs.BOM_UTF8):
                    start, line = start + len(codecs.BOM_UTF8), line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    try:
                        yield number, start, line.decode()
                    except UnicodeDecodeError as error:
                        at = f"byte 0x{line[error.start]:02x} at column {error.start + 1}"
                        raise UserError(f"{path}:{number}: expected UTF-8, got {at}; convert the file") from None
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read to its end ({error}); fetch or compress it again") from None


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
