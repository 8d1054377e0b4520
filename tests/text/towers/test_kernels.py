"""Plain attention is torch's own by its backend MATH, bit for bit, and in the thread that asks for it alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from threads import at_once
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from retrieval_prompts.towers.kernels import attention_kernel

MASKS = ("none", "bool", "float", "causal", "grouped")


def _given(mask: str) -> tuple[Any, Any]:
    draw = torch.Generator().manual_seed(0)
    heads = (8, 2, 2) if mask == "grouped" else (8, 8, 8)
    rows = [torch.randn(3, each, 20, 16, generator=draw).requires_grad_() for each in heads]
    options: Any = {"is_causal": mask == "causal", "enable_gqa": mask == "grouped"}
    if mask == "bool":
        options["attn_mask"] = torch.rand(3, 1, 20, 20, generator=draw) > 0.2
    if mask == "float":
        options["attn_mask"] = torch.randn(3, 1, 20, 20, generator=draw)
    return rows, options


def _run(mask: str, context: Any, half: bool) -> list[torch.Tensor]:
    rows, options = _given(mask)
    with context, torch.autocast("cpu", torch.bfloat16, enabled=half):
        found = functional.scaled_dot_product_attention(*rows, **options)
    return [found, *torch.autograd.grad(found.float().pow(2).sum(), rows)]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("mask", MASKS)
def test_plain_attention_is_that_of_torchs_backend(mask: str, half: bool) -> None:
    expected, found = _run(mask, sdpa_kernel(SDPBackend.MATH), half), _run(mask, attention_kernel(True), half)
    assert found[0].dtype == expected[0].dtype
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_other_threads_go_on_as_they_were() -> None:
    fused, plain = _run("bool", attention_kernel(False), False), _run("bool", attention_kernel(True), False)
    assert not all(torch.equal(one, other) for one, other in zip(fused, plain, strict=True)), "or nothing is tested"
    calls = [lambda: _run("bool", attention_kernel(True), False), lambda: _run("bool", attention_kernel(False), False)]
    for expected, row in zip((plain, fused), at_once(calls, times=20), strict=True):
        assert all(torch.equal(*pair) for found in row for pair in zip(expected, found, strict=True))
