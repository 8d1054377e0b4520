"""LlamaIndex: a retriever, for query engines and agents.

retriever = PromptRetriever.over("INDEX", prompts="PROMPTS", k=5)
nodes = retriever.retrieve("Does vitamin D prevent fractures?")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from retrieval_prompts.interop.frameworks.searcher import Searcher


class PromptRetriever(BaseRetriever):
    """Finds documents with a `Searcher`; a node has the document's id, and its title in the metadata, of chunks also
    document, source and place. Without `passages` a document that is in chunks is found once, by its best chunk."""

    def __init__(self, searcher: Searcher, k: int = 10, *, passages: bool = True, **options: Any) -> None:
        """`options`: of LlamaIndex's own retrievers."""
        self.searcher, self.k, self.passages = searcher, k, passages
        super().__init__(**options)

    @classmethod
    def over(
        cls,
        place: str | Path,
        prompts: str | Path | None = None,
        *,
        k: int = 10,
        passages: bool = True,
        **options: Any,
    ) -> PromptRetriever:
        """An index folder or the address of a store; `options` are those of `Searcher.open`."""
        return cls(Searcher.open(place, prompts, **options), k, passages=passages)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        (hits,) = self.searcher.search([query_bundle.query_str], self.k, passages=self.passages)
        return [
            NodeWithScore(
                node=TextNode(id_=hit.id, text=hit.text or hit.title, metadata={"title": hit.title, **hit.about()}),
                score=hit.score,
            )
            for hit in hits
        ]
