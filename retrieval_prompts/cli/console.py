"""What our command lines share: one-line errors and warnings, where people's and machines' output goes."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from retrieval_prompts.errors import UserError, first_line, out_of_memory


def run(app: Callable[[], Any]) -> None:
    """Run a command line; a user's mistake is one line on standard error and status 2."""
    _quiet()
    try:
        app()
    except (UserError, OSError) as error:  # a full disk, a file that may not be read
        print(f"error: {_line(error)}", file=sys.stderr)
        sys.exit(2)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        print(
            f"error: there is not enough memory ({first_line(error)}); free some of it, or use --device cpu",
            file=sys.stderr,
        )
        sys.exit(2)
    except SystemExit as end:
        if end.code == 130:  # typer's status for Ctrl-C
            print("interrupted; the same command goes on from where it was", file=sys.stderr)
        raise


def printer(json_file: Path | None) -> Callable[[Any], None]:
    """Print for people on standard output, or on standard error when the JSON goes there."""
    stream = sys.stderr if str(json_file) == "-" else sys.stdout
    return lambda text: _print(text, stream)


def check_outputs(json_file: Path | None, *files: Path | None, overwrite: bool) -> None:
    """Refuse result files that exist, unless `overwrite`; "-" is standard output. Raises UserError."""
    from retrieval_prompts.files import check_output

    for path in (None if str(json_file) == "-" else json_file, *files):
        if path is not None:
            check_output(path, overwrite=overwrite)


def write_result(path: Path, value: Any) -> None:
    """Write JSON to a file, atomically, or to standard output for "-"."""
    from retrieval_prompts.files import write_json

    if str(path) == "-":
        print(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        write_json(path, value)


def _quiet() -> None:
    """One-line warnings, each once, and none of the libraries' progress chatter."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    said: set[str] = set()  # a file that is read twice is as odd the second time

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        line = _line(message)
        if issubclass(category, UserWarning) and line not in said:
            said.add(line)
            print(f"warning: {line}", file=sys.stderr)

    warnings.showwarning = show


def _line(message: object) -> str:
    return " ".join(str(message).split())


def _print(text: Any, file: TextIO) -> None:
    if isinstance(text, str):
        print(text, file=file)
    else:
        from rich.console import Console

        Console(file=file).print(text)
