"""A CLIP with a tuned context behind the interface of SentenceTransformer: texts ask, pictures and texts answer.

`encode_query` puts the context before a text; `encode_document` and plain `encode` are the frozen model. A picture is a
PIL image, a Path, or, as in any such model, a string that is the path of a picture file; it is never prompted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageOps
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modality import is_image_url_or_path
from sentence_transformers.base.modules import InputModule
from torch import Tensor, nn

from multimodal.data.pictures import Picture, rgb
from multimodal.vectors.texts import Texts, text_prompts, warn_of_cut
from retrieval_prompts.data.plain_texts import as_texts
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.towers.clip import Clip

# Some callers pass only a prompt's name or its words, not the task
SENTINELS = {"query": "<soft query prompt>", "document": "<no document prompt>"}


def as_sentence_transformer(clip: Clip, prompter: nn.Module | None = None, *, strength: float = 1.0) -> LiveModel:
    """A SentenceTransformer of one module, which shares the prompter; without one, queries are not prompted either.

    Args:
        strength: from 0 (the frozen model) to 1.
    """
    if prompter is not None:
        text_prompts(prompter, Texts(clip, ["a"]))  # raises where these prompts serve no search
    return LiveModel(
        modules=[Towers(clip, prompter, strength)],
        prompts=dict(SENTINELS),
        similarity_fn_name="cosine",
        device=str(clip.device),
    )


class LiveModel(SentenceTransformer):
    """A SentenceTransformer that is not saved: no stock checkpoint holds what its module does."""

    def save(self, *args: Any, **kwargs: Any) -> None:
        raise UserError(
            "a live model is not saved as a checkpoint: keep the prompt folder that its prompts came from, and load "
            "that with the CLIP"
        )


class Towers(InputModule):
    """Texts or pictures -> vectors of unit length in one space."""

    def __init__(self, clip: Clip, prompter: nn.Module | None, strength: float = 1.0) -> None:
        super().__init__()
        self.clip = clip
        self.prompter = prompter
        self.strength = strength

    @property
    def modalities(self) -> list[Any]:
        return ["text", "image"]

    @property
    def tokenizer(self) -> Any:
        return self.clip.tokenizer

    @tokenizer.setter
    def tokenizer(self, value: Any) -> None:
        raise AttributeError("the tokenizer belongs to the frozen model")

    @property
    def max_seq_length(self) -> int:
        return self.clip.text.context_length

    def get_embedding_dimension(self) -> int:
        return self.clip.dimension

    def preprocess(self, inputs: Any, prompt: str | None = None, **arguments: Any) -> dict[str, Any]:
        pictures = [_picture(each) for each in inputs]
        if all(picture is not None for picture in pictures):
            return {"pixels": torch.stack([self.clip.preprocess(picture) for picture in pictures])}
        if any(picture is not None for picture in pictures):
            raise UserError("expected texts or pictures in one call, got both; encode them one after the other")
        texts = as_texts(_text(each) for each in inputs)
        if prompt in SENTINELS.values():
            query, words = prompt == SENTINELS["query"], ""
        else:
            query, words = not prompt and arguments.get("task") == "query", prompt or ""
        # Words of the caller's own take the place of the context, as in any other model
        return {"texts": Texts(self.clip, [words + text for text in texts]), "query": query}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        if "pixels" in features:
            vectors = self.clip.encode_images(features["pixels"])
        else:
            vectors = self._text_vectors(features["texts"], self.prompter if features["query"] else None)
        return {**features, "sentence_embedding": vectors}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError  # LiveModel.save says why

    def _text_vectors(self, texts: Texts, prompter: nn.Module | None) -> Tensor:
        prompts = text_prompts(prompter, texts) if prompter is not None else None
        warn_of_cut(texts, 0 if prompts is None else prompts.context.shape[0])
        return texts.features(prompts, self.strength)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.clip.model._apply(fn)
        return super()._apply(fn, recurse)


def _picture(given: Any) -> Image.Image | None:
    """The picture in RGB, or None for what is a text.

    Raises:
        UserError: for a picture that cannot be read.
    """
    if isinstance(given, dict) and len(given) == 1 and next(iter(given)) in ("image", "text"):
        ((kind, given),) = given.items()
        return _picture(Path(given) if isinstance(given, str) else given) if kind == "image" else None
    if isinstance(given, Image.Image):
        return rgb(ImageOps.exif_transpose(given))
    if isinstance(given, str) and is_image_url_or_path(given):
        given = Path(given)
    if isinstance(given, Path):
        if not given.is_file():
            raise UserError(f"{given} is not a file; expected the path of a picture on this machine")
        return Picture(given.name, given).load()
    if isinstance(given, np.ndarray) and given.ndim == 3:
        return rgb(Image.fromarray(given))
    return None


def _text(given: Any) -> str:
    if isinstance(given, dict):
        given = given["text"]
    if not isinstance(given, str):
        raise UserError(f"expected texts, or pictures as PIL images or paths, got {type(given).__name__}")
    return given
