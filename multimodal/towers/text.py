"""A frozen open_clip text tower that reads context vectors among its words, and the three exact ways to run it.

    full        the model's own forward over all its positions
    truncated   the same cut behind the longest row's EOT, for towers in which nothing behind EOT is read
    shared      truncated, and the part before the class name, which no class changes in a causal tower, run once

Knows no images, losses or methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock, get_ident
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from multimodal.towers.shared_prefix import Branch, encode_branches, sharable_block
from multimodal.towers.tokens import SLOT, Rows, Tokens
from retrieval_prompts.errors import UserError

WAYS = ("full", "truncated", "shared")
MEMORY = 2.0  # gigabytes of saved activations, unless the caller says otherwise
_HOOKS = Lock()


class TextTower:
    """The text side of an open_clip model (CLIP, CustomTextCLIP, CoCa), frozen by its owner.

    Args:
        model: an open_clip model in evaluation mode.
        tokenizer: its open_clip tokenizer.
        memory: gigabytes that saved activations may take; beyond it classes are run in chunks that are recomputed in
            the backward pass (torch.utils.checkpoint), so that memory does not grow with the number of classes.

    Raises:
        UserError: when the model has no text tower that can take context vectors.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, *, memory: float = MEMORY) -> None:
        self.model: Any = model
        self.memory = memory
        inner: Any = getattr(model, "text", model)
        self.hugging_face = hasattr(inner, "config") and hasattr(inner, "pooler")
        if self.hugging_face:
            self.embeddings: nn.Embedding = inner.transformer.get_input_embeddings()
            self.context_length = int(getattr(tokenizer, "context_length", 0) or inner.context_length)
        elif hasattr(inner, "token_embedding") and hasattr(inner, "positional_embedding"):
            self.embeddings = inner.token_embedding
            self.context_length = int(inner.context_length)
        else:
            raise UserError(f"{type(model).__name__} has no text tower that reads words; expected an open_clip model")
        self.inner = inner
        self.blocks: nn.ModuleList = nn.ModuleList() if self.hugging_face else inner.transformer.resblocks
        self.width = int(self.embeddings.weight.shape[1])
        self.layers = len(self.blocks)
        self.tokens = Tokens(tokenizer, self.context_length)
        self.dimension = int(self._full_ids(torch.tensor([self._padded(self.tokens.rows(["a"], 0).ids[0])])).shape[1])

    @property
    def device(self) -> torch.device:
        return self.embeddings.weight.device

    def rows(self, names: Sequence[str], length: int, position: str = "end", suffix: str = ".", **options: Any) -> Rows:
        """See `Tokens.rows`."""
        return self.tokens.rows(names, length, position, suffix, **options)

    def token_rows(self, ids: Sequence[int]) -> Tensor:
        """What the tower embeds these ids as (n, width), without positions, in float32."""
        return self.embeddings(torch.tensor(list(ids), dtype=torch.long, device=self.device)).float()

    @property
    def truncatable(self) -> bool:
        """Nothing behind EOT is read: padding is masked, or the tower is causal and pools a token of the text."""
        if self.hugging_face:  # open_clip masks padding there, in attention and in its poolers
            return bool(self.inner.config.pad_token_id == self.tokens.pad)
        return (
            self.inner.attn_mask is not None
            and getattr(self.inner, "cls_emb", None) is None
            and self._pool in ("argmax", "eos")
            and len(self.tokens.trail) == 1
        )

    @property
    def sharable(self) -> bool:
        """Truncatable, native, and made of blocks whose parts are known."""
        return self.truncatable and not self.hugging_face and all(map(sharable_block, self.blocks))

    def way(self, rows: Rows, context: Tensor, deep: Mapping[int, Tensor] | None = None) -> str:
        """The fastest exact way for these rows and vectors on this model."""
        shared = (
            rows.position == "end" and context.dim() == 2 and all(part.dim() == 2 for part in (deep or {}).values())
        )
        if not (self.truncatable and self._pooled_last(rows)):
            return "full"
        return "shared" if self.sharable and shared else "truncated"

    def encode(
        self,
        rows: Rows,
        context: Tensor,
        deep: Mapping[int, Tensor] | None = None,
        *,
        way: str | None = None,
        chunk: int | None = None,
    ) -> Tensor:
        """Rows -> text features (C, dimension), not normalised.

        Args:
            context: (M, width), one for all rows, or (C, M, width), one for each.
            deep: layer (from 1) -> (M, width) or (C, M, width): takes the context's place before that layer (deep
                prompts; Jia et al. 2022, Khattak et al. 2023). Of rows without slots, K vectors that stand behind SOS
                from that layer on, and take the place of those of a layer before (MMRL, Guo and Gu 2025).
            way: "full", "truncated" or "shared"; None: the fastest that is exact.
            chunk: rows run at once; None: as many as the memory budget allows.

        Raises:
            UserError: for a way that is not exact here, and for shapes that do not fit.
        """
        deep = dict(deep or {})
        self._check(rows, context, deep)
        best = self.way(rows, context, deep)
        way = way or best
        if deep and not rows.length and way == "full":
            raise UserError("vectors can be put between words only in a causal text tower of open_clip's own")
        if way not in WAYS or WAYS.index(way) > WAYS.index(best):
            raise UserError(f"the text tower's way {way!r} is not exact here; there is {best!r} at most, of {WAYS}")
        if way == "shared":
            return self._shared(rows, context[None], {layer: part[None] for layer, part in deep.items()}, chunk)[0]
        chunk = chunk or self.fitting(rows, way)
        run = self._full if way == "full" else self._truncated

        def part(picked: list[int], context: Tensor, *deep_parts: Tensor) -> Tensor:
            some = Rows(tuple(rows.ids[index] for index in picked), rows.length, rows.position)
            return run(some, context, dict(zip(deep, deep_parts, strict=True)))

        parts = []
        for start in range(0, len(rows), chunk):
            picked = list(range(start, min(start + chunk, len(rows))))
            vectors = [_rows_of(value, picked) for value in (context, *deep.values())]
            recompute = len(rows) > chunk and torch.is_grad_enabled()
            parts.append(_checkpointed(partial(part, picked), vectors) if recompute else part(picked, *vectors))
        return torch.cat(parts)

    def encode_per_image(self, rows: Rows, contexts: Tensor, *, chunk: int | None = None) -> Tensor:
        """Rows under each of several contexts (B, M, width) -> text features (B, C, dimension), not normalised.

        The prefix is shared within an image (CoCoOp, Zhou et al. 2022), where the model allows it.
        """
        self._check(rows, contexts[0], {})
        if self.way(rows, contexts[0]) == "shared":
            return self._shared(rows, contexts, {}, chunk)
        chunk = chunk or self.fitting(rows, self.way(rows, contexts[0]))
        run = partial(self.encode, rows, chunk=chunk)
        # An image whose rows do not fit is run in chunks, which are recomputed; else whole images are
        recompute = len(rows) <= chunk < len(contexts) * len(rows) and torch.is_grad_enabled()
        return torch.stack([_checkpointed(run, [context]) if recompute else run(context) for context in contexts])

    def plain(self, texts: Sequence[str]) -> Tensor:
        """Texts -> features (n, dimension) of the model as it is, not normalised; long texts are cut before EOT."""
        rows = self.rows(texts, 0, suffix="", cut=True)
        return self.encode(rows, torch.zeros(0, self.width, device=self.device))

    def _shared(self, rows: Rows, contexts: Tensor, deep: dict[int, Tensor], chunk: int | None) -> Tensor:
        lead, length = len(self.tokens.lead), rows.length
        branch = Branch(
            blocks=self.blocks,
            embedding=self.embeddings,
            positions=self.inner.positional_embedding,
            finish=self._finish,
            lead=torch.tensor(self.tokens.lead, dtype=torch.long, device=self.device),
        )
        tails = [row[lead + length :] for row in rows.ids]
        images = contexts.shape[0]
        chunk = chunk or self.fitting(rows, "shared")
        # Where one image's rows fit several times over, several images go together; else one, in chunks of rows
        together = max(1, chunk // len(rows))
        groups = []
        for start in range(0, images, together):
            part = slice(start, start + together)
            some = {layer: value if value.shape[0] == 1 else value[part] for layer, value in deep.items()}
            saving = images * len(rows) > chunk and torch.is_grad_enabled()
            groups.append(encode_branches(branch, tails, contexts[part], some, chunk=chunk, recompute=saving))
        return torch.cat(groups)

    @property
    def _pool(self) -> str | None:
        return getattr(self.inner, "pool_type", None) or getattr(self.inner, "text_pool_type", None)

    def _pooled_last(self, rows: Rows) -> bool:
        """Whether the token that the tower pools is each row's last one, and not, say, an EOT in a text."""
        if self.hugging_face:
            return True
        if self._pool == "argmax":
            other, behind = self.tokens.placeholder, self.tokens.pad
            return all(row[-1] > max(other, *row[:-1]) and row[-1] >= behind for row in rows.ids)
        eos = self.inner.eos_id if hasattr(self.inner, "eos_id") else self.inner.text_eos_id
        return all(eos in row and row.index(eos) == len(row) - 1 for row in rows.ids)

    def _truncated(self, rows: Rows, context: Tensor, deep: dict[int, Tensor]) -> Tensor:
        ids, slots = self._placed(rows, rows.longest)
        if self.hugging_face:
            with self._overwritten(slots, context, {}):
                return self._output(self.inner(ids))
        x = _overwrite(self.embeddings(ids), slots, context) + self.inner.positional_embedding[: rows.longest]
        mask = self.inner.attn_mask[: rows.longest, : rows.longest]
        lead, put = len(self.tokens.lead), 0
        for layer, block in enumerate(self.blocks):
            if layer in deep and rows.length:
                x = _overwrite(x, slots, deep[layer])
            elif layer in deep:
                vectors = deep[layer].to(x.dtype).expand(len(rows), -1, -1)
                x = torch.cat([x[:, :lead], vectors, x[:, lead + put :]], dim=1)
                put = vectors.shape[1]
                mask = torch.full((x.shape[1],) * 2, -torch.inf, dtype=mask.dtype, device=mask.device).triu_(1)
            x = block(x, attn_mask=mask)
        ends = torch.tensor([len(row) - 1 + put for row in rows.ids], device=x.device)
        return self._finish(x[torch.arange(len(rows), device=x.device), ends])

    def _full(self, rows: Rows, context: Tensor, deep: dict[int, Tensor]) -> Tensor:
        ids, slots = self._placed(rows, self.context_length)
        with self._overwritten(slots, context, deep):
            return self._full_ids(ids)

    def _full_ids(self, ids: Tensor) -> Tensor:
        return self._output(self.model.encode_text(ids.to(self.device), normalize=False))

    def _finish(self, x: Tensor) -> Tensor:
        """Hidden states of the pooled tokens (..., width) -> features (..., dimension)."""
        x = self.inner.ln_final(x)
        projection: Any = self.inner.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Module) else x @ projection

    def _placed(self, rows: Rows, length: int) -> tuple[Tensor, Tensor]:
        """Padded ids (C, length) with a word's id in the slots, and the slots' positions (C, M)."""
        ids = torch.tensor([self._padded(row, length) for row in rows.ids], device=self.device)
        slots = (ids == SLOT).nonzero()[:, 1].view(len(rows), rows.length)
        return ids.masked_fill(ids == SLOT, self.tokens.placeholder), slots

    def _padded(self, row: Sequence[int], length: int | None = None) -> list[int]:
        return [*row, *[self.tokens.pad] * ((length or self.context_length) - len(row))]

    @contextmanager
    def _overwritten(self, slots: Tensor, context: Tensor, deep: dict[int, Tensor]) -> Iterator[None]:
        """Hooks that put vectors into the slots' places behind the embedding and before deeper layers.

        A module has its hooks in all threads; those of this one let what runs in others pass.
        """
        here = get_ident()

        def embed(_module: nn.Module, _arguments: Any, output: Tensor) -> Tensor:
            return _overwrite(output, slots, context) if get_ident() == here else output

        def enter(layer: int, _module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (_overwrite(arguments[0], slots, deep[layer]), *arguments[1:]) if get_ident() == here else arguments

        with _HOOKS:  # torch numbers hooks by a counter that is not safe across threads
            handles = [self.embeddings.register_forward_hook(embed)]
            handles += [self.blocks[layer].register_forward_pre_hook(partial(enter, layer)) for layer in deep]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _output(self, features: Any) -> Tensor:
        return features[0] if isinstance(features, tuple) else features

    def fitting(self, rows: Rows, way: str) -> int:
        """How many of the rows keep their activations within the memory budget: more are run in chunks."""
        if way == "shared":
            tokens = max(1, sum(map(len, rows.ids)) // len(rows) - rows.length - len(self.tokens.lead))
        else:
            length = self.context_length if way == "full" else rows.longest
            tokens = length + length * length // 64
        # A token of a layer saves about ten vectors of the tower's width in float32: both norms' inputs, queries,
        # keys, values, the attention's weights, and the four widths of the hidden layer
        layers = max(1, self.layers)
        if self.hugging_face:
            layers = getattr(self.inner.config, "num_hidden_layers", 12)
        return max(1, int(self.memory * 1e9 / (tokens * layers * 11 * self.width * 4)))

    def _check(self, rows: Rows, context: Tensor, deep: Mapping[int, Tensor]) -> None:
        if deep and self.hugging_face:
            raise UserError("deep text prompts need an open_clip text tower of its own kind, not a Hugging Face one")
        if deep and not 1 <= min(deep) <= max(deep) < self.layers:
            raise UserError(f"deep prompts enter before layers 1 to {self.layers - 1}, got {sorted(deep)}")
        for name, value in (("context", context), *((f"deep prompt {layer}", part) for layer, part in deep.items())):
            length = rows.length or (value.shape[-2] if value is not context else 0)
            if tuple(value.shape[-2:]) != (length, self.width) or value.dim() not in (2, 3):
                raise UserError(
                    f"expected a {name} of shape (..., {rows.length}, {self.width}), got {tuple(value.shape)}"
                )
            if value.dim() == 3 and value.shape[0] != len(rows):
                raise UserError(f"{name}: {value.shape[0]} classes' own vectors for {len(rows)} classes")


def _overwrite(x: Tensor, slots: Tensor, vectors: Tensor) -> Tensor:
    """x (C, L, width) with vectors (M, width) or (C, M, width) at the positions slots (C, M)."""
    if slots.shape[1] == 0:
        return x
    index = slots[:, :, None].expand(-1, -1, x.shape[2])
    return x.scatter(1, index, vectors.to(x.dtype).expand(len(slots), -1, -1))


def _rows_of(vectors: Tensor, picked: list[int]) -> Tensor:
    return vectors[picked] if vectors.dim() == 3 else vectors


def _checkpointed(run: Callable[..., Tensor], vectors: list[Tensor]) -> Tensor:
    return torch.utils.checkpoint.checkpoint(run, *vectors, use_reentrant=False)
