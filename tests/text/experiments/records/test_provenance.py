"""Where a result comes from: its date, version and command, and results of before these were kept."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import retrieval_prompts
from retrieval_prompts.experiments.benchmark import BenchmarkResult
from retrieval_prompts.experiments.records.provenance import COMMAND, Provenance, typed


def test_now_is_a_date_with_its_offset_the_version_and_the_command() -> None:
    token = COMMAND.set("retrieval-prompts tune DATA")
    made = Provenance.now()
    COMMAND.reset(token)
    at = datetime.fromisoformat(made.date)
    assert abs(datetime.now().astimezone() - at) < timedelta(minutes=1)
    assert (made.version, made.command) == (retrieval_prompts.__version__, "retrieval-prompts tune DATA")
    assert Provenance.recorded({"provenance": made.to_json()}) == made
    assert Provenance.now().command == ""


def test_a_command_is_kept_as_a_shell_reads_it_without_passwords() -> None:
    line = typed(["retrieval-prompts", "search", "a question", "--in", "pgvector:postgresql://me:secret@host/db#t"])
    assert line == "retrieval-prompts search 'a question' --in 'pgvector:postgresql://me@host/db#t'"


def test_a_result_of_before_says_nothing_of_it(tmp_path: Path) -> None:
    new = BenchmarkResult("model", "f" * 64, {}).to_json()
    assert new.pop("provenance") == {"date": "", "version": "", "command": ""}
    old = BenchmarkResult.from_json(new, tmp_path / "results.json")
    assert old.provenance == Provenance()
    assert old.made_on == {}


def test_bytes_that_are_no_text_can_be_written() -> None:
    assert typed(["evaluate", "--json", "\udc80"]) == r"evaluate --json '\udc80'"
    typed(["\udc80"]).encode("utf-8")
