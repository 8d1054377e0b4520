"""Jobs that go to a pool of workers, each with an answer; what is a mistake on a worker is one here."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from tqdm import tqdm

from retrieval_prompts.errors import UserError, first_line
from retrieval_prompts.interop.scale import pool

Job = Callable[[dict[str, Any]], Mapping[str, Any]]  # both as JSON has them


def done(
    jobs: Sequence[Mapping[str, Any]], make: Callable[[], Job], machines: pool.Pool, said: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, what came of it) of each job, as they come.

    Args:
        make: called by each worker, once: what it does with a job.
        said: what is done, for the bar.

    Raises:
        UserError: as the first worker that did.
    """
    items = [json.dumps({"number": number, "job": job}) for number, job in enumerate(jobs)]
    bar = tqdm(total=len(items), desc=said, unit="shard", delay=1, mininterval=0.5)
    with bar, contextlib.closing(pool.answers(items, partial(_work, make), machines)) as found:
        for answer in map(json.loads, found):
            if "error" in answer:
                raise UserError(answer["error"])
            yield answer["number"], answer["answer"]
            bar.update()


def _work(make: Callable[[], Job]) -> pool.Work:
    job = make()

    def work(item: str) -> str:
        given = json.loads(item)
        try:
            answer = job(given["job"])
        except (UserError, OSError) as error:
            return json.dumps({"error": first_line(error)})
        return json.dumps({"number": given["number"], "answer": answer})

    return work
