"""beir (2.2): our models in its searches, and a FAISS search for any of its models.

    search = FaissSearch(BeirModel(biencoder), factory="HNSW32")
    retrieval = EvaluateRetrieval(search, score_function="cos_sim")
    results = retrieval.retrieve(corpus, queries)

On an exported checkpoint beir's own SentenceBERT(folder, prompt_names={"query": "query", "passage": "document"}) does
what `BeirModel` does; without the prompt names it is the frozen model.

beir's own FAISS classes cannot be instantiated in 2.2, and its search from files reads pickles; `FaissSearch` finds
what beir's DenseRetrievalExactSearch finds, by any FAISS factory, and keeps its index.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from beir.retrieval.search import BaseSearch
from tqdm import trange

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.corpus import Document, frame
from retrieval_prompts.data.judgements import Run
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.first_pass import with_words
from retrieval_prompts.files import write_bytes
from retrieval_prompts.towers.text import Floats, unit_length
from retrieval_prompts.vectors.index import Index

BLOCK = 2048  # texts between two steps of a progress bar
SCORES = ("cos_sim", "dot")


class Model(Protocol):
    """A model as beir's searches call it, SentenceBERT for instance; vectors are tensors or arrays (n, dimension)."""

    def encode_queries(self, queries: list[str], batch_size: int = 16, **options: Any) -> Any: ...

    def encode_corpus(self, corpus: list[dict[str, str]], batch_size: int = 8, **options: Any) -> Any: ...


class BeirModel:
    """A bi-encoder as beir calls its models: queries with the query prompt, documents with the document prompt."""

    def __init__(self, biencoder: BiEncoder) -> None:
        self.biencoder = biencoder

    def encode_queries(self, queries: list[str], batch_size: int = 16, **options: Any) -> Any:
        """Queries -> (queries, dimension) in float32. See `encode_corpus` for the options."""
        return self._encode(self.biencoder.encode_query, queries, **options)

    def encode_corpus(
        self, corpus: list[dict[str, str]] | dict[str, list[str]] | list[str], batch_size: int = 8, **options: Any
    ) -> Any:
        """Documents, in any of beir's forms, -> (documents, dimension) in float32.

        Options: `convert_to_tensor`, `normalize_embeddings` and `show_progress_bar` as in sentence-transformers; others
        are ignored, and so is the batch size, which follows from the lengths of the texts.
        """
        if isinstance(corpus, dict):
            titles = corpus.get("title") or [""] * len(corpus["text"])
            texts = [_text(title, text) for title, text in zip(titles, corpus["text"], strict=True)]
        else:
            texts = [each if isinstance(each, str) else _text(each.get("title"), each["text"]) for each in corpus]
        return self._encode(self.biencoder.encode_document, texts, **options)

    def _encode(
        self,
        encode: Any,
        texts: list[str],
        convert_to_tensor: bool = False,
        normalize_embeddings: bool = False,
        show_progress_bar: bool = False,
        **_: Any,
    ) -> Any:
        starts = trange(0, len(texts), BLOCK, disable=not show_progress_bar, delay=1)
        parts = [encode(texts[start : start + BLOCK]) for start in starts]
        vectors = np.concatenate(parts) if parts else np.empty((0, self.biencoder.tower.dimension), np.float32)
        if normalize_embeddings:
            vectors = unit_length(vectors)
        return torch.from_numpy(vectors) if convert_to_tensor else vectors


class FaissSearch(BaseSearch):
    """A search for beir's EvaluateRetrieval over any FAISS index.

    The index is kept: a further search of the same corpus by the same score function encodes queries only. With
    "Flat" the results are those of DenseRetrievalExactSearch: `top_k` documents a query or as many as there are,
    without the document that bears the id of its query.

    Args:
        model: a `BeirModel`, or any other model of beir's, which must then stay as it is.
        factory: a FAISS factory; see `Index.build`.
        batch_size, corpus_chunk_size, show_progress_bar: as in beir; documents are encoded a chunk at a time.
        encoder: names the document encoder in a saved index; a `BeirModel` knows its own.
    """

    def __init__(
        self,
        model: Model,
        factory: str = "Flat",
        *,
        batch_size: int = 128,
        corpus_chunk_size: int = 50_000,
        show_progress_bar: bool = True,
        encoder: str | None = None,
    ) -> None:
        self.model, self.factory, self.encoder = model, factory, encoder
        self.corpus_chunk_size = corpus_chunk_size
        self.options = {"batch_size": batch_size, "show_progress_bar": show_progress_bar, "convert_to_tensor": True}
        self.index: Index | None = None
        self._corpus: str | None = None  # fingerprint of what is in the index

    def search(
        self,
        corpus: dict[str, dict[str, str]],
        queries: dict[str, str],
        top_k: int,
        score_function: str = "cos_sim",
        *,
        nprobe: int | None = None,
        ef_search: int | None = None,
        **_: Any,
    ) -> Run:
        """Query id -> document id -> score, an entry for every query.

        Args:
            score_function: "cos_sim" or "dot".
            nprobe, ef_search: see `Index.search`.

        Raises:
            UserError: for another score function, and whatever `Index.build` and `Index.search` refuse.
        """
        _check_score(score_function)
        identity = {**self._identity(), "score_function": score_function}
        documents = [Document(id, each.get("title") or "", each.get("text") or "") for id, each in corpus.items()]
        fingerprint = _fingerprint(documents)
        if self.index is None or self._corpus != fingerprint or not _same(self.index.manifest["encoder"], identity):
            chunks = (_scored(self._encode_documents(corpus, ids), score_function) for ids in self._chunks(corpus))
            self.index = Index.build(chunks, documents, list(corpus), encoder=identity, factory=self.factory)
            self._corpus = fingerprint
        if not queries:
            return {}
        self._bind(documents)
        vectors = _scored(self.model.encode_queries(list(queries.values()), **self.options), score_function)
        run = self.index.run(list(queries), vectors, top_k + 1, nprobe=nprobe, ef_search=ef_search)
        return _best_others(run, top_k)

    def _bind(self, documents: list[Document]) -> None:
        """Let prompts that read documents find them in this index."""
        if isinstance(self.model, BeirModel) and (reads := self.model.biencoder.feedback) is not None:
            known = self.model.biencoder.first_pass
            if known is None or known.index is not self.index:
                assert self.index is not None
                self.model.biencoder.bind(with_words(self.index, documents, reads.bm25_weight))

    def save(self, folder: Path | str, overwrite: bool = False) -> None:
        """Write the index as an index folder (see `Index`), which `Index.open` and our command line read too.

        Raises:
            UserError: before the first search, when the encoder has no name, and if the folder exists.
        """
        if self.index is None:
            raise UserError("there is no index yet; it is made by the first search")
        if not self.index.manifest["encoder"]["fingerprint"]:
            raise UserError(
                'an index that is kept must know its encoder; pass FaissSearch(model, encoder="model and version")'
            )
        self.index.save(folder, overwrite=overwrite)

    def load(self, folder: Path | str) -> FaissSearch:
        """Take a saved index, one of our command line's too; returns self. The first search that is of another corpus
        or by another score function makes a new one.

        Raises:
            UserError: when there is no index with documents, or another encoder made it.
        """
        index = Index.open(folder)
        index.check_encoder(self._identity())
        if index.documents is None:
            raise UserError(f"the index in {folder} holds no documents to compare a corpus with; index them again")
        if isinstance(self.model, BeirModel):
            similarity = self.model.biencoder.tower.similarity
            index.manifest["encoder"].setdefault("score_function", "cos_sim" if similarity == "cosine" else similarity)
        self.index, self._corpus = index, index.manifest["documents"]
        return self

    def encode(
        self,
        corpus: dict[str, dict[str, str]],
        queries: dict[str, str],
        encode_output_path: str = "./embeddings/",
        overwrite: bool = False,
        query_filename: str = "queries.npz",
        corpus_filename: str = "corpus.*.npz",
        **_: Any,
    ) -> None:
        """Write vectors and ids to .npz files, for `search_from_files`; files that exist are kept unless `overwrite`.

        EvaluateRetrieval.encode_and_retrieve asks for beir's pickles where it is not given these names.

        Raises:
            UserError: for names that do not end in .npz.
        """
        for name in (query_filename, corpus_filename):
            if not name.endswith(".npz"):
                raise UserError(
                    f'{name}: no pickles are written here; pass query_filename="queries.npz" and '
                    'corpus_filename="corpus.*.npz"'
                )
        folder = Path(encode_output_path)
        if overwrite or not (folder / query_filename).exists():
            vectors = self.model.encode_queries(list(queries.values()), **self.options)
            _write(folder / query_filename, _scored(vectors, "dot"), list(queries))
        for number, ids in enumerate(self._chunks(corpus)):
            path = folder / corpus_filename.replace("*", str(number))
            if overwrite or not path.exists():
                _write(path, _scored(self._encode_documents(corpus, ids), "dot"), ids)

    def search_from_files(
        self,
        query_embeddings_file: str,
        corpus_embeddings_files: list[str],
        top_k: int,
        score_function: str = "dot",
        **_: Any,
    ) -> Run:
        """Search the vectors of files written by `encode`.

        Raises:
            UserError: for files that are none.
        """
        _check_score(score_function)
        ids: list[str] = []
        blocks: list[Floats] = []
        for path in sorted(corpus_embeddings_files):
            vectors, read = _read(Path(path))
            ids += read
            blocks.append(_scored(vectors, score_function))
        index = Index.build(blocks, None, ids, encoder=self._identity(), factory=self.factory)
        vectors, query_ids = _read(Path(query_embeddings_file))
        return _best_others(index.run(query_ids, _scored(vectors, score_function), top_k + 1), top_k)

    def _identity(self) -> dict[str, Any]:
        if isinstance(self.model, BeirModel):
            return self.model.biencoder.identity()
        return {"model": self.encoder, "fingerprint": self.encoder}

    def _chunks(self, corpus: dict[str, dict[str, str]]) -> list[list[str]]:
        ids, size = list(corpus), self.corpus_chunk_size
        return [ids[start : start + size] for start in range(0, len(ids), size)]

    def _encode_documents(self, corpus: dict[str, dict[str, str]], ids: list[str]) -> Any:
        return self.model.encode_corpus([corpus[id] for id in ids], **self.options)


def _text(title: str | None, text: str) -> str:
    return Document("", title or "", text).content


def _fingerprint(documents: Iterable[Document]) -> str:
    """The same as `data.Corpus.fingerprint`, which an index keeps."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(frame(document))
    return digest.hexdigest()


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(name) == other.get(name) for name in ("fingerprint", "document_prompt", "score_function"))


def _check_score(score_function: str) -> None:
    if score_function not in SCORES:
        raise UserError(f"the score function must be one of {', '.join(SCORES)}, got {score_function!r}")


def _scored(vectors: Any, score_function: str) -> Floats:
    """Vectors whose inner product is the score: at unit length for the cosine."""
    if isinstance(vectors, torch.Tensor):
        vectors = vectors.float().cpu().numpy()
    vectors = np.asarray(vectors, dtype=np.float32)
    return unit_length(vectors) if score_function == "cos_sim" else vectors


def _best_others(run: Run, top_k: int) -> Run:
    """The `top_k` best documents of each query whose id is not the query's; a run's entries are best first."""
    return {
        query: dict([(id, score) for id, score in scores.items() if id != query][:top_k])
        for query, scores in run.items()
    }


def _write(path: Path, vectors: Floats, ids: list[str]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, vectors=vectors, ids=np.array(ids))
    write_bytes(path, buffer.getvalue())


def _read(path: Path) -> tuple[Floats, list[str]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["vectors"], file["ids"].tolist()
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} holds no vectors that FaissSearch.encode wrote ({error}); encode again") from None
