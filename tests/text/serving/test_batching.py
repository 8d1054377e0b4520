"""Requests become batches: order, room, errors and cancelled requests. The work here is arithmetic."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from threading import Barrier, Event
from typing import Any

import pytest
import torch

from retrieval_prompts.serving.batching import AT_ONCE, Batcher, Full, share_cores


class Slow:
    """Ten times each number, once it may; negative numbers are refused."""

    def __init__(self) -> None:
        self.may, self.begun, self.batches = Event(), Event(), []  # type: ignore[var-annotated]

    def __call__(self, rows: Sequence[int]) -> list[int]:
        self.batches.append(list(rows))
        self.begun.set()
        self.may.wait(10)
        if bad := [row for row in rows if row < 0]:
            raise ValueError(f"negative: {bad}")
        return [10 * row for row in rows]


def tried(test: Callable[[Batcher, Slow], Awaitable[None]]) -> None:
    """Run a test while a batch, of the number 0, is worked on."""

    async def run() -> None:
        slow = Slow()
        batcher = Batcher(slow, most=4, waiting=10)
        working = asyncio.create_task(batcher.run())
        first = batcher.submit([0])
        await asyncio.to_thread(slow.begun.wait, 10)
        try:
            await test(batcher, slow)
            assert await first == [0]
        finally:
            slow.may.set()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    asyncio.run(run())


def test_what_comes_while_a_batch_is_worked_on_makes_the_next_one() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        futures = [batcher.submit(rows) for rows in ([1], [2, 3], [4, 5, 6])]
        assert len(batcher) == 6
        slow.may.set()
        assert await asyncio.gather(*futures) == [[10], [20, 30], [40, 50, 60]]
        assert slow.batches == [[0], [1, 2, 3, 4], [5, 6]]

    tried(test)


def test_several_batches_are_worked_on_at_a_time() -> None:
    """Each waits for the other: one after the other, neither would end."""
    both = Barrier(2, timeout=10)

    def work(rows: Sequence[int]) -> list[int]:
        both.wait()
        return [10 * row for row in rows]

    async def run() -> None:
        batcher = Batcher(work, most=2, at_once=2, waiting=10)
        futures = [batcher.submit(rows) for rows in ([1], [2, 3], [4])]
        working = asyncio.create_task(batcher.run())
        assert await asyncio.gather(*futures) == [[10], [20, 30], [40]]
        assert batcher.busy == 0
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    asyncio.run(run())


def test_busy_is_the_time_of_the_oldest_batch() -> None:
    async def run() -> None:
        slow = Slow()
        batcher = Batcher(slow, most=1, at_once=2, waiting=10)
        working = asyncio.create_task(batcher.run())
        futures = [batcher.submit([1])]
        await asyncio.to_thread(slow.begun.wait, 10)
        since = batcher.busy
        futures.append(batcher.submit([2]))
        while len(slow.batches) < 2:
            await asyncio.sleep(0.001)
        assert batcher.busy > since > 0
        slow.may.set()
        assert await asyncio.gather(*futures) == [[10], [20]]
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("threads", "asked", "batches", "each"),
    [(1, None, 1, 1), (2, None, 2, 1), (16, None, AT_ONCE, 4), (8, 3, 3, 2), (2, 8, 8, 1)],
)
def test_batches_share_the_threads(
    monkeypatch: pytest.MonkeyPatch, threads: int, asked: int | None, batches: int, each: int
) -> None:
    found: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    assert share_cores(asked, "cpu") == batches
    assert found == [each]
    assert share_cores(asked, "cuda") == (asked or 1)
    assert len(found) == 1


def test_without_room_a_request_is_refused_whole() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        waits = batcher.submit([1] * 8)
        with pytest.raises(Full):
            batcher.submit([2] * 3)
        assert len(batcher) == 8
        fits = batcher.submit([2] * 2)
        slow.may.set()
        assert await waits == [10] * 8
        assert await fits == [20] * 2

    tried(test)


def test_an_error_is_that_of_its_own_request() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        good, bad, other = batcher.submit([1]), batcher.submit([-1, 2]), batcher.submit([3])
        slow.may.set()
        results: list[Any] = await asyncio.gather(good, bad, other, return_exceptions=True)
        assert results[0] == [10] and results[2] == [30]
        assert str(results[1]) == "negative: [-1]"

    tried(test)


def test_a_request_that_was_given_up_is_not_worked_on() -> None:
    async def test(batcher: Batcher, slow: Slow) -> None:
        gone, stays = batcher.submit([1, 2, 3]), batcher.submit([4])
        gone.cancel()
        await asyncio.sleep(0)
        assert len(batcher) == 1
        slow.may.set()
        assert await stays == [40]
        assert slow.batches == [[0], [4]]

    tried(test)


def test_what_fails_together_alone_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    def work(rows: Sequence[int]) -> Sequence[int]:
        if len(rows) > 1:
            raise MemoryError("too many at once")
        return rows

    async def run() -> None:
        batcher = Batcher(work, most=4, waiting=10)
        both = batcher.submit([1]), batcher.submit([2])
        working = asyncio.create_task(batcher.run())
        assert list(await asyncio.gather(*both)) == [[1], [2]]
        working.cancel()

    asyncio.run(run())
    assert "MemoryError: too many at once" in capsys.readouterr().err
