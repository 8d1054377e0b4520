"""A document cut into chunks at headings, paragraphs and sentences, with overlap. Knows no model.

A chunk is filled sentence by sentence until the next one would not fit. A heading begins a new chunk where the last one
is at least half full, so that short sections stay together and long ones begin with their heading.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retrieval_prompts.data.sources.prose import Part

SENTENCE = re.compile(r"(?<=[.!?…])(?:[\"'”’)\]]*)\s+(?=[\"'“‘(\[]*[^\W_a-z])|(?<=[。！？])|\n\s*\n")
LEAST = 16  # tokens of text a chunk, however long the title is


@dataclass(frozen=True)
class Chunking:
    """How long texts are cut.

    Args:
        size: tokens of a chunk, title and special tokens included.
        overlap: tokens of the chunk before that a chunk begins with, at most.
        count: texts -> the tokens of each, without special ones.
        special: special tokens, and those of words that the model wants before each document.
        model: what distinguishes the model that counts from others.
    """

    size: int
    overlap: int
    count: Callable[[list[str]], list[int]]
    special: int = 2
    model: str = ""


@dataclass(frozen=True)
class Chunk:
    text: str
    place: str  # where it begins: headings, or a page


@dataclass(frozen=True)
class _Sentence:
    text: str
    place: str
    tokens: int
    before: str  # what stands between it and the sentence before: a space, or a line break
    heading: bool


def cut(title: str, parts: Sequence[Part], how: Chunking) -> list[Chunk]:
    """The chunks of a document; one where all of it fits."""
    (head,) = how.count([title]) if title else (0,)
    room = how.size - how.special
    room = max(room - head, min(LEAST, room))
    chunks: list[Chunk] = []
    held: list[_Sentence] = []
    used, fresh = 0, False  # tokens of what is held, and whether any of it is not overlap
    for sentence in _sentences(parts, room, how.count):
        if fresh and (used + sentence.tokens > room or (sentence.heading and used >= room / 2)):
            chunks.append(_joined(held))
            held = [] if sentence.heading else _end(held, min(how.overlap, room - sentence.tokens))
            used, fresh = sum(each.tokens for each in held), False
        held.append(sentence)
        used, fresh = used + sentence.tokens, True
    return [*chunks, _joined(held)] if fresh else chunks


def _joined(held: Sequence[_Sentence]) -> Chunk:
    first, *rest = held
    return Chunk(first.text + "".join(each.before + each.text for each in rest), first.place)


def _end(held: Sequence[_Sentence], tokens: int) -> list[_Sentence]:
    """The last sentences of a chunk that are together no longer than so many tokens."""
    kept: list[_Sentence] = []
    for sentence in reversed(held):
        tokens -= sentence.tokens
        if tokens < 0:
            break
        kept.insert(0, sentence)
    return kept if len(kept) < len(held) else kept[1:]


def _sentences(parts: Sequence[Part], room: int, count: Callable[[list[str]], list[int]]) -> list[_Sentence]:
    """The sentences of a document, those that are longer than a chunk in pieces of words."""
    pieces = [
        (text, part, "\n" if number == 0 else " ")
        for part in parts
        for number, text in enumerate(filter(None, (each.strip() for each in SENTENCE.split(part.text))))
    ]
    tokens = count([text for text, _, _ in pieces]) if pieces else []
    found = []
    for (text, part, before), length in zip(pieces, tokens, strict=True):
        for number, (piece, size) in enumerate(_pieces(text, length, room, count)):
            found.append(_Sentence(piece, part.place, size, " " if number else before, part.heading))
    return found


def _pieces(text: str, tokens: int, room: int, count: Callable[[list[str]], list[int]]) -> list[tuple[str, int]]:
    """A sentence, halved between words (or where there are none, between characters) until each piece fits."""
    if tokens <= room or len(text) < 2:
        return [(text, tokens)]
    middle = text.rfind(" ", 1, len(text) // 2 + 1)
    middle = middle if middle > 0 else len(text) // 2
    halves = [half for half in (text[:middle].strip(), text[middle:].strip()) if half]
    return [
        piece for half, size in zip(halves, count(halves), strict=True) for piece in _pieces(half, size, room, count)
    ]
