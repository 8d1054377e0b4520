"""How texts are cut into chunks for a model: in its tokens, so that it reads all of each chunk."""

from __future__ import annotations

from retrieval_prompts.data.sources.chunks import Chunking
from retrieval_prompts.errors import UserError
from retrieval_prompts.towers.text import TextTower

LONGEST = 512  # tokens of a chunk for a model that reads more, unless more are asked for
OVERLAP = 8  # a chunk overlaps with the one before by this part of its size


def chunking_for(tower: TextTower, size: int | None = None, overlap: int | None = None) -> Chunking:
    """Chunks of at most `size` tokens; by default what the model reads of a document, up to 512.

    Args:
        overlap: tokens, by default an eighth of the size.

    A size beyond what the model reads is that.

    Raises:
        UserError: for an overlap of half the size or more.
    """
    room = tower.text_length("document")
    size = min(size or LONGEST, room)
    overlap = size // OVERLAP if overlap is None else overlap
    if not 0 <= overlap < size / 2:
        raise UserError(f"--overlap must be from 0 to less than half of the {size} tokens of a chunk, got {overlap}")

    def count(texts: list[str]) -> list[int]:
        options = {"add_special_tokens": False, "truncation": False, "return_attention_mask": False}
        return [len(row) for row in tower.tokenizer(texts, verbose=False, **options)["input_ids"]]

    (special,) = map(len, tower.tokenize([""], "document"))
    return Chunking(size, overlap, count, special, tower.fingerprint)
