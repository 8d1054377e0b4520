"""What the tests of retrieval-prompts share: quick options, prompts at hand, how a refusal looks."""

from __future__ import annotations

import re
from pathlib import Path

from command_line import Done

from retrieval_prompts.biencoder import BiEncoder

QUICK = ["--epochs", "2", "--batch-size", "8", "--length", "3", "--lr", "0.05", "--device", "cpu"]


ONCE = [*QUICK, "--folds", "1"]  # one training, chosen by dev


SYSTEMS = ["frozen", "tuned", "bm25", "frozen+bm25", "tuned+bm25"]


def prompts(folder: Path, model: Path, side: str, kind: str) -> Path:
    BiEncoder.load(model, device="cpu").attach(side, kind=kind, length=3).save(folder)
    return folder


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(done: Done, message: str, status: int = 2) -> None:
    """One line on standard error."""
    assert done.code == status
    assert done.err.count("\n") == 1
    assert done.err.endswith("\n")
    assert done.err.startswith("error: ")
    assert re.search(message, done.err), f"{done.err!r} is not like {message!r}"
