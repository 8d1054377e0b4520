"""One digest of tensors by name: weights of frozen models, prompts. Knows no model.

Its values stand in users' prompt folders, indexes and caches, so they never change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def digest(tensors: Mapping[str, Tensor], *, before: str = "", after: str = "", types: bool = True) -> str:
    """SHA-256 of tensors in the order of their names, as 64 hexadecimal digits.

    Args:
        before, after: what else counts, ahead of the tensors and behind them.
        types: the types of the numbers count; False for prompts, which are float32 always.
    """
    found = hashlib.sha256(before.encode())
    for name, tensor in sorted(tensors.items()):
        content = tensor.detach().cpu().contiguous()
        kind = f"{content.dtype} " if types else ""
        found.update(f"{name} {kind}{tuple(content.shape)} ".encode())
        found.update(content.view(-1).view(torch.uint8).numpy().data if content.numel() else b"")
    found.update(after.encode())
    return found.hexdigest()
