"""What the command retrieval-prompts calls: from its first moment, while it still imports, Ctrl-C is no traceback."""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    """See `cli.app.main`."""
    start("retrieval_prompts.cli.app")


def start(app: str) -> None:
    """Import a command line, and run it. Exits with 130 where Ctrl-C comes before it can look after that itself."""
    try:
        importlib.import_module(app).main()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from where it was", file=sys.stderr)
        sys.exit(130)
