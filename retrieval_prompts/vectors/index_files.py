"""The files of an index folder: their sizes and checksums, noted in its manifest and compared. Knows no vectors.

What is compared when an index is opened: the sizes of all files; the content of the manifest, the ids, the offsets,
index.faiss, lists.ivf and, where they are asked for, files in folders. Of a file of over `BOUND` bytes only the first
and the last block are read then, and the whole of it by `verify`. The texts have a checksum a line (lines.npy), which
is compared whenever one is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from retrieval_prompts.errors import UserError
from retrieval_prompts.files import check_seal, digest, inside, of_blocks, read_json
from retrieval_prompts.files.digests import BLOCK

BOUND = 1 << 31  # bytes that are read at opening: about a second's worth
READ_AT_OPENING = (
    *("index.faiss", "lists.ivf", "ids.json", "ids.npy", "offsets.npy", "lines.npy", "chunks.npy", "chunks.json"),
)


def described(folder: Path) -> dict[str, Any]:
    """The sizes and checksums for the manifest: "files", "ids", "digests" of files in folders, "blocks" of others."""
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*.*"))}
    whole = [name for name, size in files.items() if "/" not in name or size > BOUND]
    return {
        "files": files,
        "ids": digest(folder / "ids.json"),
        "digests": {name: digest(folder / name) for name in files if "/" in name},
        "blocks": {name: list(of_blocks(folder / name).values()) for name in whole},
    }


def check(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Compare what is read at opening.

    Raises:
        ValueError: that names the file which is not as it was written.
        OSError: for one that cannot be read.
        UserError: for one outside the folder.
        KeyError, TypeError, AttributeError: for a manifest that lacks a field, or has something else in it.
    """
    for name in ("manifest.json", *READ_AT_OPENING, "documents.jsonl", *manifest["files"]):
        inside(folder, name)
    for name, size in manifest["files"].items():
        if (came := (folder / name).stat().st_size) != size:
            raise ValueError(f"{name} has {came} bytes instead of {size}")
    blocks = manifest.get("blocks", {})
    if "ids.json" not in blocks and digest(folder / "ids.json") != manifest["ids"]:
        raise ValueError("ids.json was changed")
    for name in READ_AT_OPENING:
        if name in blocks:
            large = (folder / name).stat().st_size > BOUND
            _compare(folder, name, blocks[name], {0, len(blocks[name]) - 1} if large else None)


def is_written(folder: Path, manifest: Mapping[str, Any], name: str) -> bool:
    """Whether a file in a folder beside the index is the one that was written; of a large one see `BOUND`."""
    blocks = manifest.get("blocks", {}).get(name)
    if blocks and (folder / name).stat().st_size > BOUND:
        try:
            _compare(folder, name, blocks, {0, len(blocks) - 1})
        except ValueError:
            return False
        return True
    return bool(digest(folder / name) == manifest["digests"][name])


def verify(folder: Path) -> bool:
    """Compare every byte of an index folder; False where its manifest is older than the checksums, so nobody can tell.

    Raises:
        UserError: that names the first file which is not as it was written.
    """
    manifest = read_json(folder / "manifest.json")
    try:
        sealed = check_seal(folder / "manifest.json", manifest)
        check(folder, manifest | {"blocks": {}})
        for name, expected in manifest.get("digests", {}).items():
            if digest(inside(folder, name)) != expected:
                raise ValueError(f"{name} was changed")
        for name, blocks in manifest.get("blocks", {}).items():
            if name not in manifest.get("digests", {}):
                _compare(folder, name, blocks)
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the index in {folder} is damaged, index again: {error}") from None
    return sealed


def _compare(folder: Path, name: str, expected: list[str], only: Iterable[int] | None = None) -> None:
    if len(expected) != -(-(folder / name).stat().st_size // BLOCK):
        raise ValueError(f"the manifest has {len(expected)} checksums of {name}, which has another number of blocks")
    found = of_blocks(inside(folder, name), only)
    if wrong := [number for number, came in found.items() if expected[number] != came]:
        where = f", first in block {wrong[0]} of {BLOCK >> 20} MB" if len(expected) > 1 else ""
        raise ValueError(f"{name} was changed{where}")
