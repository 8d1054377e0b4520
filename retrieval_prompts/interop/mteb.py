"""mteb (2.26): our index as a search of its own, beside the models that `mteb.evaluate` takes without help.

    mteb.evaluate(biencoder.as_sentence_transformer(), task)          prompts by mteb's query and document types
    mteb.evaluate(SentenceTransformer(export), task)                  the same, a stock checkpoint
    mteb.evaluate(IndexSearch(biencoder, "HNSW32"), task)             retrieval from an index, documents from the cache

The first two encode texts that are neither query nor document, as in classification or similarity, without a prompt.
mteb keeps results by a model's name and revision. The live model and IndexSearch change theirs with the prompts; a
checkpoint in a local folder has none, so pass `cache=None` with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.corpus import Corpus, Document
from retrieval_prompts.data.judgements import Run
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.first_pass import with_words
from retrieval_prompts.interop.live import name_and_revision
from retrieval_prompts.vectors.blocks import VectorBlocks
from retrieval_prompts.vectors.index import Index

if TYPE_CHECKING:
    from mteb.models import ModelMeta


class IndexSearch:
    """A bi-encoder and its FAISS index, by mteb's SearchProtocol; for retrieval and reranking tasks of text.

    Args:
        factory: a FAISS factory; see `Index.build`.
        cache: the folder of document vectors; see `BiEncoder.encode_corpus`.
        nprobe, ef_search: see `Index.search`.
    """

    def __init__(
        self,
        biencoder: BiEncoder,
        factory: str = "Flat",
        *,
        cache: Path | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
    ) -> None:
        self.biencoder, self.factory, self.cache = biencoder, factory, cache
        self.nprobe, self.ef_search = nprobe, ef_search
        self.documents: VectorBlocks | None = None
        self.vectors: Index | None = None

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """The model's name, and as its revision what its results depend on: frozen model, prompts, strength, index."""
        from mteb.models import ModelMeta

        tower = self.biencoder.tower
        name, revision = name_and_revision(self.biencoder)
        made = f"{revision} {self.factory} {self.nprobe} {self.ef_search}"
        return ModelMeta.create_empty(
            overwrites={
                "name": name,
                "revision": hashlib.sha256(made.encode()).hexdigest()[:40],
                "max_tokens": tower.text_length("document"),
                "embed_dim": tower.dimension,
                "framework": ["Sentence Transformers", "PyTorch"],
            }
        )

    def index(self, corpus: Iterable[Mapping[str, Any]], **_: Any) -> None:
        """Encode and index the rows of a corpus: "id", "text", and "title" where there is one."""
        documents = [Document(row["id"], row.get("title") or "", row["text"]) for row in corpus]
        ids = [document.id for document in documents]
        # Encoding asks for nothing but ids and texts
        self.documents = self.biencoder.encode_corpus(Corpus(Path(), ids, "", documents), self.cache)
        self.vectors = Index.build(self.documents, None, ids, encoder=self.biencoder.identity(), factory=self.factory)
        if (reads := self.biencoder.feedback) is not None:
            self.biencoder.bind(with_words(self.vectors, documents, reads.bm25_weight))

    def search(self, queries: Any, *, top_k: int, top_ranked: Mapping[str, list[str]] | None = None, **_: Any) -> Run:
        """Query id -> document id -> score, an entry for every query.

        Args:
            queries: rows "id" and "text"; an "instruction" follows the text, as in mteb.
            top_ranked: of a reranking task, the documents of each query; they are scored exactly.

        Raises:
            UserError: before `index`, and for queries that are conversations.
        """
        if self.vectors is None or self.documents is None:
            raise UserError("there is no index yet; call index first")
        ids, texts = list(queries["id"]), [_query(row) for row in queries]
        if not ids:
            return {}
        vectors = self.biencoder.query_vectors(texts)
        if top_ranked is None:
            return self.vectors.run(ids, vectors, top_k, nprobe=self.nprobe, ef_search=self.ef_search)
        position = self.vectors.ids.position
        run: Run = {}
        for query, vector in zip(ids, vectors, strict=True):
            names = top_ranked.get(query, [])
            scores = self.documents.rows(np.array([position(name) for name in names], dtype=np.int64)) @ vector
            best = np.argsort(-scores, kind="stable")[:top_k]
            run[query] = {names[each]: float(scores[each]) for each in best}
        return run


def _query(row: Mapping[str, Any]) -> str:
    if not isinstance(row["text"], str):
        raise UserError(f"query {row['id']!r} is a conversation; expected a text: evaluate the live model instead")
    return f"{row['text']} {row['instruction']}" if row.get("instruction") is not None else row["text"]
