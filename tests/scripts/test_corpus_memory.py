"""What eval/corpus_memory.py measures: both tables hold the same rows, and a command on one is measured whole."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from retrieval_prompts.data.sources.columns import known
from retrieval_prompts.data.sources.left_out import LeftOut
from retrieval_prompts.data.sources.rows import open_table

SCRIPT = Path(__file__).resolve().parents[2] / "eval" / "corpus_memory.py"


def test_rows_are_the_same_and_a_command_is_measured(tmp_path: Path) -> None:
    specification = importlib.util.spec_from_file_location("corpus_memory", SCRIPT)
    assert specification is not None and specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    found = []
    for name, write in script.WRITERS.items():
        write(tmp_path / f"rows.{name}", 25)
        table = open_table(tmp_path / f"rows.{name}", known, LeftOut())
        found.append([tuple(values) for _, values in table.read(table.columns)])
    assert found[0] == found[1] and len(found[0]) == 25 and found[0][0][0] == "row0"
    assert all(len(title.split()) == 4 and 10 <= len(text.split()) <= 90 for _, title, text in found[0])
    measured = script.measured(tmp_path / "rows.csv", tmp_path / "out", 25)
    assert measured["peak_bytes"] > 10 << 20 and measured["rows_a_second"] >= 0
