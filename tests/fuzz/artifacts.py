"""Every reader of what this package writes: sound artifacts, and strategies that change them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import odd
import torch
from hypothesis import strategies as st
from odd import Files, arrays
from readers import Reader, of_files

DATA = Path(__file__).parents[1] / "data"
RESEAL = ".reseal"  # a file of this name: checksums are made to fit what was changed, as someone hostile would


def make_inputs(place: Path) -> None:
    """A sound artifact of each kind, small."""
    from safetensors.torch import save_file

    from multimodal.vectors.image_index import ImageIndex
    from multimodal.vectors.segments import KEY, Segments
    from retrieval_prompts.data.corpus import Document
    from retrieval_prompts.evaluation.bm25 import BM25Index
    from retrieval_prompts.evaluation.trec_runs import write_run
    from retrieval_prompts.experiments import result_file
    from retrieval_prompts.experiments.benchmark import BenchmarkResult
    from retrieval_prompts.experiments.benchmark_dataset import DatasetRecord
    from retrieval_prompts.prompts.folder import Feedback, PromptFolder, save_prompts
    from retrieval_prompts.prompts.label import Label
    from retrieval_prompts.prompts.mixture import Mixture
    from retrieval_prompts.vectors.blocks import _keep

    shutil.copytree(DATA / "clip_prompts_1", place / "old CLIP prompts")
    shutil.copytree(DATA / "text_prompts_1", place / "old prompts")
    base = {"name": "toy", "fingerprint": "0" * 64, "dimension": 8, "width": 8}
    feedback = Feedback({"map": torch.eye(8), "bias": torch.zeros(8), "gate": torch.zeros(4)}, 0.5)
    prompts = PromptFolder("input", {"query": torch.ones(1, 2, 8)}, base, 0.5, {"dev": [0.1, 0.2]}, 0.3, feedback)
    save_prompts(place / "prompts", prompts)
    mixture = Mixture(torch.eye(8)[:2], (0.1, 0.2), (1.0, 1.0), (1.0, 0.5))
    mixed = PromptFolder("input", {"query": torch.ones(1, 4, 8)}, base, mixture=mixture, label=Label("both"))
    save_prompts(place / "mixture", mixed)
    vectors = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    documents = [Document(f"d{number}.png", f"title {number}", "a river\x1b[2J") for number in range(6)]
    ids = [document.id for document in documents]
    encoder = {"fingerprint": "0" * 64, "model": "toy", "images": str(place)}
    words = BM25Index.build([document.content for document in documents], ids)
    for factory in ("Flat", "HNSW4", "IVF2,SQ8", "PQ4x4fs,RFlat", "PCA4,IVF2,Flat", "RaBitQ"):
        flat = factory == "Flat"
        given = vectors if flat else np.tile(vectors, (8, 1))
        names = ids if flat else [f"d{number}" for number in range(len(given))]
        index = ImageIndex.build(given, documents if flat else None, names, encoder=encoder, factory=factory)
        index.digests = np.zeros((len(names), 32), dtype=np.uint8)
        index.save(place / f"index {factory}", beside={"bm25": words.save} if flat else None)
    (place / "adapter").mkdir()
    save_file({"prompt_embeddings": torch.ones(2, 8)}, place / "adapter" / "adapter_model.safetensors")
    config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2, "base_model_name_or_path": "toy"}
    (place / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    (place / "results").mkdir()
    record = DatasetRecord(
        "toy", "test", 40, 10, "0" * 64, systems={"frozen": {"ndcg@10": 0.5}}, weights={"frozen": 0.3}
    )
    made = BenchmarkResult("toy", "0" * 64, {"kind": "input"}, {"toy": record})
    result_file.write(place / "results" / "results.json", made.to_json())
    write_run(place / "results" / "a.trec", {"q1": {"d1": 1.0}}, "x")
    _keep(place / "block" / f"{'0' * 64}.npy", vectors)
    segments = Segments(place / "segments", "0" * 64, 8)
    segments.add([bytes([number]) * KEY for number in range(3)], torch.ones(3, 8))
    _checkpoint(place / "checkpoint" / "p.partial")


def _checkpoint(path: Path) -> None:
    from torch import nn

    from retrieval_prompts.training.loop import LoopSettings, _Run

    path.parent.mkdir()
    training = _Run(nn.Linear(2, 2), LoopSettings(epochs=2), {"data": "x"}, 4)
    training.start(lambda: 0.5)
    training.save(path)


def artifacts(place: Path) -> dict[str, Reader]:
    from multimodal.cli.commands.verify import SEGMENT, _features
    from multimodal.prompts.folder import load as load_clip_prompts
    from retrieval_prompts.cli.artifacts import verdicts
    from retrieval_prompts.prompts.folder import load_prompts

    more = ((SEGMENT, "image features", _features),)
    verified = [path for path in sorted(place.iterdir()) if path.is_dir()]
    return {
        "prompts": of_files(
            _artifact(place / "prompts", place / "old prompts", place / "mixture"), _resealed(load_prompts)
        ),
        "CLIP prompts": of_files(_artifact(place / "old CLIP prompts"), _resealed(load_clip_prompts)),
        "indexes": of_files(_artifact(*place.glob("index *")), _resealed(_read_index)),
        "PEFT adapters": of_files(_artifact(place / "adapter"), _read_adapter),
        "results": of_files(_artifact(place / "results"), _resealed(_read_results)),
        "checkpoints": of_files(_artifact(place / "checkpoint"), _read_checkpoint),
        "cached vectors": of_files(_artifact(place / "block", place / "segments"), _read_cache),
        "verify": of_files(_artifact(*verified), lambda folder: [each.line() for each in verdicts(folder, more)]),
    }


@st.composite
def _artifact(draw: st.DrawFn, *places: Path) -> Files:
    """A folder in which one or two files were changed, with checksums that fit or not."""
    place = draw(st.sampled_from(places))
    files = {
        path.relative_to(place).as_posix(): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()
    }
    for name in draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=2, unique=True)):
        content = files[name]
        if name.endswith(".json") and draw(st.booleans()):
            files[name] = odd.dumped(draw(odd.edited(json.loads(content))))
        elif name.endswith((".safetensors", ".partial")):
            files[name] = draw(odd.safetensors(content))
        elif name.endswith(".npy") and draw(st.booleans()):
            files[name] = draw(arrays())
        else:
            files[name] = draw(odd.damaged(st.just(content)))
    return files | ({RESEAL: b""} if draw(st.booleans()) else {})


def _resealed(read: Callable[[Path], object]) -> Callable[[Path], object]:
    def sealed_first(folder: Path) -> object:
        if (folder / RESEAL).exists():
            (folder / RESEAL).unlink()
            with suppress(Exception):
                _reseal(folder)
        return read(folder)

    return sealed_first


def _reseal(folder: Path) -> None:
    """Make all checksums fit, as whoever made the folder could."""
    from safetensors.torch import load_file

    from retrieval_prompts.files import list_all, sealed
    from retrieval_prompts.towers.fingerprint import digest
    from retrieval_prompts.vectors import index_files

    if (folder / "SHA256SUMS").exists():
        list_all(folder)
    for name in ("manifest.json", "prompt.json", "results.json"):
        if not (folder / name).exists():
            continue
        about = json.loads((folder / name).read_bytes())
        if name == "manifest.json":
            (folder / name).unlink()
            about |= index_files.described(folder)
        if name == "prompt.json" and about["format"] == "soft-prompts/2":
            tensors = load_file(folder / "prompt.safetensors")
            about["fingerprint"] = digest(tensors, before=about["kind"])
            about["tensors"] = {key: list(value.shape) for key, value in tensors.items()}
        (folder / name).write_text(json.dumps(sealed(about)))


def _read_index(folder: Path) -> None:
    from multimodal.vectors import image_index
    from retrieval_prompts.errors import UserError
    from retrieval_prompts.evaluation.hybrid import HybridIndex

    index = image_index.ImageIndex.open(folder)
    with suppress(UserError):
        index.check_encoder({"fingerprint": "0" * 64})
    query = np.ones((1, index.manifest["dimension"]), dtype=np.float32)
    if index.manifest["dimension"] < 1 << 20:
        _, (ids,) = index.search(query, 3)
        for id in ids:
            index.document(id)
        for hit in image_index.search(index, torch.from_numpy(query), 3):
            with suppress(UserError):
                raise AssertionError(f"{hit.picture.read()!r} was shown")
        hybrid = HybridIndex.of(index, folder)
        if hybrid is not None:
            hybrid.search(["a river"], query, 3, weight=0.5)


def _read_adapter(folder: Path) -> None:
    from types import SimpleNamespace

    from retrieval_prompts.interop import peft

    tower: Any = SimpleNamespace(name="toy")  # the shapes are compared with a model's after all that is read here
    try:
        peft.read_adapter(folder, tower)
    except AttributeError as error:
        if error.obj is not tower:
            raise


def _read_results(folder: Path) -> None:
    from retrieval_prompts.cli.artifacts import verdicts
    from retrieval_prompts.errors import UserError
    from retrieval_prompts.evaluation.trec_runs import read_run
    from retrieval_prompts.experiments import result_file
    from retrieval_prompts.experiments.benchmark import BenchmarkResult

    list(verdicts(folder))
    with suppress(UserError):
        read_run(folder / "a.trec")
    found = result_file.resume(folder / "results.json", {"model": "toy"}, {"datasets": {}}, False)
    BenchmarkResult.from_json(found, folder)


def _read_checkpoint(folder: Path) -> None:
    from torch import nn

    from retrieval_prompts.training.loop import LoopSettings, _Run

    _Run(nn.Linear(2, 2), LoopSettings(epochs=2), {"data": "x"}, 4).resume(folder / "p.partial")


def _read_cache(folder: Path) -> None:
    from multimodal.vectors.segments import KEY, Segments
    from retrieval_prompts.vectors.blocks import _load

    for path in folder.glob("*.npy"):
        _load(path, (6, 8))
    segments = Segments(folder, "0" * 64, 8)
    places = [segments.find(bytes([number]) * KEY) for number in range(3)]
    segments.rows(np.array([place for place in places if place is not None], dtype=np.int64))
