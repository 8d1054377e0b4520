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
POWER = "power loss: what was not synced is lost"
State = tuple[int, int, int, int]
synced: set[State] = set()  # of this process: the files that are surely on the disk, with the content of that time


def at_event(number: int, what: Callable[[], object]) -> None:
    """Do something in this process before its write, rename or delete of this number, from 1; 0: before each."""
    from retrieval_prompts.files import writing

    seen, sync = 0, os.fsync

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def before(*arguments: Any, **options: Any) -> Any:
            nonlocal seen
            seen += 1
            if number in (0, seen):
                what()
            if function is sync:
                synced.add(_state(os.fstat(arguments[0])))
            return function(*arguments, **options)

        return before

    for module, name in ((os, "replace"), (os, "unlink"), (os, "rmdir"), (os, "fsync"), (writing, "_exchange")):
        setattr(module, name, counted(getattr(module, name)))


def killed(inputs: Path, work: Path, name: str, overwrite: bool, first: int, step: int) -> Iterator[Trial]:
    """Before the events first, first + step ... of a command, until it ends by itself."""
    return _at_each(KIND, _kill, inputs, work, (name, overwrite, first, step))


def powerless(inputs: Path, work: Path, name: str, overwrite: bool, first: int, step: int) -> Iterator[Trial]:
    """The same, and the content of each file that the system had not been told to put on the disk is lost with it."""
    return _at_each(POWER, _lose_power, inputs, work, (name, overwrite, first, step))


def _at_each(
    kind: str, end: Callable[[], object], inputs: Path, work: Path, how: tuple[str, bool, int, int]
) -> Iterator[Trial]:
    name, overwrite, event, step = how
    run_ = disturbed(kind, inputs, work, name, overwrite)
    while True:
        folder = fresh(work / "work", like=run_.before)
        for path in folder.rglob("*"):
            os.utime(path, (0, 0))
        ended = run(run_.command, folder, partial(at_event, event, end))
        if ended.code == 0:
            return
        yield run_.judged(folder, ended, {-signal.SIGKILL})
        event += step


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _lose_power() -> None:
    """What was there before the command has the time 0."""
    for path in unsynced(Path.cwd()):
        os.truncate(path, 0)
    _kill()


def unsynced(folder: Path) -> list[Path]:
    """The files that this process has written, and not synced since."""
    found = [(path, path.lstat()) for path in folder.rglob("*") if path.is_file()]
    return [path for path, about in found if about.st_mtime > 1 and _state(about) not in synced]


def _state(about: os.stat_result) -> State:
    """A file as it is: one that is written again has another time or size, and so has one that takes the number of a
    file which was deleted; a rename changes neither."""
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
