"""Whether an index holds what an encoder makes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from retrieval_prompts.errors import UserError, few
from retrieval_prompts.towers.conventions import Conventions
from retrieval_prompts.vectors import libraries


def check(manifest: Mapping[str, Any], encoder: Mapping[str, Any]) -> None:
    """See `Index.check_encoder`."""
    built = manifest["encoder"]
    if encoder.get("fingerprint") != built.get("fingerprint"):
        wanted, got = Conventions.recorded(built), Conventions.recorded(encoder)
        if wanted != got and encoder.get("model") == built.get("model"):
            raise UserError(
                f"this index was made with {wanted.said()}, got {got.said()}; pass the same, or index the "
                "documents again"
            )
        raise UserError(
            f"this index was made by another document encoder: {_name(built)}, got {_name(encoder)};"
            " index the documents again, or use the model that made the index"
        )
    expected, came = built.get("document_prompt"), encoder.get("document_prompt")
    if expected != came:
        raise UserError(
            f"this index was made with {_prompt(expected)}, got {_prompt(came)};"
            " index the documents again, or use the prompt that made the index"
        )
    if others := libraries.changed(manifest.get("libraries")):
        message = f"this index was made with {few(others)}; scores may differ in their last digits"
        warnings.warn(f"{message}, more if the release changed the model: index again if in doubt", stacklevel=3)


def _name(encoder: Mapping[str, Any]) -> str:
    return f"{encoder.get('model', 'a model')} (fingerprint {str(encoder.get('fingerprint'))[:12]})"


def _prompt(prompt: Any) -> str:
    return "no document prompt" if prompt is None else f"the document prompt {str(prompt)[:12]}"
