"""Texts that say the same: exactly, but for case, spaces and signs that look alike; or nearly, by MinHash."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Any

from retrieval_prompts.errors import UserError

NEAR = 0.8  # Jaccard similarity of the runs of words
RUN = 3  # words
HASHES = 64


def folded(text: str) -> str:
    """A text without differences of case, spaces and compatibility characters (NFKC)."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def digest(text: str) -> int:
    """64 bits of a folded text."""
    return int.from_bytes(hashlib.blake2b(folded(text).encode(), digest_size=8).digest(), "little")


class Near:
    """Near-duplicates among texts that come one after another: locality-sensitive hashing of MinHash signatures
    (Broder 1997; Leskovec et al., "Mining of Massive Datasets", ch. 3), as datasketch does it."""

    def __init__(self) -> None:
        try:
            from datasketch import MinHash, MinHashLSH
        except ImportError:
            raise UserError('near-duplicates need datasketch: pip install "retrieval-prompts[files]"') from None
        self._minhash, self._found = MinHash, MinHashLSH(threshold=NEAR, num_perm=HASHES)
        self._seen: list[tuple[str, Any]] = []

    def first(self, id: str, text: str) -> str | None:
        """The id of an earlier text that is nearly this one; None where there is none, and this one is remembered."""
        words = re.findall(r"\w+", folded(text))
        signature = self._minhash(num_perm=HASHES, seed=1)
        runs = {" ".join(words[at : at + RUN]) for at in range(max(1, len(words) - RUN + 1))}
        signature.update_batch([run.encode() for run in sorted(runs)])
        for number in sorted(self._found.query(signature)):
            if self._seen[number][1].jaccard(signature) >= NEAR:
                return self._seen[number][0]
        self._found.insert(len(self._seen), signature, check_duplication=False)
        self._seen.append((id, signature))
        return None
