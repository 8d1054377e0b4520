"""What an index folder says of itself, and how what is wrong with it is put."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrieval_prompts.errors import UserError
from retrieval_prompts.files import check_seal, read_json
from retrieval_prompts.vectors import faiss_index, libraries

FORMAT = 1


def read_manifest(folder: Path) -> dict[str, Any]:
    """What an index folder says of itself.

    Raises:
        UserError: that names a folder which is none, or of another format.
    """
    if not (folder / "manifest.json").is_file():
        raise UserError(f"{folder} is not an index folder: it has no manifest.json; make one with Index.build and save")
    manifest = read_json(folder / "manifest.json")
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise UserError(f"{folder} is not an index folder: its manifest.json has no format number")
    if manifest["format"] != FORMAT:
        raise UserError(f"{folder} has index format {manifest['format']}, this version reads {FORMAT}; index again")
    with damage(folder):
        check_seal(folder / "manifest.json", manifest)
        if not manifest["encoder"]["fingerprint"]:
            raise ValueError("no fingerprint of the encoder")
        for part in ("digests", "store"):
            if not isinstance(manifest.get(part, {}), dict):
                raise ValueError(f"manifest.json has no {part}")
    return manifest


@contextmanager
def damage(folder: Path) -> Iterator[None]:
    """What is wrong with an index folder, as a UserError of one line that names it."""
    try:
        yield
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(f"the index in {folder} cannot be read: {error}") from None
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(f"the index in {folder} is damaged, index again: {_reason(error)}") from None


def described(index: Any, factory: str, encoder: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of an index (anything with `ntotal` and `d`) of what an encoder made."""
    return {
        "format": FORMAT,
        "factory": factory,
        "metric": "inner_product",
        "count": index.ntotal,
        "dimension": index.d,
        "encoder": dict(encoder),
        "build": dict(record),
        "created_with": libraries.created_with(),
        "libraries": libraries.versions(),
    }


def _reason(error: Exception) -> str:
    return f"manifest.json has no {error}" if isinstance(error, KeyError) else faiss_index.reason(error)
