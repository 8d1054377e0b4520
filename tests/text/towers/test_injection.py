"""Where prompts enter a model: against real words, against attention written out by hand, and models that are refused.

Every proof that does not name an architecture holds for all seven.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from toys import LONG, MAXIMUM, TEXTS, WIDTH

from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.initialize import initial_vectors
from retrieval_prompts.towers import injection as attach
from retrieval_prompts.towers.injection import attention, embed, prompt_shape, record_prefix
from retrieval_prompts.towers.prefix import Prefix
from retrieval_prompts.towers.probe import verify
from retrieval_prompts.towers.text import TextTower

ToyTower = Callable[..., TextTower]
WORDS = "search the corpus"


def prompt_of_words(tower: TextTower, kind: str, words: str = WORDS) -> Tensor:
    """The rows, or the keys and values, of the words' tokens: (layers, length, width)."""
    length = len(tower.tokenizer(words, add_special_tokens=False)["input_ids"])
    return initial_vectors(tower, kind, length, f"text:{words}", 0)


def one(tower: TextTower, ids: list[int], kind: str, vectors: Tensor | None) -> Tensor:
    with torch.no_grad():
        return embed(tower, [ids], "query", kind, vectors)


def model_vector(tower: TextTower, text: str) -> Tensor:
    return tower.sentence_transformer.encode([text], convert_to_tensor=True)


# --- input prompts --------------------------------------------------------------------------------------------------


def test_a_prompt_of_real_words_is_the_hard_prompt(tower: TextTower) -> None:
    lead = tower.lead
    words = tower.tokenizer(WORDS, add_special_tokens=False)["input_ids"]
    prompt = prompt_of_words(tower, "input")
    for ids in tower.tokenize([*TEXTS, LONG], "query"):
        hard = ids[:lead] + words + ids[lead:]
        assert torch.equal(one(tower, ids, "input", prompt), one(tower, hard, "input", None))


def test_a_prompt_of_real_words_is_the_text_with_these_words(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert")
    (ids,) = tower.tokenize(["fox"], "query")
    soft = one(tower, ids, "input", prompt_of_words(tower, "input"))
    assert torch.equal(soft, model_vector(tower, f"{WORDS} fox"))


def test_prompts_at_a_scaled_embedding(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert")
    (ids,) = tower.tokenize(["the lazy dog"], "query")
    words = tower.tokenizer(WORDS, add_special_tokens=False)["input_ids"]
    # As in Gemma: the module multiplies the rows of its table
    embeddings: Any = tower.embeddings
    plain = embeddings.forward
    embeddings.embed_scale = torch.tensor(3.0)
    embeddings.forward = lambda tokens: plain(tokens) * 3.0
    soft = one(tower, ids, "input", prompt_of_words(tower, "input"))
    assert torch.equal(soft, one(tower, ids[:1] + words + ids[1:], "input", None))


def test_words_of_the_model_stay_between_prompt_and_text(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert", prompts={"query": "query: "})
    (ids,) = tower.tokenize(["fox"], "query")
    soft = one(tower, ids, "input", prompt_of_words(tower, "input"))
    assert torch.equal(soft, model_vector(tower, f"{WORDS} query: fox"))


def test_a_prompt_that_is_not_pooled(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert", include_prompt=False)
    (ids,) = tower.tokenize(["fox"], "query")
    soft = one(tower, ids, "input", prompt_of_words(tower, "input"))
    hard = tower.sentence_transformer.encode(["fox"], prompt=f"{WORDS} ", convert_to_tensor=True)
    assert torch.equal(soft, hard)
    assert not torch.equal(soft, one(toy_tower("bert"), ids, "input", prompt_of_words(tower, "input")))


def test_the_shape_of_prompts(tower: TextTower) -> None:
    heads, head_dim = (2, 8) if tower.model.config.model_type == "qwen3" else (4, 8)
    assert prompt_shape(tower, "input", 5) == (1, 5, WIDTH)
    assert prompt_shape(tower, "prefix", 5) == (2, 5, 2 * heads * head_dim)


# --- prefixes against references ------------------------------------------------------------------------------------


def attention_by_hand(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """(T, width) each, 4 heads -> (T, width), one head at a time."""
    heads = []
    for head in range(4):
        part = slice(8 * head, 8 * head + 8)
        scores = q[:, part] @ k[:, part].T / 8**0.5
        scores = scores + (bias[head] if isinstance(bias, Tensor) else bias)
        heads.append(scores.softmax(dim=-1) @ v[:, part])
    return torch.cat(heads, dim=-1)


@torch.no_grad()
def test_bert_against_attention_by_hand(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert", normalize=False)
    (ids,) = tower.tokenize([TEXTS[1]], "query")
    prefix = torch.randn(2, 3, 2 * WIDTH, generator=torch.Generator().manual_seed(0))
    hidden = tower.model.embeddings(torch.tensor([ids]))
    for number, layer in enumerate(tower.model.encoder.layer):
        attention = layer.attention.self
        keys, values = prefix[number].split(WIDTH, dim=1)
        k = torch.cat([keys, attention.key(hidden)[0]])
        v = torch.cat([values, attention.value(hidden)[0]])
        context = attention_by_hand(attention.query(hidden)[0], k, v)[None]
        hidden = layer.attention.output(context, hidden)
        hidden = layer.output(layer.intermediate(hidden), hidden)
    assert torch.allclose(one(tower, ids, "prefix", prefix), hidden.mean(dim=1), atol=1e-6)


@torch.no_grad()
def test_a_copy_of_an_mpnet_that_took_a_prefix_reads_its_own_weights(toy_tower: ToyTower) -> None:
    tower = toy_tower("mpnet")
    vectors = prompt_of_words(tower, "prefix")  # replaces the forward of its attention
    made = TextTower(copy.deepcopy(tower.sentence_transformer), tower.name)
    (ids,) = tower.tokenize(["a fox"], "query")
    before = [one(tower, ids, "prefix", each) for each in (None, vectors)]
    for each, old in zip((None, vectors), before, strict=True):
        assert torch.equal(one(made, ids, "prefix", each), old)
    for module in made.model.modules():
        if type(module).__name__ == "MPNetSelfAttention":
            nn.init.zeros_(module.v.weight)
    for each, old in zip((None, vectors), before, strict=True):
        assert not torch.allclose(one(made, ids, "prefix", each), old)
        assert torch.equal(one(tower, ids, "prefix", each), old)


def test_mpnet_against_attention_by_hand(toy_tower: ToyTower) -> None:
    tower = toy_tower("mpnet", normalize=False)
    (ids,) = tower.tokenize([TEXTS[1]], "query")
    prefix = torch.randn(2, 3, 2 * WIDTH, generator=torch.Generator().manual_seed(0))
    hidden = tower.model.embeddings(torch.tensor([ids]))
    bias = tower.model.encoder.compute_position_bias(hidden)[0]  # (heads, T, T), one for all layers
    bias = nn.functional.pad(bias, (3, 0))  # a prefix has no position
    for number, layer in enumerate(tower.model.encoder.layer):
        attention = layer.attention.attn
        keys, values = prefix[number].split(WIDTH, dim=1)
        k, v = torch.cat([keys, attention.k(hidden)[0]]), torch.cat([values, attention.v(hidden)[0]])
        context = attention.o(attention_by_hand(attention.q(hidden)[0], k, v, bias)[None])
        hidden = layer.attention.LayerNorm(context + hidden)
        hidden = layer.output(layer.intermediate(hidden), hidden)
    assert torch.allclose(one(tower, ids, "prefix", prefix), hidden.mean(dim=1), atol=1e-6)


@torch.no_grad()
def test_a_causal_model_goes_on_from_recorded_tokens(toy_tower: ToyTower) -> None:
    # A causal model's keys and values do not depend on what follows: with the text's positions moved up by the
    # prefix's length, the prefix is exactly the tokens that it was recorded from
    tower = toy_tower("qwen3")
    words = tower.tokenizer(WORDS, add_special_tokens=False)["input_ids"]
    prefix = Prefix(record_prefix(tower, words), attach.attention_modules(tower))
    for ids in tower.tokenize(list(TEXTS), "query"):
        features = {
            "input_ids": torch.tensor([ids]),
            "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
            "position_ids": torch.arange(len(words), len(words) + len(ids))[None],
        }
        with attach._prefixed(tower, prefix) as arguments:
            after = tower.pool(features, **arguments)
        assert torch.allclose(after, one(tower, words + ids, "prefix", None), atol=1e-6)


@torch.no_grad()
def test_a_causal_model_against_its_own_key_value_cache(toy_tower: ToyTower) -> None:
    from transformers import DynamicCache

    tower = toy_tower("qwen3")
    prefix = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    (ids,) = tower.tokenize([TEXTS[1]], "query")
    cache = DynamicCache()
    for layer, rows in enumerate(prefix):
        keys, values = (part.view(1, 3, 2, 8).transpose(1, 2) for part in rows.split(16, dim=1))
        cache.update(keys, values, layer)
    name = "cache" if "cache" in inspect.signature(tower.model.forward).parameters else "past_key_values"  # before 5.24
    output = tower.model(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, 3 + len(ids), dtype=torch.long),
        position_ids=torch.arange(len(ids))[None],  # a prefix takes no position
        **{name: cache},
    )
    expected = nn.functional.normalize(output.last_hidden_state[:, -1], dim=-1)
    assert torch.allclose(one(tower, ids, "prefix", prefix), expected, atol=1e-6)


def test_a_prefix_has_no_order(tower: TextTower) -> None:
    prompt = prompt_of_words(tower, "prefix")
    for ids in tower.tokenize([*TEXTS, LONG], "query"):
        there, back = (one(tower, ids, "prefix", vectors) for vectors in (prompt, prompt.flip(1)))
        assert torch.allclose(there, back, atol=1e-6)
        assert (there - one(tower, ids, "prefix", None)).norm() > 1e-3


def test_every_token_sees_the_prefix(tower: TextTower) -> None:
    # Each token's own vector changes, also behind ModernBERT's window and for the first token of a causal model
    (ids,) = tower.tokenize([TEXTS[2]], "query")
    prefix = Prefix(prompt_of_words(tower, "prefix").clone(), attach.attention_modules(tower))
    tokens = torch.tensor([ids])
    with torch.no_grad():
        frozen = tower.model(input_ids=tokens).last_hidden_state
        with attach._prefixed(tower, prefix) as arguments:
            prompted = tower.model(input_ids=tokens, **arguments).last_hidden_state
    assert (frozen - prompted).norm(dim=-1).min() > 1e-3


def test_recording_a_long_prefix_in_pieces(tower: TextTower) -> None:
    tokens = tower.tokenizer(LONG, add_special_tokens=False)["input_ids"][: MAXIMUM + 5]
    whole = record_prefix(tower, tokens)
    assert whole.shape[1] == MAXIMUM + 5
    assert torch.equal(whole[:, :MAXIMUM], record_prefix(tower, tokens[:MAXIMUM]))
    assert torch.equal(whole[:, MAXIMUM:], record_prefix(tower, tokens[MAXIMUM:]))


# --- no-ops and invariants ------------------------------------------------------------------------------------------


def test_an_empty_prompt_changes_no_bit(tower: TextTower, kind: str) -> None:
    expected = [model_vector(tower, text) for text in (*TEXTS, LONG)]  # before anything is attached
    empty = torch.zeros(prompt_shape(tower, kind, 0))
    for text, frozen in zip((*TEXTS, LONG), expected, strict=True):
        (ids,) = tower.tokenize([text], "query")
        assert torch.equal(one(tower, ids, kind, empty), frozen)
        assert torch.equal(one(tower, ids, kind, None), frozen)
        assert torch.equal(model_vector(tower, text), frozen)


def test_vectors_do_not_depend_on_the_batch(tower: TextTower, kind: str) -> None:
    prompt = prompt_of_words(tower, kind)
    ids = tower.tokenize([*TEXTS, LONG], "query", prompt=attach.prompt_room(kind, prompt))
    with torch.no_grad():
        together = embed(tower, ids, "query", kind, prompt)
        backwards = embed(tower, ids[::-1], "query", kind, prompt).flip(0)
    alone = torch.cat([one(tower, row, kind, prompt) for row in ids])
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.allclose(together, backwards, atol=1e-6)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert", "qwen3"])
def test_vectors_do_not_depend_on_the_padding_side(architecture: str, kind: str, toy_tower: ToyTower) -> None:
    vectors = []
    for side in ("left", "right"):
        tower = toy_tower(architecture, padding_side=side)
        verify(tower, kind)
        prompt = prompt_of_words(tower, kind)
        with torch.no_grad():
            vectors.append(embed(tower, tower.tokenize(list(TEXTS), "query"), "query", kind, prompt))
    assert torch.equal(*vectors)


def test_frozen_vectors_of_a_left_padding_model(toy_tower: ToyTower) -> None:
    tower = toy_tower("qwen3")
    assert tower.tokenizer.padding_side == "left"
    with torch.no_grad():
        ours = embed(tower, tower.tokenize([*TEXTS, LONG], "query"), "query", "input", None)
    theirs = tower.sentence_transformer.encode([*TEXTS, LONG], convert_to_tensor=True)
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_gradients_reach_every_vector_and_no_weight(tower: TextTower, kind: str) -> None:
    prompt = prompt_of_words(tower, kind).requires_grad_()
    ids = tower.tokenize([TEXTS[1], TEXTS[2]], "query")
    (embed(tower, ids, "query", kind, prompt) * torch.linspace(-1, 1, WIDTH)).sum().backward()
    assert prompt.grad is not None
    assert (prompt.grad.abs().sum(dim=2) > 0).all()
    assert all(weight.grad is None for weight in tower.sentence_transformer.parameters())


def test_gradients_of_a_batch_are_the_sum_of_its_texts(tower: TextTower, kind: str) -> None:
    prompt = prompt_of_words(tower, kind).requires_grad_()
    ids = tower.tokenize(list(TEXTS), "query")
    directions = torch.randn(len(ids), WIDTH, generator=torch.Generator().manual_seed(0))

    def gradient(*rows: int) -> Tensor:
        vectors = embed(tower, [ids[row] for row in rows], "query", kind, prompt)
        return torch.autograd.grad((vectors * directions[list(rows)]).sum(), prompt)[0]

    alone = sum((gradient(row) for row in range(len(ids))), torch.zeros_like(prompt))
    assert torch.allclose(gradient(*range(len(ids))), alone, rtol=1e-3, atol=1e-4 * float(alone.abs().max()))


@pytest.mark.parametrize("architecture", ["bert", "mpnet"])  # the others compute some of it in float32
def test_gradients_agree_with_differences(architecture: str, kind: str, toy_tower: ToyTower) -> None:
    tower = toy_tower(architecture)
    tower.sentence_transformer.double()
    prompt = prompt_of_words(tower, kind).double().requires_grad_()
    ids = tower.tokenize(["the fox", TEXTS[1]], "query")
    direction = torch.linspace(-1, 1, WIDTH, dtype=torch.float64)

    def value(vectors: Tensor) -> Tensor:
        return (embed(tower, ids, "query", kind, vectors) * direction).sum()

    assert torch.autograd.gradcheck(value, (prompt,), fast_mode=True)


# --- models that are refused ----------------------------------------------------------------------------------------


def refusal(tower: TextTower, kind: str) -> str:
    with pytest.raises(UserError) as error:
        verify(tower, kind)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_towers_pass(tower: TextTower, kind: str) -> None:
    verify(tower, kind)


class BatchMean(nn.Module):
    """A head that lets every text of a batch into every vector."""

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        vectors = features["sentence_embedding"]
        features["sentence_embedding"] = vectors + (vectors.mean(dim=0) - vectors) * 0.5
        return features


def test_a_model_that_mixes_its_batch_is_refused(toy_tower: ToyTower, kind: str) -> None:
    modules = [*toy_tower("bert").sentence_transformer, BatchMean()]
    message = refusal(TextTower(SentenceTransformer(modules=modules, device="cpu"), "mixer"), kind)
    assert message.startswith(f"model mixer cannot take {kind} prompts: a vector depends on its batch mates (relative ")


class Noise(nn.Module):
    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        features["sentence_embedding"] = features["sentence_embedding"] + torch.randn(1)
        return features


def test_a_model_that_is_random_is_refused(toy_tower: ToyTower, kind: str) -> None:
    modules = [*toy_tower("bert").sentence_transformer, Noise()]
    tower = TextTower(SentenceTransformer(modules=modules, device="cpu"), "noise")
    assert refusal(tower, kind) == f"model noise cannot take {kind} prompts: an empty prompt changes its vectors"


class FirstToken(nn.Module):
    """Pooling that reads what no token can change: the input rows of the first token."""

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        rows = features["token_embeddings"]
        features["sentence_embedding"] = rows[:, 0].detach() + 0 * rows[:, 0]
        return features


def test_a_model_that_does_not_read_the_prompt_is_refused(toy_tower: ToyTower, kind: str) -> None:
    tower = toy_tower("bert")
    modules = [tower.transformer, FirstToken()]
    blind = TextTower(SentenceTransformer(modules=modules, device="cpu"), "blind")
    total = 3 if kind == "input" else 6
    assert refusal(blind, kind) == (
        f"model blind cannot take {kind} prompts: only 0 of {total} prompt vectors reach the model's output"
    )


def other_tower(network: Any, toy_tower: ToyTower) -> TextTower:
    """A toy BERT's tokenizer, pooling and name around another network."""
    model = toy_tower("bert").sentence_transformer
    model[0].model = network.eval()
    return TextTower(model, "other")


def test_relative_positions_of_t5(toy_tower: ToyTower, kind: str) -> None:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=121, d_model=WIDTH, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    tower = other_tower(T5EncoderModel(config), toy_tower)
    if kind == "prefix" and tower.model.config._attn_implementation != "sdpa":  # transformers 5.0
        with pytest.raises(UserError, match=r"takes no prefix: its attention is 'eager', expected 'sdpa'"):
            verify(tower, kind)
        return
    verify(tower, kind)


def test_albert_takes_no_prefix(toy_tower: ToyTower) -> None:
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(
        vocab_size=121,
        embedding_size=WIDTH,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
    )
    tower = other_tower(AlbertModel(config), toy_tower)
    verify(tower, "input")
    assert refusal(tower, "prefix") == (
        "model other takes no prefix: its layers share one attention module; use --kind input"
    )


def test_another_attention_takes_no_prefix(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert")
    tower.model.set_attn_implementation("eager")
    assert refusal(tower, "prefix") == (
        f"model {tower.name} takes no prefix: its attention is 'eager', expected 'sdpa'; load it with "
        "attn_implementation='sdpa' or use --kind input"
    )


def test_another_attention_is_not_shown(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert")
    tower.model.set_attn_implementation("eager")
    rows = tower.tokenize(list(TEXTS[:1]), "query")
    with pytest.raises(UserError) as refused:
        attention(tower, rows, "query", "input", torch.zeros(1, 1, tower.width))
    assert str(refused.value) == (
        f"model {tower.name} does not show it: its attention is 'eager', expected 'sdpa'; load it with "
        "attn_implementation='sdpa'"
    )


# --- attention ------------------------------------------------------------------------------------------------------


def test_attention_to_words_is_that_of_the_model(tower: TextTower) -> None:
    """The tokens of real words as a prompt get what the same words get in the text, by the library's own account."""
    prompt = prompt_of_words(tower, "input")
    lead, length = tower.lead, prompt.shape[1]
    words = tower.tokenizer(WORDS, add_special_tokens=False)["input_ids"]
    rows = tower.tokenize(list(TEXTS[:3]), "query")
    paid = attention(tower, rows, "query", "input", prompt)
    eager = copy.deepcopy(tower.model)
    eager.set_attn_implementation("eager")
    for at, ids in enumerate(rows):
        hard = torch.tensor([ids[:lead] + words + ids[lead:]])
        with torch.no_grad():
            found = eager(input_ids=hard, attention_mask=torch.ones_like(hard), output_attentions=True).attentions
        weights = torch.stack(found)[:, 0].mean(dim=1)[:, :, lead : lead + length]  # (layers, tokens, prompt)
        own = torch.cat([weights[:, :lead], weights[:, lead + length :]], dim=1)
        assert torch.allclose(paid[:, at], own.mean(dim=1), atol=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert"])
def test_attention_to_a_prefix_of_the_texts_own_keys(toy_tower: ToyTower, architecture: str) -> None:
    """In the first layer each token has its own key twice, so half of all attention goes to the prefix."""
    tower = toy_tower(architecture)
    ids = tower.tokenize([TEXTS[1]], "query")
    paid = attention(tower, [*ids, ids[0][:3]], "query", "prefix", record_prefix(tower, ids[0]))
    assert torch.allclose(paid[0, 0].sum(), torch.tensor(0.5), atol=1e-5)
    assert paid.shape == (2, 2, len(ids[0]))


def test_attention_to_prefixes_of_every_architecture(tower: TextTower) -> None:
    prefix = initial_vectors(tower, "prefix", 3, "vocab", 0)
    rows = tower.tokenize(list(TEXTS[:3]), "query")
    together = attention(tower, rows, "query", "prefix", prefix)
    for at, ids in enumerate(rows):
        alone = attention(tower, [ids], "query", "prefix", prefix)
        assert torch.allclose(together[:, at], alone[:, 0], atol=1e-5)
    assert torch.all(together > 0) and torch.all(together.sum(dim=2) < 1)
