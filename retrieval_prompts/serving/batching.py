"""Requests -> batches: what arrives while one batch is worked on makes up the next. Knows nothing of texts or HTTP.

Nobody waits for a batch to fill: alone, a request is a batch of its own at once; under load batches grow by themselves.
Several batches at a time keep several cores busy, which the matrix products of one small batch do not.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

AT_ONCE = 4  # batches, by default


def share_cores(batches: int | None, device: str) -> int:
    """How many batches to work on at a time; from now on PyTorch gives each its share of the threads.

    Args:
        batches: None: one for each thread of PyTorch, at most AT_ONCE; one where the device is no CPU.
    """
    import torch

    if device != "cpu":
        return batches or 1
    threads = torch.get_num_threads()
    batches = batches or min(threads, AT_ONCE)
    torch.set_num_threads(max(1, threads // batches))
    return batches


class Full(Exception):
    """As many rows wait as may."""


@dataclass(eq=False)
class Job:
    """The rows of one request, and what came of them so far."""

    rows: Sequence[Any]
    future: asyncio.Future[list[Any]]
    results: dict[int, Any] = field(default_factory=dict)


class Batcher:
    """Has rows worked on in the order of their arrival, several at a time.

    Args:
        work: rows -> what comes of each. Where it fails for several rows, each is tried by itself, so that none suffers
            from what is wrong with another; where all succeed then, what went wrong is printed.
        most: rows of a batch; `at_once`: batches, each in a thread; `waiting`: rows that may wait.
        done: called with the rows of each batch and the seconds it took.

    Its methods are for the thread of the event loop.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Any]], Sequence[Any]],
        *,
        most: int,
        at_once: int = 1,
        waiting: int,
        done: Callable[[int, float], object] = lambda rows, seconds: None,
    ) -> None:
        self._work, self._most, self._waiting, self._done = work, most, waiting, done
        self._queue: deque[tuple[Job, int]] = deque()
        self._filled = asyncio.Event()
        self._threads, self._at_once = ThreadPoolExecutor(at_once, "batches"), at_once
        self._since: dict[int, float] = {}  # worker -> when its batch began

    def __len__(self) -> int:
        """The rows that wait."""
        return len(self._queue)

    @property
    def busy(self) -> float:
        """For how many seconds the oldest batch has been worked on; 0 without one."""
        return asyncio.get_running_loop().time() - min(self._since.values()) if self._since else 0.0

    def submit(self, rows: Sequence[Any]) -> asyncio.Future[list[Any]]:
        """What will come of the rows, in their order; cancelled, they leave the queue. Raises Full.

        The future raises what the work on the first row that failed has raised.
        """
        if len(self._queue) + len(rows) > self._waiting:
            raise Full
        job = Job(rows, asyncio.get_running_loop().create_future())
        job.future.add_done_callback(lambda _: self._forget(job))
        self._queue.extend((job, place) for place in range(len(rows)))
        self._filled.set()
        return job.future

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for worker in range(self._at_once):
                    group.create_task(self._batches(worker))
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _batches(self, worker: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._filled.wait()
            batch = [self._queue.popleft() for _ in range(min(self._most, len(self._queue)))]
            if not batch:
                self._filled.clear()
                continue
            began = self._since[worker] = loop.time()
            rows = [job.rows[place] for job, place in batch]
            results = await loop.run_in_executor(self._threads, self._tried, rows)
            del self._since[worker]
            self._done(len(batch), loop.time() - began)
            for (job, place), result in zip(batch, results, strict=True):
                self._deliver(job, place, result)

    def _tried(self, rows: Sequence[Any]) -> Sequence[Any]:
        try:
            return self._work(rows)
        except Exception as error:
            if len(rows) == 1:
                return [error]
            results = [result for row in rows for result in self._tried([row])]
            if not any(isinstance(result, Exception) for result in results):  # else it is said to who asked
                traceback.print_exception(error, file=sys.stderr)
            return results

    def _deliver(self, job: Job, place: int, result: Any) -> None:
        if job.future.done():
            return
        job.results[place] = result
        if isinstance(result, Exception):
            job.future.set_exception(result)
        elif len(job.results) == len(job.rows):
            job.future.set_result([job.results[each] for each in range(len(job.rows))])

    def _forget(self, job: Job) -> None:
        """Take what still waits of a job that was given up, or has failed, out of the queue."""
        if len(job.results) < len(job.rows):
            self._queue = deque(each for each in self._queue if each[0] is not job)
