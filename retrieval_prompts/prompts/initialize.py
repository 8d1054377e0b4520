"""Where a prompt starts: the vectors of a text, of sampled vocabulary rows, or gaussian at the model's own scale.

For an input prompt these are rows of the embedding table; for a prefix, the keys and values that the frozen model
itself makes of such tokens, layer by layer.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from retrieval_prompts.errors import UserError
from retrieval_prompts.towers.injection import record_prefix
from retrieval_prompts.towers.text import TextTower, is_word


class Vocabulary(Protocol):
    """A frozen model, as far as an input prompt needs it."""

    tokenizer: Any

    @property
    def embeddings(self) -> nn.Embedding: ...

    @property
    def device(self) -> torch.device: ...


def initial_vectors(tower: TextTower | Vocabulary, kind: str, length: int, init: str, seed: int) -> Tensor:
    """Initial vectors (layers, length, width) in float32 on the tower's device.

    Args:
        tower: of an input prompt any model with a vocabulary.
        init: "text:WORDS" (its tokens, repeated or cut to `length`), "vocab" (tokens sampled from the vocabulary
            without special ones; Lester et al. 2021) or "gaussian" (the mean and standard deviation of the
            embedding table, or of each layer's keys and values, over sampled tokens).

    Raises:
        UserError: for an empty text.
    """
    generator = torch.Generator().manual_seed(seed)
    if init.startswith("text:"):
        tokens = tower.tokenizer(init.removeprefix("text:"), add_special_tokens=False)["input_ids"]
        if not tokens:
            raise UserError(f"--init {init!r} has no words; write --init 'text:retrieve evidence for this claim'")
        rows = _rows(tower, kind, (tokens * (length // len(tokens) + 1))[:length])
    elif init == "vocab":
        rows = _rows(tower, kind, _sample(tower, length, generator))
    else:
        sample = _rows(tower, kind, _sample(tower, 256, generator))
        mean, std = sample.mean(dim=1, keepdim=True), sample.std(dim=1, keepdim=True)
        noise = torch.randn(sample.shape[0], length, sample.shape[2], generator=generator)
        rows = mean + std * noise.to(mean.device)
    return rows.detach().clone()


def _rows(tower: TextTower | Vocabulary, kind: str, tokens: list[int]) -> Tensor:
    if kind == "input":
        return tower.embeddings.weight[torch.tensor(tokens, device=tower.device)][None].float()
    assert isinstance(tower, TextTower)
    return record_prefix(tower, tokens)


def _sample(tower: TextTower | Vocabulary, count: int, generator: torch.Generator) -> list[int]:
    special = set(tower.tokenizer.all_special_ids)
    size = min(len(tower.tokenizer), int(tower.embeddings.weight.shape[0]))
    tokens: list[int] = []
    while len(tokens) < count:
        drawn = torch.randint(size, (count,), generator=generator).tolist()
        names = tower.tokenizer.convert_ids_to_tokens(drawn)
        tokens += [token for token, name in zip(drawn, names, strict=True) if token not in special and is_word(name)]
    return tokens[:count]
