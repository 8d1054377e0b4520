"""What `retrieval-prompts corpus` needs for a table of many rows: memory at its peak, and rows a second.

    python eval/corpus_memory.py --rows 1000000 --json eval/results/corpus-memory.json

The same made-up rows (an id, a title of 4 words, a text of 10 to 90) as Parquet and as CSV in a temporary folder, one
command each in a process of its own; its peak is the ru_maxrss that the system reports of it, its time the whole
command's, imports included.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from retrieval_prompts.errors import UserError
from retrieval_prompts.files import check_output, write_json

BATCH = 10_000  # rows that are made at once
COLUMNS = ("id", "title", "text")
COMMAND = "from retrieval_prompts.cli.start import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="the result file")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--notes", default="", help="on the machine, kept in the result")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    try:
        run(options)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    check_output(options.json, overwrite=options.overwrite)
    tables = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, write in WRITERS.items():
            table = Path(folder) / f"rows.{name}"
            # In a process of its own: what this one has ever held would count as the command's (see getrusage)
            maker = multiprocessing.get_context("spawn").Process(target=write, args=(table, options.rows))
            maker.start()
            maker.join()
            tables[name] = {"file_bytes": table.stat().st_size, **measured(table, Path(folder) / name, options.rows)}
            print(f"{name}: {tables[name]['peak_bytes'] / 1e6:,.0f} MB, {tables[name]['rows_a_second']:,} rows/s")
    from retrieval_prompts.experiments.records.result_file import made_on

    about = made_on(("pyarrow",))
    about["machine"] |= {"cores": os.cpu_count(), "notes": options.notes}
    write_json(options.json, {"command": "retrieval-prompts corpus", "rows": options.rows, "tables": tables, **about})


def measured(table: Path, out: Path, rows: int) -> dict[str, Any]:
    """Peak and time of a command that reads the table. Raises UserError where it fails."""
    start = time.perf_counter()
    command = [sys.executable, "-c", COMMAND, "corpus", str(table), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise UserError(f"corpus of {table.name} ended with status {process.returncode}")
    with (out / "corpus.jsonl").open("rb") as file:
        assert sum(1 for _ in file) == rows
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"peak_bytes": peak, "seconds": round(seconds, 1), "rows_a_second": round(rows / seconds)}


def made_up(rows: int) -> Iterator[list[tuple[str, str, str]]]:
    """Rows of words that follow Zipf's law roughly, `BATCH` at a time; the same each time."""
    import numpy as np

    random = np.random.default_rng(0)
    words = [f"word{number}" for number in range(30_000)]
    for start in range(0, rows, BATCH):
        lengths = random.integers(14, 95, min(BATCH, rows - start))
        chosen = (len(words) ** random.random(int(lengths.sum()))).astype(int)
        ends = np.cumsum(lengths)
        parts = [[words[at] for at in chosen[end - length : end]] for end, length in zip(ends, lengths, strict=True)]
        yield [(f"row{start + at}", " ".join(each[:4]), " ".join(each[4:])) for at, each in enumerate(parts)]


def write_csv(path: Path, rows: int) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for batch in made_up(rows):
            writer.writerows(batch)


def write_parquet(path: Path, rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    with parquet.ParquetWriter(path, pa.schema([(name, pa.string()) for name in COLUMNS])) as writer:
        for batch in made_up(rows):
            writer.write_table(pa.table(dict(zip(COLUMNS, map(list, zip(*batch, strict=True)), strict=True))))


WRITERS: dict[str, Callable[[Path, int], None]] = {"parquet": write_parquet, "csv": write_csv}

if __name__ == "__main__":
    main()
