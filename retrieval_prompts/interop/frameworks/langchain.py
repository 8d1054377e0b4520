"""LangChain: a retriever, for chains and agents.

retriever = PromptRetriever.over("INDEX", prompts="PROMPTS", k=5)
documents = retriever.invoke("Does vitamin D prevent fractures?")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from retrieval_prompts.interop.frameworks.searcher import Searcher


class PromptRetriever(BaseRetriever):
    """Finds documents with a `Searcher`; their metadata hold id, title and score. `k` may be given with a question."""

    searcher: Searcher
    k: int = 10

    @classmethod
    def over(
        cls, place: str | Path, prompts: str | Path | None = None, *, k: int = 10, **options: Any
    ) -> PromptRetriever:
        """An index folder or the address of a store; `options` are those of `Searcher.open`."""
        return cls(searcher=Searcher.open(place, prompts, **options), k=k)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        (hits,) = self.searcher.search([query], k or self.k)
        return [
            Document(
                id=hit.id,
                page_content=hit.text or hit.title,
                metadata={"id": hit.id, "title": hit.title, "score": hit.score},
            )
            for hit in hits
        ]
