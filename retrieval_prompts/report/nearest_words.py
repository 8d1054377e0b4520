"""The words of the vocabulary nearest to a prompt's vectors. A rough hint: a trained vector is no word."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.towers.text import TextTower

BLOCK = 8192  # vocabulary rows at once: bounds the memory of a large vocabulary

Words = dict[str, list[list[tuple[str, float]]]]


def nearest_words(biencoder: BiEncoder, count: int = 5) -> Words:
    """Side -> for each vector of an input prompt the nearest words: (word, cosine to its embedding), nearest first.

    Special tokens are left out. Empty for prefixes: their keys and values live in spaces of the layers' own, where a
    word has no place until it stands in a sentence; see `without_words`.
    """
    if biencoder.kind != "input":
        return {}
    from retrieval_prompts.prompts.mixture import MixturePrompt

    tower = biencoder.tower
    found: Words = {}
    own = biencoder.made_for_each
    for side in biencoder.prompts:
        # What is made for each query differs from query to query
        vectors = own.flat() if isinstance(own, MixturePrompt) else own.vectors if own else biencoder.prompt(side)
        assert vectors is not None
        cosines, tokens = _nearest(tower, vectors.detach()[0].float(), count)
        found[side] = [
            [(_shown(tower.tokenizer.convert_ids_to_tokens(token)), cosine) for cosine, token in zip(*row, strict=True)]
            for row in zip(cosines.tolist(), tokens.tolist(), strict=True)
        ]
    return found


def without_words(biencoder: BiEncoder) -> str:
    """Why `nearest_words` has nothing to say, as a note for the report; empty where it has."""
    if not biencoder.prompts:
        return "There is no prompt to put into words."
    if biencoder.kind != "input":
        return (
            "A prefix is made of keys and values of every layer, not of word embeddings. A word's key depends on the "
            "words around it, so there is no list of words that it could be compared with."
        )
    return ""


def _nearest(tower: TextTower, vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Vectors (P, H) -> cosines and token ids (P, count) of the nearest words, fewer where the vocabulary has fewer."""
    import torch
    from torch.nn.functional import normalize

    from retrieval_prompts.towers.text import is_word

    table = tower.embeddings.weight.detach()
    special = set(tower.tokenizer.all_special_ids)
    vectors = normalize(vectors, dim=1)
    best = torch.empty(len(vectors), 0, device=vectors.device)
    tokens = torch.empty(len(vectors), 0, dtype=torch.long, device=vectors.device)
    size = min(len(tower.tokenizer), len(table))
    for start in range(0, size, BLOCK):
        names = tower.tokenizer.convert_ids_to_tokens(list(range(start, min(start + BLOCK, size))))
        words = [start + place for place, name in enumerate(names) if start + place not in special and is_word(name)]
        ids = torch.tensor(words, dtype=torch.long, device=vectors.device)
        best = torch.cat([best, vectors @ normalize(table[ids].float(), dim=1).T], dim=1)
        tokens = torch.cat([tokens, ids.expand(len(vectors), -1)], dim=1)
        best, order = best.topk(min(count, best.shape[1]), dim=1)
        tokens = tokens.gather(1, order)
    return best, tokens


def _shown(token: str) -> str:
    """A token as a reader knows it: without the signs of WordPiece, SentencePiece and byte-level BPE for a space."""
    if token.startswith("##"):
        return f"-{token[2:]}"
    return token.replace("▁", " ").replace("Ġ", " ").strip() or "␣"
