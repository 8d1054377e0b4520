"""Evaluate a frozen model, its prompts and baselines on BEIR data sets; the same as `retrieval-prompts beir`.

    python eval/run_beir.py --datasets scifact,nfcorpus --data-dir datasets --model all-MiniLM-L6-v2 \\
        --prompts 'prompts/{}' --baselines bm25,linear,lora,nudge,rrf --out results --report results/report.html
"""

from __future__ import annotations

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.commands.tuning.beir import beir


def main() -> None:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(beir)
    console.run(app)


if __name__ == "__main__":
    main()
