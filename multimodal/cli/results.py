"""What tune and evaluate print of a result, and the files they write beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimodal.experiments.results import Found


def say_result(say: Any, result: Found) -> None:
    """Print the facts and the table, and on standard error how many images could not be read."""
    from multimodal.experiments import captions, protocols
    from multimodal.experiments.results import CaptionResult
    from multimodal.experiments.which_system import advice, next_labels

    for fact in result.facts:
        say(fact)
    if result.systems:
        say(captions.table(result) if isinstance(result, CaptionResult) else protocols.table(result))
        for found in () if isinstance(result, CaptionResult) else (advice(result), next_labels(result)):
            for line in found.values():
                say(line)
    if skipped := result.settings.get("images_skipped", 0):
        print(f"{skipped} images could not be read and are not counted", file=sys.stderr)


def write_page(path: Path, result: Found, *, overwrite: bool = False) -> None:
    """Write the report of a result."""
    from multimodal.experiments.results import CaptionResult
    from multimodal.report.sections import captions, classification, report
    from retrieval_prompts.report.page import write_report

    sections = captions(result) if isinstance(result, CaptionResult) else classification(result)
    write_report(path, report(result, sections), overwrite=overwrite)


def write_runs(folder: Path, result: Found, *, overwrite: bool = False) -> None:
    """Write the run files, their judgements and results.json into a new folder."""
    from multimodal.evaluation.rankings import write
    from retrieval_prompts.files import RUNS, list_digest, new_folder, sealed, write_json

    with new_folder(folder, holds=RUNS, overwrite=overwrite) as new:
        write(new, result.dataset, result.rankings)
        write_json(new / "results.json", sealed(result.to_json()))
        list_digest(new / "results.json")
