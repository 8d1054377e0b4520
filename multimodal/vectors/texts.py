"""Texts on their way into a frozen text tower: as they are, or behind a tuned context. Knows no pictures.

A text reads SOS [context] text EOT. One that is too long is cut before EOT, and counted.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from multimodal.prompts.contexts import Prompts, still
from multimodal.prompts.feedback import Feedback
from multimodal.towers.tokens import Rows
from retrieval_prompts.errors import DataWarning, UserError, few
from retrieval_prompts.prompts.strength import between

if TYPE_CHECKING:
    from multimodal.towers.clip import Clip

TEXTS = 256  # encoded at once


class Texts:
    """Captions or queries in the place of class names, before a prompter: tokenised once, for contexts of any length.

    Unlike class names they may repeat, and one that is too long is cut before EOT.
    """

    def __init__(self, clip: Clip, texts: Sequence[str]) -> None:
        self.clip = clip
        self.names = tuple(texts)
        self._rows: dict[int, Rows] = {}  # by the length of the context

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def frozen(self) -> Tensor:
        """(n, D) of unit length: the texts without a prompt."""
        with torch.no_grad():
            return self._encoded(Prompts(torch.zeros(0, self.clip.text.width, device=self.clip.device)))

    @property
    def ensemble(self) -> Tensor:
        """There are no templates to write a sentence into."""
        return self.frozen

    def take(self, positions: Sequence[int]) -> Texts:
        """The texts at these positions, with what was computed for them already."""
        part = Texts(self.clip, [self.names[at] for at in positions])
        part._rows = {
            length: Rows(tuple(rows.ids[at] for at in positions), length) for length, rows in self._rows.items()
        }
        if "frozen" in vars(self):
            part.frozen = self.frozen[list(positions)]
        return part

    def rows(self, length: int) -> Rows:
        """Token rows with room for `length` context vectors before each text, which is cut where it is too long."""
        if length not in self._rows:
            tokens = self.clip.text.tokens
            if tokens.room - length < 1:
                raise UserError(
                    f"a context of {length} vectors leaves no room for a text in {tokens.context_length} positions"
                )
            self._rows[length] = tokens.rows(self.names, length, suffix="", cut=True)
        return self._rows[length]

    def cut(self, length: int) -> list[str]:
        """The texts that are too long beside a context of `length` vectors."""
        tokens = self.clip.text.tokens
        full = [
            name
            for name, row in zip(self.names, self.rows(length).ids, strict=True)
            if len(row) == tokens.context_length
        ]
        return [name for name in full if len(tokens.of(name, first=length == 0)) > tokens.room - length]

    def features(self, prompts: Prompts | None, strength: float = 1.0) -> Tensor:
        """(n, D) of unit length, with gradients to the prompts.

        Args:
            prompts: None: none, as at strength 0.
            strength: s mixes (1 - s) of the frozen and s of the prompted vector.
        """
        if prompts is None or strength == 0:
            return self.frozen
        prompted = self._encoded(prompts)
        return prompted if strength == 1 else between(self.frozen, prompted, strength, lerp=True)

    def _encoded(self, prompts: Prompts) -> Tensor:
        rows = self.rows(prompts.context.shape[0])
        return F.normalize(self.clip.text.encode(rows, prompts.context, prompts.deep).float(), dim=-1)


def text_prompts(prompter: nn.Module, texts: Texts, *, seen: bool = False) -> Prompts:
    """The prompts for these texts.

    Args:
        seen: the pictures that they are compared with have the prompts too.

    Raises:
        UserError: for prompts that fit no other texts, or no frozen pictures.
    """
    some_image = torch.zeros(1, texts.clip.dimension, device=texts.clip.device)
    if not torch.is_grad_enabled():
        prompts = still(prompter, texts, some_image)
    else:
        prompts = prompter(texts, some_image)
    if prompts.texts is not None:
        reason = "their texts are read by their teacher"
    elif prompts.visual and not seen:
        reason = "they prompt the image tower too, and the pictures of a search are encoded without prompts"
    elif prompts.per_image:
        reason = "they depend on the picture, and a search compares one text with all pictures"
    elif prompts.context.dim() != 2:
        reason = "each class has its own, and a text is not a class"
    else:
        return prompts
    raise UserError(f"these prompts cannot serve a search: {reason}; use prompts of the method coop, deep or tcp")


@torch.no_grad()
def encode_texts(
    texts: Texts, prompter: nn.Module | None = None, strength: float = 1.0, *, seen: bool = False
) -> Tensor:
    """(n, D) of unit length, on the CPU: without a prompt, or behind the prompter's context; `seen`: `text_prompts`."""
    parts = [torch.zeros(0, texts.clip.dimension)]
    for start in tqdm(range(0, len(texts), TEXTS), desc="encode texts", unit="batch", delay=2, leave=False):
        part = texts.take(range(start, min(start + TEXTS, len(texts))))
        prompts = text_prompts(prompter, part, seen=seen) if prompter is not None else None
        parts.append(part.features(prompts, strength).cpu())
    return finite(torch.cat(parts))


def finite(vectors: Tensor) -> Tensor:
    """The vectors (n, D).

    Raises:
        UserError: for any that is not finite, as prompts of huge numbers make them.
    """
    if not torch.isfinite(vectors).all():
        raise UserError("these prompts give vectors that are not finite; lower their strength, or train them again")
    return vectors


def text_vectors(
    clip: Clip, texts: Sequence[str], prompter: nn.Module | None = None, *, strength: float = 1.0, seen: bool = False
) -> Tensor:
    """Texts -> (n, D) of unit length, on the CPU. Those that are too long are cut and counted in a DataWarning.

    seen: see `text_prompts`.
    """
    read = Texts(clip, texts)
    warn_of_cut(read, context_length(prompter, read, seen=seen))
    return encode_texts(read, prompter, strength, seen=seen)


def context_length(prompter: nn.Module | None, texts: Texts, *, seen: bool = False) -> int:
    """How many vectors the prompter puts before a text."""
    if prompter is None or isinstance(prompter, Feedback):
        return 0
    return int(text_prompts(prompter, texts.take(range(min(1, len(texts)))), seen=seen).context.shape[0])


def warn_of_cut(texts: Texts, length: int) -> None:
    """One DataWarning, where texts are too long beside a context of `length` vectors."""
    if cut := texts.cut(length):
        beside = f" beside a context of {length} vectors" if length else ""
        room = texts.clip.text.tokens.room - length
        shown = few(f"{text[:40]!r}" for text in cut)
        message = f"{len(cut):,} of {len(texts):,} texts are cut: {room} tokens fit{beside} ({shown})"
        warnings.warn(message, DataWarning, stacklevel=3)
