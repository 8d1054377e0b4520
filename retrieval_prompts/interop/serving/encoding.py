"""Texts, each with a prompt of its own -> vectors: the one place that knows how a batch of several prompts is run."""

from __future__ import annotations

from collections.abc import Sequence

from retrieval_prompts.interop.serving.served import Loaded
from retrieval_prompts.serving.prompt_set import PromptSet
from retrieval_prompts.towers.text import Floats, TextTower


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
