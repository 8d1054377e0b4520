"""How a prefix enters MPNet: its attention adds a relative position bias and passes no keyword arguments on.

So the forward of their class is replaced; without a prefix the replacement calls the one before it. No module has
anything of it, so that copies and pickles of a model are plain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from retrieval_prompts.towers.prefix import Prefix

_prefix: ContextVar[Prefix | None] = ContextVar("mpnet_prefix", default=None)
_frozen: dict[type[nn.Module], Callable[..., tuple[Tensor, ...]]] = {}  # class -> its own forward
_lock = Lock()


@contextmanager
def prefixed(model: nn.Module, prefix: Prefix) -> Iterator[None]:
    """The context in which the attention of an MPNet reads `prefix`."""
    for found in {type(module) for module in model.modules() if type(module).__name__ == "MPNetSelfAttention"}:
        with _lock:
            if found not in _frozen:
                _frozen[found] = found.forward
                found.forward = _forward
    token = _prefix.set(prefix)
    try:
        yield
    finally:
        _prefix.reset(token)


def _forward(
    module: Any,
    hidden: Tensor,
    attention_mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    output_attentions: bool = False,
    **arguments: Any,
) -> tuple[Tensor, ...]:
    prefix = _prefix.get()
    extra = None
    if prefix is not None:
        shape = (*hidden.shape[:-1], -1, module.attention_head_size)
        key = module.k(hidden).view(shape).transpose(1, 2)
        value = module.v(hidden).view(shape).transpose(1, 2)
        extra = prefix.layer(module, key, value)
    if prefix is None or (extra is None and prefix.attended is None):
        return _frozen[type(module)](module, hidden, attention_mask, position_bias, output_attentions, **arguments)
    P = 0 if extra is None else extra[0].shape[2]
    query = module.q(hidden).view(shape).transpose(1, 2)
    if extra is not None:
        key, value = torch.cat([extra[0], key], dim=2), torch.cat([extra[1], value], dim=2)
    scores = query @ key.transpose(-1, -2) / math.sqrt(module.attention_head_size)
    for bias in (position_bias, attention_mask):
        if bias is not None:
            scores = scores + nn.functional.pad(bias, (P, 0))
    weights = scores.softmax(dim=-1)
    if prefix.attended is not None:
        prefix.attended.append(weights)
    context = module.dropout(weights) @ value  # (B, heads, T, head_dim)
    return (module.o(context.transpose(1, 2).flatten(2)),)
