"""Documents and their vectors go into a store, a batch at a time; what is there already is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.corpus import Corpus, Document
from retrieval_prompts.errors import UserError, few
from retrieval_prompts.interop.stores.address import Fields, parse
from retrieval_prompts.interop.stores.opening import open_store
from retrieval_prompts.vectors.likeness import LEAST, cosines
from retrieval_prompts.vectors.store import BATCH, StoreIndex, Writable, store_errors


@dataclass(frozen=True)
class Written:
    """What became of the documents. `index`: over the store, not yet saved."""

    index: StoreIndex
    added: int
    there: int
    encoded: int


def write(
    biencoder: BiEncoder,
    corpus: Corpus,
    to: str | Writable,
    *,
    cache: Path | None = None,
    overwrite: bool = False,
) -> Written:
    """Encode a corpus and write it into a store. What was cut short goes on: vectors come from the cache, and documents
    that are in the store with the same vector are not written again.

    Args:
        to: the address of a store, whose collection is made where there is none, or a store.
        overwrite: replace vectors that the store has under the same ids and that are others.

    Raises:
        UserError: where there are such vectors, without `overwrite`; nothing of their batch is then written.
    """
    dimension, address = biencoder.tower.dimension, parse(to) if isinstance(to, str) else None
    store = open_store(address, Fields(dimension=dimension)) if address is not None else to
    assert isinstance(store, Writable)
    vectors, added = biencoder.encode_corpus(corpus, cache), 0
    starts = range(0, len(corpus), BATCH)
    for start in tqdm(starts, desc="write documents", unit="batch", delay=1, mininterval=0.5):
        stop = min(start + BATCH, len(corpus))
        documents = [corpus[position] for position in range(start, stop)]
        added += fill(store, documents, vectors.rows(np.arange(start, stop)), overwrite=overwrite)
    named = {"address": address.shown} if address is not None else {}
    index = StoreIndex.over(store, corpus, encoder=biencoder.identity(), dimension=dimension, named=named)
    return Written(index, added, len(corpus) - added, vectors.encoded)


def fill(store: Writable, documents: Sequence[Document], vectors: np.ndarray, *, overwrite: bool = False) -> int:
    """Put documents and their vectors (n, dimension) into a store, as far as it has them not, a batch at a time;
    returns how many that were. Raises UserError as `write`."""
    added = 0
    for start in range(0, len(documents), BATCH):
        batch, own = vectors[start : start + BATCH], documents[start : start + BATCH]
        ids = [document.id for document in own]
        known = store.known(ids) if len(store) else set()
        same = _same(store, [id for id in ids if id in known], dict(zip(ids, batch, strict=True)))
        if (others := sorted(known - same)) and not overwrite:
            raise UserError(
                f"the store has other vectors under {len(others)} of the ids from {ids[0]} to {ids[-1]} "
                f"({few(others)}); write to another collection, or pass --overwrite to replace them"
            )
        wanted = [number for number, id in enumerate(ids) if id not in same]
        if wanted:
            with store_errors(f"does not take these vectors of {vectors.shape[1]} dimensions"):
                store.add(batch[wanted], [own[number] for number in wanted])
        added += len(wanted)
    return added


def _same(store: Writable, ids: list[str], wanted: dict[str, np.ndarray]) -> set[str]:
    """The ids under which the store has the vectors that are wanted."""
    if not ids:
        return set()
    came, expected = np.asarray(store.vectors(ids), np.float32), np.stack([wanted[id] for id in ids])
    if came.shape != expected.shape:
        return set()
    fits = cosines(came, expected) >= LEAST
    return {id for id, each in zip(ids, fits, strict=True) if each}
