"""Where soft-prompt vectors enter a frozen tower: as input rows, or as keys and values before every layer's own.

Input prompts stand after the leading special tokens ([CLS]) and before the text, and take positions as words would:
a vocabulary with the vectors as added rows gives the same vectors, which is what a stock export relies on.
A prefix (Li and Liang 2021; P-tuning v2, Liu et al. 2022) is attended to by every token and takes no position.

The prefix reaches each attention module as a keyword argument of the model's forward, through the attention
interface of transformers, whose "sdpa" is the same as ever where there is no such argument. Nothing of it stays in a
model, so that copies and pickles of one are plain. A probe verifies on the model at hand what this file promises (see
`verify`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from retrieval_prompts.errors import UserError
from retrieval_prompts.towers import mpnet
from retrieval_prompts.towers.kernels import attention_kernel
from retrieval_prompts.towers.prefix import Prefix
from retrieval_prompts.towers.text import TextTower, padded

SHORT = 128  # tokens
PROBE_TEXTS = (
    "heat",
    "A soft prompt steers a frozen model, and leaves its knowledge intact.",
    "Which of the two documents answers the question, and does the shorter one say anything of use at all?",
)
_modules: WeakKeyDictionary[TextTower, dict[int, int]] = WeakKeyDictionary()  # see `attention_modules`


def embed(tower: TextTower, ids: list[list[int]], side: str, kind: str, vectors: Tensor | None) -> Tensor:
    """Token ids of a few texts -> vectors (batch, dimension), with gradients only to `vectors`.

    Args:
        ids: one list a text, from `tower.tokenize(texts, side, prompt=length)` for input prompts, and with
            `prompt=0` for prefixes; any padding is added here.
        kind: "input" (vectors of shape (1, length, width)) or "prefix" ((layers, length, 2 * heads * head_dim)).
        vectors: None is the frozen model.
    """
    training = torch.is_grad_enabled() and vectors is not None and vectors.requires_grad
    with attention_kernel(plain=training and max(map(len, ids)) <= SHORT):
        if vectors is None or kind == "input":
            return _embed_input(tower, ids, side, vectors)
        return _embed_prefix(tower, ids, side, vectors)


def prompt_room(kind: str, vectors: Tensor | None) -> int:
    """How many token positions the prompt takes from `tower.tokenize`."""
    return vectors.shape[-2] if kind == "input" and vectors is not None else 0


def prompt_shape(tower: TextTower, kind: str, length: int) -> tuple[int, int, int]:
    """(layers, length, width) of a prompt of this kind on this tower."""
    if kind == "input":
        return 1, length, tower.width
    layers, _, width = record_prefix(tower, tower.tokenizer(PROBE_TEXTS[0])["input_ids"]).shape
    return layers, length, width


@torch.no_grad()
def attention(tower: TextTower, ids: list[list[int]], side: str, kind: str, vectors: Tensor) -> Tensor:
    """The share of its attention that a text's tokens pay to each prompt vector: (layers, texts, length).

    The mean over heads and over the tokens of the text, special ones included; a row of attention weights sums to 1.
    Arguments as for `embed`.

    Raises:
        UserError: where the model does not show its attention.
    """
    P = vectors.shape[-2]
    if kind == "input":
        features, prefix = _input_features(tower, ids, side, vectors), Prefix(None, attended=[])
        asks, first = features["attention_mask"].bool(), tower.lead
        asks[:, first : first + P] = False
    else:
        tokens, mask = _pad(tower, ids)
        features, prefix = (
            {"input_ids": tokens, "attention_mask": mask},
            Prefix(vectors, attention_modules(tower), attended=[]),
        )
        asks, first = mask.bool(), 0
    with _prefixed(tower, prefix) as arguments:
        tower.pool(features, **arguments)
    if not prefix.attended:
        raise UserError(f"model {tower.name} does not show its attention: {type(tower.model).__name__} hands none on")
    paid = torch.stack(
        [weights[..., first : first + P].mean(dim=1) for weights in prefix.attended]
    )  # (layers, B, T, P)
    paid = paid.masked_fill(~asks[:, :, None], 0.0)  # what a padded token pays may be no number
    return paid.sum(dim=2) / asks.sum(dim=1).clamp_min(1)[:, None]


def _embed_input(tower: TextTower, ids: list[list[int]], side: str, vectors: Tensor | None) -> Tensor:
    return tower.pool(_input_features(tower, ids, side, vectors))


def _input_features(tower: TextTower, ids: list[list[int]], side: str, vectors: Tensor | None) -> dict[str, Any]:
    tokens, mask = _pad(tower, ids)
    features: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask}
    P = 0
    if vectors is not None:
        P, lead = vectors.shape[-2], tower.lead
        embedded = tower.embeddings(tokens)  # (B, T, H)
        prompt = vectors[..., 0, :, :].to(embedded.dtype) * getattr(tower.embeddings, "embed_scale", 1.0)
        prompt = prompt.expand(len(ids), P, -1)
        embedded = torch.cat([embedded[:, :lead], prompt, embedded[:, lead:]], dim=1)  # (B, P + T, H)
        features = {"inputs_embeds": embedded, "attention_mask": nn.functional.pad(mask, (P, 0), value=1)}
    if not tower.pools_prompt and (P or tower.text_prompt(side)):
        features["prompt_length"] = tower.text_prompt_tokens(side) + P
    return features


def _embed_prefix(tower: TextTower, ids: list[list[int]], side: str, vectors: Tensor) -> Tensor:
    tokens, mask = _pad(tower, ids)
    features: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask}
    if not tower.pools_prompt and tower.text_prompt(side):
        features["prompt_length"] = tower.text_prompt_tokens(side)
    modules = attention_modules(tower)
    with _prefixed(tower, Prefix(vectors, modules)) as arguments:
        return tower.pool(features, **arguments)


def record_prefix(tower: TextTower, tokens: list[int]) -> Tensor:
    """The keys and values that the frozen model itself makes of a token sequence.

    Returns (layers, tokens, 2 * heads * head_dim) in float32, keys first. A sequence longer than the model reads is run
    in pieces.

    Raises:
        UserError: where the model does not let prefixes in.
    """
    size = tower.text_length("query")
    pieces = [tokens[start : start + size] for start in range(0, len(tokens), size)]
    rows = []
    for piece in pieces:
        seen = _run_and_record(tower, piece)
        layers = [
            torch.cat([part[0].transpose(0, 1).flatten(1) for part in (key, value)], dim=1) for _, key, value in seen
        ]
        rows.append(torch.stack(layers))  # (layers, tokens, width)
    return torch.cat(rows, dim=1).float()


def _run_and_record(tower: TextTower, tokens: list[int]) -> list[tuple[nn.Module, Tensor, Tensor]]:
    prefix = Prefix(None)
    padded, mask = _pad(tower, [tokens])
    with torch.no_grad(), _prefixed(tower, prefix) as arguments:
        tower.pool({"input_ids": padded, "attention_mask": mask}, **arguments)

    def refuse(reason: str) -> None:
        raise UserError(f"model {tower.name} takes no prefix: {reason}; use --kind input")

    if not prefix.seen:
        refuse(f"{type(tower.model).__name__} does not hand attention arguments to its layers")
    if len({id(module) for module, _, _ in prefix.seen}) != len(prefix.seen):
        refuse("its layers share one attention module")
    if len({key.shape for _, key, _ in prefix.seen} | {value.shape for _, _, value in prefix.seen}) > 1:
        refuse("its layers' keys and values differ in shape")
    return prefix.seen


def attention_modules(tower: TextTower) -> dict[int, int]:
    """The order in which the model calls its attention modules, by identity; found once by running the model."""
    if tower not in _modules:
        seen = _run_and_record(tower, tower.tokenizer(PROBE_TEXTS[0])["input_ids"])
        _modules[tower] = {id(module): layer for layer, (module, _, _) in enumerate(seen)}
    return _modules[tower]


@contextmanager
def _prefixed(tower: TextTower, prefix: Prefix) -> Iterator[dict[str, Any]]:
    """Yield the keyword arguments that carry `prefix` through the model's forward."""
    if tower.model.config.model_type == "mpnet":
        with mpnet.prefixed(tower.model, prefix):
            yield {}
        return
    _prepare_attention(tower, prefix)
    yield {"prompt_prefix": prefix}


def _prepare_attention(tower: TextTower, prefix: Prefix) -> None:
    implementation = tower.model.config._attn_implementation
    if implementation != "sdpa":
        shows = prefix.vectors is None and prefix.attended is not None  # of an input prompt
        refused, instead = ("does not show it", "") if shows else ("takes no prefix", " or use --kind input")
        raise UserError(
            f"model {tower.name} {refused}: its attention is {implementation!r}, expected "
            f"'sdpa'; load it with attn_implementation='sdpa'{instead}"
        )
    _register()


@cache
def _register() -> None:
    # A name of our own would stay in the model's config, and a process that knows no such name could not run a copy
    from transformers import AttentionInterface

    AttentionInterface.register("sdpa", _attention)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    prompt_prefix: Prefix | None = None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention with a prefix; without one, exactly that of transformers."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    extra = prompt_prefix.layer(module, key, value) if prompt_prefix is not None else None
    if extra is not None:
        causal = arguments.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        q_length = query.shape[2]
        if attention_mask is None and causal and q_length > 1:
            # The mask was left out because it is plainly causal; with keys in front it no longer is
            attention_mask = torch.ones(q_length, q_length, dtype=torch.bool, device=key.device).tril()[None, None]
        attention_mask = _widen(attention_mask, extra[0].shape[2])
        if arguments.get("position_bias") is not None:  # of T5; a prefix has no position
            arguments["position_bias"] = nn.functional.pad(arguments["position_bias"], (extra[0].shape[2], 0))
        arguments["is_causal"] = False
        key, value = torch.cat([extra[0], key], dim=2), torch.cat([extra[1], value], dim=2)
    if prompt_prefix is not None and prompt_prefix.attended is not None:
        causal = arguments.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        bias, scale = arguments.get("position_bias"), arguments.get("scaling")
        prompt_prefix.attended.append(_weights(query, key, attention_mask, bias, scale, causal))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **arguments)


def _weights(
    query: Tensor, key: Tensor, mask: Tensor | None, bias: Tensor | None, scale: float | None, causal: bool
) -> Tensor:
    """The weights (batch, heads, queries, keys) that the fused products do not give."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)  # of grouped queries
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    if mask is None and causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=key.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(dim=-1)


def _widen(mask: Tensor | None, length: int) -> Tensor | None:
    """Let every query position see `length` more keys in front: (..., keys) -> (..., length + keys)."""
    if mask is None:
        return None
    return nn.functional.pad(mask, (length, 0), value=True if mask.dtype == torch.bool else 0.0)


def _pad(tower: TextTower, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Rows of token ids -> ids and mask (batch, longest row) on the tower's device."""
    tokens, mask = padded(rows, tower.tokenizer.pad_token_id or 0)
    return tokens.to(tower.device), mask.to(tower.device)
