"""Documents in shards -> vectors in Parquet, by a pool of workers on one or many machines.

    load = partial(BiEncoder.load, "all-MiniLM-L6-v2")
    encoded = encode_shards(load(), load, of_files("corpus/*.jsonl"), "VECTORS")

A shard whose vectors are there, whole, of the same texts and encoder, is not encoded again.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.errors import DataWarning
from retrieval_prompts.interop.scale import parts_run, pool, vector_files
from retrieval_prompts.interop.scale.parts_run import Encoded
from retrieval_prompts.interop.scale.shards import Shard
from retrieval_prompts.prompts.strength import between
from retrieval_prompts.towers.text import TextTower
from retrieval_prompts.vectors.encode import encode_texts


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
    make = partial(_encoding, load, biencoder.identity())
    run: dict[str, Any] = {"half": half, "overwrite": overwrite, "wanted": wanted}
    done = parts_run.encode([asdict(shard) for shard in shards], make, folder, biencoder.identity(), **run)
    _say_cut(done, biencoder.tower)
    return done


def portable(model: str | Path | None, prompts: str | Path | None = None, **options: Any) -> Callable[..., BiEncoder]:
    """`BiEncoder.load` of these, to be called on another machine, where folders lie at the same absolute paths."""

    def place(name: str | Path | None) -> str | None:
        return str(found.absolute()) if name is not None and (found := Path(name).expanduser()).is_dir() else name  # type: ignore[return-value]

    return partial(BiEncoder.load, place(model), place(prompts), **options)


def _say_cut(done: Encoded, tower: TextTower) -> None:
    if done.cut:
        room, of = tower.total_length("document", 0), f"{done.cut:,} of {done.encoded:,} documents"
        warnings.warn(
            f"{of} that were encoded are cut at the {room} tokens that model {tower.name} reads; chunks are read "
            f"whole: retrieval-prompts corpus DATA --chunk {room} --out CHUNKS",
            DataWarning,
            stacklevel=3,
        )


# --- on a worker ---------------------------------------------------------------------------------------------------


def _encoding(load: Callable[..., BiEncoder], identity: Mapping[str, Any], device: str) -> parts_run.Encode:
    """What a worker does with each shard; the model is loaded when the first one wants it."""
    loaded: list[BiEncoder] = []

    def encoder() -> BiEncoder:
        if not loaded:
            found = load(device=device)
            parts_run.check_same(found.identity(), identity)
            loaded.append(found)
        return loaded[0]

    def encode(given: dict[str, Any], path: Path, numbers: str) -> dict[str, int]:
        documents = Shard(**given).documents()
        part = vector_files.Part(identity, vector_files.digest_of(documents), numbers)
        empty = sum(not document.content for document in documents)
        found = {"documents": len(documents), "encoded": 0, "made": 0, "cut": 0, "empty": empty}
        if vector_files.there(path, part) is not None:
            return found
        biencoder, cut = encoder(), Counter[str]()
        texts = [document.content for document in documents]
        vector_files.write(path, part, [document.id for document in documents], vectors_of(biencoder, texts, cut))
        return found | {"encoded": len(texts), "made": 1, "cut": cut["texts"]}

    return encode


def vectors_of(biencoder: BiEncoder, texts: list[str], cut: Counter[str]) -> np.ndarray:
    """As `BiEncoder.encode_corpus` gives them, without a cache; `cut`: see `encode_texts`."""
    tower, (kind, prompt, strength) = biencoder.tower, biencoder.still("document")
    found = encode_texts(tower, texts, "document", kind, prompt, cut=cut)
    if prompt is not None and strength != 1:
        found = between(encode_texts(tower, texts, "document"), found, strength, unit=tower.unit_length)
    return tower.comparable(found)
