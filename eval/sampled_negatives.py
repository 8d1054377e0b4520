"""Where a corpus is beyond the memory budget, a step compares with a part of it: is that step the same?

    python eval/sampled_negatives.py eval/data/scifact --json eval/results/sampled-negatives-scifact.json

A step then has the batch's own documents, the wrong answers that the model ranks best, and random documents (`RANDOM`
of `training.retrieval`; here as shares of the corpus too, for a corpus of millions has far more than these). Its
gradient is held against that of the whole corpus, over the batches of an epoch, at the start and at the end of a
training; and `tune` is run both ways.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrieval_prompts import BiEncoder, TuneSettings, UserError, load
from retrieval_prompts.evaluation.tables import markdown
from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.experiments.retrieval import tune
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.files import check_output, write_json
from retrieval_prompts.training import retrieval
from retrieval_prompts.training.retrieval import RANDOM, Task
from retrieval_prompts.training.training_data import TrainingData

SMALL = 1e-9  # gigabytes: no corpus fits
SHARES = (0.0, 0.01, 0.1)  # of the corpus, drawn at random


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="BEIR folder with a train and a test split")
    parser.add_argument("--model", default=None)
    parser.add_argument("--kind", default=None, choices=["input", "prefix"])
    parser.add_argument("--json", type=Path, required=True, help="the result file")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    try:
        check_output(options.json, overwrite=options.overwrite)
        result = run(options)
    except UserError as error:
        sys.exit(f"error: {error}")
    write_json(options.json, result)
    print(table(result))


def run(options: argparse.Namespace) -> dict[str, Any]:
    settings = TuneSettings.of(**({} if options.kind is None else {"kind": options.kind}))
    bench = Workbench(BiEncoder.load(options.model).tower, load(options.data))
    start, end = BiEncoder(bench.tower).attach(settings), BiEncoder(bench.tower)
    whole = tune(end, bench, settings, bm25=False).to_json()
    part = tune(BiEncoder(bench.tower), bench, replace(settings, memory=SMALL), bm25=False).to_json()
    count = len(bench.dataset.corpus)
    draws = {f"{share:.0%}": round(share * count) for share in SHARES} | {f"{RANDOM:,}": RANDOM}
    return {
        "data": bench.dataset.name,
        "documents": count,
        "model": bench.tower.name,
        "gradients": {
            when: {name: alike(bench, each, settings, drawn) for name, drawn in draws.items()}
            for when, each in (("start", start), ("end", end))
        },
        "tuned": {
            name: {key: each[key] for key in ("choice", "tests")} for name, each in (("whole", whole), ("part", part))
        },
        "threads": torch.get_num_threads(),
        **made_on(("torch", "transformers", "sentence-transformers")),
    }


def alike(bench: Workbench, biencoder: BiEncoder, settings: TuneSettings, drawn: int) -> dict[str, float]:
    """Of the gradients of an epoch's batches, with so many random documents and with all: the mean and least cosine of
    the two, and how long the one is beside the other."""
    before, retrieval.RANDOM = retrieval.RANDOM, drawn
    try:
        pairs = list(
            zip(
                *(gradients(bench, biencoder, each) for each in (settings, replace(settings, memory=SMALL))),
                strict=True,
            )
        )
    finally:
        retrieval.RANDOM = before
    cosines = [float(torch.cosine_similarity(one, other, dim=0)) for one, other in pairs]
    lengths = [float(other.norm() / one.norm()) for one, other in pairs]
    return {
        "cosine": statistics.fmean(cosines),
        "least_cosine": min(cosines),
        "length": statistics.fmean(lengths),
        "batches": len(pairs),
    }


def gradients(bench: Workbench, biencoder: BiEncoder, settings: TuneSettings) -> Iterator[Tensor]:
    """Those of the prompt, one for each batch of the first epoch."""
    task = Task(biencoder, TrainingData.of(bench.dataset), settings, bench.documents)
    loss = task.loss(fresh=False)
    per_epoch = -(-len(task.texts) // settings.batch_size)
    for batch in task.plan(fresh=False).batches(0)[:per_epoch]:
        biencoder.prompts.zero_grad()
        loss(batch).backward()
        yield torch.cat([each.grad.reshape(-1) for each in biencoder.prompts.parameters() if each.grad is not None])


def table(result: dict[str, Any]) -> str:
    """A row for each number of random documents, as Markdown."""
    rows = [
        [when, name, f"{row['cosine']:.3f}", f"{row['least_cosine']:.3f}", f"{row['length']:.2f}"]
        for when, own in result["gradients"].items()
        for name, row in own.items()
    ]
    return markdown(rows, ["of the training", "random documents", "cosine", "least", "length"])


if __name__ == "__main__":
    main()
