"""Training texts: phrases put into templates, as token numbers. Knows nothing about pictures or models."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

TEMPLATES = [
    "{}",
    "a {}",
    "the {}",
    "a photo of a {}",
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of {}",
    "a photo of many {}",
    "a picture of a {}",
    "a picture of {}.",
    "a drawing of a {}",
    "a drawing of {}",
    "an emoji of a {}",
    "an emoji of {}",
    "an icon of a {}",
    "a clip art of a {}",
    "clip art of {}",
    "an illustration of a {}",
    "a small picture of a {}.",
    "a colourful drawing of a {}.",
    "a cartoon {}",
    "a simple sketch of a {}",
    "a rendering of a {}.",
    "art of the {}.",
    "this is a picture of a {}.",
    "a picture that shows {}",
    "an image of one {}",
    "{}, a kind of thing",
    "a good photo of the {}.",
    "a symbol for {}",
]


class Captions:
    """Phrases and templates as token numbers, and random texts made of them."""

    def __init__(self, phrases: list[str], tokenizer: PreTrainedTokenizerFast) -> None:
        def numbers(texts: list[str]) -> list[list[int]]:
            found: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
            return found

        self.phrases = numbers(phrases)
        ends = [template.split("{}") for template in TEMPLATES]
        self.templates = list(
            zip(numbers([start for start, _ in ends]), numbers([end for _, end in ends]), strict=True)
        )
        self.start, self.end = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.words = range(64, len(tokenizer) - 1)  # for random contexts: whole words and pieces

    def texts(self, chosen: np.ndarray, rng: np.random.Generator, longest_context: int) -> Tensor:
        """One text for each phrase number in `chosen` [B] -> tokens [B, L].

        With a longest context above 0, a third of the texts starts with up to so many random words in place of a
        template: positions far from the start are trained, and what stands before the name does not matter much.
        """
        rows: list[list[int]] = []
        for phrase in chosen:
            if longest_context and rng.random() < 0.33:
                before = list(
                    rng.integers(self.words.start, self.words.stop, size=rng.integers(1, longest_context + 1))
                )
                after: list[int] = []
            else:
                before, after = self.templates[0 if rng.random() < 0.2 else rng.integers(len(self.templates))]
            rows.append([*[self.start, *before, *self.phrases[phrase], *after][:75], self.end])
        tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for row, one in zip(tokens, rows, strict=True):
            row[: len(one)] = torch.tensor(one)
        return tokens
