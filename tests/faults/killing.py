"""Runs a command again and again, each time killed before another write, rename or delete, and then once more in peace.

Called as `python killing.py PLACE STEP NAME`: PLACE is a folder to work in, NAME a command of `commands`, and every
STEP-th event is tried. All is imported once and each run is a fork. Writes one JSON object a trial to standard output:
what the run in peace left other than an undisturbed one. Not imported by tests: a process that forks has one thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny
import tiny_clip

TIMES = ("r.json", "results.json", "page.html", "SHA256SUMS")  # seconds stand in them, or a digest of such a file
QUICK = ("--epochs", "1", "--batch-size", "8", "--length", "2", "--folds", "1", "--kind", "input")


def commands(place: Path) -> dict[str, list[Any]]:
    """Name -> a program and its arguments; every output is called out, r.json or page.html."""
    data, model, pictures, clip = (place / name for name in ("toy", "bert", "pictures", "clip"))
    beside = ["--out", "out", "--json", "r.json", "--report", "page.html"]
    bert, images = ["--model", model], ["--model", clip]
    return {
        "tune": ["retrieval-prompts", "tune", data, *bert, *beside, *QUICK],
        "index": ["retrieval-prompts", "index", data, *bert, "--out", "out"],
        "evaluate": ["retrieval-prompts", "evaluate", data, *bert, "--run", "out"],
        "beir": ["retrieval-prompts", "beir", "--datasets", "toy", "--data-dir", place, *bert, "--out", "out"],
        "tune pictures": ["multimodal-prompts", "tune", pictures, *images, *beside, "--epochs", "1", "--shots", "1"],
        "index pictures": ["multimodal-prompts", "index", pictures, *images, "--out", "out"],
    }


def make_inputs(place: Path) -> None:
    """Data and models, once."""
    if not (place / "toy").exists():
        tiny.write_data(place / "toy", dev=True)
        shutil.copytree(tiny.write_model(place / "made"), place / "bert")
        tiny_clip.write_images(place / "pictures")
        tiny_clip.write_clip(place / "clip")


def run(command: list[Any], folder: Path, kill_at: int | None) -> int:
    """The exit status of a command in a folder, -9 if it was killed before its event of this number."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        os.chdir(folder)
        log = os.open(folder.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["RETRIEVAL_PROMPTS_CACHE"] = str(folder / "cache")
        count_events(kill_at)
        sys.argv = [str(each) for each in command]
        MAINS[command[0]]()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os._exit(code)


def count_events(kill_at: int | None) -> None:
    """Kill this process before its write, rename or delete of this number."""
    from retrieval_prompts.files import writing

    seen = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def before(*arguments: Any, **options: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return before

    for module, name in ((os, "replace"), (os, "unlink"), (os, "rmdir"), (os, "fsync"), (writing, "_exchange")):
        setattr(module, name, counted(getattr(module, name)))


def tree(folder: Path) -> dict[str, str]:
    """File -> digest of its content, where that is always the same."""
    return {
        path.relative_to(folder).as_posix(): "" if path.name in TIMES else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def trials(place: Path, name: str, step: int) -> None:
    command = commands(place)[name]
    whole, work = place / f"{name}, whole", place / "work"
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    assert run(command, whole, None) == 0, (place / "log").read_text()
    expected = tree(whole)
    for overwrite in (False, True):
        given = [*command, *(["--overwrite"] if overwrite else [])]
        event = 1
        while True:
            shutil.rmtree(work, ignore_errors=True)
            if overwrite:
                shutil.copytree(whole, work)
            else:
                work.mkdir()
            if run(given, work, event) == 0:
                break
            lost = overwrite and not any(path.startswith("out/") for path in tree(work))
            finished = tree(work).keys() >= expected.keys()
            code, found = run(given, work, None), tree(work)
            refused = code == 2 and finished and " exists already" in (place / "log").read_text()
            trial = {
                "overwrite": overwrite,
                "event": event,
                "failed": "" if code == 0 or refused else (place / "log").read_text()[-500:],
                "lost": ["out"] if lost else sorted(expected.keys() - found.keys()),
                "stray": sorted(found.keys() - expected.keys()),
                "other": sorted(path for path in found.keys() & expected.keys() if found[path] != expected[path]),
            }
            print(json.dumps(trial), flush=True)
            event += step


if __name__ == "__main__":
    from multimodal.cli import app as images
    from multimodal.experiments import captions, classes  # noqa: F401 - before the first fork
    from multimodal.vectors import image_index  # noqa: F401
    from retrieval_prompts.cli import app as texts
    from retrieval_prompts.experiments import benchmark, retrieval  # noqa: F401

    MAINS = {"retrieval-prompts": texts.main, "multimodal-prompts": images.main}
    make_inputs(Path(sys.argv[1]))
    trials(Path(sys.argv[1]), sys.argv[3], int(sys.argv[2]))
