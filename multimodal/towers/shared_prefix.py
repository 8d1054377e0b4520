"""Many texts behind one prefix: a causal transformer runs the prefix once, and each text's own tokens attend to it.

In a causal tower the activations of [SOS][v1]..[vM] do not depend on what follows, so they are computed once (Vaswani
et al. 2017, masked self-attention); all texts' own tokens go through the linear layers packed in one matrix, without
padding, and attend in groups of equal length. Of the last layer only the prefix's keys and values and each text's
last token (EOT) are computed. All of it is exact, forward and backward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from multimodal.towers.packing import Bucket, Packed, pack


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


WIDEST = 20_000_000  # bytes of the widest activation on a CPU; blocks of texts beyond it were slower


def sharable_block(block: Any) -> bool:
    """Whether a block is open_clip's ordinary one: what `encode_branches` takes apart, and nothing more."""
    attention = getattr(block, "attn", None)
    return (
        type(block).__name__ == "ResidualAttentionBlock"
        and isinstance(attention, nn.MultiheadAttention)
        and attention.in_proj_weight is not None
        and attention.in_proj_bias is not None
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
        deep: layer -> (G or 1, M, width), in place of the context before that layer. Where there is no context, M of 0:
            (G or 1, K, width) behind `lead`, and in place of those of a layer before.
        chunk: texts times prefixes run at once.
        recompute: recompute each chunk's activations in the backward pass.
    """
    G = contexts.shape[0]
    if contexts.device.type == "cpu":
        width = next(iter(branch.blocks)).mlp.c_fc.out_features
        chunk = min(chunk, max(1, WIDEST * len(tails) // (4 * width * sum(map(len, tails)))))
    chunks = math.ceil(len(tails) / max(1, chunk // G))
    by_length = sorted(range(len(tails)), key=lambda index: len(tails[index]))
    # Short and long texts in each chunk, so that all take the same memory
    packs = [pack(tails, by_length[number::chunks], G, contexts.device) for number in range(chunks)]
    if chunks == 1 and not recompute:
        features, _ = _run(branch, packs[0], contexts, deep, None)
        parts = [features]
    else:
        _, pairs = _run(branch, None, contexts, deep, None)
        flat = [tensor for pair in pairs for tensor in pair]
        parts = []
        for packed in packs:
            run = partial(_behind, branch, packed)
            parts.append(
                torch.utils.checkpoint.checkpoint(run, *flat, use_reentrant=False) if recompute else run(*flat)
            )
    back = torch.empty(len(tails), dtype=torch.long)
    back[torch.tensor([index for packed in packs for index in packed.order])] = torch.arange(len(tails))
    return torch.cat([part for part in parts if part is not None], dim=1)[:, back.to(contexts.device)]


def _behind(branch: Branch, packed: Packed, *flat: Tensor) -> Tensor:
    """Texts behind a prefix whose keys and values are known: `flat`, a pair (G, H, P, d) a layer."""
    features, _ = _run(branch, packed, None, {}, list(zip(flat[::2], flat[1::2], strict=True)))
    assert features is not None
    return features


def _run(
    branch: Branch,
    packed: Packed | None,
    contexts: Tensor | None,
    deep: dict[int, Tensor],
    pairs: list[tuple[Tensor, Tensor]] | None,
) -> tuple[Tensor | None, list[tuple[Tensor, Tensor]]]:
    """A prefix, texts behind it, or both in the same matrices.

    Args:
        packed: the texts; None: the prefix alone.
        contexts: (G, M, W); None: the prefix's keys and values are `pairs`.

    Returns features (G, texts, dimension) in packed order, and the prefix's keys and values, (G, H, P, d) a layer.
    """
    blocks = list(branch.blocks)
    dtype = branch.embedding.weight.dtype
    found: list[tuple[Tensor, Tensor]] = []
    starts = []  # the prefix's rows (G, P, W) and the texts' (1, T, W)
    P, M = 0, 0
    if contexts is not None:
        lead = branch.embedding(branch.lead)[None].expand(len(contexts), -1, -1)
        prefix = torch.cat([lead, contexts.to(dtype)], dim=1)
        P, M = prefix.shape[1], contexts.shape[1]
        starts.append(prefix + branch.positions[:P].to(dtype))
    if packed is not None:
        before = P if pairs is None else pairs[0][0].shape[2]
        starts.append((branch.embedding(packed.ids) + branch.positions[before + packed.places].to(dtype))[None])
    G = len(contexts) if contexts is not None else pairs[0][0].shape[0] if pairs else 1
    x = starts[0]
    for layer, block in enumerate(blocks):
        last = layer + 1 == len(blocks) and packed is not None
        if layer in deep:
            kept, _, rest = x.split([P - M, M, x.shape[1] - P], dim=1)
            x = torch.cat([kept, deep[layer].to(x.dtype).expand(G, -1, -1), rest], dim=1)
            P, M = P - M + deep[layer].shape[1], deep[layer].shape[1]
        # In the last layer only each text's last token asks; all tokens are asked
        ends = packed.ends if last and packed is not None else None
        if layer == 0:
            # What no prefix has changed yet is the same behind all of them, and needs no gradient
            asking = [ends] if len(starts) == 1 else [None if ends is None else ends[:0], ends]
            rows = [_project(block, start, part) for start, part in zip(starts, asking, strict=True)]
            x, q, kv = (
                torch.cat([part.expand(G, -1, -1) for part in parts], dim=1) for parts in zip(*rows, strict=True)
            )
        else:
            x, q, kv = _project(block, x, None if ends is None else ends + P)
        keys, values = (None, None) if pairs is None else pairs[layer]
        if packed is None:
            found.append(_keys_values(kv, block.attn.num_heads))
            if layer + 1 == len(blocks):
                return None, found
        buckets = () if packed is None else packed.buckets
        attended = Attention.apply(q, kv, keys, values, P, block.attn.num_heads, buckets)
        x = _after(block, x, attended)
    return branch.finish(x), found


class Attention(torch.autograd.Function):
    """A prefix attends to itself, causally; texts attend to the prefix and, causally, to their own tokens.

    attended = softmax([q K^T, q k^T] / sqrt(d)) [V, v], with the prefix's keys K and values V shared by all texts and
    never copied for each. Written out because the softmax over two unequal parts would otherwise be concatenated
    forward and cut apart backward, in every layer.

    q: (G, A, W), the rows that ask: all rows, or each text's last token alone. kv: (G, rows + T, 2 W), of the prefix's
    rows, P or none, and the texts' tokens. keys, values: (G, H, P, d), where the prefix has no rows here. buckets: as
    in `Packed`. Returns (G, A, W).
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        kv: Tensor,
        keys: Tensor | None,
        values: Tensor | None,
        rows: int,
        heads: int,
        buckets: tuple[Bucket, ...],
    ) -> Tensor:
        G, H, d = len(q), heads, q.shape[2] // heads
        given = keys is not None
        if keys is None or values is None:
            keys, values = _keys_values(kv[:, :rows], heads)
        keys, values = keys.contiguous(), values.contiguous()
        P, ends_only = keys.shape[2], q.shape[1] != kv.shape[1]
        attended = torch.empty_like(q)
        saved = [keys, values]
        if rows and not ends_only:
            own_q = q[:, :rows].reshape(G, rows, H, d).transpose(1, 2) * d**-0.5
            later = torch.ones(rows, rows, dtype=torch.bool, device=q.device).triu_(1)
            weights = (own_q @ keys.transpose(2, 3)).masked_fill_(later, float("-inf"))
            weights = _precise(weights).softmax(dim=3).to(q.dtype)
            attended[:, :rows] = (weights @ values).transpose(1, 2).flatten(2)
            saved += [own_q, weights]
        for bucket in buckets:
            n, L = bucket.n, bucket.length
            asked = 1 if ends_only else L
            asking = bucket.texts if ends_only else _shifted(bucket.tokens, rows)
            own_q = q[:, asking] if ends_only else bucket.padded(q[:, asking])
            own_q = own_q.reshape(G, n * asked, H, d).transpose(1, 2) * d**-0.5
            own = bucket.padded(kv[:, _shifted(bucket.tokens, rows)]).reshape(G, n, L, 2, H, d)
            own_k, own_v = own.permute(3, 0, 4, 1, 2, 5).contiguous()  # (G, H, n, L, d) each
            to_own = own_q.view(G, H, n, asked, d) @ own_k.transpose(3, 4)  # (G, H, n, asked, L)
            # Padding stands behind a text, where none of its own tokens looks
            places = torch.arange(L, device=q.device)
            later = places >= bucket.lengths[:, None, None] if ends_only else places > places[:, None]
            to_own = to_own.masked_fill_(later, float("-inf")).view(G, H, n * asked, L)
            weights = torch.cat([own_q @ keys.transpose(2, 3), to_own], dim=3)  # (G, H, n * asked, P + L)
            weights = _precise(weights).softmax(dim=3).to(q.dtype)
            out = weights[..., :P] @ values
            out += (weights[..., P:].reshape(G, H, n, asked, L) @ own_v).view(G, H, n * asked, d)
            bucket.put(attended, asking, out, ends_only)
            saved += [own_q, own_k, own_v, weights]
        ctx.save_for_backward(*saved)
        ctx.rest = (rows, heads, buckets, given, q.shape, kv.shape)
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        keys, values, *saved = ctx.saved_tensors
        rows, heads, buckets, given, q_shape, kv_shape = ctx.rest
        G, H, P, d = keys.shape
        ends_only = q_shape[1] != kv_shape[1]
        d_q, d_kv = gradient.new_empty(q_shape), gradient.new_empty(kv_shape)
        d_keys, d_values = torch.zeros_like(keys), torch.zeros_like(values)
        if rows and not ends_only:
            own_q, weights, *saved = saved
            out = gradient[:, :rows].reshape(G, rows, H, d).transpose(1, 2).contiguous()
            d_scores = _softmax_backward(out @ values.transpose(2, 3), weights)
            d_keys += d_scores.transpose(2, 3) @ own_q
            d_values += weights.transpose(2, 3) @ out
            d_q[:, :rows] = (d_scores @ keys).mul_(d**-0.5).transpose(1, 2).flatten(2)
        for number, bucket in enumerate(buckets):
            own_q, own_k, own_v, weights = saved[4 * number : 4 * number + 4]
            n, L = bucket.n, bucket.length
            asked = 1 if ends_only else L
            asking = bucket.texts if ends_only else _shifted(bucket.tokens, rows)
            out = gradient[:, asking] if ends_only else bucket.zero_padded(gradient[:, asking])
            out = out.reshape(G, n * asked, H, d).transpose(1, 2).contiguous()
            by_text = out.view(G, H, n, asked, d)
            to_own = (by_text @ own_v.transpose(3, 4)).view(G, H, n * asked, L)
            d_scores = _softmax_backward(torch.cat([out @ values.transpose(2, 3), to_own], dim=3), weights)
            d_prefix, d_own = d_scores[..., :P], d_scores[..., P:].reshape(G, H, n, asked, L)
            d_keys += d_prefix.transpose(2, 3) @ own_q
            d_values += weights[..., :P].transpose(2, 3) @ out
            part = d_prefix @ keys
            part += (d_own @ own_k).view(G, H, n * asked, d)
            bucket.put(d_q, asking, part.mul_(d**-0.5), ends_only)
            both = gradient.new_empty(G, n, L, 2, H, d)
            both[:, :, :, 0] = (d_own.transpose(3, 4) @ own_q.view(by_text.shape)).permute(0, 2, 3, 1, 4)
            on_own = weights[..., P:].reshape(G, H, n, asked, L)
            both[:, :, :, 1] = (on_own.transpose(3, 4) @ by_text).permute(0, 2, 3, 1, 4)
            d_kv[:, _shifted(bucket.tokens, rows)] = bucket.unpadded(both.view(G, n * L, 2 * H * d))
        if rows:
            d_kv[:, :rows].view(G, rows, 2, H, d).copy_(torch.stack([d_keys, d_values], dim=1).permute(0, 3, 1, 2, 4))
        return d_q, d_kv, d_keys if given else None, d_values if given else None, None, None, None


def _shifted(part: slice, rows: int) -> slice:
    return slice(part.start + rows, part.stop + rows)


def _keys_values(kv: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """(G, P, 2 W) -> a pair (G, H, P, d)"""
    keys, values = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in kv.chunk(2, dim=-1))
    return keys, values


def _project(block: Any, x: Tensor, asking: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """x (G, T, W) -> the rows that ask (None: all), their queries, and the keys and values (G, T, 2 W) of all."""
    h = block.ln_1(x)
    weight, bias, W = block.attn.in_proj_weight, block.attn.in_proj_bias, x.shape[-1]
    if asking is not None:
        x = x[:, asking]
    q = F.linear(h if asking is None else h[:, asking], weight[:W], bias[:W])
    return x, q, F.linear(h, weight[W:], bias[W:])


def _softmax_backward(gradient: Tensor, weights: Tensor) -> Tensor:
    """w * (dw - sum of w dw), in the weights' precision."""
    return torch._softmax_backward_data(gradient, weights, 3, weights.dtype)


def _precise(scores: Tensor) -> Tensor:
    """In float32 where they are in less."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _after(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    x = x + block.ls_1(block.attn.out_proj(attended))
    return x + block.ls_2(block.mlp(block.ln_2(x)))
