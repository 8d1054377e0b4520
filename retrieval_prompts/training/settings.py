"""How prompts are attached and trained: plain values, and their defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from retrieval_prompts.errors import UserError

# What a kind of prompt wants: inputs are read by one layer, prefixes by all
DEFAULTS: dict[str, dict[str, Any]] = {
    "input": {"length": 8, "init": "gaussian", "learning_rate": 1e-2},
    "prefix": {"length": 4, "init": "vocab", "learning_rate": 3e-2},
}
CHOICES = {
    "side": ("query", "document", "both"),
    "kind": ("input", "prefix"),
    "encoder": ("table", "mlp", "lstm"),
    "negatives": ("corpus", "in-batch", "mined"),
    "precision": ("auto", "float32", "bfloat16"),
}
COUNTS = ("length", "epochs", "max_steps", "document_steps", "batch_size", "patience")
POSITIVE = (*COUNTS, "learning_rate", "document_learning_rate", "clip", "memory", "temperature")
UP_TO = {
    "learning_rate": 1e30,
    "document_learning_rate": 1e30,
    "warmup": 1,
    "weight_decay": 1,
    "hard_negatives": 1000,
    "seed": 2**32 - 1,
}


@dataclass(frozen=True)
class TuneSettings:
    """How prompts are attached and trained. The defaults are one set for all data; see eval/README.md.

    Args:
        side: "query", "document" or "both".
        kind: "input" or "prefix"; encoder: "table", "mlp" or "lstm"; length: vectors a prompt.
        init: "text:WORDS", "vocab" or "gaussian".
        common: with both sides, add a part that they share (Semi-Siamese).
        epochs, max_steps: passes over the queries, and the number of steps after which training ends at the latest.
        document_steps, document_learning_rate: the same for steps that encode documents, which are few and costly.
        learning_rate, warmup, weight_decay, clip, patience: see `training.LoopSettings`; dev is scored
            ten times in a training, and patience counts these.
        batch_size: queries a step.
        temperature: T of the softmax; None: 0.05 for cosine models, 1 for dot-product models.
        negatives: "corpus" (all documents), "mined" (the batch's own documents and the model's best wrong answers)
            or "in-batch" (the former alone); None: corpus. Where documents are encoded anew, "corpus" means "mined".
        hard_negatives: mined documents a query and step, where documents have a prompt.
        symmetric: also compare each document with the queries of its batch.
        memory: gigabytes that the corpus's vectors may take; beyond it a step compares with mined, random and
            in-batch documents instead of all.
        precision: of the matrix products of a training step: "float32", "bfloat16", or "auto" (bfloat16 where the
            hardware has it: CUDA, AMX). Prompts, losses and every vector that is compared or kept are float32.
        seed: of the initial vectors, the batches and the mined draws.
    """

    side: str = "query"
    kind: str = "input"
    encoder: str = "table"
    length: int = 8
    init: str = "gaussian"
    common: bool = False
    epochs: int = 10
    max_steps: int = 300
    document_steps: int = 40
    learning_rate: float = 1e-2
    document_learning_rate: float = 3e-3
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
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in (None, *choices):
                raise UserError(
                    f"--{name} must be {', '.join(choices[:-1])} or {choices[-1]}, got {getattr(self, name)!r}"
                )
        if not (self.init in ("vocab", "gaussian") or self.init.startswith("text:")):
            raise UserError(f"--init must be text:WORDS, vocab or gaussian, got {self.init!r}")
        for name in POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name} must be above 0, got {value}")
        for name, most in UP_TO.items():
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"{name} must be from 0 to {most}, got {getattr(self, name)}")
        if self.common and self.side != "both":
            raise UserError("a common part needs prompts on both sides: pass --side both")

    @classmethod
    def of(cls, **given: Any) -> TuneSettings:
        """The defaults of the given kind and side, with what else is given in their place; None is not given.

        Raises UserError for a name that is no setting.
        """
        given = {name: value for name, value in given.items() if value is not None}
        if unknown := set(given) - {field.name for field in fields(cls)}:
            raise UserError(
                f"no such setting: {', '.join(sorted(unknown))}; there are {', '.join(f.name for f in fields(cls))}"
            )
        kind = given.get("kind", cls.kind)
        return cls(**{**DEFAULTS.get(kind, {}), **given})
