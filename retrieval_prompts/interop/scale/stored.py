"""Vectors of parts go into a store: by workers, or from here, part by part, where one process alone may write it.

Workers write servers (Qdrant, Milvus, PostgreSQL) and LanceDB; the local modes of Qdrant and Milvus lock their files.
What is there already, under the same id with the same vector, is left alone, so that a job that is done twice does no
harm.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from retrieval_prompts.data.corpus import Corpus
from retrieval_prompts.errors import UserError
from retrieval_prompts.interop.scale import jobs, pool
from retrieval_prompts.interop.scale.shards import Shard
from retrieval_prompts.interop.scale.vector_files import Parts, Stretch
from retrieval_prompts.interop.stores.address import Address, Fields, parse
from retrieval_prompts.interop.stores.filling import Written, fill
from retrieval_prompts.interop.stores.opening import open_store
from retrieval_prompts.interop.stores.trust import KEYS
from retrieval_prompts.vectors.store import StoreIndex


def write(
    parts: Parts,
    shards: Sequence[Shard],
    corpus: Corpus,
    to: str,
    *,
    overwrite: bool = False,
    wanted: pool.Wanted = pool.ANY,
) -> Written:
    """Write a corpus and its vectors into a store, whose collection is made where there is none.

    Args:
        parts: those of the shards, one each.
        to: the address of a store, which all machines reach under it, and with the keys that this one has.
        overwrite: replace vectors that the store has under the same ids and that are others.

    Raises:
        UserError: as `filling.write`.
    """
    address, fields = parse(to), Fields(dimension=parts.dimension)
    store = open_store(address, fields)
    stretches = [Stretch.of(parts, number) for number in range(len(shards))]
    if by_many(address):
        del store  # other processes change what it shows
        given = [
            {"shard": asdict(shard), "stretch": asdict(each)} for shard, each in zip(shards, stretches, strict=True)
        ]
        keys = {name: value for name in KEYS.get(address.kind, ()) if (value := os.environ.get(name))}
        with pool.started(replace(wanted, device="cpu")) as machines:
            make = partial(_writing, to, fields, str(parts.folder.absolute()), parts.about["encoder"], keys, overwrite)
            done = dict(jobs.done(given, make, machines, "write documents"))
        added = sum(each["added"] for each in done.values())
        store = open_store(address, fields)
    else:
        added = 0
        for number, each in enumerate(tqdm(stretches, desc="write documents", unit="shard", delay=1, mininterval=0.5)):
            documents = [corpus[each.start + row] for row in range(each.count)]
            added += fill(store, documents, parts.block(number), overwrite=overwrite)
    named = {"address": address.shown}
    index = StoreIndex.over(store, corpus, encoder=parts.about["encoder"], dimension=parts.dimension, named=named)
    return Written(index, added, len(corpus) - added, encoded=0)


def by_many(address: Address) -> bool:
    """Whether several processes may write a store at the same time."""
    return address.kind in ("pgvector", "lancedb") or "://" in address.place


# --- on a worker ---------------------------------------------------------------------------------------------------


def _writing(
    to: str, fields: Fields, folder: str, encoder: Mapping[str, Any], keys: Mapping[str, str], overwrite: bool
) -> jobs.Job:
    """What a worker does with each shard and its part."""
    os.environ.update(keys)

    def job(given: dict[str, Any]) -> dict[str, int]:
        stretch = Stretch(**given["stretch"])
        ids, vectors = stretch.read(Path(folder), encoder)
        left, documents = set(stretch.left), Shard(**given["shard"]).documents()
        chosen = [document for row, document in enumerate(documents) if row not in left]
        if [document.id for document in chosen] != ids:
            raise UserError(f"{given['shard']['path']} has changed since it was encoded; run the same command again")
        return {"added": fill(open_store(to, fields), chosen, vectors, overwrite=overwrite)}

    return job
