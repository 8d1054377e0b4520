"""Tries odd files with every reader and odd options with every command: each is read, or refused in one line.

Called as `python tests/fuzz/fuzzing.py [--minutes M | --examples N] [--only NAME] [--json FILE]`. Each reader runs in a
fork of its own with bounded memory; a case that ends the process, or never ends, is kept as a file. Status 1 and a line
a fault where there are any. Not imported by tests: a process that forks has one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
import artifacts  # noqa: E402 - found by the line above
import commands  # noqa: E402
import odd  # noqa: E402
import readers  # noqa: E402
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402
from readers import Reader  # noqa: E402

MEMORY = 2 << 30  # bytes more than the process has before
SECONDS = 30  # of one case
LONGEST = 4000  # characters of a message
STOPPED = "stopped"


class Endless(BaseException):
    """Not an Exception: nobody catches it on the way."""


def one_case(reader: Reader, case: Any, place: Path) -> str:
    """ "read", "refused", or "stopped" for a command that was right to work on. Raises whatever else came."""
    from retrieval_prompts.errors import UserError

    shutil.rmtree(place / "work", ignore_errors=True)
    (place / "work").mkdir()
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(case, place / "work")
        return "read"
    except UserError as error:
        message = str(error)
        assert message and len(message) < LONGEST, f"a message of {len(message)} characters: {message[:200]}"
        return "refused"
    except Endless:
        if isinstance(case, list) and case and case[0] in commands.SLOW:
            return STOPPED
        raise AssertionError(f"it did not end in {SECONDS} seconds") from None
    finally:
        signal.alarm(0)


def many_cases(name: str, reader: Reader, place: Path, number: int, examples: int) -> dict[str, Any]:
    """What came of so many cases: counts, and the faults with an example each."""
    counts: Counter[str] = Counter()
    last: list[Any] = []

    @seed(number)
    @settings(
        max_examples=examples,
        derandomize=False,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(reader.cases)
    def each(case: Any) -> None:
        (place / "case").write_bytes(pickle.dumps(case))  # this process's own, read by nobody but its parent
        last[:] = [case]
        counts[one_case(reader, case, place)] += 1

    faults: dict[str, str] = {}
    try:
        each()
    except BaseException as error:  # what readers may not raise
        for one in error.exceptions if isinstance(error, BaseExceptionGroup) else [error]:
            place_of = _where(one)
            faults[f"{type(one).__name__} at {place_of}"] = f"{str(one)[:600]}\n    {str(last)[:1500]}"
    return {"counts": counts, "faults": faults}


def _where(error: BaseException) -> str:
    """The innermost line of the packages; else of anything."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/retrieval_prompts/" in frame.filename or "/multimodal/" in frame.filename]
    return next((f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(own or frames)), "?")


def forked(name: str, reader: Reader, place: Path, number: int, examples: int) -> dict[str, Any]:
    """`many_cases` in a process of its own."""
    here = place / "fork"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    child = os.fork()
    if child == 0:
        try:
            _limit(here)
            found = many_cases(name, reader, here, number, examples)
            (here / "found").write_text(json.dumps(found))
        finally:
            os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if (here / "found").exists():
        return dict(json.loads((here / "found").read_text()))
    kept = Path(tempfile.mkdtemp(prefix="fuzz-")) / "case"
    if (here / "case").exists():
        shutil.copy(here / "case", kept)
    return {"counts": {}, "faults": {f"the process ended with status {status}": f"the case is in {kept}"}}


def _limit(place: Path) -> None:
    """Of this process: its memory, its files, its time; its output goes to a file."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, _endless)
    log = os.open(place / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["RETRIEVAL_PROMPTS_CACHE"] = str(place / "cache")
    os.fsync = lambda fd: None  # no power fails here


def _endless(*_: object) -> None:
    raise Endless


def fuzz(
    place: Path, only: str | None, *, examples: int | None, minutes: float, first: int
) -> dict[str, dict[str, Any]]:
    """Reader -> counts and the faults, each once: one round of so many examples, or rounds for so many minutes."""
    sound, inputs = place / "artifacts", place / "inputs"
    for folder in (sound, inputs):
        folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few vectors
        artifacts.make_inputs(sound)
        commands.make_inputs(inputs)
    everything = {**readers.readers(), **artifacts.artifacts(sound), **commands.command_lines(inputs)}
    chosen = {name: reader for name, reader in everything.items() if only is None or only in name}
    if not chosen:
        sys.exit(f"expected a part of one of: {', '.join(everything)}")
    found: dict[str, dict[str, Any]] = {name: {"tried": 0, "faults": []} for name in chosen}
    many_cases("nothing", Reader(odd.values, lambda case, folder: None), place, 0, 30)  # hypothesis's own tables, once
    gc.freeze()
    until = time.time() + 60 * minutes
    number = first
    while True:
        for name, reader in chosen.items():
            slow = name.startswith(("retrieval-prompts", "multimodal-prompts", "what terminals"))
            count = examples or (30 if slow else 300)
            before = time.process_time() + sum(os.times()[2:4])
            came = forked(name, reader, place, number, max(1, count // 10) if examples and slow else count)
            found[name]["seconds"] = round(
                found[name].get("seconds", 0) + time.process_time() + sum(os.times()[2:4]) - before, 1
            )
            for kind, many in came["counts"].items():
                found[name][kind] = found[name].get(kind, 0) + many
                found[name]["tried"] += many
            for fault in came["faults"].keys() - found[name]["faults"]:
                found[name]["faults"].append(fault)
                print(f"FAULT in {name}, seed {number}: {fault}: {came['faults'][fault]}", flush=True)
            if examples is None and time.time() > until:
                return found
        if examples is not None:
            return found
        number += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long  [60]")
    parser.add_argument(
        "--examples", type=int, help="one round of so many for each reader instead; of commands a tenth"
    )
    parser.add_argument("--only", help="readers with this in their name")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each round has the next  [0]")
    parser.add_argument("--json", type=Path, help="where counts and faults are written")
    given_ = parser.parse_args()
    start = time.time()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place, contextlib.chdir(place):
        found = fuzz(Path(place), given_.only, examples=given_.examples, minutes=given_.minutes, first=given_.seed)
    for name, own in found.items():
        said = ", ".join(f"{count} {kind}" for kind, count in own.items() if kind != "faults")
        print(f"{name}: {said}, {len(own['faults'])} faults")
    tried, faults = sum(own["tried"] for own in found.values()), sum(len(own["faults"]) for own in found.values())
    print(f"{tried:,} cases of {len(found)} readers in {(time.time() - start) / 60:.1f} minutes, {faults} faults")
    if given_.json is not None:
        from retrieval_prompts.experiments.records.result_file import made_on
        from retrieval_prompts.files import write_json

        result = {
            "minutes": round((time.time() - start) / 60, 1),
            "seed": given_.seed,
            "tried": tried,
            "readers": found,
        }
        write_json(given_.json, result | made_on(["hypothesis", "faiss-cpu", "safetensors", "Pillow", "numpy"]))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
