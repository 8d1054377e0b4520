"""The attention behind a shared prefix: gradients in float64 and against PyTorch's own attention; how texts are packed;
what of a tower is taken apart, and what is computed of it.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
import toy_clips
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F
from toy_clips import LAYERS, NAMES, TOYS, WIDTH

from multimodal.towers import packing
from multimodal.towers import shared_prefix as shared
from multimodal.towers.packing import Bucket, pack
from multimodal.towers.shared_prefix import Attention, Branch, encode_branches, sharable_block
from multimodal.towers.text import TextTower

HEADS, SIZE = 2, 3
LENGTHS: tuple[int, ...] = (1, 1, 2, 4, 4, 4, 7)
TOKENS = sum(LENGTHS)
TAILS = [list(range(start, start + length)) for start, length in zip((0, 1, 2, 4, 8, 12, 16), LENGTHS, strict=True)]
CPU = torch.device("cpu")


@pytest.fixture(params=[0, 3, 1000], ids=["no padding", "some padding", "one bucket"])
def buckets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Bucket, ...]:
    """The texts of LENGTHS, from a bucket a length to one for all."""
    monkeypatch.setattr(packing, "BUCKET", request.param)
    made = pack(TAILS, range(len(TAILS)), 1, CPU).buckets
    assert len(made) == {0: 4, 3: 3, 1000: 1}[request.param]
    return made


class Inputs:
    """Random queries, keys and values of G prefixes of P rows, and of the texts of LENGTHS behind them.

    Args:
        own: the prefix's rows are among those that ask; else its keys and values are given.
        last: of the texts only the last tokens ask, and of the prefix nothing does.
    """

    def __init__(
        self, G: int, P: int, *, own: bool, last: bool, dtype: torch.dtype = torch.float64, texts: bool = True
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self.P, self.own, self.last, self.texts = P, own, last, texts
        rows, W = (P if own else 0), HEADS * SIZE
        T = TOKENS if texts else 0
        shapes: list[tuple[int, ...]] = [(G, len(LENGTHS) if last else rows + T, W), (G, rows + T, 2 * W)]
        shapes += [] if own else [(G, HEADS, P, SIZE)] * 2
        self.leaves = [torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True) for shape in shapes]

    def ours(self, buckets: tuple[Bucket, ...], *leaves: Tensor) -> Tensor:
        q, kv, *given = leaves or self.leaves
        keys, values = given or (None, None)
        rows = self.P if self.own else 0
        return Attention.apply(q, kv, keys, values, rows, HEADS, buckets if self.texts else ())

    def reference(self, *leaves: Tensor) -> Tensor:
        """Each text by itself, with a copy of the prefix before it: masked attention over both."""
        q, kv, *given = leaves or self.leaves
        rows = self.P if self.own else 0
        keys, values = given or (heads(part) for part in kv[:, :rows].chunk(2, dim=2))
        out, asked, start = [], 0, rows
        if rows and not self.last:
            found = F.scaled_dot_product_attention(heads(q[:, :rows]), keys, values, is_causal=True)
            out, asked = [found.transpose(1, 2).flatten(2)], rows
        for length in LENGTHS if self.texts else ():
            k, v = (heads(part) for part in kv[:, start : start + length].chunk(2, dim=2))
            count = 1 if self.last else length
            seen = torch.ones(length, self.P + length, dtype=torch.bool).tril(self.P)[length - count :]
            found = F.scaled_dot_product_attention(
                heads(q[:, asked : asked + count]),
                torch.cat([keys, k], dim=2),
                torch.cat([values, v], dim=2),
                attn_mask=seen,
            )
            out.append(found.transpose(1, 2).flatten(2))
            asked, start = asked + count, start + length
        return torch.cat(out, dim=1)


def heads(x: Tensor) -> Tensor:
    return x.unflatten(2, (HEADS, SIZE)).transpose(1, 2)


KINDS: dict[str, dict[str, Any]] = {
    "prefix given": {"own": False, "last": False},
    "prefix given, ends ask": {"own": False, "last": True},
    "prefix too": {"own": True, "last": False},
    "prefix too, ends ask": {"own": True, "last": True},
    "prefix alone": {"own": True, "last": False, "texts": False},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_the_gradient_is_that_of_the_forward(kind: dict[str, Any], buckets: tuple[Bucket, ...]) -> None:
    for prefix in (2, 0):
        inputs = Inputs(1, prefix, **kind)
        if inputs.leaves[0].numel():
            assert torch.autograd.gradcheck(partial(inputs.ours, buckets), inputs.leaves, fast_mode=True)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_it_is_masked_attention_of_each_text_by_itself(kind: dict[str, Any], buckets: tuple[Bucket, ...]) -> None:
    for G, prefix in ((1, 3), (3, 17), (2, 0)):
        inputs = Inputs(G, prefix, **kind)
        if not inputs.leaves[0].numel():
            continue
        got, expected = inputs.ours(buckets), inputs.reference()
        assert torch.allclose(got, expected, rtol=0, atol=1e-12)
        weights = torch.randn(got.shape, generator=torch.Generator().manual_seed(1), dtype=got.dtype)
        for mine, theirs in zip(
            torch.autograd.grad((got * weights).sum(), inputs.leaves),
            torch.autograd.grad((expected * weights).sum(), inputs.leaves),
            strict=True,
        ):
            assert torch.allclose(mine, theirs, rtol=0, atol=1e-12)


def test_the_whole_gradient_in_float64() -> None:
    """Through all layers, in chunks that are recomputed, and deep prompts of their own."""
    tower = TextTower(TOYS["fused"].model().double(), toy_clips.shared_tokenizer("fused"))
    rows = tower.rows(NAMES[:3], 2)
    generator = torch.Generator().manual_seed(0)
    leaves = [torch.randn(2, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    for chunk in (2, 100):
        assert torch.autograd.gradcheck(
            lambda context, deep, chunk=chunk: tower.encode(rows, context, {1: deep}, way="shared", chunk=chunk),
            leaves,
            fast_mode=True,
        )
    ways = [tower.encode(rows, leaves[0], {1: leaves[1]}, way=way) for way in ("shared", "full")]
    slopes = [torch.autograd.grad(way.square().sum(), leaves) for way in ways]
    assert (ways[0] - ways[1]).abs().max() < 1e-12 * ways[1].abs().max()
    assert all((one - two).abs().max() < 1e-12 * two.abs().max() for one, two in zip(*slopes, strict=True))


def test_large_scores_do_not_overflow(buckets: tuple[Bucket, ...]) -> None:
    for dtype, limit in ((torch.float32, 1e-3), (torch.bfloat16, 0.1), (torch.float16, 0.02)):
        inputs = Inputs(1, 3, own=False, last=False)
        leaves = [(leaf.detach() * by).to(dtype) for leaf, by in zip(inputs.leaves, (100, 50, 50, 1), strict=True)]
        got, expected = inputs.ours(buckets, *leaves), inputs.reference(*(leaf.double() for leaf in leaves))
        assert got.dtype == dtype
        assert (got.double() - expected).abs().max() < limit * expected.abs().max()


def test_a_second_derivative_is_refused(buckets: tuple[Bucket, ...]) -> None:
    inputs = Inputs(1, 2, own=False, last=False)
    (slope,) = torch.autograd.grad(inputs.ours(buckets).square().sum(), inputs.leaves[2], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


# --- packing --------------------------------------------------------------------------------------------------------


def test_texts_are_packed_in_the_order_given(buckets: tuple[Bucket, ...]) -> None:
    packed = pack(TAILS, [0, 1, 2, 5, 3, 4, 6], 1, CPU)
    assert packed.order == (0, 1, 2, 5, 3, 4, 6)
    assert packed.ids.tolist() == [0, 1, 2, 3, 12, 13, 14, 15, *range(4, 12), *range(16, 23)]
    assert packed.places.tolist() == [0, 0, 0, 1, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, *range(7)]
    assert packed.ends.tolist() == [0, 1, 3, 7, 11, 15, 22]


def test_buckets_cover_the_texts(buckets: tuple[Bucket, ...]) -> None:
    at = 0
    for bucket in buckets:
        assert (bucket.texts.start, bucket.tokens.start) == (at, sum(LENGTHS[:at]))
        at = bucket.texts.stop
        lengths = LENGTHS[bucket.texts]
        assert (tuple(bucket.lengths.tolist()), bucket.length, bucket.n) == (lengths, max(lengths), len(lengths))
        assert bucket.tokens.stop == sum(LENGTHS[:at])
        assert (bucket.pad is None) == (len(set(lengths)) == 1)
        tokens = torch.arange(1, sum(lengths) + 1).float()[None, :, None]
        grid = bucket.padded(tokens).view(bucket.n, -1)
        for text, length in zip(grid.tolist(), lengths, strict=True):
            assert text[length:] == [text[length - 1]] * (bucket.length - length), "its last token behind the end"
            assert text[:length] == list(range(int(text[0]), int(text[0]) + length))
        assert torch.equal(bucket.unpadded(bucket.padded(tokens)), tokens)
        zeroed = bucket.zero_padded(tokens).view(bucket.n, -1)
        assert [row[:length] for row, length in zip(zeroed.tolist(), lengths, strict=True)] == [
            row[:length] for row, length in zip(grid.tolist(), lengths, strict=True)
        ]
        assert zeroed.sum() == tokens.sum()
    assert at == len(LENGTHS)


@pytest.mark.parametrize("price", [0, 1, 3, 10, 100])
def test_the_cut_into_buckets_is_the_cheapest(price: int) -> None:
    """Against all ways to cut: a bucket costs its price, and its texts times the longest of them."""

    def cost(runs: list[tuple[int, int]], lengths: list[int]) -> int:
        return sum(price + (stop - start) * max(lengths[start:stop]) for start, stop in runs)

    for lengths in ([1], [2, 2, 2], [1, 2, 3, 4, 5], [1, 1, 1, 9], [3, 3, 4, 4, 4, 12, 13, 30], [1, 5, 5, 5, 5, 6]):
        n = len(lengths)
        every = []
        for cuts in range(2 ** (n - 1)):
            edges = [0, *(at for at in range(1, n) if cuts >> (at - 1) & 1), n]
            every.append(cost(list(pairwise(edges)), lengths))
        found = packing._cuts(lengths, price)
        assert [start for start, _ in found[1:]] == [stop for _, stop in found[:-1]]
        assert (found[0][0], found[-1][1]) == (0, n)
        assert cost(found, lengths) == min(every)


# --- what of a tower is taken apart, and what is run -----------------------------------------------------------------


def test_the_ordinary_block_is_taken_apart_and_no_other() -> None:
    assert sharable_block(ResidualAttentionBlock(8, 2))
    assert sharable_block(ResidualAttentionBlock(8, 2, ls_init_value=0.1))
    assert not sharable_block(ResidualAttentionBlock(8, 2, is_cross_attention=True))
    assert not sharable_block(ResidualAttentionBlock(8, 2, batch_first=False))
    assert not sharable_block(nn.TransformerEncoderLayer(8, 2))
    for options in ({"add_bias_kv": True}, {"add_zero_attn": True}, {"dropout": 0.1}, {"kdim": 4}, {"bias": False}):
        block = ResidualAttentionBlock(8, 2)
        block.attn = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        assert not sharable_block(block), options

    class Scaled(ResidualAttentionBlock):
        pass

    assert not sharable_block(Scaled(8, 2)), "what it adds is not known"


def passed(monkeypatch: pytest.MonkeyPatch, blocks: Any) -> list[int]:
    """How many tokens go through each block's hidden layer from now on."""
    seen = [0] * len(blocks)

    def watch(number: int, forward: Any) -> Any:
        def run(x: Tensor) -> Tensor:
            seen[number] += x.shape[:-1].numel()
            return forward(x)

        return run

    for number, block in enumerate(blocks):
        monkeypatch.setattr(block.mlp, "forward", watch(number, block.mlp.forward))
    return seen


def test_the_prefix_is_run_once_and_the_last_layer_for_the_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = toy_clips.tower("fused")
    rows, context = tower.rows(NAMES, 16), torch.zeros(16, WIDTH)
    own = sum(len(row) - 17 for row in rows.ids)
    seen = passed(monkeypatch, tower.blocks)
    for way, chunk, tokens in (
        ("shared", 100, [17 + own, 17 + own, len(rows)]),
        ("shared", 2, [17 + own, 17 + own, len(rows)]),
        ("truncated", 100, [len(rows) * rows.longest] * LAYERS),
        ("full", 100, [len(rows) * tower.context_length] * LAYERS),
    ):
        seen[:] = [0] * LAYERS
        tower.encode(rows, context, way=way, chunk=chunk)
        assert seen == tokens


@pytest.mark.parametrize("chunk", [1, 2, 5, 6, 12, 100])
def test_no_more_than_a_chunk_is_run_at_once(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of texts behind prefixes; and chunks hold as many short and long texts."""
    tower = toy_clips.tower("fused")
    rows = tower.rows([name for name in NAMES for _ in range(4)], 4)
    tokens = sum(len(row) - 5 for row in rows.ids)
    sizes: list[tuple[int, int]] = []

    def counted(tails: Any, order: Any, prefixes: int, device: torch.device) -> Any:
        sizes.append((len(order) * prefixes, sum(len(tails[index]) for index in order)))
        return pack(tails, order, prefixes, device)

    monkeypatch.setattr(shared, "pack", counted)
    contexts = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(0))
    tower.encode(rows, contexts[0], chunk=chunk)
    assert max(size for size, _ in sizes) <= chunk
    assert sum(size for size, _ in sizes) == len(rows)
    if chunk >= 5:
        assert max(part for _, part in sizes) < 1.5 * tokens / len(sizes)
    sizes.clear()
    tower.encode_per_image(rows, contexts, chunk=chunk)
    assert max(size for size, _ in sizes) <= chunk
    assert sum(size for size, _ in sizes) == 2 * len(rows)


def test_a_branch_is_all_that_it_needs() -> None:
    tower = toy_clips.tower("fused")
    rows = tower.rows(NAMES, 4)
    context = torch.randn(1, 4, WIDTH, generator=torch.Generator().manual_seed(0))
    positions, lead = tower.inner.positional_embedding, torch.tensor([49406])
    branch = Branch(tower.blocks, tower.embeddings, positions, lambda x: x, lead)
    tails = [row[5:] for row in rows.ids]
    for chunk, recompute in ((3, False), (3, True), (100, True), (100, False)):
        states = encode_branches(branch, tails, context, {}, chunk=chunk, recompute=recompute)
        assert states.shape == (1, len(rows), WIDTH)
        assert torch.allclose(tower._finish(states[0]), tower.encode(rows, context[0], way="full"), atol=1e-5)
