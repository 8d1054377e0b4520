"""The precision of a step's products."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from retrieval_prompts.training import task
from retrieval_prompts.training.task import Task, fast_bfloat16, times_as_fast

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    fast_bfloat16.cache_clear()
    yield
    fast_bfloat16.cache_clear()


@pytest.mark.parametrize(("amx", "times", "taken"), [(True, 0.2, False), (False, 8.0, False), (True, 8.0, True)])
def test_auto_is_what_was_measured(monkeypatch: pytest.MonkeyPatch, amx: bool, times: float, taken: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(task, "times_as_fast", lambda: times)
    assert Task(CPU, "auto", 0).bfloat16 is taken
    assert Task(CPU, "bfloat16", 0).bfloat16 and not Task(CPU, "float32", 0).bfloat16
    monkeypatch.setattr(task, "times_as_fast", lambda: 1 / times)
    assert Task(CPU, "auto", 0).bfloat16 is taken  # once a process


def test_products_are_measured() -> None:
    assert 0 < times_as_fast() < 1000
