"""A FAISS index in a folder: build, save, open, search. Knows its document encoder only by the fingerprint it is given.

The folder holds
    index.faiss      the vectors, by inner product
    lists.ivf        the lists of an index whose shards were merged on disk (see `index_parts.on_disk`)
    ids.json         document ids, in the order of the vectors
    ids.npy          uint64, where each is in ids.json, and what finds one among millions (see `data.id_list`)
    documents.jsonl  title and text of each document, in BEIR's format (absent if the index was built without them)
    offsets.npy      int64, the byte at which each document's line starts
    bm25/            the words of the documents, for hybrid search (where they were wanted; see `evaluation.hybrid`)
    pictures/        digests of the pictures, in an index of pictures
    lines.npy        uint64, a checksum of each of these lines
    chunks.npy       int64, of each the first chunk of the same document (where documents are in chunks)
    chunks.json      that first chunk's position by the document's id
    manifest.json    what the index is, what encoded it, sizes and checksums of the files above (see `index_files`)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from retrieval_prompts.data.corpus import Corpus, Document
from retrieval_prompts.data.groups import drop_own, rank_documents
from retrieval_prompts.data.id_list import IdList, Ids
from retrieval_prompts.data.judgements import Run
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import (
    INDEX,
    inside,
    new_folder,
    sealed,
    unreplaced,
    write_json,
)
from retrieval_prompts.vectors import faiss_foreign, faiss_index
from retrieval_prompts.vectors.faiss_index import Vectors
from retrieval_prompts.vectors.index_files import described as files_described
from retrieval_prompts.vectors.index_files import is_written
from retrieval_prompts.vectors.index_manifest import damage, described, read_manifest
from retrieval_prompts.vectors.index_parts import index_texts, on_disk, same_encoder


class Index:
    """Vectors to search, the ids and texts they stand for, and a manifest. Made by `build` or `open`.

    Where vectors are those of chunks, `first_of` says which chunk stands for its document, if that is known: `rank` is
    then of documents, each with the score of its best chunk. `search` is of what was indexed.
    """

    first_of: Mapping[str, str] = MappingProxyType({})

    HOLDS = INDEX  # the kind of folder

    def __init__(
        self,
        vectors: Any,
        ids: IdList,
        documents: Corpus | Sequence[Document] | None,
        manifest: dict[str, Any],
        gpu: bool = False,
    ) -> None:
        self.vectors = vectors  # a faiss.Index
        self.gpu = gpu  # whether it is on the GPUs
        self.ids = ids
        self.documents = documents
        self.manifest = manifest
        if isinstance(documents, Corpus):
            self.first_of = documents.first_of

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def build(
        cls,
        vectors: Vectors,
        documents: Iterable[Document] | None,
        ids: Iterable[str],
        *,
        encoder: Mapping[str, Any],
        factory: str = "Flat",
        train_size: int | None = None,
        ef_construction: int | None = None,
        gpu: bool = True,
    ) -> Self:
        """Index document vectors block by block, by inner product. The same input gives the same index, see `ann`.

        vectors: (n, dimension), a memory map for instance, `VectorBlocks`, or blocks (any, dimension); used as float32.
        documents: in the order of `ids`, to show title and text with a hit; None to do without.
        encoder: what made the vectors, kept in the manifest as it is: "fingerprint", without which the index cannot
            be saved, and "document_prompt" where there was one (see `check_encoder`).
        factory: a FAISS index factory string, such as "Flat", "SQfp16", "HNSW32" or "IVF1024,SQ8".
        train_size, ef_construction, gpu: see `faiss_index.build`; how it went is in the manifest under "build".
        Raises UserError for no vectors, a vector that is not finite, differing dimensions, a number of ids or
        documents that does not fit, repeated ids, too few vectors to train on, and whatever FAISS refuses.
        """
        ids = index_texts.unique(ids)
        if documents is not None:
            documents = documents if isinstance(documents, Corpus | Sequence) else list(documents)
            index_texts.check_order(ids, documents)
        if isinstance(vectors, np.ndarray):
            _check_count(len(vectors), ids)
        index, record = faiss_index.build(
            vectors, factory, train_size=train_size, ef_construction=ef_construction, gpu=gpu
        )
        _check_count(index.ntotal, ids)
        return cls(index, ids, documents, described(index, factory, encoder, record), record["gpu"])

    @classmethod
    def around(
        cls,
        index: Any,
        documents: Corpus | Sequence[Document] | None,
        ids: Iterable[str],
        *,
        encoder: Mapping[str, Any],
    ) -> Index:
        """A faiss.Index by inner product that was made elsewhere, as it is; the arguments are those of `build`.

        Raises:
            UserError: for repeated ids, and a number of ids or documents that does not fit.
        """
        ids = index_texts.unique(ids)
        if documents is not None:
            index_texts.check_order(ids, documents)
        _check_count(index.ntotal, ids)
        record = {"adopted": True, "gpu": False}
        return cls(index, ids, documents, described(index, faiss_foreign.kind_of(index), encoder, record))

    def save(
        self,
        folder: Path | str,
        overwrite: bool = False,
        *,
        beside: Mapping[str, Callable[[Path], object]] | None = None,
    ) -> None:
        """Write the index folder, whole or not at all.

        beside: name -> what writes a folder of this name in it, such as the words of the same documents; the manifest
            gets digests of its files (see `has_beside`).
        Raises UserError if it exists, unless `overwrite`, and if the manifest has no fingerprint of the encoder.
        """
        if not self.manifest["encoder"].get("fingerprint"):
            raise UserError('an index that is kept must know its encoder: build it with encoder={"fingerprint": ...}')
        with new_folder(Path(folder), holds=self.HOLDS, overwrite=overwrite) as new:
            with faiss_index.faiss_errors(f"the index cannot be written to {folder}"):
                self._write_vectors(new)
            manifest = self._write_others(new, beside or {})
        self.manifest = manifest

    @classmethod
    def write(
        cls,
        folder: Path | str,
        vectors: Vectors,
        documents: Corpus | Sequence[Document],
        *,
        encoder: Mapping[str, Any],
        overwrite: bool = False,
        beside: Mapping[str, Callable[[Path], object]] | None = None,
        write: Callable[..., dict[str, Any]] = faiss_index.write,
        **options: Any,
    ) -> Self:
        """As `build` and `save`, block by block: vectors and texts are never all in memory, but for those types of
        index that FAISS makes there (HNSW, IVF). Returns the index, memory-mapped.

        write: writes the vectors, or their head and, beside it, lists (see `on_disk`); as `faiss_index.write`.
        options: "factory" and others of `build`.
        Raises UserError as both do.
        """
        ids, factory = index_texts.unique(index_texts.ids_of(documents)), options.setdefault("factory", "Flat")
        with new_folder(Path(folder), holds=cls.HOLDS, overwrite=overwrite) as new:
            record = write(new / "index.faiss", vectors, **options)
            index = _opened(new, (new / on_disk.LISTS).is_file())
            _check_count(index.ntotal, ids)
            written = cls(index, ids, documents, described(index, factory, encoder, record))
            manifest = written._write_others(new, beside or {})
        written.manifest = manifest
        return written

    @classmethod
    def open(cls, folder: Path | str, mmap: bool = True, gpu: bool = False) -> Self:
        """Open a saved index; with `mmap` the vectors stay on disk until a search reads them, with `gpu` they go to the
        GPUs, if FAISS sees any and has the index's type for them.

        A text is compared when it is read. An index that another run replaces stays as it was opened.

        Raises:
            UserError: that names the folder if it is no index, has another format, or is damaged: vectors, ids and
                offsets are compared with their checksums (see `index_files`).
        """
        return unreplaced(Path(folder), lambda: cls._open(Path(folder), mmap, gpu))

    @classmethod
    def _open(cls, folder: Path, mmap: bool, gpu: bool) -> Self:
        manifest = read_manifest(folder)
        if "store" in manifest:
            raise UserError(
                f"the vectors of {folder} are in {manifest['store'].get('address')}; open it with "
                "retrieval_prompts.interop.stores.opening.open_index"
            )
        with damage(folder):
            ids, documents = index_texts.read(folder, manifest, mmap)
            vectors = _opened(folder, on_disk.LISTS in manifest["files"], mmap)
            came_shape, expected = (vectors.ntotal, vectors.d), (manifest["count"], manifest["dimension"])
            if came_shape != expected or len(ids) != vectors.ntotal:
                raise ValueError(f"{came_shape} vectors and {len(ids)} ids where the manifest says {expected}")
            first_of = index_texts.read_chunks(folder, manifest, ids)
        placed = faiss_index.to_gpu(vectors, manifest["factory"]) if gpu else vectors
        opened = cls(placed, ids, documents, manifest, placed is not vectors)
        opened.first_of = first_of
        return opened

    def has_beside(self, folder: Path | str, name: str) -> bool:
        """Whether `save` wrote a folder of this name in the index folder.

        Raises:
            UserError: when its files are not those that were written: they are read (see `index_files`).
        """
        place = Path(folder) / name
        written = [file for file in self.manifest.get("digests", {}) if file.startswith(f"{name}/")]
        if not written and place.exists():
            raise UserError(f"{place} was not written with this index; remove it, or index again")
        others = [f"{name}/{path.name}" for path in place.iterdir()] if place.is_dir() else []
        for file in (*others, *written):
            inside(Path(folder), file)
        for file in written:
            try:
                same = is_written(Path(folder), self.manifest, file)
            except OSError as error:
                raise UserError(f"{place} is damaged, index again: {error}") from None
            if not same:
                raise UserError(f"{place} is damaged or of other documents, index again: {file} was changed")
        return bool(written)

    def check_encoder(self, encoder: Mapping[str, Any]) -> None:
        """Raise UserError unless `encoder` makes the vectors that this index holds: the same "fingerprint" and the
        same "document_prompt" (absent is the same as None). Warns of libraries that are of another release now."""
        same_encoder.check(self.manifest, encoder)

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        nprobe: int | None = None,
        ef_search: int | None = None,
        k_factor: int | None = None,
    ) -> tuple[np.ndarray, list[list[str]]]:
        """The k documents with the highest inner product for each query.

        queries: (q, dimension), or one (dimension,), which is as a row of them.

        Returns scores (q, min(k, count)), float32 and descending, and the ids that belong to them; equal scores are in
        the order of the index. An approximate index may find fewer: then a row of ids is shorter, and the scores it
        lacks are -inf. nprobe (IVF), ef_search (HNSW) and k_factor (RFlat) trade speed for recall; their defaults are
        in `faiss_index.PARAMETERS`.

        Raises:
            UserError: for queries of another dimension or not finite, k < 1, and a parameter the index is missing.
        """
        scores, positions = self.nearest(queries, k, nprobe=nprobe, ef_search=ef_search, k_factor=k_factor)
        return scores, [[self.ids[position] for position in row if position >= 0] for row in positions]

    def nearest(self, queries: np.ndarray, k: int, **parameters: int | None) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, with positions (q, min(k, count)) instead of ids; -1 where an approximate index found fewer."""
        queries = self._questions(queries, k)
        return faiss_index.search(
            self.vectors, queries, min(k, len(self)), factory=self.manifest["factory"], gpu=self.gpu, **parameters
        )

    def scores_at(self, query: np.ndarray, positions: np.ndarray) -> np.ndarray | None:
        """The inner products (n,) of one query (dimension,) with the vectors at these positions, as the index keeps
        them; None where it cannot give its vectors back (IVF, and what is on a GPU)."""
        return None if self.gpu else faiss_index.scores_at(self.vectors, query, positions)

    def as_kept(self, vectors: np.ndarray) -> np.ndarray:
        """What the index would give back of vectors (n, dimension) that were put in: codes lose a little."""
        return faiss_foreign.as_kept(self.vectors, vectors)

    def vectors_at(self, positions: np.ndarray) -> np.ndarray:
        """The vectors (n, dimension) at these positions, as the index keeps them.

        Raises:
            UserError: where it cannot give them back: lists (IVF) of packed or additive codes, and what is on a GPU.
        """
        found = None if self.gpu else faiss_index.vectors_at(self.vectors, positions)
        if found is None and not self.gpu and faiss_index.map_lists(self.vectors):
            found = faiss_index.vectors_at(self.vectors, positions)
        if found is None:
            where = "on a GPU" if self.gpu else f"of type {self.manifest['factory']}"
            raise UserError(
                f"an index {where} does not give its vectors back, and these prompts read them; use Flat, SQ8, HNSW32 "
                "or IVF256,SQ8 on the CPU"
            )
        return found

    def run(
        self, query_ids: Sequence[str], vectors: np.ndarray, k: int, *, block: int = 1024, **parameters: int | None
    ) -> Run:
        """Search query vectors (q, dimension) in blocks; `parameters` go to `search`. Every query gets an entry."""
        if len(query_ids) != len(vectors):
            raise UserError(f"expected one vector for each query, got {len(query_ids)} ids and {len(vectors)} vectors")
        run: Run = {}
        for start in range(0, len(query_ids), block):
            part = slice(start, start + block)
            scores, ids = self.search(vectors[part], k, **parameters)
            for query, row, row_scores in zip(query_ids[part], ids, scores.tolist(), strict=True):
                run[query] = dict(zip(row, row_scores, strict=False))  # a row may have fewer ids than scores
        return run

    def rank(self, query_ids: Sequence[str], vectors: np.ndarray, k: int, **parameters: int | None) -> Run:
        """As `run`, without the document that bears its query's id, which BEIR leaves out of every ranking; of
        documents where chunks are known (see `first_of`).

        The k best of the others, best first, or as many as are found.

        Raises:
            UserError: for k < 1.
        """
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}")

        def search(depth: int) -> Run:
            return self.run(query_ids, vectors, depth, **parameters)  # type: ignore[arg-type]

        found = rank_documents(search, k + 1, len(self), self.first_of)
        others = drop_own(found, self.first_of)
        return {query: dict(islice(hits.items(), k)) for query, hits in others.items()}

    def document(self, id: str) -> Document:
        """Title and text of a document.

        Raises:
            UserError: for an unknown id, and if the index has no texts.
        """
        if self.documents is None:
            raise UserError("this index was built without documents; index again with them to see title and text")
        if (position := self.ids.position(id)) is None:
            raise UserError(f"the index has no document {id!r}")
        return self.documents[position]

    def _questions(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Query vectors as `search` takes them -> (q, dimension).

        Raises:
            UserError: for others, and for k < 1.
        """
        queries = np.asarray(queries)
        queries = faiss_index.matrix(queries[np.newaxis] if queries.ndim == 1 else queries, "queries")
        if queries.shape[1] != self.manifest["dimension"]:
            raise UserError(
                f"expected query vectors of dimension {self.manifest['dimension']}, which the index has,"
                f" got {queries.shape[1]}; encode queries with the model that made the index"
            )
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}")
        return queries

    def _write_others(self, new: Path, beside: Mapping[str, Callable[[Path], object]]) -> dict[str, Any]:
        """Write all but the vectors; returns the manifest."""
        index_texts.write_ids(new, self.ids)
        fingerprint = None
        if self.documents is not None:
            fingerprint = index_texts.write(new, self.documents, self.ids)
        for name, write in beside.items():
            write(new / name)
        manifest = sealed({**self.manifest, "documents": fingerprint, **files_described(new)})
        write_json(new / "manifest.json", manifest)
        return manifest

    def _write_vectors(self, folder: Path) -> None:
        on_disk.write(faiss_index.to_cpu(self.vectors, self.gpu), folder / "index.faiss")


def _opened(folder: Path, lists: bool, mmap: bool = True) -> Any:
    """The vectors of a folder; `lists`: whether they are in a file of their own."""
    path = folder / "index.faiss"
    return on_disk.opened(path) if lists else faiss_foreign.opened(path, mmap)


def _check_count(vectors: int, ids: Ids) -> None:
    if vectors != len(ids):
        raise UserError(f"expected one id for each vector, got {vectors} vectors and {len(ids)} ids")
