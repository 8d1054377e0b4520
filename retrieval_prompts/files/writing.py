"""Atomic writes: a file or a folder appears whole, or not at all, and stays when the power fails."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from retrieval_prompts.errors import UserError
from retrieval_prompts.files.locks import locked
from retrieval_prompts.files.paths import Kind, check_output, check_place, check_regular

fcntl: Any = None  # Windows has none: leftovers in caches are not swept there
with contextlib.suppress(ImportError):
    fcntl = importlib.import_module("fcntl")

NEW, OLD = "new-", "old-"  # how names of temporary files go on after ".NAME."
EXCHANGE = 2  # of Linux's renameat2
Read = TypeVar("Read")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` through a temporary file beside it and a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = _temporary_file(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            if fcntl is not None:  # while it is locked
                os.replace(temporary, path)
        if fcntl is None:
            os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        _name(error, path)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; what is not a character as JSON's escape, which is read as it was."""
    content = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_bytes(path, content.encode("utf-8", "backslashreplace"))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: that names the file when it is missing, malformed or no regular file.
    """
    check_regular(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, numbers of thousands of digits, too deep
        raise UserError(f"{path} is not valid JSON ({error})") from None


def unreplaced(folder: Path, read: Callable[[], Read]) -> Read:
    """What is read of a folder; once more where another run replaced the folder meanwhile, and so the reading failed.

    What is kept open of a folder stays whole, for that is the old one.
    """
    while True:
        before = _which(folder)
        try:
            return read()
        except UserError:
            if _which(folder) == before:
                raise


def _which(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def sweep(folder: Path, of: str = "") -> None:
    """Remove the temporary files that killed runs left in a folder; one that is being written is locked, and stays.

    of: how the names of the files begin that they were to become.
    """
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        names = [
            name for name in os.listdir(folder) if re.fullmatch(rf"\.{re.escape(of)}.*\.{NEW}[a-z0-9_]{{8}}", name)
        ]
        for name in names:
            with contextlib.suppress(OSError), (folder / name).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (folder / name).unlink()


@contextlib.contextmanager
def output(path: Path, *, overwrite: bool, holds: Kind | None = None) -> Iterator[None]:
    """Hold an output while the block runs: checked (see `check_output`), locked, and rid of what killed runs left.

    A folder that a killed run was about to replace is put back.

    Raises:
        UserError: too where another run holds it.
    """
    check_place(path)
    with locked(path) as held:
        if held:
            _recover(path.absolute())
        check_output(path, overwrite=overwrite, holds=holds)
        yield


@contextlib.contextmanager
def new_folder(path: Path, *, holds: Kind, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `path` when the block ends without an error.

    An existing `path` is kept until the new one is whole, then replaced: only with `overwrite`, and only if it is empty
    or of this kind.

    Raises:
        UserError: as `output`.
    """
    with output(path, overwrite=overwrite, holds=holds):
        place = path.absolute()  # "." has no parent
        temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.{NEW}"))
        os.chmod(temporary, 0o777 & ~_umask())
        try:
            yield temporary
            _sync_tree(temporary)
            check_output(path, overwrite=overwrite, holds=holds)  # another program may have made it meanwhile
            if place.is_dir() and not place.is_symlink():
                if not _exchange(temporary, place):
                    _replace_by_two(temporary, place)
            else:
                if place.is_symlink():
                    place.unlink()
                os.replace(temporary, place)
            _sync_folder(place.parent)
        except OSError as error:
            _name(error, place)
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)  # what was exchanged, or never finished


def _name(error: BaseException, path: Path) -> None:
    """A full disk does not say what it had no room for."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        error.filename = str(path)


def _temporary_file(path: Path) -> tuple[int, str]:
    """An open file beside `path`, locked so that `sweep` leaves it alone."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{NEW}")
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            if not os.path.exists(name):  # swept before it was locked
                os.close(handle)
                continue
        return handle, name


def _exchange(new: Path, old: Path) -> bool:
    """Exchange two folders in one call; False where the system cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if call is None:
        return False
    here = ctypes.c_int(-100)  # AT_FDCWD
    if call(here, os.fsencode(new), here, os.fsencode(old), ctypes.c_uint(EXCHANGE)) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(old))


def _replace_by_two(new: Path, path: Path) -> None:
    """Two renames; between them nothing is under the name, and `_recover` puts the old folder back."""
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.{OLD}"))
    os.replace(path, old / "replaced")
    try:
        os.replace(new, path)
    except BaseException:
        os.replace(old / "replaced", path)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)  # the new one is in its place


def _recover(path: Path) -> None:
    """Clear away what killed runs left beside `path`, whose lock is held."""
    left = re.compile(rf"\.{re.escape(path.name)}\.({NEW}|{OLD})[a-z0-9_]{{8}}")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        for each in [each for each in path.parent.iterdir() if left.fullmatch(each.name)]:
            if (each / "replaced").is_dir() and not path.exists():
                os.replace(each / "replaced", path)
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each, ignore_errors=True)
            else:
                each.unlink(missing_ok=True)


def _sync_tree(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            with path.open("rb") as file:
                os.fsync(file.fileno())
            if path.stat().st_mode & 0o777 == 0o600:  # of a library's temporary file; others may not read it
                path.chmod(0o666 & ~_umask())
        _sync_folder(Path(place))


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can, and not every system opens folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
