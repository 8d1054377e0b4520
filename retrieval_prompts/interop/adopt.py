"""Document vectors that were made elsewhere with the same frozen model, as an index for tuned queries.

    adopted = adopt(BiEncoder.load("all-MiniLM-L6-v2"), "docs.faiss", load("DATA").corpus, ids="ids.txt")
    adopted.index.save("INDEX")

Nothing is taken on trust: a sample of the documents is encoded and compared first (see `vectors.likeness`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.corpus import Corpus
from retrieval_prompts.data.ids import id_texts
from retrieval_prompts.errors import DataWarning, UserError, few
from retrieval_prompts.interop.stores.address import Fields, is_address, parse
from retrieval_prompts.interop.stores.opening import open_store
from retrieval_prompts.vectors.foreign_files import Chosen, Source, matrix, read_ids, read_vectors
from retrieval_prompts.vectors.index import Index
from retrieval_prompts.vectors.likeness import SAMPLE, Likeness, check_made
from retrieval_prompts.vectors.store import BATCH, Store, StoreIndex, Writable, store_errors


@dataclass(frozen=True)
class Adopted:
    """An index of vectors that passed the check.

    Args:
        index: not yet saved; its documents are those of the corpus that have a vector, in the order of the index.
        check: of how many documents, and how alike.
        remarks: what was assumed, or done otherwise than one may think.
    """

    index: Index
    check: Likeness
    remarks: tuple[str, ...] = ()


def adopt(
    biencoder: BiEncoder,
    vectors: str | Path | np.ndarray | Store,
    corpus: Corpus,
    *,
    ids: str | Path | Sequence[str] | None = None,
    factory: str | None = None,
    sample: int = SAMPLE,
    id_field: str | None = None,
    vector_field: str | None = None,
) -> Adopted:
    """An index of document vectors that were made elsewhere.

    Args:
        biencoder: the frozen model that is said to have made them; it may have a prompt on its query side.
        vectors: an array (documents, dimension); a file: FAISS, .npy, .npz, Parquet (see `foreign_files`); the
            address of a store (see `interop.stores`), or a `Store`: then they stay there, and nothing is written to it.
        corpus: the documents' texts.
        ids: of the vectors, in their order: a list, or a file (see `foreign_files`). None: those of the file, or
            where it has none the corpus's, in its order.
        factory: FAISS index string; None: a FAISS index by inner product stays as it is, all else becomes Flat.
        sample: how many documents are encoded and compared.
        id_field: of a store, a column of a Parquet file, an array of .npz; None: by its usual names.
        vector_field: the same of the vectors.

    Vectors without a text, and texts without a vector, are left out with a warning.

    Raises:
        UserError: where ids and vectors do not belong together, and, with the likely reason, where they are not what
            the model makes of the texts.
    """
    tower = biencoder.tower
    if biencoder.identity()["document_prompt"] is not None:
        raise UserError("vectors are adopted for a frozen document side; this one has a prompt: encode them with it")
    if is_address(vectors) or isinstance(vectors, Store):
        if ids is not None or factory is not None:
            raise UserError("a store has ids and an index of its own; leave out --ids and --factory")
        return _of_store(biencoder, vectors, corpus, sample, Fields(id_field, vector_field))  # type: ignore[arg-type]
    what = "the array" if isinstance(vectors, np.ndarray) else str(vectors)
    if isinstance(vectors, np.ndarray):
        source = Source(Chosen(matrix(vectors, what)), None)
    else:
        source = read_vectors(vectors, id_field=id_field, vector_field=vector_field)
    own, remarks = _ids(source, read_ids(ids) if isinstance(ids, str | Path) else ids, corpus, what)
    encoder = BiEncoder(tower).identity()
    if source.index is not None and factory is None and _whole(own, corpus) and _ready(source, tower.unit_length):
        documents = corpus.only(own)
        index = Index.around(source.index, documents, own, encoder=encoder)
        check = check_made(tower, documents, index, sample=sample, what=f"the vectors of {what}")
    else:
        if source.index is None and not isinstance(vectors, np.ndarray) and factory is None and _is_faiss(source):
            remarks.append("it does not rank by inner product and positions, so its vectors are indexed again, as Flat")
        places = _rows(own, corpus, what)
        documents = corpus if len(places) == len(corpus) else corpus.only(list(places))
        chosen = Chosen(source.vectors, np.array(list(places.values())), unit=tower.normalizes_for_search)
        check = check_made(tower, documents, chosen, sample=sample, what=f"the vectors of {what}")
        index = Index.build(chosen, documents, documents.ids, encoder=encoder, factory=factory or "Flat")
    index.manifest["build"] |= {"adopted": True, "check": check.to_json()}
    return Adopted(index, check, tuple(remarks))


def _of_store(biencoder: BiEncoder, place: str | Store, corpus: Corpus, sample: int, fields: Fields) -> Adopted:
    """An index over a store, whose vectors stay there."""
    tower = biencoder.tower
    address = parse(place) if isinstance(place, str) else None
    store = open_store(address, fields) if address is not None else place
    assert isinstance(store, Store)
    what = address.shown if address is not None else "the store"
    named = {} if address is None else {"address": address.shown, "id_field": fields.id, "vector_field": fields.vector}
    encoder = BiEncoder(tower).identity()
    there = StoreIndex.over(store, None, encoder=encoder, dimension=tower.dimension)  # its dimension is compared
    known: Sequence[str] = corpus.ids
    if isinstance(store, Writable):
        parts = (corpus.ids[start : start + BATCH] for start in range(0, len(corpus), BATCH))
        with store_errors("does not say which ids it has"):
            found = {id for part in parts for id in store.known(part)}
        known = [id for id in corpus.ids if id in found]
    if not known:
        raise UserError(
            f"{what} and the texts have no id in common: expected ids such as {few(corpus.ids)}, got {few(there.ids)}; "
            "say which field holds them with --id-field (id_field=)"
        )
    _say_lacking(what, corpus, set(known))
    if (extra := len(store) - len(known)) > 0:
        warnings.warn(
            f"{what}: {extra:,} of {len(store):,} vectors have no text, and are not shown", DataWarning, stacklevel=3
        )
    documents = corpus if len(known) == len(corpus) else corpus.only(known)
    index = StoreIndex.over(store, documents, encoder=encoder, dimension=tower.dimension, named=named)
    check = check_made(tower, documents, index, sample=sample, what=f"the vectors of {what}")
    index.check_scores(index.vectors_at(np.linspace(0, len(index) - 1, min(4, len(index))).astype(np.int64)))
    index.manifest["build"] |= {"check": check.to_json()}
    return Adopted(index, check)


def _ids(source: Source, given: Sequence[str] | None, corpus: Corpus, what: str) -> tuple[Sequence[str], list[str]]:
    """The id of each vector, and what was assumed for them."""
    count = len(source.vectors)
    if given is not None:
        given = id_texts(given, "the ids")
        if source.numbers and source.ids is not None and _are_rows(source.ids, len(given)):
            return [given[int(number)] for number in source.ids], []
        if len(given) != count:
            raise UserError(f"{what} holds {count:,} vectors, got {len(given):,} ids; expected one for each, in order")
        return given, []
    if source.ids is not None:
        known = set(corpus.ids)
        if source.numbers and not any(id in known for id in source.ids) and _are_rows(source.ids, len(corpus)):
            said = "its numbers are taken for rows of the texts, counted from 0; pass --ids if they are not"
            return [corpus.ids[int(number)] for number in source.ids], [said]
        return source.ids, []
    if count != len(corpus):
        raise UserError(
            f"{what} holds {count:,} vectors and no ids, and there are {len(corpus):,} texts; pass --ids (ids=), the "
            "id of each vector, in order"
        )
    return corpus.ids, ["it has no ids: its vectors are taken to be in the order of the texts"]


def _are_rows(numbers: Sequence[str], count: int) -> bool:
    return all(0 <= int(number) < count for number in numbers)


def _whole(ids: Sequence[str], corpus: Corpus) -> bool:
    """Whether each vector has a text."""
    return set(ids) <= set(corpus.ids)


def _ready(source: Source, unit: bool) -> bool:
    """Whether vectors are of length 1, or the model's own are, so that they can stay as they are."""
    return unit or bool(abs(np.linalg.norm(source.vectors.rows(np.zeros(1, np.int64))) - 1) < 1e-3)


def _is_faiss(source: Source) -> bool:
    return not isinstance(source.vectors.base, np.ndarray)


def _rows(ids: Sequence[str], corpus: Corpus, what: str) -> dict[str, int]:
    """Document -> row of its vector, in the order of the corpus; what has no counterpart is warned of."""
    row = {id: number for number, id in enumerate(ids)}
    if len(row) != len(ids):
        seen: set[str] = set()
        again = [id for id in ids if id in seen or seen.add(id)]  # type: ignore[func-returns-value]
        raise UserError(f"{what}: expected unique ids, got {len(again)} repeated ones ({few(again)})")
    found = {id: row[id] for id in corpus.ids if id in row}
    if not found:
        raise UserError(
            f"{what} and the texts have no id in common: expected ids such as {few(corpus.ids)}, got {few(ids)}; pass "
            "--ids (ids=), the id of each vector, in order"
        )
    if extra := len(ids) - len(found):
        known = set(found)
        names = few(id for id in ids if id not in known)
        warnings.warn(
            f"{what}: {extra:,} of {len(ids):,} vectors have no text and are left out ({names})",
            DataWarning,
            stacklevel=3,
        )
    _say_lacking(what, corpus, set(found))
    return found


def _say_lacking(what: str, corpus: Corpus, known: set[str]) -> None:
    if lacking := len(corpus) - len(known):
        names = few(id for id in corpus.ids if id not in known)
        warnings.warn(
            f"{what}: {lacking:,} of {len(corpus):,} texts have no vector, and will never be found ({names})",
            DataWarning,
            stacklevel=4,
        )
