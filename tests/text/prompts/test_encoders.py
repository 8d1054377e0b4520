"""Prompt encoders: where they start, what they compute, what they share."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import pytest
import torch

from retrieval_prompts.prompts.encoders import ENCODERS, PromptLSTM, PromptMLP, PromptSum, PromptTable, fingerprint

INITIAL = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))  # (layers, length, width)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_encoder_starts_exactly_at_its_initial_vectors(encoder: str) -> None:
    initial = INITIAL.clone()
    made = ENCODERS[encoder](initial)
    assert torch.equal(made(), INITIAL)
    with torch.no_grad():
        next(made.parameters()).add_(1)
    assert torch.equal(initial, INITIAL), "the encoder owns its parameters"


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_parameter_learns(encoder: str) -> None:
    torch.manual_seed(0)
    made = ENCODERS[encoder](INITIAL)
    before = {name: value.clone() for name, value in made.named_parameters()}
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    for _ in range(2):  # the last layer starts at zero: what is below it learns from the second step on
        optimizer.zero_grad()
        (made() - 1).square().sum().backward()
        optimizer.step()
    moved = {name for name, value in made.named_parameters() if not torch.equal(value, before[name])}
    assert moved == set(before)


def test_mlp_by_hand() -> None:
    mlp = PromptMLP(INITIAL, hidden=2)
    with torch.no_grad():
        mlp.positions.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
        mlp.hidden.weight.copy_(torch.eye(2) * 10)  # tanh saturates at 1
        mlp.hidden.bias.zero_()
        mlp.output.weight[:, 0] = torch.arange(8.0)  # what position 0 adds: layer by layer, then along the width
        mlp.output.weight[:, 1] = 100.0
    delta = mlp() - INITIAL
    assert torch.allclose(delta[:, 0], torch.arange(8.0).view(2, 4))
    assert torch.allclose(delta[:, 1], torch.full((2, 4), 100.0))
    assert torch.allclose(delta[:, 2], torch.zeros(2, 4), atol=1e-6)


def test_lstm_positions_see_each_other() -> None:
    torch.manual_seed(0)
    lstm = PromptLSTM(INITIAL, hidden=4)
    torch.nn.init.normal_(lstm.output.weight)
    (gradient,) = torch.autograd.grad(lstm()[:, 1].sum(), lstm.positions)
    assert (gradient.abs().sum(dim=1) > 0).all(), "position 1 depends on those before and after it"


def test_a_common_part_is_shared() -> None:
    common = PromptTable(torch.zeros_like(INITIAL))
    own = {"query": PromptTable(INITIAL), "document": PromptTable(-INITIAL)}
    query, document = (PromptSum(table, common) for table in own.values())
    assert torch.equal(query(), INITIAL)
    assert torch.equal(document(), -INITIAL)
    (2 * query().sum() + 3 * document().sum()).backward()
    gradients: list[Any] = [table.vectors.grad for table in (*own.values(), common)]
    assert [gradient.unique().tolist() for gradient in gradients] == [[2], [3], [5]], "the sum of both sides'"
    with torch.no_grad():
        common.vectors.add_(1)
    assert torch.allclose(query() + document(), torch.full_like(INITIAL, 2))


def test_fingerprint_is_of_kind_shape_and_values() -> None:
    same = fingerprint("input", INITIAL)
    assert same == fingerprint("input", torch.nn.Parameter(INITIAL.double()))
    assert same == fingerprint("input", INITIAL.transpose(1, 2).contiguous().transpose(1, 2))
    changed = INITIAL.clone()
    changed[1, 2, 3] += 1e-6
    others = [("prefix", INITIAL), ("input", INITIAL.view(1, 6, 4)), ("input", changed)]
    assert len({same, *(fingerprint(kind, vectors) for kind, vectors in others)}) == 4


def test_fingerprint_does_not_change_with_this_code() -> None:
    content = b"input (1, 1, 2) " + struct.pack("<2f", 1, -2)  # saved prompt folders hold its hash
    assert fingerprint("input", torch.tensor([[[1.0, -2.0]]])) == hashlib.sha256(content).hexdigest()
