"""A data folder of sources that is made once and found again, as long as none of their files changes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from retrieval_prompts.data.sources import named_sets
from retrieval_prompts.data.sources.chunks import Chunking
from retrieval_prompts.data.sources.making import MADE, Made, Sources, make
from retrieval_prompts.data.sources.opened import expand, files_in, is_named
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import read_json

VERSION = 1  # goes up when the same sources give another folder


def at_hand(sources: Sources, chunking: Chunking | None, cache: Path) -> tuple[Path, Made]:
    """The folder, and what it holds.

    Raises:
        UserError: as `making.make` does.
    """
    paths = [path for names in (sources.documents, sources.queries, sources.judgements) for path in expand(names)]
    how = [chunking.size, chunking.overlap, chunking.model] if chunking is not None else None
    key = json.dumps([VERSION, asdict(sources), how, list(map(_state, _files(paths)))], sort_keys=True)
    first = paths[0]
    called = str(first).partition(":")[2] if is_named(first) else first.resolve().name.split(".")[0]
    name = re.sub(r"\W+", "-", called).strip("-") or "data"
    folder = cache / "data" / hashlib.sha256(key.encode()).hexdigest()[:32] / name
    made = _read(folder / MADE)
    if made is None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = make(folder, sources, chunking, overwrite=True)
    return folder, made


def _read(path: Path) -> Made | None:
    """What a folder holds; None where its description is not there, damaged, or of another version."""
    kinds = {"documents": int, "chunks": int, "queries": int, "splits": dict, "said": list, "left_out": list}
    try:
        found = read_json(path)
    except (UserError, OSError):
        return None
    if not isinstance(found, dict) or any(not isinstance(found.get(name), kind) for name, kind in kinds.items()):
        return None
    return Made(**{name: found[name] for name in kinds})


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        yield from files_in(path) if path.is_dir() else [path]


def _state(path: Path) -> list[object]:
    if is_named(path):
        named_sets.parts(path)  # raises where there is no such data set
        return [str(path), named_sets.version()]
    found = path.lstat() if path.is_symlink() and not path.exists() else path.stat()  # a link to nothing
    return [str(path.absolute()), found.st_size, found.st_mtime_ns]
