"""What a fresh process has loaded after a few lines of Python."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "transformers", "sentence_transformers", "faiss", "open_clip", "bm25s", "pytrec_eval", "scipy")


def loaded_after(program: str) -> set[str]:
    """The heavy packages that a fresh process has loaded after running `program`."""
    program += f"\nimport sys\nprint('loaded', *[name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split()[1:])
