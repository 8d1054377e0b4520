"""What the command multimodal-prompts calls; see `retrieval_prompts.cli.start`."""

from __future__ import annotations

from retrieval_prompts.cli.start import start


def main() -> None:
    """See `cli.app.main`."""
    start("multimodal.cli.app")
