"""Train for many steps and measure how the memory of the process grows: a slope in bytes a step, after a warm-up.

    python eval/memory_slope.py eval/data/scifact --steps 600 --batch-size 2 --json eval/results/memory-slope.json

The first half of the steps is left out: allocators and caches fill there. What a training finds does not end it.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from retrieval_prompts import BiEncoder, TuneSettings, UserError, load
from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.files import check_output, write_json
from retrieval_prompts.training import retrieval
from retrieval_prompts.training.training_data import TrainingData

EVERY = 10  # steps between measurements


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="BEIR folder to train on")
    parser.add_argument("--json", type=Path, required=True, help="the result file")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--model", default=None)
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    try:
        run(options)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    check_output(options.json, overwrite=options.overwrite)
    biencoder, dataset = BiEncoder.load(options.model), load(options.data)
    train = dataset.split("train")[1]
    settings = TuneSettings(epochs=1 + options.steps * options.batch_size // len(train), batch_size=options.batch_size)
    documents = BiEncoder(biencoder.tower).encode_corpus(dataset.corpus)
    biencoder.attach(settings)
    given = TrainingData(dataset.corpus, dataset.queries, train, {})
    retrieval.GIVE_UP = None
    steps: list[int] = []
    sizes: list[int] = []
    tensors: list[int] = []
    training = retrieval.train(biencoder, given, settings, documents=documents)
    for record in islice(training, options.steps + 1):
        if record.step % EVERY == 0:
            gc.collect()
            steps.append(record.step)
            sizes.append(resident())
            tensors.append(sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()))
            print(f"step {record.step}: {sizes[-1] / 1e6:,.1f} MB, {tensors[-1]} tensors", flush=True)
    late = slice(len(steps) // 2, None)
    slope = float(np.polyfit(steps[late], sizes[late], 1)[0])
    print(f"slope: {slope:+,.0f} bytes a step")
    result = {
        "dataset": dataset.name,
        "model": biencoder.tower.name,
        "batch_size": options.batch_size,
        "steps": steps,
        "resident_bytes": sizes,
        "live_tensors": tensors,
        "slope_bytes_a_step": round(slope, 1),
        "threads": torch.get_num_threads(),
        **made_on(("torch", "transformers", "sentence-transformers")),
    }
    write_json(options.json, result)


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
