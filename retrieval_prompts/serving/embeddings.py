"""The form in which OpenAI's clients ask for vectors and get them: the prompt is the model."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from retrieval_prompts.serving.answering import Answer, Query
from retrieval_prompts.serving.asked import query_strength
from retrieval_prompts.serving.by_name import FROZEN
from retrieval_prompts.serving.fields import Refused, checked_texts, parsed, value
from retrieval_prompts.serving.limits import Limits
from retrieval_prompts.serving.served import TextShelf

FIELDS = ("model", "input", "encoding_format", "dimensions", "user", "strength")


def embeddings_of(body: bytes, shelf: TextShelf, limits: Limits) -> tuple[str, bool, list[Query]]:
    """The model's name, whether vectors are wanted in base64, and rows. Raises Refused, and UserError for prompts that
    there are not."""
    given = parsed(body, FIELDS)
    model = value(given, "model", str, None)
    if model is None:
        raise Refused(422, f"expected the name of a prompt, or {FROZEN!r}, as the model")
    prompt = shelf.get(model)
    texts = given.get("input")
    if isinstance(texts, list) and texts and isinstance(texts[0], int | list):
        raise Refused(422, "input has token numbers, which mean nothing to this model; send texts")
    texts = checked_texts([texts] if isinstance(texts, str) else texts, "input", limits)
    form = value(given, "encoding_format", str, "float")
    if form not in ("float", "base64"):
        raise Refused(422, f"encoding_format must be float or base64, got {form!r}")
    dimension = shelf.searcher.biencoder.tower.dimension
    if value(given, "dimensions", int, dimension) != dimension:
        raise Refused(422, f"vectors of this model have {dimension} dimensions, got {given['dimensions']}")
    strength = query_strength(given, prompt)
    return model, form == "base64", [Query(text, prompt, strength) for text in texts]


def embedded(model: str, packed: bool, answers: Sequence[Answer]) -> dict[str, Any]:
    """The answer; base64 is of float32, little end first."""
    data = []
    for index, answer in enumerate(answers):
        assert answer.vector is not None
        vector: Any = answer.vector.tolist()
        if packed:
            vector = base64.b64encode(answer.vector.astype("<f4").tobytes()).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    tokens = sum(answer.tokens for answer in answers)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": model, "data": data, "usage": usage}
