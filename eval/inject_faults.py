"""Inject faults into every long command and every artifact, count what comes of them, and write the table.

    python eval/inject_faults.py --json eval/results/faults.json

The faults are those of tests/faults; a few of each kind are tried in the tests (--few).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before torch: a process that forks has one thread
os.environ["HF_HUB_OFFLINE"] = "1"
TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from faults.disks import lacking  # noqa: E402
from faults.forks import make_inputs, prepare  # noqa: E402
from faults.jobs import jobs  # noqa: E402
from faults.trials import Trial, table  # noqa: E402

Job = Callable[[Path, Path], Iterator[Trial]]
GOOD = ("survived", "noticed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="the result file")
    parser.add_argument("--few", action="store_true", help="a few faults of each kind, in seconds")
    parser.add_argument("--only", default="", help="only the jobs in whose name this stands")
    parser.add_argument("--seed", type=int, default=0, help="of moments, places and damage")
    parser.add_argument("--minutes", type=float, help="begin no job after so many; the result says which were left out")
    parser.add_argument("--workers", type=int, default=2, help="processes at once")
    options = parser.parse_args()
    began = time.monotonic()
    prepare()
    chosen = {name: job for name, job in jobs(options.seed, few=options.few).items() if options.only in name}
    place = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        place.chmod(0o755)
        lacks = lacking(place)
        trials, done = at_work(place, list(chosen.items()), options.workers, began + 60 * (options.minutes or 1e6))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    rows = table(trials)
    print("\n".join([markdown(rows), *(f"not tried: {reason}" for reason in lacks)]))
    bad = [trial for trial in trials if trial.outcome not in GOOD]
    if options.json is not None:
        result = {
            "table": rows,
            "not_good": [asdict(trial) for trial in bad],
            "not_tried": lacks,
            "left_out": [name for name in chosen if name not in done],
            "seed": options.seed,
            "seconds": round(time.monotonic() - began),
            "machine": {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()},
            "versions": {name: version(name) for name in ("torch", "safetensors", "faiss-cpu", "filelock")},
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(1 if bad else 0)


def at_work(place: Path, chosen: list[tuple[str, Job]], workers: int, until: float) -> tuple[list[Trial], list[str]]:
    """Do jobs in several processes; each takes the next when it is done with one. Returns also which were done."""
    take, give = os.pipe()
    children = [_worker(place / str(number), chosen, (take, give), until) for number in range(workers)]
    os.close(take)
    for number in range(len(chosen)):
        os.write(give, struct.pack("i", number))
    os.close(give)
    ended = [os.waitpid(child, 0)[1] for child in children]
    assert not any(ended), "a worker failed"
    trials, done = [], []
    for number in range(workers):
        for line in (place / f"{number}.jsonl").read_text().splitlines():
            row = json.loads(line)
            if isinstance(row, str):
                done.append(row)
            else:
                trials.append(Trial(*row))
    return trials, done


def _worker(work: Path, chosen: list[tuple[str, Job]], pipe: tuple[int, int], until: float) -> int:
    """A process that writes a line a trial, and the name of each job behind its trials."""
    if child := os.fork():
        return child
    code = 1
    try:
        os.close(pipe[1])
        make_inputs(work / "inputs")
        os.chdir(work)
        with work.with_suffix(".jsonl").open("w") as file:
            while word := os.read(pipe[0], 4):
                if time.monotonic() > until:
                    continue
                name, job = chosen[struct.unpack("i", word)[0]]
                began, count = time.monotonic(), 0
                for trial in job(work / "inputs", work):
                    print(json.dumps(list(asdict(trial).values())), file=file, flush=True)
                    count += 1
                    if trial.outcome not in GOOD:
                        print(f"{trial.outcome}: {trial.kind}: {trial.what}: {trial.why}", file=sys.stderr, flush=True)
                print(json.dumps(name), file=file, flush=True)
                print(f"{name}: {count} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def markdown(rows: dict[str, dict[str, int]]) -> str:
    """The table, for people."""
    names = list(rows["all"])
    lines = [f"| fault | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    lines += [f"| {kind} | {' | '.join(f'{row[name]:,}' for name in names)} |" for kind, row in rows.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
