"""Vectors that another program keeps, behind three methods; and an index over them, which leaves them there.

A store of one's own is a class with these methods (see `Store`); twenty lines are enough:

    class Shelf:
        def __init__(self, rows):  # id -> vector
            self.rows = rows

        def search(self, vectors, k):
            ids = list(self.rows)
            scores = vectors @ np.stack(list(self.rows.values())).T
            best = np.argsort(-scores, axis=1)[:, :k]
            return np.take_along_axis(scores, best, axis=1), [[ids[number] for number in row] for row in best]

        def vectors(self, ids):
            return np.stack([self.rows[id] for id in ids])

        def __len__(self):
            return len(self.rows)

    adopted = adopt(biencoder, Shelf(rows), corpus)  # checked; adopted.index is searched as any other
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, SupportsIndex, overload, runtime_checkable

import numpy as np

from retrieval_prompts.data.corpus import Corpus, Document
from retrieval_prompts.data.id_list import IdList, Ids
from retrieval_prompts.data.ids import id_text
from retrieval_prompts.errors import DataWarning, UserError, first_line
from retrieval_prompts.files import STORED
from retrieval_prompts.vectors.index import Index
from retrieval_prompts.vectors.index_manifest import damage, described, read_manifest
from retrieval_prompts.vectors.index_parts import index_texts

BATCH = 256  # vectors that are asked for at once
MORE = 100  # documents beyond the k asked for, where the store holds some that are not in the index


@runtime_checkable
class Store(Protocol):
    """A collection of vectors under ids."""

    def search(self, vectors: np.ndarray, k: int) -> tuple[Any, Sequence[Sequence[str | None]]]:
        """For each of the vectors (n, dimension) the k nearest: their inner products, best first, and their ids; None
        for one without, which is left out."""
        ...

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        """The vectors (n, dimension) of these ids, in this order.

        Raises:
            KeyError: for an id that is not there.
        """
        ...

    def __len__(self) -> int: ...


@runtime_checkable
class Texts(Protocol):
    """A store that has the texts too."""

    def documents(self, ids: Sequence[str]) -> list[Document]: ...


@runtime_checkable
class Writable(Store, Protocol):
    """A store that takes vectors."""

    def known(self, ids: Sequence[str]) -> set[str]:
        """Which of these ids are there."""
        ...

    def add(self, vectors: np.ndarray, documents: Sequence[Document]) -> None:
        """Put documents and their vectors there; what is there under their ids is replaced."""
        ...


@contextmanager
def store_errors(context: str) -> Iterator[None]:
    """The errors of a store, each client has its own, as UserErrors of one line; not its KeyError for an id."""
    try:
        yield
    except (UserError, KeyError):
        raise
    except Exception as error:
        raise UserError(f"the store {context}: {first_line(error)}") from error


class FoundIds(IdList):
    """Those that searches of a store have found so far."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._ids = list(ids)
        self._places = {id: place for place, id in enumerate(self._ids)}

    @overload
    def __getitem__(self, at: SupportsIndex) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> list[str]: ...

    def __getitem__(self, at: SupportsIndex | slice) -> str | list[str]:
        return self._ids[at]

    def __len__(self) -> int:
        return len(self._ids)

    def position(self, id: str) -> int | None:
        return self._places.get(id)

    def add(self, id: str) -> int:
        """One more; returns where it stands."""
        place = self._places[id] = len(self._ids)
        self._ids.append(id)
        return place


@dataclass(frozen=True)
class _Size:
    ntotal: int
    d: int


class StoreIndex(Index):
    """An index whose vectors stay in a store. It is searched, read by feedback prompts and trained on as any other.

    Its folder (see `save`) holds ids and texts, and names the store.
    """

    HOLDS = STORED
    vectors: Store

    def __init__(
        self, store: Store, ids: Iterable[str], documents: Corpus | Sequence[Document] | None, manifest: dict[str, Any]
    ) -> None:
        self._grows = documents is None  # ids are those that searches have found so far
        super().__init__(store, FoundIds(ids) if self._grows else Ids.of(ids), documents, manifest)
        self._warned = False  # of entries without an id

    @classmethod
    def over(
        cls,
        store: Store,
        documents: Corpus | Sequence[Document] | None,
        *,
        encoder: Mapping[str, Any],
        dimension: int,
        named: Mapping[str, Any] | None = None,
    ) -> StoreIndex:
        """An index of the documents that are given, or of all that the store holds.

        Args:
            encoder: see `Index.build`.
            named: how the store is opened again, kept in the manifest.

        Raises:
            UserError: where the store is empty, or its vectors have another dimension.
        """
        if not len(store):
            raise UserError("the store holds no vectors")
        ids: Sequence[str] = [document.id for document in documents or ()]
        if isinstance(documents, Corpus):
            ids = documents.ids
        size = _Size(len(ids) or len(store), dimension)
        manifest = described(size, type(store).__name__, encoder, {"adopted": True})
        manifest["store"] = dict(named or {})
        index = cls(store, ids, documents, manifest)
        if not ids:
            index.nearest(np.eye(1, dimension, dtype=np.float32), MORE)
        if not index.ids:
            raise UserError("the store's entries have no ids; say which field holds them with --id-field (id_field=)")
        if (came := index.vectors_at(np.zeros(1, np.int64)).shape[1]) != dimension:
            raise UserError(f"the store's vectors have {came} dimensions, and the model's {dimension}")
        return index

    @classmethod
    def open_over(cls, folder: Path | str, store: Store, mmap: bool = True) -> StoreIndex:
        """What `save` wrote, over the store that it names.

        Raises:
            UserError: as `Index.open`.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        with damage(folder):
            ids, documents = index_texts.read(folder, manifest, mmap)
            first_of = index_texts.read_chunks(folder, manifest, ids)
        opened = cls(store, ids, documents, manifest)
        opened.first_of = first_of
        return opened

    def __len__(self) -> int:
        return len(self.vectors) if self._grows else len(self.ids)

    def nearest(self, queries: np.ndarray, k: int, **parameters: int | None) -> tuple[np.ndarray, np.ndarray]:
        """As `Index.nearest`; the store searches in its own way.

        Raises:
            UserError: for parameters.
        """
        if given := [name for name, value in parameters.items() if value is not None]:
            raise UserError(f"a store searches by its own settings; leave out {', '.join(given)}")
        queries = self._questions(queries, k)
        k = min(k, len(self))
        more = 0 if self._grows else min(max(len(self.vectors) - len(self), 0), k + MORE)
        with store_errors(f"cannot be searched with vectors of {queries.shape[1]} dimensions"):
            found, names = self.vectors.search(queries, k + more)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        positions = np.full((len(queries), k), -1, dtype=np.int64)
        for row, (own, ids) in enumerate(zip(found, names, strict=True)):
            names_of = [id_text(id) for id in ids]
            self._warn_of_missing(names_of.count(None))
            places = [-1 if id is None else self._place(id) for id in names_of]
            kept = [(place, score) for place, score in zip(places, own, strict=False) if place >= 0][:k]
            positions[row, : len(kept)] = [place for place, _ in kept]
            scores[row, : len(kept)] = [score for _, score in kept]
        return scores, positions

    def scores_at(self, query: np.ndarray, positions: np.ndarray) -> np.ndarray | None:
        if not len(positions):
            return np.empty(0, dtype=np.float32)
        scores: np.ndarray = self.vectors_at(positions) @ np.asarray(query, dtype=np.float32)
        return scores

    def vectors_at(self, positions: np.ndarray) -> np.ndarray:
        """The vectors (n, dimension) at these positions, each asked for once.

        Raises:
            UserError: for what is gone.
        """
        wanted, back = np.unique(np.asarray(positions, dtype=np.int64), return_inverse=True)
        names, parts = [self.ids[position] for position in wanted], []
        for start in range(0, len(names), BATCH):
            try:
                with store_errors("does not give its vectors"):
                    part = np.asarray(self.vectors.vectors(names[start : start + BATCH]), dtype=np.float32)
            except KeyError as error:
                raise UserError(f"the store has no document {error}; adopt it again") from None
            parts.append(part)
        if not parts:
            return np.empty((0, self.manifest["dimension"]), dtype=np.float32)
        found: np.ndarray = np.concatenate(parts)[back]
        return found

    def as_kept(self, vectors: np.ndarray) -> np.ndarray:
        return vectors

    def document(self, id: str) -> Document:
        """Title and text of a document, from the folder or else from the store; both "" where neither has them."""
        if self.documents is not None:
            return super().document(id)
        if isinstance(self.vectors, Texts):
            return self.vectors.documents([id])[0]
        return Document(id, "", "")

    def check_scores(self, queries: np.ndarray) -> None:
        """Raise UserError unless the store ranks by the inner product: what it says of its best is compared."""
        scores, positions = self.nearest(queries, 5)
        for query, own, row in zip(queries, scores, positions, strict=True):
            there = row >= 0
            exact = self.vectors_at(row[there]) @ query
            if np.abs(own[there] - exact).max(initial=0) > 0.01 * max(1.0, float(np.abs(exact).max(initial=0))):
                raise UserError(
                    f"the store's scores are not inner products: {own[0]:.4f} for {self.ids[row[0]]!r}, where it is "
                    f"{exact[0]:.4f}; set its distance to the dot product or, for vectors of length 1, the cosine"
                )

    def _write_vectors(self, folder: Path) -> None:
        """They stay where they are."""

    def _warn_of_missing(self, count: int) -> None:
        if count and not self._warned:
            self._warned = True
            warnings.warn(
                f"the store has entries without an id ({count} among the first that were found), which are left out; "
                "fill in the field, or name another with --id-field (id_field=)",
                DataWarning,
                stacklevel=4,
            )

    def _place(self, id: str) -> int:
        place = self.ids.position(id)
        if place is None and isinstance(self.ids, FoundIds):
            return self.ids.add(id)
        return -1 if place is None else place
