"""Is a batch with a prompt a query what each prompt alone gives, and as fast? One BEIR folder, several prompts.

    python eval/mixed_prompts.py eval/data/scifact --json eval/results/mixed-prompts.json

The prompts are those that training starts from, with other seeds and in two sets other lengths: what they have learned
changes neither time nor rounding. Three ways to encode the same queries are timed, in turns, and the fastest turn of
each is taken: all in one call (`PromptSet`), a call a prompt over its own queries, and one query after another. Where
other work shares the machine, `--clock cpu` counts what this process itself took.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrieval_prompts import BiEncoder, UserError, load
from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.files import check_output, write_json
from retrieval_prompts.serving.prompt_set import PromptSet
from retrieval_prompts.towers.text import Floats

SETS: dict[str, dict[str, list[int]]] = {
    "input, one length": {"input": [8]},
    "input, four lengths": {"input": [4, 8, 12, 16]},
    "prefix, one length": {"prefix": [4]},
    "prefix, two lengths": {"prefix": [4, 8]},
    "both kinds": {"input": [8], "prefix": [4]},
}
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="BEIR folder")
    parser.add_argument("--json", type=Path, required=True, help="the result file")
    parser.add_argument("--model", default=None)
    parser.add_argument("--queries", type=int, default=1000, help="how many of them")
    parser.add_argument("--prompts", type=int, default=8, help="how many of them")
    parser.add_argument("--turns", type=int, default=3, help="of which the fastest counts")
    parser.add_argument("--single", type=int, default=100, help="queries that are encoded one after another")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    try:
        run(options)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(options: argparse.Namespace) -> None:
    check_output(options.json, overwrite=options.overwrite)
    dataset = load(options.data)
    texts = list(dataset.queries.values())[: options.queries]
    frozen = BiEncoder.load(options.model, device="cpu")
    rows = []
    for name, kinds in SETS.items():
        rows.append({"prompts": name, **measure(frozen, texts, kinds, options)})
        print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    result = {
        "dataset": dataset.name,
        "model": frozen.tower.name,
        "query_count": len(texts),
        "prompt_count": options.prompts,
        "clock": options.clock,
        "threads": torch.get_num_threads(),
        **made_on(("torch", "transformers", "sentence-transformers", "numpy")),
        "rows": rows,
    }
    write_json(options.json, result)


def measure(
    frozen: BiEncoder, texts: list[str], kinds: dict[str, list[int]], options: argparse.Namespace
) -> dict[str, Any]:
    """The largest difference of a number of a vector (of length 1), and queries a second of each way."""
    prompts, alone = PromptSet(frozen.tower), {}
    shapes = [(kind, length) for kind, lengths in kinds.items() for length in lengths]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.prompts):
            kind, length = shapes[number % len(shapes)]
            name = f"p{number}"
            alone[name] = BiEncoder(frozen.tower).attach("query", kind=kind, length=length, seed=number)
            alone[name].save(Path(folder) / name)
            prompts.add(Path(folder) / name)
    names = [prompts.names[number % options.prompts] for number in range(len(texts))]
    own = {name: [place for place, each in enumerate(names) if each == name] for name in prompts.names}

    def mixed() -> Floats:
        return prompts.encode_query(texts, names)

    def grouped() -> Floats:
        found = np.empty((len(texts), frozen.tower.dimension), dtype=np.float32)
        for name, places in own.items():
            found[places] = alone[name].encode_query([texts[place] for place in places])
        return found

    def single() -> Floats:
        pairs = zip(texts[: options.single], names, strict=False)
        return np.stack([alone[name].encode_query(text) for text, name in pairs])

    ways = {"mixed": mixed, "a_call_a_prompt": grouped, "one_by_one": single}
    vectors = {name: way() for name, way in ways.items()}
    seconds = {name: min(times) for name, times in timed(ways, options).items()}
    counts = {name: len(found) for name, found in vectors.items()}
    difference = {
        f"largest_difference_to_{name}": float(np.abs(vectors["mixed"][: counts[name]] - vectors[name]).max())
        for name in ("a_call_a_prompt", "one_by_one")
    }
    return difference | {f"{name}_queries_a_second": round(counts[name] / seconds[name], 1) for name in ways}


def timed(ways: dict[str, Callable[[], Floats]], options: argparse.Namespace) -> dict[str, list[float]]:
    clock = CLOCKS[options.clock]
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.turns):
        for name, way in ways.items():
            start = clock()
            way()
            times[name].append(clock() - start)
    return times


if __name__ == "__main__":
    main()
