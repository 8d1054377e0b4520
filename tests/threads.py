"""Calls in many threads at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any


def at_once(calls: Sequence[Callable[[], Any]], times: int = 1) -> list[list[Any]]:
    """Each call in a thread of its own, `times` times over; its results. Threads change places often."""
    start, before = Barrier(len(calls)), sys.getswitchinterval()

    def run(call: Callable[[], Any]) -> list[Any]:
        start.wait()
        return [call() for _ in range(times)]

    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(len(calls)) as pool:
            return [each.result() for each in [pool.submit(run, call) for call in calls]]
    finally:
        sys.setswitchinterval(before)
