"""A signal comes at a random moment of a command: SIGKILL, SIGTERM, or SIGINT as of Ctrl-C."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from faults.forks import Ended, fresh, run, start, wait
from faults.trials import Trial, disturbed

STATUS = {signal.SIGKILL: (-signal.SIGKILL,), signal.SIGTERM: (143, -signal.SIGTERM), signal.SIGINT: (130,)}


def interrupted(
    inputs: Path, work: Path, name: str, overwrite: bool, by: signal.Signals, times: int, seed: int
) -> Iterator[Trial]:
    """A signal so many times; a process that ended before it counts as undisturbed, and is not counted."""
    run_ = disturbed(f"{by.name} at a random moment", inputs, work, name, overwrite)
    draw, began = random.Random(seed), time.monotonic()
    run(run_.command, fresh(work / "work", like=run_.before))
    lasts, done = time.monotonic() - began, 0
    while done < times:
        folder = fresh(work / "work", like=run_.before)
        after = draw.uniform(0.005, lasts)
        ended = signalled(run_.command, folder, by, after)
        if ended.code == 0:
            continue
        done += 1
        trial = run_.judged(folder, ended, STATUS[by])
        yield Trial(trial.kind, f"{trial.what}, after {after:.3f} of {lasts:.3f} s", trial.outcome, trial.why)


def starting(inputs: Path, work: Path, name: str, times: int, seed: int) -> Iterator[Trial]:
    """Ctrl-C in the first seconds of a new process, while it imports."""
    run_, draw = disturbed("SIGINT while it imports", inputs, work, name, False), random.Random(seed)
    package = {"retrieval-prompts": "retrieval_prompts", "multimodal-prompts": "multimodal"}[str(run_.command[0])]
    code = f"import os; os.write(1, b'.'); from {package}.cli.start import main; main()"
    for _ in range(times):
        folder, after = fresh(work / "work"), draw.expovariate(1.0)
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, run_.command[1:])],
            cwd=folder,
            env={**os.environ, "RETRIEVAL_PROMPTS_CACHE": str(folder / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        process.stdout.read(1)
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[0].decode(errors="replace")
        trial = run_.judged(folder, Ended(process.returncode, said), (0, 130))
        yield Trial(trial.kind, f"{trial.what}, after {after:.3f} s", trial.outcome, trial.why)


def signalled(command: list[object], folder: Path, by: signal.Signals, after: float) -> Ended:
    """Run a command, and send a signal so many seconds after it began."""
    ready, begins = os.pipe()
    child = start(command, folder, lambda: os.write(begins, b"."))
    os.read(ready, 1)
    os.close(ready)
    os.close(begins)
    time.sleep(after)
    os.kill(child, by)
    return wait(child)
