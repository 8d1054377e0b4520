"""Haystack: a retriever component, for pipelines, which can be saved with them.

pipeline.add_component("retriever", PromptRetriever("INDEX", prompts="PROMPTS", top_k=5))
pipeline.run({"retriever": {"query": "Does vitamin D prevent fractures?"}})
"""

from __future__ import annotations

from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict

from retrieval_prompts.interop.frameworks.searcher import Searcher


@component
class PromptRetriever:
    """Finds documents with a `Searcher`, which is opened at the first run or by `warm_up`.

    Args:
        index: an index folder or the address of a store.
        prompts: a prompt folder.
        top_k: how many documents a query.
        options: those of `Searcher.open`, by name.
        passages: without, a document that is in chunks is found once, by its best chunk.
    """

    def __init__(
        self,
        index: str,
        prompts: str | None = None,
        top_k: int = 10,
        options: dict[str, Any] | None = None,
        passages: bool = True,
    ) -> None:
        self.passages = passages
        self.index, self.prompts, self.top_k, self.options = str(index), prompts, top_k, options or {}
        self.searcher: Searcher | None = None

    def warm_up(self) -> None:
        """Load model, prompts and index."""
        if self.searcher is None:
            self.searcher = Searcher.open(self.index, self.prompts, **self.options)

    @component.output_types(documents=list[Document])
    def run(self, query: str, top_k: int | None = None) -> dict[str, list[Document]]:
        """The best documents of a query, best first."""
        self.warm_up()
        assert self.searcher is not None
        (hits,) = self.searcher.search([query], top_k or self.top_k, passages=self.passages)
        found = [
            Document(
                id=hit.id, content=hit.text or hit.title, meta={"title": hit.title, **hit.about()}, score=hit.score
            )
            for hit in hits
        ]
        return {"documents": found}

    def to_dict(self) -> dict[str, Any]:
        prompts = None if self.prompts is None else str(self.prompts)
        values = {"index": self.index, "prompts": prompts, "top_k": self.top_k, "options": self.options}
        return default_to_dict(self, **values, passages=self.passages)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PromptRetriever:
        made: PromptRetriever = default_from_dict(cls, data)
        return made
