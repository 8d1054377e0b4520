"""Per-layer keys and values on their way through a model's forward. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass
class Prefix:
    """What attention modules put before their own keys and values, or what they were seen to make.

    Args:
        vectors: (layers, length, 2 * heads * head_dim), keys first; None records instead of inserting.
        modules: the position of each attention module in the model, by identity.
        attended: where attention is asked for, the weights (batch, heads, queries, keys) of each module in turn.
    """

    vectors: Tensor | None
    modules: dict[int, int] = field(default_factory=dict)
    seen: list[tuple[nn.Module, Tensor, Tensor]] = field(default_factory=list)
    attended: list[Tensor] | None = None

    def layer(self, module: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor] | None:
        """The keys and values (batch, heads, length, head_dim) before this module's own; None: nothing to add."""
        if self.vectors is None:
            self.seen.append((module, key, value))
            return None
        P = self.vectors.shape[-2]
        if P == 0:
            return None
        B, heads, _, head_dim = key.shape
        both = self.vectors[..., self.modules[id(module)], :, :]  # (P, W), or (B, P, W)
        both = both.expand(B, P, -1).view(B, P, 2, heads, head_dim).permute(2, 0, 3, 1, 4).to(key.dtype)
        return both[0], both[1]
