"""A corpus encoded on a local Ray cluster of three nodes, one of which is killed, beside one process.

    python eval/ray_nodes.py eval/data/scifact --json eval/results/ray-nodes.json

The documents are the first ten words of sentences in the abstracts of the data. The head runs no worker; each of three
nodes runs one, of one thread. When one is in the middle of a shard, its node is killed: its raylet, and so its worker.
Every text that a worker encodes is counted, so what is beyond the corpus was encoded twice. Then the same call runs
again (nothing is left to do), and once more with one shard deleted and one cut in half. The single process encodes the
same first, on one thread, or with --threads 1 2 on several.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrieval_prompts import BiEncoder, load_corpus
from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.files import check_output, write_json
from retrieval_prompts.interop.scale import pool
from retrieval_prompts.interop.scale.parts_run import Encoded
from retrieval_prompts.interop.scale.sharded import encode_shards
from retrieval_prompts.interop.scale.shards import of_corpus
from retrieval_prompts.interop.scale.vector_files import Parts, name_of
from retrieval_prompts.vectors.encode import encode_texts
from retrieval_prompts.vectors.index import Index

NODES, SHARD, WORDS = 3, 2048, 10
PACKAGES = ("torch", "sentence-transformers", "transformers", "faiss-cpu", "ray", "pyarrow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=3 * SHARD)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--overwrite", action="store_true")
    given = parser.parse_args()
    check_output(given.json, overwrite=given.overwrite)
    with tempfile.TemporaryDirectory() as place:
        result = measure(given.data, Path(place), given.documents, given.model, given.threads)
    write_json(given.json, result | made_on(PACKAGES))
    print(json.dumps(result, indent=2))


def measure(data: Path, place: Path, documents: int, model: str, of_threads: list[int]) -> dict[str, Any]:
    write_sentences(data, place / "corpus", documents)
    corpus = load_corpus(place / "corpus")
    own = BiEncoder.load(model, device="cpu")
    one, seconds = {}, {}
    for threads in of_threads:
        torch.set_num_threads(threads)
        began = time.perf_counter()
        one[threads] = own.encode_corpus(corpus, place / f"cache-{threads}").array()
        seconds[str(threads)] = round(time.perf_counter() - began, 1)
    alone, folder = one[of_threads[0]], place / "vectors"
    shards = of_corpus(corpus.path, SHARD)
    with cluster() as (address, nodes, remove):
        run = partial(encode, own, shards, folder, place, model, address)
        killed: dict[str, Any] = {}
        killer = threading.Thread(target=kill_one, args=(folder, place / "tried", nodes, remove, killed))
        killer.start()
        began = time.perf_counter()
        first = run()
        took = time.perf_counter() - began
        killer.join()
        tried = encoded(place / "tried")
        vectors = np.concatenate(list(Parts(folder, corpus.ids)))
        again = run()
        (folder / name_of(0)).unlink()
        content = (folder / name_of(2)).read_bytes()
        (folder / name_of(2)).write_bytes(content[: len(content) // 2])
        mended = run()
        remade = np.concatenate(list(Parts(folder, corpus.ids)))
    made = {"encoder": own.identity(), "gpu": False}
    indexes = [Index.build(each, None, corpus.ids, **made) for each in (alone, Parts(folder, corpus.ids))]  # type: ignore[arg-type]
    queries = alone[::257]
    return {
        "documents": len(corpus),
        "shards": len(shards),
        "nodes": NODES,
        "cores": len(os.sched_getaffinity(0)),
        "killed": killed,
        "texts_encoded": tried,
        "texts_encoded_twice": tried - len(corpus),
        "first": counted(first) | {"seconds": round(took, 1)},
        "again": counted(again),
        "one_shard_gone_one_cut": counted(mended),
        "equal_to_one_process": bool(np.array_equal(vectors, alone) and np.array_equal(remade, alone)),
        "largest_difference": {str(threads): float(np.abs(vectors - each).max()) for threads, each in one.items()},
        "same_hits": bool(indexes[0].search(queries, 10)[1] == indexes[1].search(queries, 10)[1]),
        "one_process_seconds_by_threads": seconds,
        "load_average": [round(each, 1) for each in os.getloadavg()],
    }


def write_sentences(data: Path, folder: Path, count: int) -> None:
    sentences = (each.split() for document in load_corpus(data) for each in re.split(r"(?<=[.?!]) ", document.text))
    texts = [" ".join(words[:WORDS]) for words in sentences if len(words) > WORDS]
    folder.mkdir(parents=True)
    rows = [{"_id": str(number), "title": "", "text": text} for number, text in enumerate(texts[:count])]
    (folder / "corpus.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


class cluster:
    """A head without processors and `NODES` nodes of one, on this machine."""

    def __enter__(self) -> tuple[str, list[Any], Callable[..., None]]:
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
        from ray.cluster_utils import Cluster

        options = {"object_store_memory": pool.STORE, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
        nodes = [self.cluster.add_node(num_cpus=1, object_store_memory=pool.STORE) for _ in range(NODES)]
        self.cluster.wait_for_nodes()
        return self.cluster.address, nodes, partial(self.cluster.remove_node, allow_graceful=False)

    def __exit__(self, *_: object) -> None:
        self.cluster.shutdown()


def encode(own: BiEncoder, shards: list[Any], folder: Path, place: Path, model: str, address: str) -> Encoded:
    def load(device: str) -> BiEncoder:
        """On a worker: the model, and a note of each pass."""
        import ray

        from retrieval_prompts.interop.scale import sharded

        node = ray.get_runtime_context().get_node_id()
        plain, notes = encode_texts, (place / "tried").open("a", buffering=1)
        sharded.encode_texts = lambda *a, **k: plain(  # type: ignore[attr-defined]
            *a, **k, progress=lambda n: notes.write(f"{node} {n} {time.time()}\n")
        )
        return BiEncoder.load(model, device=device)

    return encode_shards(own, load, shards, folder, wanted=pool.Wanted(address=address, device="cpu"))


def kill_one(
    folder: Path, notes: Path, nodes: list[Any], remove: Callable[[Any], None], killed: dict[str, Any]
) -> None:
    """Kill a node that is in the middle of a shard."""
    done: dict[str, int] = {}
    while not any(0.2 < count / SHARD % 1 < 0.8 for count in done.values()):
        time.sleep(0.2)
        done = {}
        for line in notes.read_text().splitlines() if notes.exists() else ():
            node, count, _ = line.split()
            done[node] = done.get(node, 0) + int(count)
    victim = max((node for node, count in done.items() if 0.2 < count / SHARD % 1 < 0.8), key=done.__getitem__)
    killed |= {"after_shards": len(list(folder.glob("part-*.parquet"))), "it_had_encoded": done[victim]}
    remove(next(node for node in nodes if node.node_id == victim))


def encoded(notes: Path) -> int:
    return sum(int(line.split()[1]) for line in notes.read_text().splitlines())


def counted(done: Encoded) -> dict[str, int]:
    return {name: getattr(done, name) for name in ("documents", "encoded", "shards", "made", "workers")}


if __name__ == "__main__":
    main()
