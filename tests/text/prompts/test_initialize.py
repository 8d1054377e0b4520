"""Where prompts start: the rows of real words, and samples."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from toys import WIDTH

from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.initialize import initial_vectors
from retrieval_prompts.prompts.settings import PromptSettings
from retrieval_prompts.towers.injection import record_prefix
from retrieval_prompts.towers.text import TextTower

ToyTower = Callable[..., TextTower]


def token_rows(tower: TextTower, kind: str, tokens: list[int]) -> torch.Tensor:
    return tower.embeddings.weight[tokens][None] if kind == "input" else record_prefix(tower, tokens)


def test_a_text_is_cut_or_repeated(tower: TextTower, kind: str) -> None:
    tokens = tower.tokenizer("the quick fox", add_special_tokens=False)["input_ids"]
    count = len(tokens)
    for length in (1, count - 1, count, count + 1, 2 * count, 3 * count + 2):
        repeated = (tokens * 4)[:length]
        made = initial_vectors(tower, kind, length, "text:the quick fox", 0)
        assert torch.equal(made, token_rows(tower, kind, repeated))
        assert made.shape[1] == length


def test_a_prefix_of_a_text_is_the_models_keys_and_values(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert")
    tokens = tower.tokenizer("the quick fox", add_special_tokens=False)["input_ids"]
    made = initial_vectors(tower, "prefix", 3, "text:the quick fox", 0)
    hidden = tower.model(input_ids=torch.tensor([tokens]), output_hidden_states=True).hidden_states
    for layer, module in enumerate(tower.model.encoder.layer):
        expected = [part(hidden[layer][0]) for part in (module.attention.self.key, module.attention.self.value)]
        assert torch.equal(made[layer], torch.cat(expected, dim=1))


def test_vocab_takes_rows_of_words(tower: TextTower) -> None:
    table = tower.embeddings.weight
    made = initial_vectors(tower, "input", 300, "vocab", 0)[0]
    tokens = [(table == row).all(dim=1).nonzero().item() for row in made]
    assert not set(tokens) & set(tower.tokenizer.all_special_ids)
    names = tower.tokenizer.convert_ids_to_tokens([int(token) for token in tokens])
    assert not [name for name in names if name.startswith("<") and name.endswith(">")]
    assert len(set(tokens)) > 50


@pytest.mark.parametrize("init", ["vocab", "gaussian"])
def test_samples_are_seeded(tower: TextTower, kind: str, init: str) -> None:
    state = torch.get_rng_state()
    made = initial_vectors(tower, kind, 5, init, 7)
    assert torch.equal(made, initial_vectors(tower, kind, 5, init, 7))
    assert not torch.equal(made, initial_vectors(tower, kind, 5, init, 8))
    assert torch.equal(torch.get_rng_state(), state), "the global generator is not used"


def test_gaussian_has_the_tables_mean_and_deviation(toy_tower: ToyTower) -> None:
    tower = toy_tower("bert")
    with torch.no_grad():  # each column at a place and a scale of its own
        scale = torch.linspace(0.1, 3, WIDTH)
        tower.embeddings.weight.copy_(torch.randn_like(tower.embeddings.weight) * scale + scale.flip(0))
    made, table = initial_vectors(tower, "input", 4000, "gaussian", 0)[0], tower.embeddings.weight
    assert ((made.mean(dim=0) - table.mean(dim=0)) / table.std(dim=0)).abs().max() < 0.3  # of 256 sampled rows
    assert torch.allclose(made.std(dim=0) / table.std(dim=0), torch.ones(WIDTH), atol=0.2)
    correlation = torch.corrcoef(made.T) - torch.eye(WIDTH)
    assert correlation.abs().max() < 0.1


def test_gaussian_prefixes_are_at_each_layers_own_scale(tower: TextTower) -> None:
    made = initial_vectors(tower, "prefix", 2000, "gaussian", 0)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(10, len(tower.tokenizer), (1000,), generator=generator).tolist()
    real = record_prefix(tower, tokens)
    for layer in range(2):
        ratio = made[layer].std(dim=0) / real[layer].std(dim=0)
        assert 0.8 < ratio.median() < 1.25
        assert (made[layer].mean(dim=0) - real[layer].mean(dim=0)).abs().max() < real[layer].std()


def test_vectors_are_float32_and_own_their_memory(tower: TextTower, kind: str) -> None:
    before = tower.embeddings.weight.clone()
    made = initial_vectors(tower, kind, 4, "text:the fox", 0)
    assert made.dtype == torch.float32
    assert not made.requires_grad
    made += 1
    assert torch.equal(tower.embeddings.weight, before)


@pytest.mark.parametrize(
    ("init", "length", "message"),
    [
        ("text:", 4, "--init 'text:' has no words; write --init 'text:retrieve evidence for this claim'"),
        ("text: \n", 4, "--init 'text: \\n' has no words; write --init 'text:retrieve evidence for this claim'"),
        ("random", 4, "--init must be text:WORDS, vocab or gaussian, got 'random'"),
        ("Vocab", 4, "--init must be text:WORDS, vocab or gaussian, got 'Vocab'"),
        ("vocab", 0, "--length must be 1 or more, got 0"),
        ("vocab", -3, "--length must be 1 or more, got -3"),
    ],
)
def test_mistakes(init: str, length: int, message: str, toy_tower: ToyTower, kind: str) -> None:
    with pytest.raises(UserError) as error:
        chosen = PromptSettings(kind=kind, length=length, init=init)
        initial_vectors(toy_tower("bert"), kind, chosen.length, chosen.init, 0)
    assert str(error.value) == message
