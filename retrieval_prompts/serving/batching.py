"""Requests -> batches: what arrives while one batch is worked on makes up the next. Knows nothing of texts or HTTP.

Nobody waits for a batch to fill: alone, a request is a batch of its own at once; under load batches grow by themselves.
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


class Full(Exception):
    """As many rows wait as may."""


@dataclass(eq=False)
class Job:
    """The rows of one request, and what came of them so far."""

    rows: Sequence[Any]
    future: asyncio.Future[list[Any]]
    results: dict[int, Any] = field(default_factory=dict)


class Batcher:
    """Has rows worked on in one thread, in the order of their arrival, several at a time.

    Args:
        work: rows -> what comes of each. Where it fails for several rows, each is tried by itself, so that none suffers
            from what is wrong with another; where all succeed then, what went wrong is printed.
        most: rows of a batch; `waiting`: rows that may wait.
        done: called with the rows of each batch and the seconds it took.

    Its methods are for the thread of the event loop.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Any]], Sequence[Any]],
        *,
        most: int,
        waiting: int,
        done: Callable[[int, float], object] = lambda rows, seconds: None,
    ) -> None:
        self._work, self._most, self._waiting, self._done = work, most, waiting, done
        self._queue: deque[tuple[Job, int]] = deque()
        self._filled = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "batches")
        self._since: float | None = None

    def __len__(self) -> int:
        """The rows that wait."""
        return len(self._queue)

    @property
    def busy(self) -> float:
        """For how many seconds the present batch has been worked on; 0 without one."""
        return 0.0 if self._since is None else asyncio.get_running_loop().time() - self._since

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
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._filled.wait()
                batch = [self._queue.popleft() for _ in range(min(self._most, len(self._queue)))]
                if not batch:
                    self._filled.clear()
                    continue
                self._since = loop.time()
                rows = [job.rows[place] for job, place in batch]
                results = await loop.run_in_executor(self._thread, self._tried, rows)
                self._done(len(batch), self.busy)
                self._since = None
                for (job, place), result in zip(batch, results, strict=True):
                    self._deliver(job, place, result)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

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
