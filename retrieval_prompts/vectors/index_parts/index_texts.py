"""The documents of an index folder: ids in ids.json and ids.npy (see `data.id_list`), title and text in
documents.jsonl. Knows no vectors. Opened, they stay on disk.

Where they are chunks, chunks.npy has for each the position of the first chunk of its document, and chunks.json has
that position by the document's id.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_prompts.data.corpus import ABOUT, Corpus, Document, frame, line_check
from retrieval_prompts.data.groups import FirstOf, Groups
from retrieval_prompts.data.id_list import NO_LIST, Ids
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import read_array
from retrieval_prompts.vectors import index_files

IDS, TABLE = "ids.json", "ids.npy"
CHUNKS, NAMES = "chunks.npy", "chunks.json"


def unique(ids: Iterable[str]) -> Ids:
    """Raises UserError for repeated ids."""
    found = Ids.of(ids)
    if repeated := found.repeated():
        more = sum(repeated.values()) - len(repeated)
        raise UserError(f"expected unique document ids, got {more} repeated ones")
    return found


def ids_of(documents: Corpus | Sequence[Document]) -> Sequence[str]:
    return documents.ids if isinstance(documents, Corpus) else [document.id for document in documents]


def check_order(ids: Ids, documents: Corpus | Sequence[Document]) -> None:
    came = ids_of(documents)
    if came is ids:
        return
    if len(came) != len(ids):
        raise UserError(f"expected one document for each id, got {len(came)} documents and {len(ids)} ids")
    for position, (expected, id) in enumerate(zip(ids, came, strict=True)):
        if expected != id:
            raise UserError(f"expected documents in the order of the ids, got {id!r} for {expected!r} at {position}")


def write_ids(folder: Path, ids: Iterable[str]) -> None:
    Ids.of(ids).save(folder / IDS, folder / TABLE)


def write(folder: Path, documents: Iterable[Document], ids: Iterable[str]) -> str:
    """Write them into a folder; returns their fingerprint, the same as that of the corpus they came from."""
    digest, groups = hashlib.sha256(), Groups()
    offsets, checks = array("q"), array("Q")
    with (folder / "documents.jsonl").open("wb") as file:
        for document in documents:
            offsets.append(file.tell())
            groups.add(document.id, document.document or None)
            row: dict[str, Any] = {"_id": document.id, "title": document.title, "text": document.text}
            if about := {name: value for name in ABOUT if (value := getattr(document, name))}:
                row["metadata"] = about
            line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
            file.write(line)
            checks.append(line_check(line))
            digest.update(frame(document))
    np.save(folder / "offsets.npy", np.frombuffer(offsets, dtype=np.int64), allow_pickle=False)
    np.save(folder / "lines.npy", np.frombuffer(checks, dtype=np.uint64), allow_pickle=False)
    if groups:
        groups.settle(Ids.of(ids))
        np.save(folder / CHUNKS, groups.firsts, allow_pickle=False)
        (folder / NAMES).write_text(json.dumps(dict(groups.documents)), encoding="utf-8")
    return digest.hexdigest()


def read_chunks(folder: Path, manifest: Mapping[str, Any], ids: Ids) -> Mapping[str, str]:
    """Chunk, or document -> the id that stands for it, of those that do not stand for themselves. Raises ValueError."""
    if CHUNKS not in manifest["files"]:
        return {}
    firsts = read_array(folder / CHUNKS, np.int64, 1)
    if len(firsts) != len(ids) or not ((firsts >= 0) & (firsts <= np.arange(len(ids)))).all():
        raise ValueError(f"{CHUNKS} is not of {len(ids)} documents")
    named = json.loads((folder / NAMES).read_bytes()) if NAMES in manifest["files"] else {}
    if not isinstance(named, dict) or any(type(at) is not int or not 0 <= at < len(ids) for at in named.values()):
        raise ValueError(f"{NAMES} is not of {len(ids)} documents")
    return FirstOf(ids, firsts, named)


def read(folder: Path, manifest: Mapping[str, Any], mmap: bool) -> tuple[Ids, Corpus | None]:
    """The ids, and the documents where there are some. Raises as `index_files.check`, and ValueError."""
    index_files.check(folder, manifest)
    ids = _read_ids(folder, manifest, mmap)
    if manifest["documents"] is None:
        return ids, None
    offsets = read_array(folder / "offsets.npy", np.int64, 1, mmap=mmap)
    checks = read_array(folder / "lines.npy", np.uint64, 1) if "lines.npy" in manifest["files"] else None
    if len(offsets) != len(ids):
        raise ValueError(f"{len(offsets)} documents and {len(ids)} ids")
    return ids, Corpus(folder / "documents.jsonl", ids, manifest["documents"], offsets, checks).hold()


def _read_ids(folder: Path, manifest: Mapping[str, Any], mmap: bool) -> Ids:
    if TABLE not in manifest["files"]:  # of an older index
        ids = json.loads((folder / IDS).read_bytes())
        if not isinstance(ids, list) or set(map(type, ids)) - {str}:
            raise ValueError(NO_LIST)
        return Ids.of(ids)
    table = read_array(folder / TABLE, np.uint64, 2, mmap=mmap)
    content = np.memmap(folder / IDS, np.uint8, "r").view(np.ndarray) if mmap else np.fromfile(folder / IDS, np.uint8)
    return Ids.checked(content, table, str(folder / IDS))
