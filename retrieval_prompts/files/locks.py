"""One run at a time on an output: a lock that ends with its process."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from retrieval_prompts.errors import UserError

_held: dict[str, tuple[int, int]] = {}  # lock -> the thread of this process that holds it, and how often
_guard = threading.Lock()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock of an output, a file `.NAME.lock` beside it, while the block runs; within it, once more is free.

    Folders above that are not there are made, and removed again if they stay empty. Yields whether it is held: some
    file systems have no locks.

    Raises:
        UserError: where another run holds the lock.
    """
    from filelock import FileLock, Timeout

    path = Path(os.path.abspath(path))
    name, own = os.path.realpath(path.parent) + f"/.{path.name}.lock", threading.get_ident()
    with _guard:
        owner, count = _held.get(name, (own, 0))
        if owner != own:
            raise _busy(path)
        _held[name] = own, count + 1
    made: list[Path] = []
    lock, held = FileLock(name, blocking=False), True
    try:
        if count == 0:
            made = _make(path.parent)
            try:
                lock.acquire()
            except Timeout:
                raise _busy(path) from None
            except NotImplementedError:
                held = False
        yield held
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):
                os.unlink(name)  # while it is held: who opened it before takes it for gone
        lock.release()
        with _guard:
            _held[name] = own, count
            if count == 0:
                del _held[name]
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _busy(path: Path) -> UserError:
    return UserError(f"{path} is being written by another run; wait until it ends, or choose another name")


def _make(folder: Path) -> list[Path]:
    """Make a folder; returns what was not there, the deepest first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing
