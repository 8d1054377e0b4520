"""The addresses of a server of texts: what each takes, and what it gives back."""

from __future__ import annotations

from typing import Any

from retrieval_prompts.interop.frameworks.searcher import Hit
from retrieval_prompts.serving.answering import Answer, Answering
from retrieval_prompts.serving.application import Application, Handler, Request, Response, answer, plain
from retrieval_prompts.serving.asked import search_of
from retrieval_prompts.serving.by_name import FROZEN
from retrieval_prompts.serving.embeddings import embedded, embeddings_of
from retrieval_prompts.serving.limits import Limits
from retrieval_prompts.serving.served import Loaded, TextShelf


class Web(Application):
    """The application of prompts over an index of documents."""

    shelf: TextShelf

    def __init__(self, shelf: TextShelf, limits: Limits) -> None:
        super().__init__(shelf, limits, Answering(shelf.searcher))

    def addresses(self) -> list[tuple[str, str, Handler]]:
        """See `Application`."""
        return [
            ("POST", "/search", self._search),
            ("POST", "/v1/embeddings", self._embeddings),
            ("GET", "/v1/models", self._models),
        ]

    def about(self) -> dict[str, Any]:
        """See `Application`."""
        searcher = self.shelf.searcher
        return {
            "model": plain(searcher.biencoder.tower.name),
            "documents": len(searcher.index),
            "words": searcher.hybrid is not None,
            "frozen": self.shelf.frozen,
        }

    def about_prompt(self, prompt: Loaded) -> dict[str, Any]:
        """See `Application`."""
        made = prompt.biencoder
        return {"kind": made.kind, "bm25_weight": self.shelf.weight(prompt), "sides": list(made.prompts)}

    async def _search(self, request: Request) -> Response:
        asked = search_of(await self.body(request), self.shelf, self.limits)
        results = [_shown(each, asked.text) for each in await self.results(request, asked.rows)]
        first = asked.rows[0]
        strength = first.strength
        if asked.prompt is not None and strength is None:
            strength = asked.prompt.strength
        about = {
            "prompt": FROZEN if asked.prompt is None else asked.prompt.name,
            "strength": strength,
            "bm25_weight": first.weight,
        }
        return answer({**about, **results[0]} if asked.single else {**about, "results": results})

    async def _embeddings(self, request: Request) -> Response:
        model, packed, rows = embeddings_of(await self.body(request), self.shelf, self.limits)
        return answer(embedded(model, packed, await self.results(request, rows)))

    async def _models(self, _: Request) -> Response:
        names = [loaded.name for loaded in self.shelf.all()]
        every = [FROZEN, *names] if self.shelf.frozen else names
        return answer({"object": "list", "data": [_model(name) for name in every]})


def _shown(answer: Answer, text: bool) -> dict[str, Any]:
    hits = {"hits": [_hit(hit, text) for hit in answer.hits]}
    return hits if answer.frozen is None else {**hits, "frozen": [_hit(hit, text) for hit in answer.frozen]}


def _hit(hit: Hit, text: bool) -> dict[str, Any]:
    found = {"id": hit.id, "score": hit.score, "title": hit.title, **hit.about()}
    return {**found, "text": hit.text} if text else found


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "retrieval-prompts"}
