"""Atomic writes: a file or a folder appears whole, or not at all; digests. Knows nothing about what is written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrieval_prompts.errors import UserError


def check_output(path: Path, *, overwrite: bool, holds: str | None = None) -> None:
    """Refuse an output that exists, unless `overwrite`, and one that cannot be written. Raises UserError.

    Args:
        holds: the output is a folder, and each such folder holds a file of this name: what is something else, a
            user's own folder for instance, is not replaced even with `overwrite`. None: the output is a file.
    """
    if path.exists():
        if not overwrite:
            raise UserError(f"{path} exists already; choose another name or pass --overwrite (overwrite=True)")
        if holds is None and path.is_dir():
            raise UserError(f"{path} is a folder; expected the name of a file")
        if holds is not None and not (path.is_dir() and ((path / holds).is_file() or not any(path.iterdir()))):
            raise UserError(
                f"{path} is not replaced, for it is something else: it holds no {holds}; choose another name"
            )
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise UserError(f"{path} cannot be written: {parent} is not a folder that you may write to")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` through a temporary file beside it and a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises UserError that names the file when it is missing or malformed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error})") from None


def digest(path: Path) -> str:
    """The sha256 of a file, which is read block by block."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def new_folder(path: Path, *, holds: str, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `path` when the block ends without an error.

    An existing `path` is kept until the new one is whole, then replaced: only with `overwrite`, and only if it is
    empty or holds a file named `holds` (see `check_output`).
    """
    check_output(path, overwrite=overwrite, holds=holds)
    path = path.absolute()  # "." has no parent
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    os.chmod(temporary, 0o777 & ~_umask())
    try:
        yield temporary
        if path.is_dir() and not path.is_symlink():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            os.replace(path, old / "replaced")
            try:
                os.replace(temporary, path)
            except BaseException:
                os.replace(old / "replaced", path)
                old.rmdir()
                raise
            shutil.rmtree(old)
        else:
            if path.is_symlink():
                path.unlink()
            os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def default_cache() -> Path:
    """$RETRIEVAL_PROMPTS_CACHE, else retrieval-prompts in the user's cache folder."""
    if named := os.environ.get("RETRIEVAL_PROMPTS_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retrieval-prompts"
