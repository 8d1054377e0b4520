"""Queries with prompts of any kind: behind a context, or, with feedback, after a first search with the frozen model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from multimodal.data.captions import WAYS
from multimodal.evaluation.captions import Pairs, Ranks
from multimodal.prompts.feedback import Feedback
from multimodal.vectors.texts import Texts, encode_texts, finite, text_vectors
from retrieval_prompts.evaluation.first_pass import FirstPass
from retrieval_prompts.prompts.encoders import CHANGING
from retrieval_prompts.prompts.strength import between
from retrieval_prompts.vectors.index import Index

if TYPE_CHECKING:
    from multimodal.towers.clip import Clip

AGAIN = 1024  # queries whose prompts are made at once


def read_first(queries: Tensor, features: Tensor, found: int) -> NDArray[np.int64]:
    """The positions (n, found) in features (m, D) of what queries (n, D) find first, best first."""
    if found == 0:
        return np.empty((len(queries), 0), dtype=np.int64)
    return _positions(_over(features, found), queries)


@torch.no_grad()
def ask_again(prompter: Feedback, way: str, queries: Tensor, searched: Index | Tensor, strength: float = 1.0) -> Tensor:
    """Frozen queries (n, D) -> those that have read what they find, on the CPU.

    Args:
        way: "t2i" where words ask for pictures, "i2t" where pictures ask for captions.
        searched: an index, or the features (m, D) themselves.

    Raises:
        UserError: where they are not finite, and where an index does not give its vectors back.
    """
    if strength == 0:
        return queries.cpu()
    first = _over(searched, prompter.found) if prompter.found else None
    parts = [queries.cpu()[:0]]
    for some in queries.split(AGAIN):
        found = some.new_zeros(len(some), 0, some.shape[1])
        if first is not None:
            found = torch.from_numpy(first.vectors(_positions(first, some)))
        with CHANGING:
            place = next(prompter.parameters()).device
            made = prompter.asked(way, some.to(place), found.to(place)).cpu()
        parts.append(made if strength == 1 else between(some.cpu(), made, strength, lerp=True))
    return finite(torch.cat(parts))


def ask(texts: Texts, prompter: nn.Module | None, strength: float, index: Index) -> Tensor:
    """Words (n) -> (n, D) of unit length, on the CPU, to search an index of pictures with; see `ask_again`."""
    if not isinstance(prompter, Feedback):
        return encode_texts(texts, prompter, strength)
    return ask_again(prompter, "t2i", encode_texts(texts), index, strength)


def query_vectors(
    clip: Clip,
    words: Sequence[str],
    prompter: nn.Module | None,
    index: Index,
    *,
    strength: float = 1.0,
    seen: bool = False,
) -> Tensor:
    """As `ask`, of words as they are typed; those that are too long are cut and counted in a DataWarning.

    Args:
        prompter, strength: see `PromptClassifier.search_prompts`.
        index: of pictures, by the same model; `seen`: with these prompts in the image tower (see `text_prompts`).
    """
    if not isinstance(prompter, Feedback):
        return text_vectors(clip, words, prompter, strength=strength, seen=seen)
    return ask_again(prompter, "t2i", text_vectors(clip, words), index, strength)


def ranks(pairs: Pairs, texts: Texts, prompter: nn.Module, strength: float = 1.0, keep: int = 0) -> Ranks:
    """Pictures and captions compared both ways with prompts; see `Pairs.ranks`."""
    if not isinstance(prompter, Feedback):
        return pairs.ranks(encode_texts(texts, prompter, strength), keep)
    frozen = encode_texts(texts)
    asking = {"i2t": (pairs.images, frozen), "t2i": (frozen, pairs.images)}
    return pairs.ranks(frozen, keep, {way: ask_again(prompter, way, *asking[way], strength) for way in WAYS})


def _over(searched: Index | Tensor, found: int) -> FirstPass:
    if isinstance(searched, Tensor):
        ids = [str(number) for number in range(len(searched))]
        searched = Index.build(searched.cpu().numpy(), None, ids, encoder={}, gpu=False)
    return FirstPass(searched, found, bm25_weight=0.0)


def _positions(first: FirstPass, queries: Tensor) -> NDArray[np.int64]:
    return first.positions([""] * len(queries), queries.cpu().numpy())
