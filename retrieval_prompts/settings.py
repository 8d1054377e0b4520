"""How prompts are attached and trained: plain values, and their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from retrieval_prompts.errors import UserError

# What a kind of prompt wants: inputs are read by one layer, prefixes by all
DEFAULTS: dict[str, dict[str, Any]] = {
    "input": {"length": 8, "learning_rate": 1e-2},
    "prefix": {"length": 4, "learning_rate": 1e-2},
}


@dataclass(frozen=True)
class TuneSettings:
    """How prompts are attached and trained. The defaults are one set for all data; see eval/README.md.

    Args:
        side: "query", "document" or "both".
        kind: "input" or "prefix"; encoder: "table", "mlp" or "lstm"; length: vectors a prompt.
        init: "text:WORDS", "vocab" or "gaussian".
        common: with both sides, add a part that they share (Semi-Siamese).
        epochs, learning_rate, warmup, weight_decay, clip, patience: see `training.LoopSettings`.
        batch_size: queries a step.
        temperature: T of the softmax; None: 0.05 for cosine models, 1 for dot-product models.
        negatives: "corpus" (all documents; query side only), "in-batch", or "mined" (those and the frozen model's
            own best wrong answers); None: corpus where it is possible, else mined.
        hard_negatives: mined documents a query and step, where documents have a prompt.
        symmetric: also compare each document with the queries of its batch.
        memory: gigabytes that the corpus's vectors may take; beyond it a step compares with mined, random and
            in-batch documents instead of all.
        titles: with the query side alone, titles of documents an epoch, as a multiple of the number of training
            queries, that join them as queries of their documents; 0: none. No effect where there are no titles.
        seed: of the initial vectors, the batches and the mined draws.
    """

    side: str = "query"
    kind: str = "input"
    encoder: str = "table"
    length: int = 8
    init: str = "vocab"
    common: bool = False
    epochs: int = 10
    learning_rate: float = 1e-2
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    patience: int | None = None
    batch_size: int = 32
    temperature: float | None = None
    negatives: str | None = None
    hard_negatives: int = 1
    symmetric: bool = False
    memory: float = 2.0
    titles: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        positive = ("length", "epochs", "batch_size", "learning_rate", "clip", "memory")
        for name in positive:
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.temperature is not None and not self.temperature > 0:
            raise UserError(f"temperature must be above 0, got {self.temperature}")
        if self.negatives not in (None, "corpus", "in-batch", "mined"):
            raise UserError(f"--negatives must be corpus, in-batch or mined, got {self.negatives!r}")
        if self.negatives == "corpus" and self.side != "query":
            raise UserError("--negatives corpus needs fixed document vectors: use --side query, in-batch or mined")

    @classmethod
    def for_kind(cls, kind: str, **given: Any) -> TuneSettings:
        """The defaults of a kind, with what is given in their place."""
        return cls(kind=kind, **{**DEFAULTS.get(kind, {}), **given})
