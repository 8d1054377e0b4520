"""Texts or pictures encoded on a local Ray cluster of three nodes, one of which is killed, beside one process.

    python eval/ray_nodes.py eval/data/scifact --json eval/results/ray-nodes.json
    python eval/ray_nodes.py caltech101 --pictures --json eval/results/ray-pictures.json

The documents are the first ten words of sentences in the abstracts of the data, or the first pictures of a folder, in
three shards. The head runs no worker; each of three nodes runs one, of one thread. When one is in the middle of a
shard, its node is killed: its raylet, and so its worker. Everything that a worker encodes is counted, so what is beyond
the corpus was encoded twice. Then the same call runs again (nothing is left to do), and once more with one shard
deleted and one cut in half, and the workers that are left make an IVF index, whose shards are merged on disk. The
single process encodes the same first, on one thread, or with --threads 1 2 on several.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrieval_prompts import BiEncoder, load_corpus
from retrieval_prompts.data.corpus import Document
from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.files import check_output, write_json
from retrieval_prompts.interop.scale import merged, pool
from retrieval_prompts.interop.scale.parts_run import Encoded
from retrieval_prompts.interop.scale.sharded import encode_shards
from retrieval_prompts.interop.scale.shards import of_corpus
from retrieval_prompts.interop.scale.vector_files import Parts, name_of
from retrieval_prompts.vectors.encode import encode_texts
from retrieval_prompts.vectors.index import Index

NODES, SHARD, PICTURES, WORDS = 3, 2048, 512, 10
FACTORY, ADDED = "IVF16,SQ8", 512  # the merged index, and the most vectors of its shards, unless one part has more
PACKAGES = ("torch", "sentence-transformers", "transformers", "open_clip_torch", "faiss-cpu", "ray", "pyarrow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--pictures", action="store_true", help="DATA is a folder of pictures")
    parser.add_argument("--documents", type=int, help="at most  [default: 6,144; 1,536 pictures]")
    parser.add_argument("--model", help="[default: all-MiniLM-L6-v2; the small CLIP that comes along]")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--overwrite", action="store_true")
    given = parser.parse_args()
    check_output(given.json, overwrite=given.overwrite)
    with tempfile.TemporaryDirectory() as place:
        make = pictures if given.pictures else texts
        result = measure(make(given.data, Path(place), given.documents, given.model), Path(place), given.threads)
    write_json(given.json, result | made_on(PACKAGES))
    print(json.dumps(result, indent=2))


@dataclass(frozen=True)
class Task:
    """What is encoded.

    Args:
        alone: a folder for a cache -> ids and vectors, by this process.
        workers: a folder and a cluster's address -> the same in parts; they note how many they encode.
        shard: documents in one.
    """

    identity: dict[str, Any]
    alone: Callable[[Path], tuple[Sequence[str], np.ndarray]]
    workers: Callable[[Path, str], Encoded]
    shard: int


def texts(data: Path, place: Path, documents: int | None, model: str | None) -> Task:
    write_sentences(data, place / "corpus", documents or 3 * SHARD)
    corpus, name = load_corpus(place / "corpus"), model or "all-MiniLM-L6-v2"
    own, shards = BiEncoder.load(name, device="cpu"), of_corpus(corpus.path, SHARD)

    def load(device: str) -> BiEncoder:
        """On a worker: the model, and a note of each pass."""
        from retrieval_prompts.interop.scale import sharded

        note, plain = notes(place), encode_texts
        sharded.encode_texts = lambda *a, **k: plain(*a, **k, progress=note)  # type: ignore[attr-defined]
        return BiEncoder.load(name, device=device)

    def workers(folder: Path, address: str) -> Encoded:
        return encode_shards(own, load, shards, folder, wanted=pool.Wanted(address=address, device="cpu"))

    return Task(own.identity(), lambda cache: (corpus.ids, own.encode_corpus(corpus, cache).array()), workers, SHARD)


def pictures(data: Path, place: Path, documents: int | None, model: str | None) -> Task:
    from multimodal.data.pictures import load_pictures
    from multimodal.interop.picture_shards import encode_pictures
    from multimodal.towers.clip import Clip, load_clip
    from multimodal.vectors.features import image_features
    from multimodal.vectors.image_index import encoder

    found, own = load_pictures(data)[: documents or 3 * PICTURES], load_clip(model, device="cpu")

    def load(device: str) -> Clip:
        """On a worker: the model, and a note of each pass."""
        clip, note = load_clip(model, device=device), notes(place)
        plain = clip.encode_images

        def noted(pixels: torch.Tensor) -> torch.Tensor:
            vectors = plain(pixels)
            note(len(pixels))
            return vectors

        clip.encode_images = noted  # type: ignore[method-assign]
        return clip

    def workers(folder: Path, address: str) -> Encoded:
        wanted = pool.Wanted(address=address, device="cpu")
        return encode_pictures(own, found, folder, load=load, size=PICTURES, wanted=wanted)

    def alone(cache: Path) -> tuple[Sequence[str], np.ndarray]:
        features = image_features(own, found, cache=cache)
        return [found[position].name for position in features.kept], np.concatenate(list(features.blocks()))

    return Task(encoder(own), alone, workers, PICTURES)


def measure(task: Task, place: Path, of_threads: list[int]) -> dict[str, Any]:
    one, seconds, folder = {}, {}, place / "vectors"
    with cluster() as (address, nodes, remove):
        for threads in of_threads:
            torch.set_num_threads(threads)
            began = time.perf_counter()
            ids, one[threads] = task.alone(place / f"cache-{threads}")
            seconds[str(threads)] = round(time.perf_counter() - began, 1)
        alone = one[of_threads[0]]
        killed: dict[str, Any] = {}
        killer = threading.Thread(target=kill_one, args=(task.shard, folder, place / "tried", nodes, remove, killed))
        killer.start()
        began = time.perf_counter()
        first = task.workers(folder, address)
        took = time.perf_counter() - began
        killer.join()
        tried = encoded(place / "tried")
        vectors = np.concatenate(list(Parts(folder, ids)))
        again = task.workers(folder, address)
        (folder / name_of(0)).unlink()
        content = (folder / name_of(2)).read_bytes()
        (folder / name_of(2)).write_bytes(content[: len(content) // 2])
        mended = task.workers(folder, address)
        parts = Parts(folder, ids)
        remade = np.concatenate(list(parts))
        wanted = pool.Wanted(address=address, device="cpu")
        lists = merged_index(place / "index", parts, ids, task.identity, wanted)
    made = {"encoder": task.identity, "gpu": False}
    flat = [Index.build(each, None, ids, **made) for each in (alone, parts)]  # type: ignore[arg-type]
    plain = Index.build(alone, None, ids, factory=FACTORY, **made)  # type: ignore[arg-type]
    queries = alone[::257]
    return {
        "documents": len(ids),
        "shards": first.shards,
        "nodes": NODES,
        "cores": len(os.sched_getaffinity(0)),
        "killed": killed,
        "encoded": tried,
        "encoded_twice": tried - first.encoded,
        "first": counted(first) | {"seconds": round(took, 1)},
        "again": counted(again),
        "one_shard_gone_one_cut": counted(mended),
        "equal_to_one_process": bool(np.array_equal(vectors, alone) and np.array_equal(remade, alone)),
        "largest_difference": {str(threads): float(np.abs(vectors - each).max()) for threads, each in one.items()},
        "same_hits": same(flat[0], flat[1], queries),
        "merged": {
            "factory": FACTORY,
            "shards": lists.manifest["build"]["shards"],
            "same_hits_and_scores_as_plain": same(plain, lists, queries, scores=True),
        },
        "one_process_seconds_by_threads": seconds,
        "load_average": [round(each, 1) for each in os.getloadavg()],
    }


def merged_index(out: Path, parts: Parts, ids: Sequence[str], identity: Any, wanted: pool.Wanted) -> Index:
    """Made by the workers that are left, in shards that are smaller than they would be."""
    merged.VECTORS = ADDED
    documents = [Document(id, "", "") for id in ids]
    with merged.building(parts, wanted) as write:
        return Index.write(out, parts, documents, encoder=identity, factory=FACTORY, write=write, gpu=False)


def same(one: Index, other: Index, queries: np.ndarray, scores: bool = False) -> bool:
    """Whether both find the same ten in the same order, and with the same scores."""
    a, b = one.search(queries, 10), other.search(queries, 10)
    return bool(a[1] == b[1] and (not scores or np.array_equal(a[0], b[0])))


def write_sentences(data: Path, folder: Path, count: int) -> None:
    sentences = (each.split() for document in load_corpus(data) for each in re.split(r"(?<=[.?!]) ", document.text))
    found = [" ".join(words[:WORDS]) for words in sentences if len(words) > WORDS]
    folder.mkdir(parents=True)
    rows = [{"_id": str(number), "title": "", "text": text} for number, text in enumerate(found[:count])]
    (folder / "corpus.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@contextmanager
def cluster() -> Iterator[tuple[str, list[Any], Callable[..., None]]]:
    """A head without processors and `NODES` nodes of one, on this machine: its address, nodes, what kills one."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_worker_niceness", "0")
    from ray.cluster_utils import Cluster

    options = {"object_store_memory": pool.STORE, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
    try:
        nodes = [made.add_node(num_cpus=1, object_store_memory=pool.STORE) for _ in range(NODES)]
        made.wait_for_nodes()
        yield made.address, nodes, partial(made.remove_node, allow_graceful=False)
    finally:
        made.shutdown()


def notes(place: Path) -> Callable[[int], object]:
    """On a worker: what notes that so many were encoded on its node."""
    import ray

    node, file = ray.get_runtime_context().get_node_id(), (place / "tried").open("a", buffering=1)
    return lambda count: file.write(f"{node} {count}\n")


def kill_one(
    shard: int, folder: Path, tried: Path, nodes: list[Any], remove: Callable[[Any], None], killed: dict[str, Any]
) -> None:
    """Kill a node that is in the middle of a shard."""
    done: dict[str, int] = {}
    while not any(0.2 < count / shard % 1 < 0.8 for count in done.values()):
        time.sleep(0.2)
        done = {}
        for line in tried.read_text().splitlines() if tried.exists() else ():
            node, count = line.split()
            done[node] = done.get(node, 0) + int(count)
    victim = max((node for node, count in done.items() if 0.2 < count / shard % 1 < 0.8), key=done.__getitem__)
    killed |= {"after_shards": len(list(folder.glob("part-*.parquet"))), "it_had_encoded": done[victim]}
    remove(next(node for node in nodes if node.node_id == victim))


def encoded(tried: Path) -> int:
    return sum(int(line.split()[1]) for line in tried.read_text().splitlines())


def counted(done: Encoded) -> dict[str, int]:
    return {name: getattr(done, name) for name in ("documents", "encoded", "shards", "made", "workers")}


if __name__ == "__main__":
    main()
