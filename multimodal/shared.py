"""Many texts behind one prefix: a causal transformer runs the prefix once, and each text's own tokens attend to it.

In a causal tower the activations of [SOS][v1]..[vM] do not depend on what follows, so they are computed once (Vaswani
et al. 2017, masked self-attention); all texts' own tokens go through the linear layers packed in one matrix, without
padding, and attend in groups of equal length. Of the last layer only the prefix's keys and values and each text's
last token (EOT) are computed. All of it is exact, forward and backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Branch:
    """What of a tower the texts pass through.

    Args:
        blocks: residual attention blocks for which `sharable_block` holds.
        embedding: token ids -> (..., width); positions: (at least as many as the longest text, width).
        finish: hidden states (..., width) -> features (..., dimension).
        lead: ids of the special tokens before the context.
    """

    blocks: Iterable[Any]
    embedding: nn.Embedding
    positions: Tensor
    finish: Callable[[Tensor], Tensor]
    lead: Tensor


Groups: TypeAlias = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Packed:
    """Texts packed by length: group (start, texts, length) after group, in one row of tokens."""

    groups: Groups
    ends: Tensor  # (texts,) the place of each text's last token, in packed order


def sharable_block(block: Any) -> bool:
    """Whether a block is open_clip's ordinary one: what `encode_branches` takes apart, and nothing more."""
    attention = getattr(block, "attn", None)
    return (
        type(block).__name__ == "ResidualAttentionBlock"
        and isinstance(attention, nn.MultiheadAttention)
        and attention.in_proj_weight is not None
        and attention.batch_first
        and attention.bias_k is None
        and not attention.add_zero_attn
        and attention.dropout == 0
        and not hasattr(block, "ln_1_kv")
    )


def encode_branches(
    branch: Branch,
    tails: Sequence[Sequence[int]],
    contexts: Tensor,
    deep: dict[int, Tensor],
    *,
    chunk: int,
    recompute: bool,
) -> Tensor:
    """Texts behind each of several prefixes -> features (G, C, dimension).

    Args:
        tails: ids of each text's own tokens, C of them, the last one being pooled.
        contexts: (G, M, width); a prefix is `lead` and a context.
        deep: layer -> (G or 1, M, width), in place of the context before that layer.
        chunk: texts times prefixes run at once.
        recompute: recompute each chunk's activations in the backward pass.
    """
    G = contexts.shape[0]
    keys_values = _prefix(branch, contexts, deep)  # a pair (G, H, P, d) a layer
    order = sorted(range(len(tails)), key=lambda index: len(tails[index]))
    step = max(1, chunk // G)
    parts = []
    for start in range(0, len(order), step):
        ids, packed = _pack([tails[index] for index in order[start : start + step]], contexts.device)
        run = partial(_tails, branch, ids, packed, keys_values[0][0].shape[2])
        flat = [tensor for pair in keys_values for tensor in pair]
        if recompute:
            parts.append(torch.utils.checkpoint.checkpoint(run, *flat, use_reentrant=False))
        else:
            parts.append(run(*flat))
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(parts, dim=1)[:, back.to(contexts.device)]


def _prefix(branch: Branch, contexts: Tensor, deep: dict[int, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The prefix's keys and values of each layer, a pair of (G, H, P, d)."""
    G, M, _ = contexts.shape
    lead = branch.embedding(branch.lead)[None].expand(G, -1, -1)
    x = torch.cat([lead, contexts.to(lead.dtype)], dim=1)  # (G, P, W)
    x = x + branch.positions[: x.shape[1]].to(x.dtype)
    blocks = list(branch.blocks)
    pairs = []
    for layer, block in enumerate(blocks):
        if layer in deep:
            x = torch.cat([x[:, : x.shape[1] - M], deep[layer].to(x.dtype).expand(G, -1, -1)], dim=1)
        q, k, v = (_heads(part, block.attn.num_heads) for part in _qkv(block, block.ln_1(x)).chunk(3, dim=-1))
        pairs.append((k, v))
        if layer + 1 < len(blocks) and x.shape[1]:
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = _after(block, x, attended.transpose(1, 2).flatten(2))
    return pairs


def _tails(branch: Branch, ids: Tensor, packed: Packed, prefix: int, *flat: Tensor) -> Tensor:
    """Packed texts behind prefixes with keys and values `flat` -> features (G, texts, dimension), in packed order."""
    blocks = list(branch.blocks)
    G = flat[0].shape[0]
    places = torch.cat([torch.arange(length, device=ids.device).repeat(n) for _, n, length in packed.groups])
    x = (branch.embedding(ids) + branch.positions[prefix + places].to(branch.embedding.weight.dtype))[None]  # (1, T, W)
    for layer, block in enumerate(blocks):
        last = layer + 1 == len(blocks)
        h = block.ln_1(x)
        weight, bias, W = block.attn.in_proj_weight, block.attn.in_proj_bias, x.shape[-1]
        # In the last layer only each text's last token asks; all of its tokens are asked
        q = F.linear(h[:, packed.ends] if last else h, weight[:W], bias[:W])
        kv = F.linear(h, weight[W:], bias[W:])
        x = x[:, packed.ends] if last else x
        if layer == 0:  # what no prefix has changed yet is the same behind all of them
            x, q, kv = (part.expand(G, -1, -1) for part in (x, q, kv))
        attended = Attention.apply(q, kv, flat[2 * layer], flat[2 * layer + 1], packed.groups)
        x = _after(block, x, attended)
    return branch.finish(x)


class Attention(torch.autograd.Function):
    """Texts in groups of equal length attend to a prefix and, causally, to their own tokens.

    attended = softmax([q K^T, q k^T] / sqrt(d)) [V, v], with the prefix's keys K and values V shared by all texts and
    never copied for each. Written out because the softmax over two unequal parts would otherwise be concatenated
    forward and cut apart backward, in every layer.

    q: (G, T or texts, W), all tokens or each text's last one; kv: (G, T, 2 W); keys, values: (G, H, P, d); groups as
    in `Packed`. Returns (G, T or texts, W).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, kv: Tensor, keys: Tensor, values: Tensor, groups: Groups) -> Tensor:
        G, H, P, d = keys.shape
        keys, values = keys.contiguous(), values.contiguous()
        attended = q.new_empty(q.shape)
        saved, at = [keys, values], 0
        for start, n, length in groups:
            asked = length if q.shape[1] == kv.shape[1] else 1
            own_q = q[:, at : at + n * asked].reshape(G, n * asked, H, d).transpose(1, 2).contiguous()
            own = kv[:, start : start + n * length].reshape(G, n, length, 2, H, d)
            own_k, own_v = own.permute(3, 0, 4, 1, 2, 5).contiguous()  # (G, H, n, length, d) each
            to_prefix = (own_q @ keys.transpose(2, 3)).float().mul_(d**-0.5)  # (G, H, n * asked, P)
            to_own = own_q.view(G, H, n, asked, d) @ own_k.transpose(3, 4)  # (G, H, n, asked, length)
            to_own = to_own.float().mul_(d**-0.5)
            if asked > 1:
                later = torch.ones(asked, length, dtype=torch.bool, device=q.device).triu_(1)
                to_own.masked_fill_(later, float("-inf"))
            to_own = to_own.view(G, H, n * asked, length)
            largest = torch.maximum(to_prefix.amax(3, keepdim=True), to_own.amax(3, keepdim=True))
            to_prefix.sub_(largest).exp_()
            to_own.sub_(largest).exp_()
            total = to_prefix.sum(3, keepdim=True).add_(to_own.sum(3, keepdim=True))
            to_prefix, to_own = to_prefix.div_(total).to(q.dtype), to_own.div_(total).to(q.dtype)
            out = to_prefix @ values
            out += (to_own.view(G, H, n, asked, length) @ own_v).view(G, H, n * asked, d)
            attended[:, at : at + n * asked].view(G, n * asked, H, d).copy_(out.transpose(1, 2))
            saved += [own_q, own_k, own_v, to_prefix, to_own]
            at += n * asked
        ctx.save_for_backward(*saved)
        ctx.groups, ctx.shapes = groups, (q.shape, kv.shape)
        return attended

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        keys, values, *saved = ctx.saved_tensors
        G, H, P, d = keys.shape
        asks = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        d_q, d_kv = (gradient.new_empty(shape) for shape in ctx.shapes) if asks else (None, None)
        d_keys, d_values = torch.zeros_like(keys), torch.zeros_like(values)
        at = 0
        for number, (start, n, length) in enumerate(ctx.groups):
            own_q, own_k, own_v, to_prefix, to_own = saved[5 * number : 5 * number + 5]
            asked = own_q.shape[2] // n
            out = gradient[:, at : at + n * asked].reshape(G, n * asked, H, d).transpose(1, 2).contiguous()
            by_text = out.view(G, H, n, asked, d)
            # d softmax: w * (dw - sum of w dw over both parts); scores carry 1 / sqrt(d)
            d_prefix = (out @ values.transpose(2, 3)).float()
            d_own = (by_text @ own_v.transpose(3, 4)).float().view(G, H, n * asked, length)
            mean = (d_prefix * to_prefix).sum(3, keepdim=True).add_((d_own * to_own).sum(3, keepdim=True))
            d_prefix = d_prefix.sub_(mean).mul_(to_prefix).mul_(d**-0.5).to(out.dtype)
            d_own = d_own.sub_(mean).mul_(to_own).mul_(d**-0.5).to(out.dtype).view(G, H, n, asked, length)
            d_keys += d_prefix.transpose(2, 3) @ own_q
            d_values += to_prefix.transpose(2, 3) @ out
            if d_q is not None and d_kv is not None:
                part = d_prefix @ keys
                part += (d_own @ own_k).view(G, H, n * asked, d)
                d_q[:, at : at + n * asked].view(G, n * asked, H, d).copy_(part.transpose(1, 2))
                both = d_kv[:, start : start + n * length].view(G, n, length, 2, H, d)
                both[:, :, :, 0].copy_((d_own.transpose(3, 4) @ own_q.view(by_text.shape)).permute(0, 2, 3, 1, 4))
                weights = to_own.view(G, H, n, asked, length)
                both[:, :, :, 1].copy_((weights.transpose(3, 4) @ by_text).permute(0, 2, 3, 1, 4))
            at += n * asked
        return d_q, d_kv, d_keys, d_values, None


def _qkv(block: Any, h: Tensor) -> Tensor:
    return F.linear(h, block.attn.in_proj_weight, block.attn.in_proj_bias)


def _after(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    x = x + block.ls_1(block.attn.out_proj(attended))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _heads(x: Tensor, heads: int) -> Tensor:
    """(G, T, W) -> (G, H, T, d)"""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _pack(tails: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Packed]:
    """Texts sorted by length -> ids (T,) and where each lies."""
    groups: list[tuple[int, int, int]] = []
    ends, at = [], 0
    for tail in tails:
        if groups and groups[-1][2] == len(tail):
            start, n, length = groups[-1]
            groups[-1] = (start, n + 1, length)
        else:
            groups.append((at, 1, len(tail)))
        at += len(tail)
        ends.append(at - 1)
    ids = torch.tensor([id for tail in tails for id in tail], device=device)
    return ids, Packed(tuple(groups), torch.tensor(ends, device=device))
