"""Commands as forks of a process that has imported all: a tenth of the time, and faults can be put inside.

What they run on, how one ends, and what they leave. A process that forks has one thread: not imported by tests.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny
import tiny_clip

TIMES = ("r.json", "results.json")  # seconds stand in them: compared without
VARYING = (
    "seconds",
    "provenance",
    "milliseconds",
    "cost",
    "sentence",
    "sha256",
    "documents_encoded",
    "images_encoded",
    "encoded",
)
QUICK = ("--epochs", "3", "--kind", "prefix", "--lr", "0.03", "--batch-size", "8", "--length", "2", "--folds", "1")
CUT = "cut"  # what stands for the digest of a result or a page that is not whole
MAINS: dict[str, Callable[[], None]] = {}  # program -> its function; filled by `prepare`
Command = list[Any]


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status, minus the number of the signal that killed it, and all that it said."""

    code: int
    said: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.said.replace("\r", "\n").splitlines() if line.startswith(("error: ", "Error: "))]

    @property
    def refused(self) -> bool:
        """With one line and the status of a user's mistake."""
        return self.code == 2 and len(self.errors) == 1 and not self.wild

    @property
    def wild(self) -> bool:
        """A traceback, or a crash."""
        crashed = -self.code in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
        return "Traceback (most recent" in self.said or "Exception ignored" in self.said or crashed


def prepare() -> None:
    """Import all that the commands do, before the first fork; checkpoints are written every few steps."""
    import peft  # noqa: F401

    from multimodal.cli import app as images
    from multimodal.experiments import captions, classes, protocols  # noqa: F401
    from multimodal.report import sections  # noqa: F401
    from multimodal.vectors import image_index  # noqa: F401
    from retrieval_prompts.cli import app as texts
    from retrieval_prompts.evaluation import comparison, comparison_words, hybrid, tables  # noqa: F401
    from retrieval_prompts.experiments import benchmark, retrieval  # noqa: F401
    from retrieval_prompts.report import assemble  # noqa: F401
    from retrieval_prompts.training import loop

    loop.CHECKPOINT_EVERY = 4
    MAINS.update({"retrieval-prompts": texts.main, "multimodal-prompts": images.main})


def make_inputs(place: Path) -> None:
    """Data and models, in the folder of all inputs."""
    place.mkdir(parents=True)
    tiny.write_data(place / "toy", dev=True)
    tiny.write_data(place / "other", dev=True, seed=1)
    shutil.copytree(tiny.write_model(place / "made"), place / "bert")
    shutil.rmtree(place / "made")
    tiny_clip.write_images(place / "pictures")
    tiny_clip.write_images(place / "others", first=50)
    tiny_clip.write_clip(place / "clip")
    for path in place.rglob("*.safetensors"):
        path.chmod(0o644)


def commands(place: Path) -> dict[str, Command]:
    """Name -> a program and its arguments, on the inputs; every output is called out, r.json or page.html."""
    data, model, pictures, clip = (place / name for name in ("toy", "bert", "pictures", "clip"))
    beside = ["--out", "out", "--json", "r.json", "--report", "page.html"]
    bert, images = ["--model", model], ["--model", clip]
    return {
        "tune": ["retrieval-prompts", "tune", data, *bert, *beside, *QUICK],
        "index": ["retrieval-prompts", "index", data, *bert, "--out", "out"],
        "evaluate": ["retrieval-prompts", "evaluate", data, *bert, "--json", "r.json", "--run", "out"],
        "beir": ["retrieval-prompts", "beir", "--datasets", "toy", "--data-dir", place, *bert, "--out", "out"],
        "tune pictures": ["multimodal-prompts", "tune", pictures, *images, *beside, "--epochs", "4", "--shots", "2"],
        "index pictures": ["multimodal-prompts", "index", pictures, *images, "--out", "out"],
    }


def start(command: Command, folder: Path, inside: Callable[[], object] | None = None, name: str = "log") -> int:
    """Run a command in a folder, whose cache is in it; returns the process.

    Args:
        inside: called there, before the command.
        name: of the file in this process's own folder to which goes what the command says.
    """
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder)
        os.environ["RETRIEVAL_PROMPTS_CACHE"] = str(folder / "cache")
        if inside is not None:
            inside()
        sys.argv = [str(each) for each in command]
        MAINS[command[0]]()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stdout.flush()
        os._exit(code)


def wait(child: int, name: str = "log") -> Ended:
    """How a command ended, with what it said."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ended(code, Path(name).read_text(errors="replace"))


def run(command: Command, folder: Path, inside: Callable[[], object] | None = None) -> Ended:
    """`start`, and `wait` for the end."""
    return wait(start(command, folder, inside))


def fresh(folder: Path, like: Path | None = None) -> Path:
    """An empty folder, or one that is like another."""
    shutil.rmtree(folder, ignore_errors=True)
    if like is not None:
        shutil.copytree(like, folder, symlinks=True)
    else:
        folder.mkdir(parents=True)
    return folder


def tree(folder: Path) -> dict[str, str]:
    """File -> digest of what it holds, times left out. What is no file of that kind has a digest of its own."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink())
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def _digest(path: Path) -> str:
    content = path.read_bytes()
    try:
        if path.name in TIMES:
            content = json.dumps(_steady(json.loads(content)), sort_keys=True).encode()
        elif path.name == "page.html":
            return "whole" if content.rstrip().endswith(b"</html>") else CUT
        elif path.name == "SHA256SUMS":
            lines = content.decode().splitlines()
            content = "\n".join(line for line in lines if not line.endswith(TIMES)).encode()
    except ValueError:
        return CUT
    return hashlib.sha256(content).hexdigest()


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _steady(each) for name, each in value.items() if name not in VARYING}
    return [_steady(each) for each in value] if isinstance(value, list) else value
