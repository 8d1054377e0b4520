"""A command is killed before another write, rename or delete each time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from faults.forks import fresh, run
from faults.trials import Trial, disturbed

KIND = "SIGKILL before a write, rename or delete"


def at_event(number: int, what: Callable[[], object]) -> None:
    """Do something in this process before its write, rename or delete of this number, from 1; 0: before each."""
    from retrieval_prompts.files import writing

    seen = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def before(*arguments: Any, **options: Any) -> Any:
            nonlocal seen
            seen += 1
            if number in (0, seen):
                what()
            return function(*arguments, **options)

        return before

    for module, name in ((os, "replace"), (os, "unlink"), (os, "rmdir"), (os, "fsync"), (writing, "_exchange")):
        setattr(module, name, counted(getattr(module, name)))


def killed(inputs: Path, work: Path, name: str, overwrite: bool, first: int, step: int) -> Iterator[Trial]:
    """Before the events first, first + step ... of a command, until it ends by itself."""
    run_ = disturbed(KIND, inputs, work, name, overwrite)
    event = first
    while True:
        folder = fresh(work / "work", like=run_.before)
        ended = run(run_.command, folder, partial(at_event, event, _kill))
        if ended.code == 0:
            return
        yield run_.judged(folder, ended, {-signal.SIGKILL})
        event += step


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
