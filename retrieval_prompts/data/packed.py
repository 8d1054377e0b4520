"""Files by their bytes, unpacked if their names end in .gz or .zst: bounded, and never cut short without a word."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from retrieval_prompts.errors import MissingPackage, UserError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

COMPRESSED = (".gz", ".zst")
PLAIN, RATIO = 1 << 28, 200  # a packed file may unpack to so many bytes, or to so many times its size
PACKED = 1 << 12  # bytes of a .zst file that are unpacked at once, to 128 MB at most
BUFFER = 1 << 17


def opened(path: Path) -> IO[bytes]:
    """The bytes of a file, decompressed by its name, to be read from the start to the end.

    Raises:
        UserError: without zstandard and, while it is read, for what unpacks to more than any text does; one of
            `damage()` for a file that ends too early.
    """
    ending = path.suffix.lower()
    if ending not in COMPRESSED:
        return path.open("rb")
    packed: Any = gzip.GzipFile(path, "rb") if ending == ".gz" else _Zstandard(path)
    return io.BufferedReader(_Bounded(packed, path), BUFFER)


def damage() -> tuple[type[Exception], ...]:
    """What is raised by a file that ends too early, or was packed otherwise than its name says."""
    packed = [sys.modules["zstandard"].ZstdError] if "zstandard" in sys.modules else []
    return (OSError, EOFError, zlib.error, *packed)


def cut_short(path: Path, error: Exception) -> UserError:
    """What is said of such a file."""
    return UserError(f"{path} cannot be read to its end ({error}); fetch or compress it again")


class _Bounded(io.RawIOBase):
    """What a packed file unpacks to.

    Raises:
        UserError: behind the bound (see `RATIO`).
    """

    def __init__(self, unpacked: Any, path: Path) -> None:
        self._unpacked, self._path, self._total = unpacked, path, 0
        self._most = max(PLAIN, RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        count = int(self._unpacked.readinto(buffer))
        self._total += count
        if self._total > self._most:
            much = f"over {self._most >> 20:,} MB, more than {RATIO} times its size"
            raise UserError(f"{self._path} unpacks to {much}, which no text does; unpack it yourself if it is right")
        return count

    def close(self) -> None:
        self._unpacked.close()
        super().close()


class _Zstandard(io.RawIOBase):
    """What a .zst file unpacks to. The library's own reader takes a file that was cut for one that has ended."""

    def __init__(self, path: Path) -> None:
        try:
            import zstandard
        except ImportError:
            raise MissingPackage(f'{path} needs zstandard: pip install "retrieval-prompts[files]"') from None
        self._new: Callable[[], Any] = zstandard.ZstdDecompressor().decompressobj
        self._file = path.open("rb")
        self._frame: Any = None  # the part that is being unpacked; a file may have several
        self._packed, self._unpacked = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        while not self._unpacked:
            packed = self._packed or self._file.read(PACKED)
            if not packed:
                if self._frame is not None:
                    raise EOFError("the compressed data end too early")
                return 0
            self._frame = self._frame or self._new()
            self._unpacked, self._packed = memoryview(self._frame.decompress(packed)), b""
            if self._frame.eof:
                self._frame, self._packed = None, self._frame.unused_data
        part, self._unpacked = self._unpacked[: len(view)], self._unpacked[len(view) :]
        view[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._file.close()
        super().close()
