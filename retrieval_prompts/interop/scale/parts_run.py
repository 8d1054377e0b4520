"""Shards of anything become parts of a folder, by a pool of workers; see `vector_files`. Knows no kind of content.

A shard whose part is there, whole, of the same content and encoder, is not encoded again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from retrieval_prompts.errors import UserError
from retrieval_prompts.interop.scale import jobs, pool, vector_files

# (a shard, as JSON has it; the path of its part; the kind of numbers) -> "documents" and "empty" ones in it, how many
# were "encoded" now, and "cut", and parts "made"
Encode = Callable[[dict[str, Any], Path, str], Mapping[str, int]]


@dataclass(frozen=True)
class Encoded:
    """What a run did.

    Args:
        documents: in all shards, `empty` of them without any text, or pictures of which `empty` could not be read;
            `encoded` of them now, in `made` shards; `cut` of these at the model's length.
        workers: how many there could be; `gpus` for each of them.
    """

    folder: Path
    documents: int
    empty: int
    encoded: int
    cut: int
    shards: int
    made: int
    workers: int
    gpus: int


def encode(
    shards: Sequence[Mapping[str, Any]],
    make: Callable[[str], Encode],
    folder: Path | str,
    identity: Mapping[str, Any],
    *,
    half: bool = False,
    overwrite: bool = False,
    wanted: pool.Wanted = pool.ANY,
    said: str = "encode documents",
) -> Encoded:
    """Encode shards and write the parts of a folder.

    Args:
        make: called by each worker, once, with its device.
        folder: which all machines see under this name, as they see what the shards name.
        identity: of what encodes.
        half: in half precision: half the bytes, and numbers of three digits.
        overwrite: replace vectors of another encoder.
        wanted: how many workers, and where. Each computes with one thread, or on one GPU.

    Raises:
        UserError: for what cannot be read or encoded, on whichever machine, and where the folder is not shared.
    """
    folder = Path(folder).absolute()
    if not shards:
        raise UserError("there are no documents to encode")
    numbers = vector_files.NUMBERS[int(half)]
    vector_files.begin(folder, identity, numbers, len(shards), overwrite=overwrite)
    given = [{"number": number, "shard": dict(shard)} for number, shard in enumerate(shards)]
    total, counts = Counter[str](), dict[int, int]()
    with pool.started(wanted) as machines:
        device = "cuda" if machines.gpus else wanted.device or "cpu"
        making = partial(_encoding, make, device, str(folder), numbers)
        for number, answer in jobs.done(given, making, machines, said):
            counts[number] = answer["documents"]
            total.update(answer)
    _complete(folder, counts, len(shards))
    made = {each: total[each] for each in ("documents", "empty", "encoded", "cut", "made")}
    return Encoded(folder, shards=len(shards), workers=machines.workers, gpus=machines.gpus, **made)


def _complete(folder: Path, counts: dict[int, int], shards: int) -> None:
    names = {vector_files.name_of(number): counts[number] for number in sorted(counts)}
    if len(names) < shards or (lacking := [name for name in names if not (folder / name).is_file()]):
        many = shards - len(names) or len(lacking)
        raise UserError(
            f"{many:,} of {shards:,} shards are not in {folder} here; name a folder that all machines share"
        )
    vector_files.finish(folder, names)


def _encoding(make: Callable[[str], Encode], device: str, folder: str, numbers: str) -> jobs.Job:
    """What a worker does with each shard."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if device != "cuda":
        torch.set_num_threads(1)
    encode_one = make(device)

    def job(given: dict[str, Any]) -> Mapping[str, int]:
        return encode_one(given["shard"], Path(folder) / vector_files.name_of(given["number"]), numbers)

    return job


def check_same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises UserError on a worker that has loaded something else, whatever its folder is called there."""
    if {**found, "model": None} != {**wanted, "model": None}:
        raise UserError(
            f"a worker has another model under the name {found.get('model')}, or other prompts, than this machine; "
            "give all machines the same"
        )
