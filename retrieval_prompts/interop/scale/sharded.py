"""Documents in shards -> vectors in Parquet, by a pool of workers on one or many machines.

    load = partial(BiEncoder.load, "all-MiniLM-L6-v2")
    encoded = encode_shards(load(), load, of_files("corpus/*.jsonl"), "VECTORS")

A shard whose vectors are there, whole, of the same texts and encoder, is not encoded again.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.errors import DataWarning, UserError, first_line
from retrieval_prompts.interop.scale import pool, vector_files
from retrieval_prompts.interop.scale.shards import Shard
from retrieval_prompts.prompts.strength import between
from retrieval_prompts.towers.text import TextTower
from retrieval_prompts.vectors.encode import encode_texts


@dataclass(frozen=True)
class Encoded:
    """What a run did.

    Args:
        documents: in all shards, `empty` of them without any text; `encoded` of them now, in `made` shards.
        workers: how many there could be; `gpus` for each of them.
    """

    folder: Path
    documents: int
    empty: int
    encoded: int
    shards: int
    made: int
    workers: int
    gpus: int


def encode_shards(
    biencoder: BiEncoder,
    load: Callable[..., BiEncoder],
    shards: Sequence[Shard],
    folder: Path | str,
    *,
    half: bool = False,
    overwrite: bool = False,
    wanted: pool.Wanted = pool.ANY,
) -> Encoded:
    """Encode documents, ready to be compared by inner product, and write them into a folder (see `vector_files`).

    Args:
        biencoder: what the vectors are to be of. It encodes nothing itself.
        load: makes the same on a worker, with `device=`; see `portable`.
        shards: see `shards.of_files` and `shards.of_corpus`.
        folder: which all machines see under this name, as they see the files of the shards.
        half: in half precision: half the bytes, and numbers of three digits.
        overwrite: replace vectors of another encoder.
        wanted: how many workers, and where. Each computes with one thread, or on one GPU.

    Documents that are cut at the model's length are counted in a DataWarning.

    Raises:
        UserError: for what cannot be read or encoded, on whichever machine, and where the workers have another model.
    """
    folder = Path(folder).absolute()
    if not shards:
        raise UserError("there are no documents to encode")
    identity, numbers = biencoder.identity(), vector_files.NUMBERS[int(half)]
    vector_files.begin(folder, identity, numbers, len(shards), overwrite=overwrite)
    items = [json.dumps({"number": number, **asdict(shard)}) for number, shard in enumerate(shards)]
    total, counts = Counter[str](), dict[int, int]()
    with pool.started(wanted) as machines:
        make = partial(_work, load, "cuda" if machines.gpus else wanted.device, str(folder), identity, numbers)
        bar = tqdm(total=len(shards), desc="encode documents", unit="shard", delay=1, mininterval=0.5)
        with bar, contextlib.closing(pool.answers(items, make, machines)) as found:
            for answer in map(json.loads, found):
                if "error" in answer:
                    raise UserError(answer["error"])
                counts[answer["number"]] = answer["documents"]
                total.update({each: answer[each] for each in ("documents", "encoded", "made", "cut", "empty")})
                bar.update()
    _complete(folder, counts, len(shards))
    _say_cut(total, biencoder.tower)
    made = {each: total[each] for each in ("documents", "empty", "encoded", "made")}
    return Encoded(folder, shards=len(shards), workers=machines.workers, gpus=machines.gpus, **made)


def portable(model: str | Path | None, prompts: str | Path | None = None, **options: Any) -> Callable[..., BiEncoder]:
    """`BiEncoder.load` of these, to be called on another machine, where folders lie at the same absolute paths."""

    def place(name: str | Path | None) -> str | None:
        return str(found.absolute()) if name is not None and (found := Path(name).expanduser()).is_dir() else name  # type: ignore[return-value]

    return partial(BiEncoder.load, place(model), place(prompts), **options)


def _complete(folder: Path, counts: dict[int, int], shards: int) -> None:
    names = {vector_files.name_of(number): counts[number] for number in sorted(counts)}
    if len(names) < shards or (lacking := [name for name in names if not (folder / name).is_file()]):
        many = shards - len(names) or len(lacking)
        raise UserError(
            f"{many:,} of {shards:,} shards are not in {folder} here; name a folder that all machines share"
        )
    vector_files.finish(folder, names)


def _say_cut(total: Counter[str], tower: TextTower) -> None:
    if total["cut"]:
        room, of = tower.total_length("document", 0), f"{total['cut']:,} of {total['encoded']:,} documents"
        warnings.warn(
            f"{of} that were encoded are cut at the {room} tokens that model {tower.name} reads; chunks are read "
            f"whole: retrieval-prompts corpus DATA --chunk {room} --out CHUNKS",
            DataWarning,
            stacklevel=3,
        )


# --- on a worker ---------------------------------------------------------------------------------------------------


def _work(
    load: Callable[..., BiEncoder], device: str | None, folder: str, identity: dict[str, Any], numbers: str
) -> pool.Work:
    """What a worker does with each shard; the model is loaded when the first one wants it."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if device != "cuda":
        torch.set_num_threads(1)
    loaded: list[BiEncoder] = []

    def encoder() -> BiEncoder:
        if not loaded:
            found = load(device=device or "cpu")
            if found.identity() | {"model": None} != identity | {"model": None}:  # a name of its own for the folder
                raise UserError(
                    f"a worker has another model under the name {found.tower.name}, or other prompts, than this "
                    "machine; give all machines the same"
                )
            loaded.append(found)
        return loaded[0]

    def work(item: str) -> str:
        given = json.loads(item)
        number = given.pop("number")
        try:
            answer = _encode(Shard(**given), Path(folder) / vector_files.name_of(number), identity, numbers, encoder)
        except (UserError, OSError) as error:
            return json.dumps({"error": first_line(error)})
        return json.dumps({"number": number, **answer})

    return work


def _encode(
    shard: Shard, path: Path, identity: dict[str, Any], numbers: str, encoder: Callable[[], BiEncoder]
) -> dict[str, int]:
    documents = shard.documents()
    part = vector_files.Part(identity, vector_files.digest_of(documents), numbers)
    empty = sum(not document.content for document in documents)
    found = {"documents": len(documents), "encoded": 0, "made": 0, "cut": 0, "empty": empty}
    if vector_files.there(path, part) is not None:
        return found
    biencoder, cut = encoder(), Counter[str]()
    texts = [document.content for document in documents]
    vector_files.write(path, part, [document.id for document in documents], vectors_of(biencoder, texts, cut))
    return found | {"encoded": len(texts), "made": 1, "cut": cut["texts"]}


def vectors_of(biencoder: BiEncoder, texts: list[str], cut: Counter[str]) -> np.ndarray:
    """As `BiEncoder.encode_corpus` gives them, without a cache; `cut`: see `encode_texts`."""
    tower, (kind, prompt, strength) = biencoder.tower, biencoder.still("document")
    found = encode_texts(tower, texts, "document", kind, prompt, cut=cut)
    if prompt is not None and strength != 1:
        found = between(encode_texts(tower, texts, "document"), found, strength, unit=tower.unit_length)
    return tower.comparable(found)
