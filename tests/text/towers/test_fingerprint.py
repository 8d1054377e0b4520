"""The digest of tensors: its values are those that users' folders, indexes and caches hold."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from retrieval_prompts.towers.fingerprint import digest
from retrieval_prompts.towers.text import TextTower, _settings, _tokenizer_settings

TENSORS = {
    "b.weight": torch.arange(6, dtype=torch.float32).view(2, 3).T,  # not contiguous
    "a": torch.tensor([1.5, -2], dtype=torch.bfloat16),
    "empty": torch.zeros(0, 4),
    "count": torch.tensor(7),
}


def test_values_do_not_change_with_this_code() -> None:
    assert digest(TENSORS, before="[1]") == "8a033b68b9eba3449effff11cbdc8fa1dd07c9f9b1eb1a1807cb310856c5bcc2"
    assert digest(TENSORS, after="[1]") == "20bec0b4adf7c1b48a663eb28caf43d30b4f6f89391f2c82194ce6fdfc7ace50"
    assert (
        digest(dict(reversed(TENSORS.items())), types=False)
        == "0f80284337481b6e671a7abaa740b12ef50735bc1a7c6209b96926a43cb45ba3"
    )


def written_out(weights: dict[str, Any], digest: Any) -> Any:
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest


def test_the_fingerprint_of_a_text_tower(tower: TextTower) -> None:
    """Written out as it was when the first folders were made."""
    headless = tower.transformer.module_output_name == "token_embeddings"
    weights = tower.sentence_transformer.state_dict()
    weights = {name: value for name, value in weights.items() if not (headless and ".pooler." in name)}
    expected = written_out(weights, hashlib.sha256())
    modules = [[type(module).__name__, _settings(module)] for module in list(tower.sentence_transformer)[1:]]
    lengths = {side: [tower.text_length(side), tower.text_prompt(side)] for side in ("query", "document")}
    settings = [modules, lengths, [tower.similarity, tower.dimension]]
    expected.update(json.dumps(settings, sort_keys=True, default=str).encode())
    expected.update(json.dumps(_tokenizer_settings(tower.tokenizer), sort_keys=True).encode())
    assert tower.fingerprint == expected.hexdigest()
