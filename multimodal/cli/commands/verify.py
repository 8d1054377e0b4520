"""multimodal-prompts verify."""

from __future__ import annotations

from pathlib import Path

from retrieval_prompts.cli.commands.sharing.verify import Paths, say_verdicts
from retrieval_prompts.cli.options import JsonFile, Overwrite

SEGMENT = "?" * 32 + ".safetensors"


def verify(paths: Paths, json_file: JsonFile = None, overwrite: Overwrite = False) -> None:
    """Say which artifacts are as they were written, one a line; status 1 where one is not. Every byte is read."""
    say_verdicts(paths, json_file, overwrite=overwrite, more=((SEGMENT, "image features", _features),))


def _features(path: Path) -> bool:
    from multimodal.vectors.segments import check

    return check(path)
