"""The three ways through a text tower give the same features and gradients, on every kind of CLIP, as CoOp's encoder
written out; a frozen tower stays so; and memory does not grow with the classes.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import toy_clips
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from toy_clips import CONTEXT_LENGTH, FILLER, LAYERS, NAMES, TOYS, WIDTH, Toy

from multimodal.towers.text import WAYS, TextTower
from multimodal.towers.tokens import Rows
from retrieval_prompts.errors import UserError

SHARED = [name for name, toy in TOYS.items() if toy.way == "shared"]
NATIVE = [name for name, toy in TOYS.items() if toy.hugging_face is None]
CUT = [name for name, toy in TOYS.items() if toy.way != "full"]
M = 4


def vectors(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def differ(got: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert got.shape == expected.shape
    assert torch.isfinite(expected).all()
    return ((got - expected).abs().max() / expected.abs().max()).item()


def alike(got: Tensor, expected: Tensor, *leaves: Tensor, limit: float = 1e-5) -> None:
    """Both are the same features, and give the same gradient to each leaf."""
    assert differ(got, expected) < limit
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9))
    for mine, theirs in zip(
        torch.autograd.grad((got * weights).sum(), leaves),
        torch.autograd.grad((expected * weights).sum(), leaves),
        strict=True,
    ):
        assert theirs.abs().max() > 0
        assert differ(mine, theirs) < limit


# --- against CoOp's text encoder, written out ---------------------------------------------------------------------


def coop(name: str, model: Any, names: tuple[str, ...], context: Tensor, deep: Mapping[int, Tensor], at: str) -> Tensor:
    """Zhou et al.'s TextEncoder: a prompt with filler words is tokenised, their embeddings are replaced, the whole
    transformer is run and pooled. Deep prompts as in MaPLe: rows are replaced before a layer. Shares no code with ours.
    """
    toy, length = TOYS[name], context.shape[-2]
    before = {"end": length, "middle": length // 2, "front": 0}[at]
    texts = [" ".join([*[FILLER] * before, word, *[FILLER] * (length - before)]) + "." for word in names]
    ids = toy_clips.shared_tokenizer(name)(texts)
    inner = getattr(model, "text", model)
    lengths = [row.index(toy.end) + 1 for row in ids.tolist()]
    dots = 0 if toy.options else 1  # a tokenizer that canonicalises drops the dot
    embed = inner.transformer.get_input_embeddings() if toy.hugging_face else inner.token_embedding
    rows, slots = [], []
    for number, row in enumerate(ids):
        own = context[number] if context.dim() == 3 else context
        start, behind = len(toy.lead), lengths[number] - 1 - dots - (length - before)
        slots.append([*range(start, start + before), *range(behind, behind + length - before)])
        assert row[: len(toy.lead)].tolist() == list(toy.lead)
        assert len(set(row[slots[-1][1:]].tolist())) <= 1, "one filler, one token"
        parts, done = [], 0
        for vector, slot in zip(own, slots[-1], strict=True):
            parts += [embed(row[done:slot]), vector[None]]
            done = slot + 1
        rows.append(torch.cat([*parts, embed(row[done:])]))
    x = torch.stack(rows)
    if toy.hugging_face:
        seen = torch.tensor([[1] * n + [0] * (x.shape[1] - n) for n in lengths])
        found = inner.transformer(inputs_embeds=x, attention_mask=seen)
        return inner.proj(inner.pooler(found, seen))
    causal = torch.full((CONTEXT_LENGTH + 1, CONTEXT_LENGTH + 1), -math.inf).triu(1)
    mask: Tensor | None = None if toy.text.get("no_causal_mask") else causal[:CONTEXT_LENGTH, :CONTEXT_LENGTH]
    if toy.kind == "CoCa":
        x = torch.cat([x, inner.cls_emb.expand(len(x), 1, -1)], dim=1)
        # CoCa's weights were trained with padding masked one position too far to the right
        seen = torch.cat([torch.ones(len(x), 1, dtype=torch.bool), ids != 0], dim=1)
        masked = causal + torch.zeros(seen.shape).masked_fill(~seen, -math.inf)[:, None]
        mask = masked.repeat_interleave(4, dim=0)
    x = x + inner.positional_embedding
    for layer, block in enumerate(inner.transformer.resblocks):
        if layer in deep:
            replaced = []
            for number, row in enumerate(x.unbind()):
                own = deep[layer][number] if deep[layer].dim() == 3 else deep[layer]
                replaced.append(
                    [own[slots[number].index(at)] if at in slots[number] else row[at] for at in range(len(row))]
                )
            x = torch.stack([torch.stack(row) for row in replaced])
        x = block(x, attn_mask=mask)
    x = inner.ln_final(x)
    pooled = [len(x[0]) - 1] * len(x)
    if toy.kind != "CoCa" and toy.text.get("pool_type") != "last":
        pooled = [length - 1 for length in lengths]
    x = x[torch.arange(len(x)), torch.tensor(pooled)]
    projection = inner.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Module) else x @ projection


def mmrl(inner: Any, ids: Tensor, ends: list[int], lead: int, deep: Mapping[int, Tensor]) -> Tensor:
    """Guo and Gu's TextEncoder: before a layer rows are put behind SOS, then replaced, and the mask grows."""
    x, put = inner.token_embedding(ids) + inner.positional_embedding, 0
    for layer, block in enumerate(inner.transformer.resblocks):
        if layer in deep:
            own = deep[layer].expand(len(x), -1, -1)
            x, put = torch.cat([x[:, :lead], own, x[:, lead + put :]], dim=1), own.shape[1]
        x = block(x, attn_mask=torch.full((x.shape[1], x.shape[1]), -math.inf).triu(1))
    x = inner.ln_final(x)[torch.arange(len(x)), torch.tensor(ends) + put]
    projection = inner.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Module) else x @ projection


@pytest.mark.parametrize("name", [name for name in CUT if name in NATIVE])
def test_vectors_before_all_words_from_a_layer_on(name: str) -> None:
    tower = toy_clips.tower(name)
    rows, nothing = tower.rows([f"a photo of a {word}" for word in NAMES], 0), torch.zeros(0, WIDTH)
    ids = torch.tensor([[*row, *[0] * (CONTEXT_LENGTH - len(row))] for row in rows.ids])
    ends = [len(row) - 1 for row in rows.ids]
    for layers in ((1, 2), (LAYERS - 1,)):
        deep = {layer: vectors(3, WIDTH, seed=layer) for layer in layers}
        for way in dict.fromkeys((TOYS[name].way, "truncated")):
            for chunk in (None, 2):
                found = tower.encode(rows, nothing, deep, way=way, chunk=chunk)
                expected = mmrl(tower.inner, ids, ends, len(tower.tokens.lead), deep)
                alike(found, expected, *deep.values())
    with pytest.raises(UserError, match="vectors can be put between words only in a causal text tower"):
        tower.encode(rows, nothing, deep, way="full")


@pytest.mark.parametrize("name", TOYS)
def test_the_full_way_is_coops_text_encoder(name: str) -> None:
    tower = toy_clips.tower(name)
    context = vectors(M, WIDTH)
    for position in ("end", "middle", "front"):
        rows = tower.rows(NAMES, M, position)
        alike(
            tower.encode(rows, context, way="full"),
            coop(name, tower.model, NAMES, context, {}, position),
            context,
        )
    own = vectors(len(NAMES), M, WIDTH)
    rows = tower.rows(NAMES, M)
    alike(tower.encode(rows, own, way="full"), coop(name, tower.model, NAMES, own, {}, "end"), own)


@pytest.mark.parametrize("name", NATIVE)
def test_deep_prompts_take_the_contexts_place_before_their_layers(name: str) -> None:
    tower = toy_clips.tower(name)
    rows, context = tower.rows(NAMES, M), vectors(M, WIDTH)
    for deep in (
        {1: vectors(M, WIDTH, seed=1)},
        {1: vectors(M, WIDTH, seed=1), 2: vectors(M, WIDTH, seed=2)},
        {2: vectors(len(NAMES), M, WIDTH, seed=3)},
    ):
        alike(
            tower.encode(rows, context, deep, way="full"),
            coop(name, tower.model, NAMES, context, deep, "end"),
            context,
            *deep.values(),
        )


# --- truncated and shared against full ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOYS)
def test_the_fastest_exact_way_is_known(name: str) -> None:
    tower = toy_clips.tower(name)
    best = TOYS[name].way
    rows = tower.rows(NAMES, M)
    context, own = torch.zeros(M, WIDTH), torch.zeros(len(NAMES), M, WIDTH)
    assert tower.way(rows, context) == best
    assert tower.way(rows, own) == {"shared": "truncated"}.get(best, best), "each class its own context"
    assert tower.way(rows, context, {1: own}) == {"shared": "truncated"}.get(best, best)
    for position in ("middle", "front"):
        assert tower.way(tower.rows(NAMES, M, position), context) == {"shared": "truncated"}.get(best, best)


@pytest.mark.parametrize("length", [1, 4, 16])
@pytest.mark.parametrize("name", CUT)
def test_every_way_is_the_full_way(name: str, length: int) -> None:
    tower = toy_clips.tower(name)
    context = vectors(length, WIDTH)
    rows = tower.rows(NAMES, length)
    assert len({len(row) for row in rows.ids}) > 2, "classes of unequal lengths"
    for way in WAYS[1 : WAYS.index(TOYS[name].way) + 1]:
        alike(
            tower.encode(rows, context, way=way),
            tower.encode(rows, context, way="full"),
            context,
        )


@pytest.mark.parametrize("position", ["middle", "front"])
@pytest.mark.parametrize("name", CUT)
def test_a_name_within_or_before_the_context_is_truncated(name: str, position: str) -> None:
    tower = toy_clips.tower(name)
    context = vectors(5, WIDTH)
    rows = tower.rows(NAMES, 5, position)
    alike(tower.encode(rows, context), tower.encode(rows, context, way="full"), context)


@pytest.mark.parametrize("name", CUT)
def test_contexts_of_each_class_are_truncated(name: str) -> None:
    tower = toy_clips.tower(name)
    own = vectors(len(NAMES), M, WIDTH)
    rows = tower.rows(NAMES, M)
    alike(tower.encode(rows, own), tower.encode(rows, own, way="full"), own)
    with torch.no_grad():
        alone = [tower.encode(tower.rows([word], M), vector) for word, vector in zip(NAMES, own, strict=True)]
        assert differ(tower.encode(rows, own), torch.cat(alone)) < 1e-5, "each class has the context of its number"


@pytest.mark.parametrize("name", [name for name in CUT if name in NATIVE])
def test_deep_prompts_on_every_way(name: str) -> None:
    tower = toy_clips.tower(name)
    rows, context = tower.rows(NAMES, M), vectors(M, WIDTH)
    deep = {layer: vectors(M, WIDTH, seed=layer) for layer in range(1, LAYERS)}
    for way in WAYS[1 : WAYS.index(TOYS[name].way) + 1]:
        for some in (deep, {2: deep[2]}):
            alike(
                tower.encode(rows, context, some, way=way),
                tower.encode(rows, context, some, way="full"),
                context,
                *some.values(),
            )
    own = {1: vectors(len(NAMES), M, WIDTH, seed=5), 2: deep[2]}
    alike(
        tower.encode(rows, context, own),
        tower.encode(rows, context, own, way="full"),
        context,
        *own.values(),
    )


@pytest.mark.parametrize("chunk", [1, 3, len(NAMES), 100])
@pytest.mark.parametrize("name", ["fused", "custom blocks", "bert, mean", "coca", "nothing before the text"])
def test_chunks_change_nothing(name: str, chunk: int) -> None:
    tower = toy_clips.tower(name)
    rows, context = tower.rows(NAMES, M), vectors(M, WIDTH)
    deep = {} if TOYS[name].hugging_face else {1: vectors(M, WIDTH, seed=1)}
    for way in WAYS[: WAYS.index(TOYS[name].way) + 1]:
        alike(
            tower.encode(rows, context, deep, way=way, chunk=chunk),
            tower.encode(rows, context, deep, way=way, chunk=len(NAMES)),
            context,
            *deep.values(),
        )
    own = vectors(len(NAMES), M, WIDTH)
    alike(tower.encode(rows, own, chunk=chunk), tower.encode(rows, own, chunk=100), own)


@pytest.mark.parametrize("name", TOYS)
def test_without_vectors_it_is_the_models_own_encode_text(name: str) -> None:
    tower = toy_clips.tower(name)
    texts = ["Brown fox.", "a soft prompt steers", "fox"]
    expected = tower.model.encode_text(toy_clips.shared_tokenizer(name)(texts), normalize=False)
    expected = expected[0] if isinstance(expected, tuple) else expected
    rows, nothing = tower.rows(texts, 0, suffix=""), torch.zeros(0, WIDTH)
    assert torch.equal(tower.encode(rows, nothing, way="full"), expected)
    assert tower.way(rows, nothing) == TOYS[name].way
    assert differ(tower.plain(texts), expected) < 2e-6
    assert differ(tower.encode(rows, nothing, chunk=2), expected) < 2e-6


@pytest.mark.parametrize("name", TOYS)
def test_words_in_the_slots_are_read_as_words(name: str) -> None:
    tower = toy_clips.tower(name)
    words = [*tower.tokens.of("a"), *tower.tokens.of("frozen wizards")]
    got = tower.encode(tower.rows(["dog"], len(words)), tower.token_rows(words))
    written = (*tower.tokens.lead, *words, *tower.tokens.of("dog."), *tower.tokens.trail)
    assert differ(got, tower.encode(Rows((written,), 0), torch.zeros(0, WIDTH), way="full")) < 1e-5


# --- contexts of each image ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 1, 3, len(NAMES), 2 * len(NAMES) + 1, 100])
@pytest.mark.parametrize("name", ["fused", "nothing before the text", "custom blocks", "bert, mean", "coca"])
def test_a_context_an_image_is_a_loop_over_contexts(name: str, chunk: int | None) -> None:
    tower = toy_clips.tower(name)
    contexts, rows = vectors(5, M, WIDTH), tower.rows(NAMES, M)
    assert tower.encode_per_image(rows, contexts, chunk=chunk).shape == (5, len(NAMES), tower.dimension)
    alike(
        tower.encode_per_image(rows, contexts, chunk=chunk),
        torch.stack([tower.encode(rows, context, way="full") for context in contexts]),
        contexts,
    )


def test_deep_prompts_of_each_prefix() -> None:
    """What no method uses yet: prefixes of one batch with deep prompts of their own, or one for all."""
    tower = toy_clips.tower("fused")
    contexts, rows = vectors(3, M, WIDTH), tower.rows(NAMES, M)
    own, one = vectors(3, M, WIDTH, seed=1), vectors(1, M, WIDTH, seed=2)
    for chunk in (2, 2 * len(NAMES), 100):
        alike(
            tower._shared(rows, contexts, {1: own, 2: one}, chunk),
            torch.stack([tower.encode(rows, contexts[at], {1: own[at], 2: one[0]}, way="full") for at in range(3)]),
            *(contexts, own, one),
        )


# --- what is not exact, and what does not fit ----------------------------------------------------------------------


def test_a_way_that_is_not_exact_is_refused() -> None:
    fused, rows = toy_clips.tower("fused"), toy_clips.tower("fused").rows(NAMES, M)
    context, own = torch.zeros(M, WIDTH), torch.zeros(len(NAMES), M, WIDTH)
    for tower, wanted, there, given, deep in (
        (toy_clips.tower("custom blocks"), "shared", "truncated", context, {}),
        (toy_clips.tower("coca"), "truncated", "full", context, {}),
        (toy_clips.tower("not causal"), "truncated", "full", context, {}),
        (toy_clips.tower("last"), "shared", "full", context, {}),
        (fused, "shared", "truncated", own, {}),
        (fused, "shared", "truncated", context, {1: own}),
        (fused, "fast", "shared", context, {}),
    ):
        with pytest.raises(UserError) as caught:
            tower.encode(tower.rows(NAMES, M), given, deep, way=wanted)
        assert str(caught.value) == (
            f"the text tower's way '{wanted}' is not exact here; there is '{there}' at most, of {WAYS}"
        )
    with pytest.raises(UserError, match="way 'shared' is not exact here; there is 'truncated' at most"):
        fused.encode(fused.rows(NAMES, M, "middle"), context, way="shared")
    assert torch.equal(fused.encode(rows, context, way="truncated"), fused._truncated(rows, context, {}))


def test_a_tower_that_does_not_read_its_last_token_is_run_in_full() -> None:
    context = vectors(M, WIDTH)
    simple, bert = toy_clips.tokenizer("simple"), toy_clips.tokenizer("bert")
    for toy, tokenizer in (
        (Toy("full", kind="CustomTextCLIP", text={"pool_type": "eos"}), simple),  # 2, as open_clip has it; it is 49407
        (Toy("full", "bert"), bert),  # the highest id of a text is that of a word
        (TOYS["bert, mean"], bert),
    ):
        model = toy.model()
        if toy.hugging_face:
            model.text.config.pad_token_id = 7  # so that the model reads its padding
        tower = TextTower(model, tokenizer)
        rows = tower.rows(NAMES, M)
        assert tower.way(rows, context) == "full"
        expected = tower.model.encode_text(torch.tensor([tower._padded(row) for row in tower.rows(NAMES, 0).ids]))
        assert differ(tower.plain([f"{name}." for name in NAMES]), expected) < 2e-6
        with pytest.raises(UserError, match="'truncated' is not exact here"):
            tower.encode(rows, context, way="truncated")


@pytest.mark.parametrize("name", ["fused", "its own eos"])
def test_a_text_that_holds_the_end_itself_is_read_as_the_model_does(name: str) -> None:
    tower, tokenizer = toy_clips.tower(name), toy_clips.shared_tokenizer(name)
    end = {"fused": "<end_of_text>", "its own eos": "[SEP]"}[name]
    texts = ["fox", f"brown {end} fox", f"dog {end}"]
    assert tower.way(tower.rows(texts, M), torch.zeros(M, WIDTH)) == "full"
    assert differ(tower.plain(texts), tower.model.encode_text(tokenizer(texts))) < 2e-6


def test_vectors_that_do_not_fit_are_refused() -> None:
    tower = toy_clips.tower("fused")
    rows, context = tower.rows(NAMES, M), torch.zeros(M, WIDTH)
    for given, deep, said in (
        (torch.zeros(M + 1, WIDTH), {}, "expected a context of shape (..., 4, 32), got (5, 32)"),
        (torch.zeros(M, WIDTH - 1), {}, "expected a context of shape (..., 4, 32), got (4, 31)"),
        (torch.zeros(1, 1, M, WIDTH), {}, "expected a context of shape (..., 4, 32), got (1, 1, 4, 32)"),
        (torch.zeros(3, M, WIDTH), {}, "context: 3 classes' own vectors for 7 classes"),
        (context, {1: torch.zeros(2, WIDTH)}, "expected a deep prompt 1 of shape (..., 4, 32), got (2, 32)"),
        (context, {2: torch.zeros(2, M, WIDTH)}, "deep prompt 2: 2 classes' own vectors for 7 classes"),
        (context, {0: context}, "deep prompts enter before layers 1 to 2, got [0]"),
        (context, {1: context, 3: context}, "deep prompts enter before layers 1 to 2, got [1, 3]"),
    ):
        with pytest.raises(UserError) as caught:
            tower.encode(rows, given, deep)
        assert str(caught.value) == said
    with pytest.raises(UserError, match=r"expected a context of shape \(..., 4, 32\), got \(3, 32\)"):
        tower.encode_per_image(rows, torch.zeros(2, 3, WIDTH))
    hugging_face = toy_clips.tower("bert, mean")
    with pytest.raises(UserError, match="deep text prompts need an open_clip text tower of its own kind, not a Hugg"):
        hugging_face.encode(hugging_face.rows(NAMES, M), context, {1: context})


def test_a_model_without_words_is_refused() -> None:
    with pytest.raises(UserError, match=r"^Linear has no text tower that reads words; expected an open_clip model$"):
        TextTower(nn.Linear(2, 2), toy_clips.tokenizer("simple"))


# --- no text sees another, nothing but the vectors learns -----------------------------------------------------------


@pytest.mark.parametrize("name", TOYS)
def test_classes_keep_their_order_and_do_not_see_each_other(name: str) -> None:
    tower, context = toy_clips.tower(name), vectors(M, WIDTH)
    with torch.no_grad():
        together = tower.encode(tower.rows(NAMES, M), context)
        alone = torch.cat([tower.encode(tower.rows([word], M), context) for word in NAMES])
        turned = tower.encode(tower.rows(NAMES[::-1], M), context).flip(0)
        beside = tower.encode(tower.rows([*NAMES, "the quick brown fox jumps over x"], M), context)[:-1]
    assert min(differ(alone[:1], other[None]) for other in alone[1:]) > 1e-2, "names matter"
    for other in (alone, turned, beside):
        assert differ(other, together) < 1e-5


@pytest.mark.parametrize("name", TOYS)
def test_the_tower_stays_frozen(name: str) -> None:
    model = TOYS[name].model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    tower = TextTower(model, toy_clips.shared_tokenizer(name))
    context = vectors(M, WIDTH)
    deep = {} if TOYS[name].hugging_face else {1: vectors(M, WIDTH, seed=1)}
    rows = tower.rows(NAMES, M)
    for way in WAYS[: WAYS.index(TOYS[name].way) + 1]:
        for chunk in (2, 100):
            tower.encode(rows, context, deep, way=way, chunk=chunk).sum().backward()
    assert context.grad is not None
    assert (context.grad.abs().sum(dim=-1) > 0).all()
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not hooks(model)


def hooks(model: nn.Module) -> list[Any]:
    return [
        hook
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]


def test_hooks_are_gone_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = toy_clips.tower("coca")
    rows, context = tower.rows(NAMES, M), torch.zeros(M, WIDTH)
    before = tower.plain(NAMES)
    seen = []

    def fail(*_: Any, **__: Any) -> Tensor:
        seen.append(len(hooks(tower.model)))
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(tower.blocks[2], "forward", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            tower.encode(rows, context, {1: context})
    assert seen == [2], "the embedding's, and that of layer 1"
    assert not hooks(tower.model)
    assert torch.equal(tower.plain(NAMES), before)


@pytest.mark.parametrize("name", TOYS)
def test_half_precision_is_near(name: str) -> None:
    tower, context = toy_clips.tower(name), vectors(M, WIDTH)
    deep = {} if TOYS[name].hugging_face else {1: vectors(M, WIDTH, seed=1)}
    rows = tower.rows(NAMES, M)
    exact = tower.encode(rows, context, deep, way="full")
    slopes = torch.autograd.grad(exact[:, 0].sum(), [context, *deep.values()])
    for way in WAYS[: WAYS.index(TOYS[name].way) + 1]:
        for chunk in (3, 100):
            with torch.autocast("cpu", torch.bfloat16):
                got = tower.encode(rows, context, deep, way=way, chunk=chunk)
            assert differ(got.float(), exact) < 0.05
            found = torch.autograd.grad(got.float()[:, 0].sum(), [context, *deep.values()])
            assert all(differ(mine, theirs) < 0.15 for mine, theirs in zip(found, slopes, strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        assert differ(tower.encode_per_image(rows, torch.stack([context] * 2))[1].float(), exact) < 0.05 or deep


# --- memory -------------------------------------------------------------------------------------------------------


class Live(TorchDispatchMode):
    """Bytes of the tensors made under it that are alive, and the most there were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known[key] = size
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self.known.pop(key)


def peak(tower: TextTower, classes: int, way: str, images: int = 0) -> int:
    """Bytes at most alive during a forward and a backward pass."""
    rows = tower.rows([NAMES[number % len(NAMES)] for number in range(classes)], M)
    context = vectors(images, M, WIDTH) if images else vectors(M, WIDTH)
    with Live() as live:
        out = tower.encode_per_image(rows, context) if images else tower.encode(rows, context, way=way)
        out.sum().backward()
    assert context.grad is not None
    return live.most


@pytest.mark.parametrize(
    ("name", "way"),
    [("fused", "full"), ("fused", "truncated"), ("fused", "shared"), ("bert, mean", "truncated"), ("coca", "full")],
)
def test_memory_does_not_grow_with_the_classes(name: str, way: str) -> None:
    budget = 1_000_000
    bounded, free = toy_clips.tower(name, memory=budget / 1e9), toy_clips.tower(name, memory=1)
    sizes = (80, 320) if way == "shared" else (20, 80)
    many = peak(bounded, sizes[1], way)
    some, more = (peak(free, classes, way) for classes in sizes)
    assert many < 1.4 * budget
    assert more > 2.5 * some > budget, "which it does where it may"


@pytest.mark.parametrize("name", ["custom blocks", "bert, mean"])
def test_nor_with_the_images_that_have_a_context_each(name: str) -> None:
    budget = 1_000_000
    bounded, free = toy_clips.tower(name, memory=budget / 1e9), toy_clips.tower(name, memory=1)
    for classes, images in ((4, 16), (40, 4)):
        assert peak(bounded, classes, "", images) < 1.6 * budget
        assert peak(free, classes, "", images) > 1.5 * peak(bounded, classes, "", images)
