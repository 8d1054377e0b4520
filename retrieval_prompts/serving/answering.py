"""The rows of a batch -> vectors and hits: one forward pass for all that may share one, one search for all alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from retrieval_prompts.interop.frameworks.searcher import Hit, Searcher
from retrieval_prompts.serving.prompt_set import PromptSet
from retrieval_prompts.serving.served import Loaded
from retrieval_prompts.towers.text import Floats, TextTower


@dataclass(frozen=True)
class Query:
    """One query of a request.

    Args:
        prompt: None for the frozen model; strength: None for the prompt's own.
        k: hits; 0 for its vector alone.
        weight: of BM25.
        beside: whether the frozen model's hits are wanted too, with the same weight.
    """

    text: str
    prompt: Loaded | None
    strength: float | None = None
    k: int = 0
    weight: float = 0.0
    beside: bool = False


@dataclass(frozen=True)
class Answer:
    """What comes of a query: its hits, and those of the frozen model; or its vector, and the tokens that were read."""

    hits: list[Hit] = field(default_factory=list)
    frozen: list[Hit] | None = None
    vector: Floats | None = None
    tokens: int = 0


class Answering:
    """Answers the queries of a batch; what it finds for one does not depend on the others. Several threads may call it:
    they encode at once, and read the index one after another."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher

    def __call__(self, rows: Sequence[Query]) -> list[Answer]:
        """Raises UserError for what cannot be answered."""
        tower = self.searcher.biencoder.tower
        beside = [place for place, row in enumerate(rows) if row.beside]
        asked = [*rows, *(Query(rows[at].text, None, None, rows[at].k, rows[at].weight) for at in beside)]
        texts, prompts = [row.text for row in asked], [row.prompt for row in asked]
        vectors = encode_queries(tower, texts, prompts, [row.strength for row in asked])
        hits = self._ranked(asked, tower.comparable(vectors))
        frozen = {at: hits[len(rows) + number] for number, at in enumerate(beside)}
        return [
            Answer(hits[place], frozen.get(place)) if row.k else Answer(vector=vectors[place], tokens=self._tokens(row))
            for place, row in enumerate(rows)
        ]

    def _ranked(self, asked: Sequence[Query], vectors: Floats) -> dict[int, list[Hit]]:
        """Place -> hits, of the queries that want some. Those of one depth and weight are searched at once: another
        depth may find others in an approximate index."""
        groups: dict[tuple[int, float], list[int]] = {}
        for place, row in enumerate(asked):
            if row.k:
                groups.setdefault((row.k, row.weight), []).append(place)
        found: dict[int, list[Hit]] = {}
        for (k, weight), places in groups.items():
            hits = self.searcher.ranked([asked[place].text for place in places], vectors[places], k, weight)
            found |= dict(zip(places, hits, strict=True))
        return found

    def _tokens(self, row: Query) -> int:
        """How many tokens of a query are read, special ones included."""
        own = self.searcher.biencoder if row.prompt is None else row.prompt.biencoder
        (ids,) = own.tokenize([row.text], "query")
        return len(ids)


def encode_queries(
    tower: TextTower, texts: list[str], prompts: Sequence[Loaded | None], strengths: Sequence[float | None]
) -> Floats:
    """Queries -> vectors (queries, dimension), each as `BiEncoder.encode_query` gives it with its prompt alone.

    Args:
        prompts: None for the frozen model.
        strengths: None for that of the prompt.
    """
    # Prompts of documents alone leave queries to the frozen model
    chosen = [None if each is None or "query" not in each.biencoder.prompts else each.biencoder for each in prompts]
    return PromptSet(tower).encode_chosen(texts, chosen, strengths)
