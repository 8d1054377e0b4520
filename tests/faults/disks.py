"""The disk is full, read-only, fails, or gives no permission; then all is well again, and the command goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from faults.forks import fresh, run
from faults.killing import at_event
from faults.trials import Disturbed, Trial, disturbed

NOBODY = 65534
PLACES = ("cache", "old output", "folder", "data", "model")
ENDS = (0, 1, 2)  # 1: the prompt is saved, and its evaluation failed, of which it warned


def full(inputs: Path, work: Path, name: str, overwrite: bool, times: int, seed: int) -> Iterator[Trial]:
    """A disk with room for a part of what is written; and one that is mounted read-only."""
    draw = random.Random(seed)
    if not can_mount(work):
        return  # only root can, and not in every container
    run_ = disturbed("full disk", inputs, work, name, overwrite)
    before = _size(run_.before)
    most = _size(work / f"{name}, whole")
    for number in range(times):
        room = before + int(most * (number + draw.random()) / times)
        with _disk(work / "disk", room) as disk:
            folder = fresh(disk / "work", like=run_.before)
            ended = run(run_.command, folder)
            _mount("remount,size=64m", disk)
            yield run_.judged(folder, ended, ENDS, "No space left|cannot be written")
    with _disk(work / "disk", 1 << 26) as disk:
        folder = fresh(disk / "work", like=run_.before)
        read_only = Disturbed("read-only disk", run_.what, run_.command, run_.expected, run_.before)
        _mount("remount,ro", disk)
        ended = run(run_.command, folder)
        _mount("remount,rw", disk)
        yield read_only.judged(folder, ended, ENDS, "Read-only|cannot be written|may write")


def limited(inputs: Path, work: Path, name: str, overwrite: bool, times: int, seed: int) -> Iterator[Trial]:
    """No file may grow beyond so many bytes: writing fails within any library."""
    draw = random.Random(seed)
    run_ = disturbed("file that may not grow", inputs, work, name, overwrite)
    largest = max(path.stat().st_size for path in (work / f"{name}, whole").rglob("*") if path.is_file())
    for _ in range(times):
        bound = int(largest ** draw.uniform(0.3, 1.0))

        def inside(bound: int = bound) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (bound, bound))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

        folder = fresh(work / "work", like=run_.before)
        yield run_.judged(folder, run(run_.command, folder, inside), ENDS, "too large|cannot be written")


def failing(inputs: Path, work: Path, name: str, overwrite: bool, first: int, step: int) -> Iterator[Trial]:
    """A sync, rename or delete fails as on a broken disk, another one each time."""
    run_ = disturbed("disk that fails at a sync or rename", inputs, work, name, overwrite)
    event, reached = first, True

    while reached:
        mark = work / "reached"
        mark.unlink(missing_ok=True)

        def fail(mark: Path = mark) -> None:
            os.close(os.open(mark, os.O_CREAT | os.O_WRONLY))
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        folder = fresh(work / "work", like=run_.before)
        ended = run(run_.command, folder, partial(at_event, event, fail))
        if reached := mark.exists():
            yield run_.judged(folder, ended, ENDS)
        event += step


def forbidden(inputs: Path, work: Path, name: str, overwrite: bool, places: tuple[str, ...]) -> Iterator[Trial]:
    """Nobody, who may not write the folder, its cache, the old output; nor read the data or the model."""
    if os.getuid() != 0:
        return  # only root can become nobody, and then again may
    run_ = disturbed("no permission", inputs, work, name, overwrite)
    data = inputs / ("pictures/train" if "pictures" in name else "toy")
    model = inputs / ("clip" if "pictures" in name else "bert")
    for what in places:
        folder = fresh(work / "work", like=run_.before)
        (folder / "cache").mkdir()
        place = {
            "folder": folder,
            "cache": folder / "cache",
            "old output": folder / "out",
            "data": data,
            "model": model,
        }
        if not place[what].exists():
            continue
        os.chown(folder, NOBODY, NOBODY)
        for path in folder.rglob("*"):
            os.chown(path, NOBODY, NOBODY)
        os.chown(place[what], 0, 0)
        closed = 0o700 if what in ("data", "model", "old output") else 0o755
        place[what].chmod(closed)
        try:
            ended = run(run_.command, folder, _become_nobody)
        finally:
            place[what].chmod(0o755)
        one = Disturbed(run_.kind, f"{run_.what}, {what}", run_.command, run_.expected, run_.before)
        with contextlib.suppress(OSError):
            (folder / "cache").rmdir()
        yield one.judged(folder, ended, ENDS, "denied|cannot be|may write|may not|not readable")


def _become_nobody() -> None:
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    os.environ["HOME"] = "/nonexistent"


def lacking(place: Path) -> list[str]:
    """What cannot be tried here, and why."""
    found = [] if can_mount(place) else ["full and read-only disks: mounting a small one needs root"]
    return found if os.getuid() == 0 else [*found, "missing permissions: only root can become nobody"]


def can_mount(place: Path) -> bool:
    """Whether small disks can be made here."""
    try:
        with _disk(place / "disk", 1 << 20):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextlib.contextmanager
def _disk(place: Path, size: int) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    pages = -(-size // 4096) + 8  # a few for folders
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={pages * 4}k", "tmpfs", str(place)], check=True, capture_output=True
    )
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _mount(option: str, place: Path) -> None:
    subprocess.run(["mount", "-o", option, str(place)], check=True)


def _size(folder: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())
