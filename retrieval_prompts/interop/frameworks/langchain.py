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
    """Finds documents with a `Searcher`; their metadata hold id, title and score, of chunks also document,
    source and place.

    `k` may be given with a question. Without `passages` a document that is in chunks is found once, by its best chunk.
    """

    searcher: Searcher
    k: int = 10
    passages: bool = True

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
        return cls(searcher=Searcher.open(place, prompts, **options), k=k, passages=passages)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        (hits,) = self.searcher.search([query], k or self.k, passages=self.passages)
        return [
            Document(
                id=hit.id,
                page_content=hit.text or hit.title,
                metadata={"id": hit.id, "title": hit.title, "score": hit.score, **hit.about()},
            )
            for hit in hits
        ]
