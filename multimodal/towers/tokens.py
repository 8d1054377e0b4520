"""Token ids of a text as an open_clip tokenizer makes them, with room for context vectors. Knows no model weights.

A row is the list of ids that one text tower pass reads: special tokens, text and, where context vectors go, SLOT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from retrieval_prompts.errors import UserError
from retrieval_prompts.towers.tokenizer import guard

SLOT = -1
POSITIONS = ("end", "middle", "front")
SAMPLE = "A photo of 2 dogs."


@dataclass(frozen=True)
class Rows:
    """Token ids with room for `length` context vectors in each row.

    Args:
        ids: a row a class, without padding; SLOT where a context vector goes, in order.
        length: slots in each row, M.
        position: where the class name stands: "end", "middle" or "front".
    """

    ids: tuple[tuple[int, ...], ...]
    length: int
    position: str = "end"

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def longest(self) -> int:
        return max(map(len, self.ids))


class Tokens:
    """What a tokenizer puts before, after and behind a text: `lead` (SOS), `trail` (EOT) and `pad`.

    Raises:
        UserError: for a tokenizer whose rows are not lead + text + trail + padding.
    """

    def __init__(self, tokenizer: Any, context_length: int) -> None:
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.pad: int
        if hasattr(tokenizer, "sot_token_id"):
            if tokenizer.reduction_fn is not None:
                raise UserError("this tokenizer drops words at random (reduction_mask); expected one that keeps them")
            self.lead, self.trail, self.pad = [tokenizer.sot_token_id], [tokenizer.eot_token_id], 0
        elif hasattr(tokenizer, "tokenizer"):
            if tokenizer.tokenizer.pad_token_id is None:
                raise UserError(f"this model's {type(tokenizer).__name__} has no padding token; expected one that has")
            guard(tokenizer.tokenizer)
            self.pad = int(tokenizer.tokenizer.pad_token_id)
            plain = tokenizer.tokenizer("a", add_special_tokens=False)["input_ids"]
            full = tokenizer.tokenizer("a")["input_ids"]
            start = next((at for at in range(len(full)) if full[at : at + len(plain)] == plain), 0)
            self.lead, self.trail = full[:start], full[start + len(plain) :]
            if getattr(tokenizer, "strip_sep_token", False):
                self.trail = [0 if id == tokenizer.tokenizer.sep_token_id else id for id in self.trail]
        else:
            raise UserError(f"expected an open_clip tokenizer, got {type(tokenizer).__name__}")
        ours = [*self.lead, *self.of(SAMPLE, first=True), *self.trail]
        length = max(context_length, len(ours) + 1)
        theirs = tokenizer([SAMPLE], length)[0].tolist()
        if ours + [self.pad] * (length - len(ours)) != theirs:
            raise UserError(
                f"this model's {type(tokenizer).__name__} writes rows that are not special tokens, text, special "
                "tokens, padding; context vectors have no place in them"
            )

    @property
    def room(self) -> int:
        """Tokens of text that fit beside the special ones."""
        return self.context_length - len(self.lead) - len(self.trail)

    @property
    def unknown(self) -> int | None:
        """The id that stands for all that the vocabulary lacks; None where there is no such id, as of CLIP's bytes."""
        id = getattr(getattr(self.tokenizer, "tokenizer", None), "unk_token_id", None)
        return None if id is None or id in (*self.lead, *self.trail, self.pad) else int(id)

    @cached_property
    def placeholder(self) -> int:
        """A word's id, to stand where a context vector goes: neither padding nor a special token."""
        return self.of("a")[-1]

    def of(self, text: str, *, first: bool = False) -> list[int]:
        """Ids of a text without special tokens; it follows other words or a context, unless it is the `first`."""
        if hasattr(self.tokenizer, "encode"):
            return list(self.tokenizer.encode(text))
        # Where a space belongs to the word behind it, a first word differs from one that follows others
        word, both = self._core("a"), self._core(f"a {text}")
        return self._core(text) if first or both[: len(word)] != word else both[len(word) :]

    def rows(
        self, names: Sequence[str], length: int, position: str = "end", suffix: str = ".", *, cut: bool = False
    ) -> Rows:
        """Rows of class names (or captions) with `length` slots before, around or behind each name.

        Args:
            suffix: written behind name and context, as in "[context] dog."
            cut: drop the last words of a text that is too long, never EOT; else raise UserError that names the text.
        """
        if position not in POSITIONS:
            raise UserError(f"the class name's position must be {', '.join(POSITIONS)}, got {position!r}")
        room = self.room - length
        if room < 1:
            raise UserError(
                f"a context of {length} vectors leaves no room for a name in {self.context_length} positions; "
                "use a shorter --context"
            )
        before = length if position == "end" else length // 2 if position == "middle" else 0
        rows = []
        for name in names:
            words, whole = (self.of(text, first=before == 0) for text in (name, f"{name}{suffix}"))
            # A suffix may become one token with what is before it, as the two dots of "St.."
            words, end = (words, whole[len(words) :]) if whole[: len(words)] == words else (whole, [])
            if len(words) + len(end) > room:
                if not cut:
                    raise UserError(
                        f"the class name {name[:80]!r} has {len(words) + len(end)} tokens; {room} fit beside {length} "
                        "context vectors; shorten the name or use a shorter --context"
                    )
                words = words[: room - len(end)]
            slots = [SLOT] * length
            rows.append((*self.lead, *slots[:before], *words, *slots[before:], *end, *self.trail))
        return Rows(tuple(rows), length, position)

    def _core(self, text: str) -> list[int]:
        clean = getattr(self.tokenizer, "clean_fn", None)
        return list(self.tokenizer.tokenizer(clean(text) if clean else text, add_special_tokens=False)["input_ids"])
