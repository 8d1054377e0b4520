"""A pool of this process alone, as Ray would have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from retrieval_prompts.interop.scale import pool


def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are done here, one after the other."""

    @contextmanager
    def started(wanted: pool.Wanted) -> Iterator[pool.Pool]:
        yield pool.Pool(1, 0)

    def answers(items: Any, make: Callable[[], pool.Work], pool: pool.Pool) -> Iterator[str]:
        yield from map(make(), items)

    monkeypatch.setattr(pool, "check_installed", lambda: None)
    monkeypatch.setattr(pool, "started", started)
    monkeypatch.setattr(pool, "answers", answers)
