"""A model with prompts and an index, opened once and asked many times: what every retriever holds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import RLock

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.corpus import ABOUT
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.hybrid import CHUNKS, UNLABELLED, HybridIndex, check_weight
from retrieval_prompts.files import unreplaced
from retrieval_prompts.interop.stores.address import is_address
from retrieval_prompts.interop.stores.opening import check_found, open_index, over_all, shown
from retrieval_prompts.towers.conventions import Conventions
from retrieval_prompts.towers.text import Floats
from retrieval_prompts.vectors.index import Index
from retrieval_prompts.vectors.store import StoreIndex


@dataclass(frozen=True)
class Hit:
    """A document that was found, or a passage of one.

    Args:
        document: the id of the document that it is a passage of; "" where it is all of it.
        source, place: the file that it is from, and where in it; "" where that is not known.
    """

    id: str
    score: float
    title: str
    text: str
    document: str = ""
    source: str = ""
    place: str = ""

    def about(self) -> dict[str, str]:
        """What is known of `document`, `source` and `place`."""
        return {name: value for name in ABOUT if (value := getattr(self, name))}


class Searcher:
    """Searches an index with the prompts of a bi-encoder, and with BM25 beside it where the index holds words.

    Args:
        biencoder: its feedback prompts, if it has some, are to be bound already (see `BiEncoder.bind`).
        index: in memory, from a folder, or over a store.
        hybrid: the same with its words; None without.
        weight: of BM25, from 0 to 1.
        place: where the index is, for messages; `unchecked`: whether what is found in it is still to be checked.

    `lock` is for who uses its index otherwise: clients of stores are not made for several threads.
    """

    def __init__(
        self,
        biencoder: BiEncoder,
        index: Index,
        hybrid: HybridIndex | None = None,
        weight: float = UNLABELLED,
        *,
        place: str = "the index",
        unchecked: bool = False,
    ) -> None:
        check_weight(weight)
        self.biencoder, self.index, self.hybrid, self.place = biencoder, index, hybrid, place
        self.weight = weight if hybrid is not None else 0.0
        self._unchecked = unchecked
        self.lock = RLock()

    @classmethod
    def open(
        cls,
        place: str | Path,
        prompts: str | Path | None = None,
        *,
        model: str | None = None,
        conventions: Conventions | None = None,
        strength: float | None = None,
        bm25_weight: float | None = None,
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> Searcher:
        """Open an index folder, or a store by its address (see `interop.stores`), and the model that belongs to it.

        Args:
            prompts: a prompt folder, or "hf:user/name"; None: the frozen model.
            model: where it has moved; None: the index's own, of a store that of the prompts.
            conventions: how the model is used, where it was not recorded.
            bm25_weight: None: the prompts' own, else 0.75; without words in the index it is 0.

        Raises:
            UserError: where they do not belong together.
        """
        if bm25_weight is not None:
            check_weight(bm25_weight)
        whole, said = is_address(place), shown(place)
        folder, hybrid = (
            (None, None) if whole else unreplaced(Path(place), lambda: _opened(place, words=bm25_weight != 0))
        )
        if bm25_weight and hybrid is None:
            raise UserError(f"{said} holds no words for --bm25-weight {bm25_weight:g}; index again without --no-bm25")
        made_by = folder.manifest["encoder"] if folder is not None else {}
        known = Conventions.recorded(made_by)
        biencoder = BiEncoder.load(
            model or made_by.get("model"),
            prompts,
            device=device,
            strength=strength,
            trust_remote_code=trust_remote_code,
            **asdict(known if conventions is None else conventions.or_else(known)),
        )
        biencoder.tower.made(made_by)  # words that an older version did not find are left out again
        opened: Index
        if folder is None:
            opened = over_all(str(place), biencoder.identity(), biencoder.tower.dimension)
        else:
            opened = folder
        opened.check_encoder(biencoder.identity())
        if biencoder.feedback is not None and biencoder.strength > 0:
            biencoder.bind(hybrid or (HybridIndex.of(folder, place) if folder is not None else None) or opened)
        if hybrid is None and bm25_weight is None and biencoder.bm25_weight:
            warnings.warn(
                f"{prompts} asks for BM25 of weight {biencoder.bm25_weight:g}, and {said} holds no words: the ranking "
                "is dense; index again without --no-bm25",
                stacklevel=2,
            )
        weight = next(each for each in (bm25_weight, biencoder.bm25_weight, UNLABELLED) if each is not None)
        return cls(biencoder, opened, hybrid, weight, place=said, unchecked=whole)

    def search(
        self, queries: Sequence[str], k: int, *, passages: bool = False, **parameters: int | None
    ) -> list[list[Hit]]:
        """The k best documents of each query, best first; of one that is in chunks its best.

        Args:
            passages: chunks are hits of their own, several of a document perhaps.
            parameters: those of `Index.search`.
        """
        with self.lock:
            vectors = self.biencoder.query_vectors(queries)
            return self.ranked(queries, vectors, k, self.weight, passages=passages, **parameters)

    def ranked(
        self,
        queries: Sequence[str],
        vectors: Floats,
        k: int,
        weight: float,
        *,
        passages: bool = False,
        **parameters: int | None,
    ) -> list[list[Hit]]:
        """As `search`, by vectors (queries, dimension) that are there already, and a weight of BM25."""
        with self.lock:
            if passages or not self.index.first_of:
                found = self._ranked(queries, vectors, k, weight, parameters)
            else:
                found = self._documents(queries, vectors, k, weight, parameters)
            some = next(filter(None, found), None)  # of the first query that finds any
            if self._unchecked and isinstance(self.index, StoreIndex) and some:
                check_found(self.biencoder.tower, self.index, [id for id, _ in some], self.place)
                self._unchecked = False
            return [[self._hit(id, score) for id, score in row] for row in found]

    def _ranked(
        self, queries: Sequence[str], vectors: Floats, k: int, weight: float, parameters: dict[str, int | None]
    ) -> list[list[tuple[str, float]]]:
        """(id, score) of the k best of what was indexed."""
        if self.hybrid is None or weight == 0:
            scores, ids = self.index.search(vectors, k, **parameters)
            return [list(zip(row, own, strict=False)) for row, own in zip(ids, scores.tolist(), strict=True)]
        found, ids = self.hybrid.search(queries, vectors, k, weight=weight, **parameters)
        return [list(zip(row, own, strict=True)) for row, own in zip(ids, found, strict=True)]

    def _documents(
        self, queries: Sequence[str], vectors: Floats, k: int, weight: float, parameters: dict[str, int | None]
    ) -> list[list[tuple[str, float]]]:
        """The best chunk of each of the k best documents: as deep a search as it takes."""
        first_of, depth = self.index.first_of, k
        while True:
            depth = min(CHUNKS * depth, len(self.index))
            rows = self._ranked(queries, vectors, depth, weight, parameters)
            found = []
            for row in rows:
                best: dict[str, tuple[str, float]] = {}
                for id, score in row:
                    best.setdefault(first_of.get(id, id), (id, score))
                found.append(list(best.values())[:k])
            if depth >= len(self.index) or all(
                len(own) >= k or len(row) < depth for own, row in zip(found, rows, strict=True)
            ):
                return found

    def _hit(self, id: str, score: float) -> Hit:
        if self.index.documents is None and not isinstance(self.index, StoreIndex):
            return Hit(id, score, "", "")
        document = self.index.document(id)
        return Hit(id, score, document.title, document.text, document.document, document.source, document.place)


def _opened(folder: str | Path, *, words: bool) -> tuple[Index, HybridIndex | None]:
    """An index, and the same with the words that it holds, if they are wanted."""
    index = open_index(folder)
    return index, HybridIndex.of(index, folder) if words else None
