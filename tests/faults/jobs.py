"""All faults that are injected, cut into jobs of seconds to minutes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from faults import crowds, disks
from faults.damage import artifacts, damaged
from faults.disks import PLACES
from faults.interrupting import interrupted, starting
from faults.killing import killed, powerless
from faults.trials import Trial

Job = Callable[[Path, Path], Iterator[Trial]]  # called with a folder of inputs and one to work in
COMMANDS = ("tune", "beir", "tune pictures", "evaluate", "index", "index pictures")
TIMES = {"tune": 10, "tune pictures": 8, "beir": 6}  # signals of a kind; of shorter commands 4
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def jobs(seed: int, *, few: bool) -> dict[str, Job]:
    """Name -> a job. `few`: some of each kind, on the shortest command, in seconds."""
    found: dict[str, Job] = {}
    for name in ("index",) if few else COMMANDS:
        for overwrite in (True,) if few else (False, True):
            found |= {
                f"{kind}: {name}{', overwrite' * overwrite}": job for kind, job in _of(name, overwrite, seed, few)
            }
        found[f"one cache: {name}"] = _job(crowds.one_cache, name, times=1 if few else 4, seed=seed)
        if not few:
            found[f"starting: {name}"] = _job(starting, name, times=12, seed=seed)
    if not few:
        found["two data sets"] = _job(crowds.one_benchmark, times=8, seed=seed)
    for name in ("index",) if few else ("index", "index pictures"):
        found[f"reader: {name}"] = _job(crowds.beside_writers, name, times=2 if few else 40)
    if few:
        some = [_job(damaged, kind, seed=seed, share=15) for kind in ("index", "cached vectors")]
        return found | {"damage": lambda inputs, work: chain(*(each(inputs, work) for each in some))}
    return found | {f"damage: {each.kind}": _job(damaged, each.kind, seed=seed) for each in artifacts(Path())}


def _of(name: str, overwrite: bool, seed: int, few: bool) -> Iterator[tuple[str, Job]]:
    """What disturbs one command."""
    yield "killed", _job(killed, name, overwrite, first=2, step=20 if few else 1)
    yield "power", _job(powerless, name, overwrite, first=5, step=20 if few else 4)
    for by in SIGNALS:
        yield by.name, _job(interrupted, name, overwrite, by=by, times=1 if few else TIMES.get(name, 4), seed=seed)
    yield "limited", _job(disks.limited, name, overwrite, times=1 if few else 5, seed=seed)
    yield "failing", _job(disks.failing, name, overwrite, first=3, step=20 if few else 3)
    yield "forbidden", _job(disks.forbidden, name, overwrite, places=PLACES[:2] if few else PLACES)
    yield "full", _job(disks.full, name, overwrite, times=1 if few else 6, seed=seed)
    yield "two at once", _job(crowds.one_output, name, overwrite, times=1 if few else 4, seed=seed)


def _job(function: Callable[..., Iterator[Trial]], *given: object, **options: object) -> Job:
    return lambda inputs, work: function(inputs, work, *given, **options)
