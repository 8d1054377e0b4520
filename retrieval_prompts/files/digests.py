"""Checksums: of files, whole or by block; of JSON, kept in it; of a folder's files, listed as sha256sum does."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from retrieval_prompts.errors import UserError
from retrieval_prompts.files.paths import check_regular, inside

SEAL = "sha256"  # the field of a JSON object that holds the digest of all others
SUMS = "SHA256SUMS"  # a folder's list; `sha256sum --check SHA256SUMS` reads it too
LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+?)\r?")  # of such a list: a digest and a name
BLOCK = 1 << 26  # bytes


def digest(path: Path) -> str:
    """The sha256 of a file, which is read block by block."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_blocks(path: Path, only: Iterable[int] | None = None, *, block: int = BLOCK) -> dict[int, str]:
    """Block -> sha256, of the blocks of so many bytes that a file has, or of some of them; two are read at once."""

    def one(number: int) -> str:
        found = hashlib.sha256()
        with path.open("rb") as file:
            file.seek(number * block)
            left = block
            while left and (part := file.read(min(left, 1 << 20))):
                found.update(part)
                left -= len(part)
        return found.hexdigest()

    from tqdm import tqdm

    numbers = list(range(-(-path.stat().st_size // block)) if only is None else only)
    with ThreadPoolExecutor(max_workers=2) as pool:
        said = {"desc": f"checksums of {path.name}", "unit": "block", "delay": 1, "leave": False}
        return dict(zip(numbers, tqdm(pool.map(one, numbers), total=len(numbers), **said), strict=True))


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the digest of its content as its last field."""
    plain = {name: each for name, each in value.items() if name != SEAL}
    return {**plain, SEAL: _of_json(plain)}


def check_seal(path: Path, value: Mapping[str, Any]) -> bool:
    """Whether an object that was read has the digest of its content; False: it has none, older files have not.

    Raises:
        UserError: that names the file where it has another.
    """
    if SEAL not in value:
        return False
    if value[SEAL] != _of_json({name: each for name, each in value.items() if name != SEAL}):
        raise UserError(f"{path} was changed after it was written (its sha256 differs); restore it or make it again")
    return True


def list_digest(path: Path, content: bytes | None = None) -> None:
    """Put a file's digest into the list of its folder. `content`: what it holds, where that is at hand."""
    from retrieval_prompts.files.writing import write_bytes

    value = digest(path) if content is None else hashlib.sha256(content).hexdigest()
    lines, new = [line for line in _lines(path.parent) if line], f"{value}  {path.name}"
    own = [line for line in lines if (found := LINE.fullmatch(line)) and found[2] == path.name]
    text = "".join(f"{new if line in own else line}\n" for line in (lines if own else [*lines, new]))
    write_bytes(path.parent / SUMS, text.encode("utf-8", "surrogateescape"))


def list_all(folder: Path) -> None:
    """Write the list of all files of a folder and of the folders in it."""
    from retrieval_prompts.files.writing import write_bytes

    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    lines = "".join(f"{digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths)
    write_bytes(folder / SUMS, lines.encode())


def check_all_listed(folder: Path, whole: Sequence[str] = ()) -> bool:
    """Whether a folder has a list, of which every file is there and as it was written.

    False: there is none, or it lists nothing.

    Args:
        whole: patterns of names that are all in the list, unless it was cut or changed itself.

    Raises:
        UserError: that names the first that is not.
    """
    if not (folder / SUMS).is_file():
        return False
    found = listed(folder)
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    for name in names:
        if name not in found and any(fnmatchcase(name, pattern) for pattern in whole):
            raise UserError(f"{folder / SUMS} does not list {name}; it was changed, or the file is of another origin")
    for name, expected in found.items():
        path = inside(folder, name)
        if not path.is_file():
            raise UserError(f"{path} is gone: {SUMS} lists it; restore it or make the folder again")
        if digest(path) != expected:
            raise _changed(path)
    return bool(found)


def listed(folder: Path) -> dict[str, str]:
    """File -> sha256 of a folder's list; empty where there is none. Lines of another form are left out."""
    found = filter(None, map(LINE.fullmatch, _lines(folder)))
    return {match[2]: match[1].lower() for match in found}


def _lines(folder: Path) -> list[str]:
    check_regular(folder / SUMS)
    try:
        return (folder / SUMS).read_bytes().decode("utf-8", "surrogateescape").removesuffix("\n").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return []


def check_listed(path: Path) -> bool:
    """Whether the list of the file's folder has its digest; False: it is not listed, as other tools' files are not.

    Raises:
        UserError: where the list has another.
    """
    expected = listed(path.parent).get(path.name)
    if expected is None or not path.is_file():
        return False
    if digest(path) != expected:
        raise _changed(path)
    return True


def _changed(path: Path) -> UserError:
    return UserError(
        f"{path} was changed or cut after it was written: it is not what {SUMS} lists; make it again, or delete its "
        "line there if the change is yours"
    )


def _of_json(value: Any) -> str:
    plain = json.loads(json.dumps(value))  # as a file gives it back: lists for tuples, text for number keys
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
