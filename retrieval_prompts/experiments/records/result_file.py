"""Result files that long evaluations go on from: what one holds, and on what it was made. Knows no model, no data."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from retrieval_prompts.errors import UserError
from retrieval_prompts.files import check_output, check_seal, read_json, sealed, write_json
from retrieval_prompts.files.digests import SEAL


def resume(out: Path, wanted: dict[str, Any], empty: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """What the result file `out` holds, or a new result, {**wanted, **empty}. Writes nothing.

    Args:
        wanted: field -> the JSON value that the results depend on (model, data, settings); a file is only gone on
            with when all of them are the same in it.
        empty: the fields of a new result that the caller fills.
        overwrite: begin anew, whatever the file holds.

    Raises:
        UserError: that names the fields that differ, and when `out` is no JSON, was changed since it was written, or
            cannot be written.
    """
    if out.exists() and not overwrite:
        found = read_json(out)
        kept = found if isinstance(found, dict) else {}
        check_seal(out, kept)
        kept.pop(SEAL, None)
        plain = json.loads(json.dumps(wanted))  # as a file gives it back: lists for tuples, text for number keys
        if odd := [name for name, value in plain.items() if kept.get(name) != value]:
            raise UserError(f"{out} was made with another {', '.join(odd)}; choose another --out or pass --overwrite")
        return kept | {name: value for name, value in empty.items() if name not in kept}
    check_output(out, overwrite=overwrite)
    return {**wanted, **empty}


def write(out: Path, result: Mapping[str, Any]) -> None:
    """Write a result file, with a digest of its content that `resume` compares."""
    write_json(out, sealed(result))


def made_on(packages: Iterable[str]) -> dict[str, Any]:
    """What a result records of where it was made: {"machine": ..., "device": "cuda" or "cpu", "versions": ...}.

    `packages`: names as on the package index; the version of one that is not installed is None.
    """
    import torch

    return {
        "machine": {"system": platform.platform(), "python": platform.python_version()},
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "versions": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
