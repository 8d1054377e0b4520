"""An IVF index by workers: each adds vectors to a copy of one trained index, and these shards are merged on disk.

What was made stays in a folder beside the parts until the index is whole, so that the same command goes on from there:

    lists/trained.faiss, lists-000000.faiss ...   what FAISS wrote
    lists/trained.json, lists-000000.json ...     of what, and its checksum
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_prompts.errors import UserError
from retrieval_prompts.files import check_seal, digest, read_json, sealed, sweep, write_bytes, write_json
from retrieval_prompts.interop.scale import jobs, pool
from retrieval_prompts.interop.scale.vector_files import Parts, Stretch
from retrieval_prompts.vectors import faiss_index
from retrieval_prompts.vectors.index_parts import on_disk

FOLDER, TRAINED = "lists", "trained"
VECTORS, A_LIST = 65_536, 4  # vectors that a worker adds to a copy: up to so many, or so many for each list


@contextmanager
def building(parts: Parts, wanted: pool.Wanted = pool.ANY) -> Iterator[Callable[..., dict[str, Any]]]:
    """What writes an index of the parts as `faiss_index.write` does, and, of types that can be merged, by workers.

    What they made is kept for the next time unless the block comes to its end, where the index has to be whole.
    """
    yield partial(_write, wanted=wanted)
    shutil.rmtree(parts.folder / FOLDER, ignore_errors=True)


def _write(path: Path, vectors: Parts, factory: str = "Flat", *, wanted: pool.Wanted, **options: Any) -> dict[str, Any]:
    if not on_disk.mergeable(faiss_index.make(factory, vectors.dimension)):
        return faiss_index.write(path, vectors, factory, **options)
    folder = vectors.folder / FOLDER
    folder.mkdir(exist_ok=True)
    sweep(folder)
    stretches = [asdict(Stretch.of(vectors, number)) for number in range(len(vectors.names))]
    record, lists = _trained(folder, vectors, stretches, factory, options)
    shards = _shards(stretches, lists)
    with pool.started(replace(wanted, device="cpu")) as machines:
        make = partial(
            _adding, str(vectors.folder.absolute()), vectors.about["encoder"], digest(_file(folder, TRAINED))
        )
        made = dict(jobs.done(shards, make, machines, "add to the index"))
    files = [_file(folder, _name(number)) for number in range(len(shards))]
    if lacking := [file.name for file in files if not file.is_file()]:
        raise UserError(
            f"{len(lacking):,} of {len(files):,} shards of the index are not in {folder} here; name a folder that all "
            "machines share"
        )
    with faiss_index.faiss_errors(f"the shards in {folder} cannot be merged"):
        merged = on_disk.merge(_file(folder, TRAINED), files, path)
    if merged.ntotal != len(vectors):
        raise UserError(f"{folder} has {merged.ntotal:,} of {len(vectors):,} vectors; remove it, and index again")
    return record | {"shards": len(shards), "made": sum(each["made"] for each in made.values())}


def _trained(
    folder: Path, vectors: Parts, stretches: list[dict[str, Any]], factory: str, options: Mapping[str, Any]
) -> tuple[dict[str, Any], int]:
    """How the trained index in the folder was made, now if it has to be, and how many lists it has."""
    learning = {name: options.get(name) for name in ("train_size", "ef_construction")}
    about = {"factory": factory, **learning, "of": stretches, "faiss": on_disk.version()}
    if (found := _noted(folder, TRAINED, about)) is None:
        index, _, record = faiss_index.prepared(vectors, factory, **options)
        plain = faiss_index.to_cpu(index, record["gpu"])
        found = {"build": record | {"gpu": False}, "lists": on_disk.lists_of(plain)}
        _keep(folder, TRAINED, about, on_disk.content(plain), found)
    return found["build"], found["lists"]


def _shards(stretches: list[dict[str, Any]], lists: int) -> list[dict[str, Any]]:
    """The parts in groups, in their order: what a worker adds at once."""
    most, groups = max(VECTORS, A_LIST * lists), [[stretches[0]]]
    for each in stretches[1:]:
        if sum(one["count"] for one in groups[-1]) + each["count"] > most:
            groups.append([])
        groups[-1].append(each)
    return [{"number": number, "stretches": group} for number, group in enumerate(groups)]


def _name(number: int) -> str:
    return f"lists-{number:06d}"


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.faiss"


def _noted(folder: Path, name: str, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is noted of a file that was written whole, of what `about` says; None: it has to be made."""
    try:
        noted = read_json(folder / f"{name}.json")
        whole = check_seal(folder / f"{name}.json", noted) and digest(_file(folder, name)) == noted["file"]
        return dict(noted["found"]) if whole and noted["about"] == about else None
    except (UserError, OSError, KeyError, TypeError, ValueError):
        return None


def _keep(folder: Path, name: str, about: Mapping[str, Any], content: bytes, found: Mapping[str, Any]) -> None:
    """Write a file, and then what is noted of it."""
    write_bytes(_file(folder, name), content)
    noted = {"about": dict(about), "found": dict(found), "file": hashlib.sha256(content).hexdigest()}
    write_json(folder / f"{name}.json", sealed(noted))


# --- on a worker ---------------------------------------------------------------------------------------------------


def _adding(folder: str, encoder: Mapping[str, Any], trained: str) -> jobs.Job:
    """What a worker does with each group of parts."""
    place = Path(folder) / FOLDER

    def job(given: dict[str, Any]) -> dict[str, int]:
        about, name = {"trained": trained, "of": given["stretches"]}, _name(given["number"])
        if _noted(place, name, about) is not None:
            return {"made": 0}
        if digest(_file(place, TRAINED)) != trained:
            raise UserError(f"{_file(place, TRAINED)} is another on a worker; name a folder that all machines share")
        stretches = [Stretch(**each) for each in given["stretches"]]
        runs = ((each.start, _vectors(each, Path(folder), encoder)) for each in stretches if each.count)
        with faiss_index.faiss_errors("a worker cannot add to the index"):
            content = on_disk.added(_file(place, TRAINED), runs)
        _keep(place, name, about, content, {})
        return {"made": 1}

    return job


def _vectors(stretch: Stretch, folder: Path, encoder: Mapping[str, Any]) -> np.ndarray:
    return np.ascontiguousarray(stretch.read(folder, encoder)[1])
