"""Models that know better than the frozen one which documents answer a query: a cross-encoder, a larger bi-encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.errors import UserError

SCORES = "ForSequenceClassification"  # how the architecture of a cross-encoder ends, in its config.json


class Teacher(Protocol):
    """Scores documents for a query; higher is better."""

    def scores(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]: ...


class CrossEncoderTeacher:
    """A cross-encoder of sentence-transformers, or any sequence classifier with one output."""

    def __init__(self, name: str, device: str | None) -> None:
        from sentence_transformers import CrossEncoder

        try:
            self.model = CrossEncoder(name, device=device)
        except (OSError, ValueError, ImportError) as error:
            raise UserError(f"--teacher {name}: {str(error).strip().splitlines()[0]}") from None
        if (outputs := self.model.num_labels) != 1:
            raise UserError(f"{name}: expected a cross-encoder with one output, a score; it has {outputs}")

    def scores(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        """(documents,)"""
        pairs = [(query, document) for document in documents]
        return np.asarray(self.model.predict(pairs, show_progress_bar=False), dtype=np.float32).reshape(-1)


class BiEncoderTeacher:
    """A bi-encoder, as `BiEncoder.load` takes it; each document is encoded once."""

    def __init__(self, name: str, device: str | None) -> None:
        self.model = BiEncoder.load(name, device=device)
        self._known: dict[str, NDArray[np.float32]] = {}

    def scores(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        """(documents,)"""
        new = [text for text in dict.fromkeys(documents) if text not in self._known]
        if new:
            self._known |= dict(zip(new, self.model.tower.comparable(self._encode(new)), strict=True))
        vectors = np.stack([self._known[text] for text in documents])
        return vectors @ self.model.query_vectors([query])[0]

    def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        from retrieval_prompts.vectors.encode import encode_texts

        return encode_texts(self.model.tower, texts, "document")


def load_teacher(name: str, device: str | None) -> Teacher:
    """The teacher of this name: a folder, or a model of the hub.

    Raises:
        UserError: where there is none.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"--teacher {name}: {str(error).splitlines()[0]}") from None
    if any(each.endswith(SCORES) for each in config.architectures or ()):
        return CrossEncoderTeacher(name, device)
    return BiEncoderTeacher(name, device)
