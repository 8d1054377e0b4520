"""A bi-encoder behind the interface of SentenceTransformer: any prompt kind, in the process that made it.

The side comes from the task of `encode_query` / `encode_document`, or from the prompt names "query" and "document"
for callers that pass only those. Plain `encode` is the frozen model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from retrieval_prompts.attach import embed
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from retrieval_prompts.biencoder import BiEncoder

SENTINELS = {"query": "<soft query prompt>", "document": "<soft document prompt>"}
FROZEN, SIDE_NUMBERS = 0, {"query": 1, "document": 2}


def as_sentence_transformer(biencoder: BiEncoder) -> SentenceTransformer:
    """A SentenceTransformer of one module; its vectors are those of `biencoder`, whose prompts it shares.

    Prompt names of the model's own other than "query" and "document" keep their words, without a soft prompt.
    """
    tower = biencoder.tower
    return LiveModel(
        modules=[PromptedTower(biencoder)],
        prompts={**tower.sentence_transformer.prompts, **SENTINELS},
        default_prompt_name=tower.sentence_transformer.default_prompt_name,
        similarity_fn_name=tower.similarity,  # type: ignore[arg-type]
        device=str(tower.device),
    )


class LiveModel(SentenceTransformer):
    """A SentenceTransformer that is not saved: no stock checkpoint holds what its module does."""

    def save(self, *args: Any, **kwargs: Any) -> None:
        raise UserError(
            "a live model is not saved as a checkpoint: save the prompts with BiEncoder.save, or write a stock "
            "checkpoint with BiEncoder.export (input prompts)"
        )


class PromptedTower(InputModule):
    """Texts -> sentence embeddings, with the prompt of the text's side."""

    def __init__(self, biencoder: BiEncoder) -> None:
        super().__init__()
        self.biencoder = biencoder

    @property
    def tokenizer(self) -> Any:
        return self.biencoder.tower.tokenizer

    @tokenizer.setter
    def tokenizer(self, value: Any) -> None:
        raise AttributeError("the tokenizer belongs to the frozen model")

    @property
    def max_seq_length(self) -> int:
        return self.biencoder.tower.text_length("document")

    def get_embedding_dimension(self) -> int:
        return self.biencoder.tower.dimension

    def preprocess(self, inputs: Any, prompt: str | None = None, **arguments: Any) -> dict[str, Tensor]:
        side = next((side for side, sentinel in SENTINELS.items() if prompt == sentinel), None)
        if side is None and not prompt and arguments.get("task") in SENTINELS:
            side = arguments["task"]
        texts = [str(text) for text in inputs]
        if side is None:
            # Words of the caller's own take the place of a prompt, as in any other model
            features = dict(self.biencoder.tower.transformer.preprocess(texts, prompt=prompt, **arguments))
            number = FROZEN
        else:
            features = _padded(self.biencoder.tokenize(texts, side))
            number = SIDE_NUMBERS[side]
            if self._needs_frozen(side):
                frozen = _padded(self.biencoder.tower.tokenize(texts, side))
                features |= {f"frozen_{name}": value for name, value in frozen.items()}
        return {**features, "prompt_side": torch.full((len(texts),), number)}

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        tower = self.biencoder.tower
        number = int(features["prompt_side"][0])
        if number == FROZEN:
            plain = {name: value for name, value in features.items() if name != "prompt_side"}
            features["sentence_embedding"] = tower.pool(plain)
            return features
        side = next(side for side, value in SIDE_NUMBERS.items() if value == number)
        rows = _rows(features["input_ids"], features["attention_mask"])
        strength = self.biencoder.strength
        prompt = self.biencoder.prompt(side) if strength > 0 else None
        vectors = embed(tower, rows, side, self.biencoder.kind, prompt)
        if self._needs_frozen(side):
            rows = _rows(features["frozen_input_ids"], features["frozen_attention_mask"])
            frozen = embed(tower, rows, side, self.biencoder.kind, None)
            vectors = (1 - strength) * frozen + strength * vectors
            if tower.unit_length:
                vectors = torch.nn.functional.normalize(vectors, dim=1)
        features["sentence_embedding"] = vectors
        return features

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError  # LiveModel.save says why

    def _needs_frozen(self, side: str) -> bool:
        return side in self.biencoder.prompts and 0 < self.biencoder.strength < 1

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.biencoder.tower.sentence_transformer._apply(fn)
        return super()._apply(fn, recurse)


def _padded(rows: list[list[int]]) -> dict[str, Tensor]:
    """Ids and mask padded on the right; forward takes the padding off again."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def _rows(ids: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[keep].tolist() for row, keep in zip(ids, mask.bool(), strict=True)]
