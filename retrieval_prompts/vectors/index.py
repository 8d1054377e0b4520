"""A FAISS index in a folder: build, save, open, search. Knows its document encoder only by the fingerprint it is given.

The folder holds
    index.faiss      the vectors, by inner product
    ids.json         document ids, in the order of the vectors
    documents.jsonl  title and text of each document, in BEIR's format (absent if the index was built without them)
    offsets.npy      int64, the byte at which each document's line starts
    bm25/            the words of the documents, for hybrid search (where they were wanted; see `evaluation.hybrid`)
    pictures/        digests of the pictures, in an index of pictures
    lines.npy        uint64, a checksum of each of these lines
    manifest.json    what the index is, what encoded it, sizes and checksums of the files above (see `index_files`)
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from retrieval_prompts.data.beir_folder import Corpus, Document, frame, line_check
from retrieval_prompts.data.judgements import Run
from retrieval_prompts.errors import UserError, few
from retrieval_prompts.files import (
    INDEX,
    check_seal,
    digest,
    inside,
    new_folder,
    read_array,
    read_json,
    sealed,
    write_json,
)
from retrieval_prompts.towers.conventions import Conventions
from retrieval_prompts.vectors import faiss_index, index_files, libraries
from retrieval_prompts.vectors.faiss_index import Vectors

FORMAT = 1
CHECKED = 1 << 28  # bytes of an index.faiss that is read before it is mapped: a tenth of a second


class Index:
    """Vectors to search, the ids and texts they stand for, and a manifest. Made by `build` or `open`."""

    def __init__(
        self,
        vectors: Any,
        ids: list[str],
        documents: Corpus | Sequence[Document] | None,
        manifest: dict[str, Any],
        gpu: bool = False,
    ) -> None:
        self.vectors = vectors  # a faiss.Index
        self.gpu = gpu  # whether it is on the GPUs
        self.ids = ids
        self.documents = documents
        self.manifest = manifest

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def build(
        cls,
        vectors: Vectors,
        documents: Iterable[Document] | None,
        ids: Sequence[str],
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
        ids = list(ids)
        if len(set(ids)) != len(ids):
            raise UserError(f"expected unique document ids, got {len(ids) - len(set(ids))} repeated ones")
        if documents is not None:
            documents = documents if isinstance(documents, Corpus | Sequence) else list(documents)
            _check_order(ids, documents)
        if isinstance(vectors, np.ndarray):
            _check_count(len(vectors), ids)
        index, record = faiss_index.build(
            vectors, factory, train_size=train_size, ef_construction=ef_construction, gpu=gpu
        )
        _check_count(index.ntotal, ids)
        manifest = {
            "format": FORMAT,
            "factory": factory,
            "metric": "inner_product",
            "count": index.ntotal,
            "dimension": index.d,
            "encoder": dict(encoder),
            "build": record,
            "created_with": libraries.created_with(),
            "libraries": libraries.versions(),
        }
        return cls(index, ids, documents, manifest, record["gpu"])

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
        import faiss

        if not self.manifest["encoder"].get("fingerprint"):
            raise UserError('an index that is kept must know its encoder: build it with encoder={"fingerprint": ...}')
        with new_folder(Path(folder), holds=INDEX, overwrite=overwrite) as new:
            with faiss_index.faiss_errors(f"the index cannot be written to {folder}"):
                faiss.write_index(faiss_index.to_cpu(self.vectors, self.gpu), str(new / "index.faiss"))
            (new / "ids.json").write_text(json.dumps(self.ids), encoding="utf-8")
            fingerprint = None
            if self.documents is not None:
                fingerprint, offsets, checks = _write_documents(new / "documents.jsonl", self.documents)
                np.save(new / "offsets.npy", offsets, allow_pickle=False)
                np.save(new / "lines.npy", checks, allow_pickle=False)
            for name, write in (beside or {}).items():
                write(new / name)
            manifest = sealed({**self.manifest, "documents": fingerprint, **index_files.described(new)})
            write_json(new / "manifest.json", manifest)
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path | str, mmap: bool = True, gpu: bool = False) -> Self:
        """Open a saved index; with `mmap` the vectors stay on disk until a search reads them, with `gpu` they go to the
        GPUs, if FAISS sees any and has the index's type for them.

        Raises UserError that names the folder if it is no index, has another format, or is damaged: vectors, ids and
        offsets are compared with their checksums (see `index_files`). A text is compared when it is read.
        """
        folder = Path(folder)
        if not (folder / "manifest.json").is_file():
            raise UserError(
                f"{folder} is not an index folder: it has no manifest.json; make one with Index.build and save"
            )
        manifest = read_json(folder / "manifest.json")
        if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
            raise UserError(f"{folder} is not an index folder: its manifest.json has no format number")
        if manifest["format"] != FORMAT:
            raise UserError(f"{folder} has index format {manifest['format']}, this version reads {FORMAT}; index again")
        try:
            check_seal(folder / "manifest.json", manifest)
            ids = json.loads(index_files.check(folder, manifest))
            if not isinstance(ids, list) or set(map(type, ids)) - {str}:
                raise ValueError("ids.json is no list of ids")
            vectors = _read_vectors(folder / "index.faiss", mmap)
            documents = None
            if manifest["documents"] is not None:
                offsets = read_array(folder / "offsets.npy", np.int64, 1, mmap=mmap)
                kept = "lines.npy" in manifest["files"]
                checks = read_array(folder / "lines.npy", np.uint64, 1) if kept else None
                documents = Corpus(folder / "documents.jsonl", ids, manifest["documents"], offsets, checks)
                if len(offsets) != len(ids):
                    raise ValueError(f"{len(offsets)} documents and {len(ids)} ids")
            came_shape, expected = (vectors.ntotal, vectors.d), (manifest["count"], manifest["dimension"])
            if came_shape != expected or len(ids) != vectors.ntotal:
                raise ValueError(f"{came_shape} vectors and {len(ids)} ids where the manifest says {expected}")
            if not manifest["encoder"]["fingerprint"]:
                raise ValueError("no fingerprint of the encoder")
            if not isinstance(manifest.get("digests", {}), dict):
                raise ValueError("manifest.json has no digests")
        except UserError:
            raise
        except PermissionError as error:
            raise UserError(f"the index in {folder} cannot be read: {error}") from None
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
            raise UserError(f"the index in {folder} is damaged, index again: {_reason(error)}") from None
        placed = faiss_index.to_gpu(vectors, manifest["factory"]) if gpu else vectors
        return cls(placed, ids, documents, manifest, placed is not vectors)

    def has_beside(self, folder: Path | str, name: str) -> bool:
        """Whether `save` wrote a folder of this name in the index folder.

        Raises UserError when its files are not those that were written: all of them are read.
        """
        place = Path(folder) / name
        written = {file: each for file, each in self.manifest.get("digests", {}).items() if file.startswith(f"{name}/")}
        if not written and place.exists():
            raise UserError(f"{place} was not written with this index; remove it, or index again")
        others = [f"{name}/{path.name}" for path in place.iterdir()] if place.is_dir() else []
        for file in (*others, *written):
            inside(Path(folder), file)
        for file, expected in written.items():
            try:
                came = digest(Path(folder) / file)
            except OSError as error:
                raise UserError(f"{place} is damaged, index again: {error}") from None
            if came != expected:
                raise UserError(f"{place} is damaged or of other documents, index again: {file} was changed")
        return bool(written)

    def check_encoder(self, encoder: Mapping[str, Any]) -> None:
        """Raise UserError unless `encoder` makes the vectors that this index holds: the same "fingerprint" and the
        same "document_prompt" (absent is the same as None). Warns of libraries that are of another release now."""
        built = self.manifest["encoder"]
        if encoder.get("fingerprint") != built.get("fingerprint"):
            wanted, got = Conventions.recorded(built), Conventions.recorded(encoder)
            if wanted != got and encoder.get("model") == built.get("model"):
                raise UserError(
                    f"this index was made with {wanted.said()}, got {got.said()}; pass the same, or index the "
                    "documents again"
                )
            raise UserError(
                f"this index was made by another document encoder: {_name(built)}, got {_name(encoder)};"
                " index the documents again, or use the model that made the index"
            )
        expected, came = built.get("document_prompt"), encoder.get("document_prompt")
        if expected != came:
            raise UserError(
                f"this index was made with {_prompt(expected)}, got {_prompt(came)};"
                " index the documents again, or use the prompt that made the index"
            )
        if others := libraries.changed(self.manifest.get("libraries")):
            message = f"this index was made with {few(others)}; scores may differ in their last digits"
            warnings.warn(f"{message}, more if the release changed the model: index again if in doubt", stacklevel=2)

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

        queries: (q, dimension). Returns scores (q, min(k, count)), float32 and descending, and the ids that belong to
        them; equal scores are in the order of the index. An approximate index may find fewer: then a row of ids is
        shorter, and the scores it lacks are -inf. nprobe (IVF), ef_search (HNSW) and k_factor (RFlat) trade speed for
        recall; their defaults are in `faiss_index.PARAMETERS`.
        Raises UserError for queries of another dimension or not finite, k < 1, and a parameter the index lacks.
        """
        scores, positions = self.nearest(queries, k, nprobe=nprobe, ef_search=ef_search, k_factor=k_factor)
        return scores, [[self.ids[position] for position in row if position >= 0] for row in positions]

    def nearest(self, queries: np.ndarray, k: int, **parameters: int | None) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, with positions (q, min(k, count)) instead of ids; -1 where an approximate index found fewer."""
        queries = faiss_index.matrix(queries, "queries")
        if queries.shape[1] != self.manifest["dimension"]:
            raise UserError(
                f"expected query vectors of dimension {self.manifest['dimension']}, which the index has,"
                f" got {queries.shape[1]}; encode queries with the model that made the index"
            )
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}")
        return faiss_index.search(
            self.vectors, queries, min(k, len(self)), factory=self.manifest["factory"], gpu=self.gpu, **parameters
        )

    def scores_at(self, query: np.ndarray, positions: np.ndarray) -> np.ndarray | None:
        """The inner products (n,) of one query (dimension,) with the vectors at these positions, as the index keeps
        them; None where it cannot give its vectors back (IVF, and what is on a GPU)."""
        return None if self.gpu else faiss_index.scores_at(self.vectors, query, positions)

    def vectors_at(self, positions: np.ndarray) -> np.ndarray:
        """The vectors (n, dimension) at these positions, as the index keeps them.

        Raises UserError where it cannot give them back: lists (IVF) of packed or additive codes, and what is on a GPU.
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
        """As `run`, without the document that bears its query's id, which BEIR leaves out of every ranking.

        The k best of the others, best first, or as many as are found. Raises UserError for k < 1.
        """
        if k < 1:
            raise UserError(f"k must be at least 1, got {k}")
        found = self.run(query_ids, vectors, k + 1, **parameters)  # type: ignore[arg-type]
        return {
            query: dict(islice((hit for hit in hits.items() if hit[0] != query), k)) for query, hits in found.items()
        }

    def document(self, id: str) -> Document:
        """Title and text of a document. Raises UserError for an unknown id, and if the index has no texts."""
        if self.documents is None:
            raise UserError("this index was built without documents; index again with them to see title and text")
        try:
            return self.documents[self._positions[id]]
        except KeyError:
            raise UserError(f"the index has no document {id!r}") from None

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {id: position for position, id in enumerate(self.ids)}


def _read_vectors(path: Path, mmap: bool) -> Any:
    """The FAISS index in a file, memory-mapped if that is wanted and FAISS can do it for this type."""
    import faiss

    if not mmap:
        return faiss.read_index(str(path))
    # FAISS's careful reader raises for what would end the process where it is mapped
    found = faiss.read_index(str(path)) if path.stat().st_size <= CHECKED else None
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError:  # a type that FAISS cannot map, or a damaged file, which fails again
        return found or faiss.read_index(str(path))


def _check_count(vectors: int, ids: list[str]) -> None:
    if vectors != len(ids):
        raise UserError(f"expected one id for each vector, got {vectors} vectors and {len(ids)} ids")


def _check_order(ids: list[str], documents: Corpus | Sequence[Document]) -> None:
    came = documents.ids if isinstance(documents, Corpus) else [document.id for document in documents]
    if len(came) != len(ids):
        raise UserError(f"expected one document for each id, got {len(came)} documents and {len(ids)} ids")
    for position, (expected, id) in enumerate(zip(ids, came, strict=True)):
        if expected != id:
            raise UserError(f"expected documents in the order of the ids, got {id!r} for {expected!r} at {position}")


def _write_documents(path: Path, documents: Iterable[Document]) -> tuple[str, np.ndarray, np.ndarray]:
    """Returns their fingerprint, the same as the corpus they came from, and of each line offset and checksum (n,)."""
    digest = hashlib.sha256()
    offsets, checks = [], []
    with path.open("wb") as file:
        for document in documents:
            offsets.append(file.tell())
            row = {"_id": document.id, "title": document.title, "text": document.text}
            line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
            file.write(line)
            checks.append(line_check(line))
            digest.update(frame(document))
    return digest.hexdigest(), np.array(offsets, dtype=np.int64), np.array(checks, dtype=np.uint64)


def _reason(error: Exception) -> str:
    return f"manifest.json has no {error}" if isinstance(error, KeyError) else faiss_index.reason(error)


def _name(encoder: Mapping[str, Any]) -> str:
    return f"{encoder.get('model', 'a model')} (fingerprint {str(encoder.get('fingerprint'))[:12]})"


def _prompt(prompt: Any) -> str:
    return "no document prompt" if prompt is None else f"the document prompt {str(prompt)[:12]}"
