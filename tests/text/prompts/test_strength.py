"""Strength: one rule for all that is mixed, in the order of operations in which it always was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.strength import between, checked


def test_between_two_vectors() -> None:
    one, other = np.array([[1, 0]], dtype=np.float32), np.array([[0, 1]], dtype=np.float32)
    assert between(one, other, 0.25, unit=False) == pytest.approx(np.array([[0.75, 0.25]]))
    unit = np.array([[0.75, 0.25]]) / np.sqrt(0.75**2 + 0.25**2)
    assert between(one, other, 0.25) == pytest.approx(unit)
    for lerp in (False, True):
        assert between(torch.from_numpy(one), torch.from_numpy(other), 0.25, lerp=lerp).numpy() == pytest.approx(unit)


@pytest.mark.parametrize("strength", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_the_last_bits_are_those_of_the_arithmetic(strength: float) -> None:
    a, b = torch.randn(2, 50, 7, generator=torch.Generator().manual_seed(0))
    line = (1 - strength) * a + strength * b
    assert torch.equal(between(a, b, strength, unit=False), line)
    assert torch.equal(between(a, b, strength), normalize(line, dim=-1))
    assert torch.equal(between(a, b, strength, lerp=True), normalize(torch.lerp(a, b, strength), dim=-1))
    mixed = between(a.numpy(), b.numpy(), strength)
    expected = line.numpy() / np.maximum(np.linalg.norm(line.numpy(), axis=1, keepdims=True), 1e-12)
    assert mixed.dtype == np.float32 and np.array_equal(mixed, expected)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_what_is_no_strength_is_refused(strength: float) -> None:
    assert checked(1) == 1.0 and checked(0) == 0.0
    with pytest.raises(UserError) as error:
        checked(strength)
    assert str(error.value) == f"strength must be from 0 (the frozen model) to 1 (the whole prompt), got {strength}"
