"""Ours beside sentence-transformers, onnxruntime, OpenVINO: encoding, a step, a first vector, a search (`make bench`).

    python -m eval.speed.side_by_side eval/data/scifact --json eval/results/speed-side-by-side.json

Every way runs once a round, round after round, in one process set on the same threads; medians and the whole spread are
kept. Peers run from their own packages, at their defaults and at the batch size that a first look at a few
documents finds best. In each round the machine's limit is measured too, as the rate of a plain product of matrices as
large as the model's, and what the linear layers reach of it is told beside each way.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset, load
from retrieval_prompts.data.from_python import from_texts
from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.files import check_output, write_json
from retrieval_prompts.interop.onnx import export_onnx
from retrieval_prompts.towers.text import locate
from retrieval_prompts.training.losses import info_nce
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.vectors.encode import encode_texts

Way = Callable[[], Any]
Run = Callable[[dict[str, np.ndarray]], np.ndarray]  # the inputs of a batch -> its vectors
SIZES = (4, 8, 16, 32, 64)  # batches that peers are tried with
LOOK = 48  # documents of that first look
ROWS = 1024  # of the matrix product: the tokens of a pass on a CPU

FIRST = {
    "ours": "from retrieval_prompts import BiEncoder as B; B.load({model!r}, device='cpu').encode_query('a question')",
    "sentence-transformers": "from sentence_transformers import SentenceTransformer as S; "
    "S({path!r}, device='cpu').encode_query('a question')",
    "onnxruntime": "import numpy as np, onnxruntime as o; from tokenizers import Tokenizer as T; "
    "e = T.from_file({path!r} + '/tokenizer.json').encode('a question'); x = np.array([e.ids]); "
    "s = o.InferenceSession({onnx!r}); s.run(None, dict(input_ids=x, attention_mask=np.ones_like(x)))",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--documents", type=int, default=192, help="how many are encoded in a round")
    parser.add_argument("--batch-size", type=int, default=32, help="queries of a tuning step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    check_output(options.json, overwrite=options.overwrite)
    dataset, ours = load(options.data), BiEncoder.load(options.model, device="cpu")
    with tempfile.TemporaryDirectory() as temporary:
        result = measured(options, dataset, ours, Path(temporary))
    write_json(options.json, result)


def measured(options: argparse.Namespace, dataset: Dataset, ours: BiEncoder, folder: Path) -> dict[str, Any]:
    """Every way in every round, and what comes of it."""
    documents = np.random.default_rng(0).permutation(len(dataset.corpus))[: options.documents]
    texts = [dataset.corpus[int(position)].content for position in documents]
    names = {"model": options.model, "path": locate(options.model), "onnx": str(folder / "model.onnx")}
    theirs = SentenceTransformer(names["path"], device="cpu")
    encoding, best = encoders(ours, theirs, texts, folder)
    step, step_tokens = tuning_step(ours, dataset, options.batch_size)
    search = [sys.executable, "-m", "retrieval_prompts.cli.app", "search", str(folder / "index"), "a question"]
    index = Workbench(ours.tower, small(dataset, documents), folder / "cache").index
    index.save(folder / "index", True)
    ways: dict[str, Way] = {"matrix product": lambda: product(ours)}
    ways |= {f"encode: {name}": way for name, way in encoding.items()} | {"tuning step": step}
    ways |= {f"first vector: {name}": script(text.format(**names)) for name, text in FIRST.items()}
    ways |= {"search, a command": lambda: run(search)}
    ways |= {"search, again in one process": lambda: index.search(ours.query_vectors(["a question"]), 10)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
            print(f"{name}: {seconds[name][-1]:.3f} s", flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    weights = linear_weights(ours)
    limit = 2 * weights * ROWS / medians["matrix product"] / 1e9
    tokens = sum(len(row) for row in ours.tower.tokenize(texts, "document"))
    # A step goes forward, and backward to what the prompts are: twice the products, for no weight has a gradient
    work = {name: 2 * weights * tokens for name in ways if name.startswith("encode")}
    work["tuning step"] = 4 * weights * step_tokens
    rates = {name: work[name] / medians[name] / 1e9 for name in work}
    table = {
        name: {
            "median_seconds": medians[name],
            "seconds": values,
            "spread": (max(values) - min(values)) / medians[name],
            **({"documents_a_second": len(texts) / medians[name]} if name.startswith("encode") else {}),
            **({"gigaflops": rates[name], "share_of_the_limit": rates[name] / limit} if name in rates else {}),
        }
        for name, values in seconds.items()
    }
    print(markdown(table, limit))
    return {
        "data": dataset.name,
        "model": options.model,
        "documents": len(texts),
        "tokens": tokens,
        "tuning_step": {"queries": options.batch_size, "tokens": step_tokens},
        "limit_gigaflops": limit,
        "best_batch_size": best,
        "ways": table,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        **made_on(("torch", "sentence-transformers", "transformers", "onnxruntime", "openvino", "faiss-cpu")),
    }


def encoders(
    ours: BiEncoder, theirs: SentenceTransformer, texts: list[str], folder: Path
) -> tuple[dict[str, Way], dict[str, int]]:
    """The ways to encode the texts, and the batch sizes that peers are best at. Their vectors are ours, to 1e-4."""
    theirs.save(str(folder / "checkpoint"), create_model_card=False)
    export_onnx(folder / "checkpoint", folder / "model.onnx")
    exported = {"onnxruntime": onnx_session(folder / "model.onnx"), "OpenVINO": openvino(folder / "model.onnx")}

    def export(run: Run, some: list[str], size: int) -> np.ndarray:
        """As sentence-transformers does it: long texts first, batches of like length, padded to the longest."""
        ids = ours.tower.tokenize(some, "document")
        order = sorted(range(len(ids)), key=lambda place: -len(ids[place]))
        found = np.empty((len(ids), ours.tower.dimension), dtype=np.float32)
        for start in range(0, len(order), size):
            places = order[start : start + size]
            rows = np.zeros((len(places), len(ids[places[0]])), dtype=np.int64)
            mask = np.zeros_like(rows)
            for row, kept, place in zip(rows, mask, places, strict=True):
                row[: len(ids[place])], kept[: len(ids[place])] = ids[place], 1
            found[places] = run({"input_ids": rows, "attention_mask": mask})
        return found

    def plain(some: list[str], size: int) -> np.ndarray:
        return np.asarray(theirs.encode_document(some, batch_size=size, show_progress_bar=False))

    expected = encode_texts(ours.tower, texts[:LOOK], "document")
    peers: dict[str, Callable[[list[str], int], np.ndarray]] = {"sentence-transformers": plain}
    peers |= {name: partial(export, run) for name, run in exported.items() if run is not None}
    best = {}
    for name, encode in peers.items():
        taken = {}
        for size in SIZES:
            start = time.perf_counter()
            found = encode(texts[:LOOK], size)
            taken[size] = time.perf_counter() - start
            if np.abs(found - expected).max() > 1e-4:
                sys.exit(f"{name} gives other vectors than ours")
        best[name] = min(taken, key=lambda size: taken[size])
    ways: dict[str, Way] = {
        "ours": lambda: encode_texts(ours.tower, texts, "document"),
        "sentence-transformers, default": lambda: theirs.encode_document(texts, show_progress_bar=False),
    }
    ways |= {f"{name}, best": partial(encode, texts, best[name]) for name, encode in peers.items()}
    return ways, best


def openvino(file: Path) -> Run | None:
    """The exported model in OpenVINO, in float32 on as many threads as torch has; None where it is not installed."""
    try:
        library = import_module("openvino")
    except ImportError:
        return None
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = library.Core().compile_model(str(file), "CPU", settings)
    return lambda given: compiled(given)[0]


def onnx_session(file: Path) -> Run:
    """The same in onnxruntime."""
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda given: session.run(None, given)[0]


def small(dataset: Dataset, documents: np.ndarray) -> Dataset:
    """The data with these documents alone, and no queries."""
    chosen = [dataset.corpus[int(position)] for position in documents]
    rows = {document.id: document.content for document in chosen}
    return from_texts(rows)


def tuning_step(ours: BiEncoder, dataset: Dataset, size: int) -> tuple[Way, int]:
    """A step on as many queries, against random document vectors in place of the corpus's, and its tokens."""
    biencoder = BiEncoder(ours.tower).attach(TuneSettings.of(negatives="corpus"))
    texts = [dataset.queries[query] for query in list(dataset.qrels["train"])[:size]]
    ids = biencoder.tokenize(texts, "query")
    generator = torch.Generator().manual_seed(0)
    documents = torch.randn(len(dataset.corpus), ours.tower.dimension, generator=generator)
    positive = torch.zeros(len(texts), len(documents), dtype=torch.bool)
    positive[torch.arange(len(texts)), torch.arange(len(texts))] = True
    optimizer = torch.optim.AdamW(biencoder.parameters(), lr=1e-2)

    def step() -> None:
        optimizer.zero_grad()
        info_nce(biencoder.embed(ids, "query") @ documents.T, positive, 0.05).backward()
        optimizer.step()

    length = biencoder.prompts["query"]().shape[1]
    return step, sum(len(row) + length for row in ids)


def linear_weights(ours: BiEncoder) -> int:
    """The weights of the model's linear layers."""
    layers = (each for each in ours.tower.model.encoder.modules() if isinstance(each, torch.nn.Linear))
    return sum(each.weight.numel() for each in layers)


def product(ours: BiEncoder) -> None:
    """Products that together are as much work as the linear layers have with so many tokens, all in one shape."""
    width = ours.tower.width
    times = round(linear_weights(ours) / (width * 4 * width))
    rows, weights = torch.randn(ROWS, width), torch.randn(width, 4 * width)
    for _ in range(times):
        rows @ weights


def script(text: str) -> Way:
    return lambda: run([sys.executable, "-c", text])


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")


def markdown(table: dict[str, dict[str, Any]], limit: float) -> str:
    """The table of eval/README.md."""
    lines = [
        f"limit: {limit:.0f} GFLOP/s",
        "| | median s | spread | documents/s | of the limit |",
        "|---|---|---|---|---|",
    ]
    for name, row in table.items():
        rate = f"{row['documents_a_second']:.1f}" if "documents_a_second" in row else ""
        share = f"{100 * row['share_of_the_limit']:.0f} %" if "share_of_the_limit" in row else ""
        lines.append(f"| {name} | {row['median_seconds']:.3f} | {100 * row['spread']:.0f} % | {rate} | {share} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
