"""Several at once: two runs on one output, two on one cache, two data sets into one folder, a reader beside writers."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

from faults.forks import Command, Ended, commands, fresh, run, start, tree, wait
from faults.trials import Disturbed, Trial, disturbed

BUSY = ("is being written by another run", "exists already")
QUERY = "what does the evidence show about river copper"


def one_output(inputs: Path, work: Path, name: str, overwrite: bool, times: int, seed: int) -> Iterator[Trial]:
    """The same command twice, the second a little later."""
    run_, draw = disturbed("two runs on one output", inputs, work, name, overwrite), random.Random(seed)
    for _ in range(times):
        folder = fresh(work / "work", like=run_.before)
        pair = _both([run_.command, run_.command], [folder, folder], draw.uniform(0, 0.4))
        yield _of_one_output(run_, pair, folder)


def _of_one_output(run_: Disturbed, pair: list[Ended], folder: Path) -> Trial:
    codes, said = sorted(each.code for each in pair), [each.said[-300:] for each in pair if each.code]
    if codes not in ([0, 0], [0, 2]) or any(each.wild for each in pair):
        return run_.trial("untidy", f"status {codes}: {said}")
    if any(each.code == 2 and not any(words in each.said for words in BUSY) for each in pair):
        return run_.trial("untidy", f"{said}")
    found = tree(folder)
    if other := [path for path, value in run_.expected.items() if found.get(path) != value]:
        return run_.trial("lost", f"missing or other: {other}")
    if stray := sorted(found.keys() - run_.expected.keys()):
        return run_.trial("untidy", f"left behind: {stray}")
    return run_.trial("noticed" if codes == [0, 2] else "survived")


def one_cache(inputs: Path, work: Path, name: str, times: int, seed: int) -> Iterator[Trial]:
    """The same command twice at once, with outputs apart and one cache."""
    run_, draw = disturbed("two runs on one cache", inputs, work, name, False), random.Random(seed)
    outputs = {path: value for path, value in run_.expected.items() if not path.startswith("cache/")}
    for _ in range(times):
        cache = fresh(work / "cache")
        folders = [fresh(work / each) for each in ("one", "two")]
        command = [*run_.command, "--cache", cache]
        pair = _both([command, command], folders, draw.uniform(0, 0.2))
        if any(each.code or each.wild for each in pair):
            yield run_.trial("untidy", f"{[(each.code, each.said[-300:]) for each in pair]}")
        elif any(tree(folder) != outputs for folder in folders):
            yield run_.trial("silent", "another output")
        elif any(path.name.startswith(".") for path in cache.rglob("*")):
            yield run_.trial("untidy", "files left in the cache")
        else:
            yield run_.trial("survived")


def one_benchmark(inputs: Path, work: Path, times: int, seed: int) -> Iterator[Trial]:
    """Two data sets into one folder of results, at once; who was refused runs again."""
    kind, what, draw = "two runs on one output", "beir, two data sets", random.Random(seed)
    command = commands(inputs)["beir"]
    other = ["other" if each == "toy" else each for each in command]
    whole = fresh(work / "both")
    for each in (command, other):
        assert run(each, whole).code == 0
    expected = {path: value for path, value in tree(whole).items() if path.endswith(".trec")}
    for _ in range(times):
        folder = fresh(work / "work")
        pair = _both([command, other], [folder, folder], draw.uniform(0, 0.3))
        for each, ended in zip((command, other), pair, strict=True):
            if ended.code == 2 and BUSY[0] in ended.said:
                ended = run(each, folder)
            if ended.code or ended.wild:
                yield Trial(kind, what, "untidy", f"status {ended.code}: {ended.said[-300:]}")
                break
        else:
            found = tree(folder)
            lost = [path for path, value in expected.items() if found.get(path) != value]
            yield Trial(
                kind, what, "lost" if lost else "noticed" if any(e.code for e in pair) else "survived", str(lost or "")
            )


def beside_writers(inputs: Path, work: Path, name: str, times: int) -> Iterator[Trial]:
    """One searches an index again and again while two others replace it by turns."""
    run_ = disturbed("a reader beside writers", inputs, work, name, True)
    program = run_.command[0]
    folder = fresh(work / "work", like=work / f"{name}, whole")
    ask: Command = [program, "search", "out", QUERY, "-k", "3"]
    answers = {run(ask, folder).said, run(ask, work / f"{name}, old").said}
    assert len(answers) == 2
    stop = folder / "stop"
    other = [
        {inputs / "toy": inputs / "other", inputs / "pictures": inputs / "others"}.get(each, each)
        for each in run_.command
    ]
    writers = [_again_and_again(each, folder, stop) for each in (run_.command, other)]
    for _ in range(times):
        ended = run(ask, folder)
        if ended.code == 0 and ended.said in answers:
            yield run_.trial("survived")
        elif ended.code == 0:
            yield run_.trial("silent", ended.said)
        else:
            yield run_.trial("untidy" if ended.wild else "lost", f"status {ended.code}: {ended.said[-300:]}")
    stop.touch()
    for each in writers:
        os.waitpid(each, 0)


def _again_and_again(command: Command, folder: Path, stop: Path) -> int:
    """A process that runs a command until a file is there."""
    if child := os.fork():
        return child
    try:
        while not stop.exists():
            wait(start(command, folder, name=f"log {os.getpid()}"), f"log {os.getpid()}")
    finally:
        os._exit(0)


def _both(pair: list[Command], folders: list[Path], after: float) -> list[Ended]:
    """How two commands end, of which the second begins so many seconds after the first."""
    first = start(pair[0], folders[0], name="log 1")
    time.sleep(after)
    second = start(pair[1], folders[1], name="log 2")
    return [wait(first, "log 1"), wait(second, "log 2")]
