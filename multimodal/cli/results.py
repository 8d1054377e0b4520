"""What tune and evaluate print of a result, and the files they write beside it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimodal.evaluation.rankings import Rankings
    from retrieval_prompts.training.loop import Step


def say_result(say: Any, result: dict[str, Any]) -> None:
    """Print the table, and on standard error how many images could not be read."""
    if not result["systems"]:
        return
    if result["protocol"] == "retrieval":
        from multimodal.experiments.captions import table
    else:
        from multimodal.experiments.protocols import table
    say(table(result))
    skipped = result["settings"].get("images_skipped", 0)
    if skipped:
        print(f"{skipped} images could not be read and are not counted", file=sys.stderr)


def write_page(
    path: Path,
    result: dict[str, Any],
    rankings: Sequence[Rankings],
    steps: Iterable[Step] = (),
    *,
    split: str = "test",
    overwrite: bool = False,
) -> None:
    """Write the report of a result. `split`: of captions; classification says it itself."""
    from multimodal.report.sections import captions, classification, report
    from retrieval_prompts.report.page import write_report

    if result["protocol"] == "retrieval":
        sections = captions(result, rankings, split, steps)
    else:
        sections = classification(result, rankings, steps)
    write_report(path, report(result, sections), overwrite=overwrite)


def write_runs(folder: Path, result: dict[str, Any], rankings: Iterable[Rankings], *, overwrite: bool = False) -> None:
    """Write the run files, their judgements and results.json into a new folder."""
    from multimodal.evaluation.rankings import write
    from retrieval_prompts.files import new_folder, write_json

    with new_folder(folder, holds="results.json", overwrite=overwrite) as new:
        write(new, result["dataset"], rankings)
        write_json(new / "results.json", result)
