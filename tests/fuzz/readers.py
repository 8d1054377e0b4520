"""Every reader of files, and what is tried with it: strategies of odd folders, and a function that reads one.

A reader may refuse by UserError; whatever else it raises is a fault.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import odd
import torch
from hypothesis import strategies as st
from odd import Files, documents, folders, json_lines, mostly, named, objects, tables, texts
from toy_pictures import encoded, noise

DATA = Path(__file__).parents[1] / "data"
RESEAL = ".reseal"  # a file of this name: checksums are made to fit what was changed, as someone hostile would


@dataclass(frozen=True)
class Reader:
    """What is tried: cases, and the function that reads one in an empty folder."""

    cases: st.SearchStrategy[Any]
    read: Callable[[Any, Path], object]


def write(files: Files, folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def of_files(cases: st.SearchStrategy[Files], read: Callable[[Path], object]) -> Reader:
    def written(files: Files, folder: Path) -> None:
        write(files, folder)
        read(folder)

    return Reader(cases, written)


def readers(place: Path) -> dict[str, Reader]:
    """Name -> reader. place: where `make_inputs` put sound artifacts."""
    return {**text_files(), **foreign_files(), **picture_files(), **artifacts(place)}


# --- texts ---------------------------------------------------------------------------------------------------------


def text_files() -> dict[str, Reader]:
    from retrieval_prompts.data.judgements import read_qrels
    from retrieval_prompts.evaluation.trec_runs import read_run

    ids = mostly(st.integers(1, 30).map(lambda number: f"d{number}"), texts)
    queries = mostly(st.integers(1, 30).map(lambda number: f"q{number}"), texts)
    words = mostly(st.sampled_from(["a river", "copper", "漢字"]), texts, of=8)
    row = {"_id": ids, "title": words, "text": words}
    grade = mostly(st.sampled_from(["0", "1", "2", "-1", "1.0"]), st.just("99999"))
    score = mostly(st.sampled_from(["1.5", "-2", "1e-300"]), st.sampled_from(["1e999", "nan", "٣", "0x1p3", "1_0"]))
    qrels = st.one_of(
        tables(queries, ids, grade, header="query-id,corpus-id,score"),
        tables(queries, st.just("0"), ids, grade),
    )
    beir = folders(
        named("corpus.jsonl", json_lines(objects(row))),
        named("queries.jsonl", json_lines(objects({"_id": queries, "text": words}))),
        named("qrels/test.tsv", qrels),
        named("qrels/train.tsv", qrels),
    )
    return {
        "BEIR folders": of_files(beir, _read_beir),
        "judgements": of_files(named("a.tsv", qrels), lambda folder: read_qrels(_only(folder))),
        "TREC runs": of_files(
            named(
                "a.trec", tables(queries, st.sampled_from(["Q0", "%Q0", "Q0%"]), ids, st.just("1"), score, st.just("x"))
            ),
            lambda folder: read_run(_only(folder)),
        ),
    }


def _only(folder: Path) -> Path:
    return next(folder.iterdir(), folder / "none")


def _read_beir(folder: Path) -> None:
    from retrieval_prompts.data.beir_folder import load
    from retrieval_prompts.errors import UserError

    data = load(folder)
    for document in data.corpus:
        assert document == data.corpus[data.corpus.position(document.id)]
    for split in data.qrels:
        with suppress(UserError):
            data.split(split)


# --- what other programs write -------------------------------------------------------------------------------------


def foreign_files() -> dict[str, Reader]:
    ids = mostly(st.integers(1, 6).map(lambda number: f"d{number}"), texts)
    words = mostly(st.sampled_from(["a river", "copper", "漢字"]), texts, of=8)
    grade = mostly(st.sampled_from(["0", "1", "2"]), st.sampled_from(["99999", "-1", "1e999", "nan"]))
    row = objects({"id": ids, "title": words, "text": words})
    judged = objects({"query": words, "doc_id": ids, "score": mostly(st.integers(0, 2), odd.numbers)})
    sources = folders(
        st.one_of(
            named("a.csv", tables(ids, words, words, header="id,title,text")),
            named("a.tsv", tables(ids, words)),
            named("a.jsonl", json_lines(row)),
            named("a.json", documents(st.lists(row, max_size=4))),
            *(named(f"a.{kind}", odd.damaged(words.map(_prose))) for kind in ("txt", "md")),
        ),
        st.one_of(
            named("judged.csv", tables(words, ids, grade, header="query,doc_id,score")),
            named("judged.jsonl", json_lines(judged)),
            named("judged.tsv", tables(st.just("q1"), st.just("0"), ids, grade)),
            st.just({}),
        ),
    )
    names = st.one_of(
        named("a.txt", odd.lines(texts.map(_prose))),
        named("a.json", documents(st.lists(ids))),
        named("a.jsonl", json_lines(objects({"id": ids}))),
        named("a.npy", _arrays()),
    )
    return {
        "sources": of_files(sources, _read_sources),
        "foreign vectors": of_files(named("a.npy", _arrays(), zipped=False), _read_vectors),
        "foreign ids": of_files(names, _read_ids),
    }


def _prose(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _read_sources(folder: Path) -> None:
    from retrieval_prompts.data.sources.making import Sources, make

    judgements = tuple(map(str, sorted(folder.glob("judged.*"))))
    there = tuple(map(str, sorted(folder.glob("a.*"))))
    make(folder / "out", Sources(there, judgements=judgements))
    _read_beir(folder / "out")


def _read_vectors(folder: Path) -> None:
    from retrieval_prompts.vectors.foreign_files import read_vectors

    list(read_vectors(_only(folder)).vectors)


def _read_ids(folder: Path) -> None:
    from retrieval_prompts.vectors.foreign_files import read_ids

    read_ids(_only(folder))


# --- pictures and what describes them ------------------------------------------------------------------------------


def picture_files() -> dict[str, Reader]:
    from multimodal.data.captions import load_captions
    from multimodal.data.class_files import read_names
    from multimodal.data.images import load_images
    from multimodal.data.manifest import apply_manifest
    from multimodal.data.pictures import load_pictures
    from multimodal.data.published import load_published

    there = [f"{letter}.png" for letter in "abcdefghijklmnopqrst"] + [
        "cat/0.png",
        "cat/1.png",
        "dog/0.png",
        "dog/1.png",
    ]
    files = mostly(st.sampled_from(there), st.sampled_from(["a.png#0", "1", "nothing.png"]))
    labels = mostly(st.sampled_from(["cat", "dog", "0"]), st.sampled_from(["n01440764", "cat ", "Cat"]))
    splits = mostly(st.just("train"), st.sampled_from(["val", "test", "dev", "restval", ""]), of=5)
    pictures = st.just(dict.fromkeys(there, b"a picture"))
    caption = {"file": files, "captions": st.one_of(texts, st.lists(texts, max_size=3)), "split": splits}
    coco = objects(
        {
            "images": st.lists(objects({"id": st.integers(0, 2), "file_name": files, "split": splits}), max_size=3),
            "annotations": st.lists(objects({"image_id": st.integers(0, 2), "caption": texts}), max_size=3),
        }
    )
    sentences = st.lists(objects({"raw": texts}), max_size=3)
    karpathy = objects({"images": st.lists(objects({"filename": files, "sentences": sentences, "split": splits}))})
    listed = st.one_of(coco, karpathy, st.lists(objects(caption), max_size=3), st.dictionaries(files, texts))
    captioned = st.one_of(
        named("a.json", documents(listed)),
        named("a.jsonl", json_lines(objects(caption))),
        named("a.csv", tables(files, texts, splits, header="image,caption,split")),
        named("a.token", tables(files, texts)),
    )
    names = st.one_of(
        *(named(f"a.{kind}", tables(labels, texts)) for kind in ("txt", "csv")),
        named("a.txt", odd.lines(texts.map(lambda text: text.encode("utf-8", "surrogatepass")))),
        named("a.json", documents(st.one_of(st.lists(texts), st.dictionaries(labels, st.one_of(texts, labels))))),
    )
    chosen = st.dictionaries(labels, st.lists(files))
    manifest = objects(
        {"data": texts, "seed": odd.numbers, "shots": odd.numbers, "classes": st.lists(labels), "splits": chosen}
    )
    known = st.tuples(files, st.integers(0, 1)).map(lambda chosen: [chosen[0], chosen[1], ("cat", "dog")[chosen[1]]])
    rows = st.lists(mostly(known, st.tuples(files, odd.numbers, labels).map(list)), min_size=2, max_size=3)
    split = objects({"train": rows, "val": rows, "test": rows}).map(
        lambda value: (
            {"eurosat/split_zhou_EuroSAT.json": odd.dumped(value)}
            | {f"eurosat/2750/{name}": b"a picture" for name in there}
        )
    )
    usual = dict.fromkeys(("train/cat/0.png", "train/dog/0.png", "test/cat/0.png", "test/dog/0.png"), _picture("PNG"))
    folder = st.dictionaries(
        st.sampled_from(
            ["train/cat/0.png", "train/dog/0.jpg", "test/cat/1.webp", "cat/0.gif", "dog/\u202e.png", "x.png"]
        ),
        _any_picture(),
        max_size=2,
    ).map(lambda more: usual | more)

    def apply(root: Path) -> None:
        (root / "a.json").rename(root.parent / "a.json")
        apply_manifest(root.parent / "a.json", load_images(root))

    def first(root: Path) -> Path:
        return next((path for path in root.iterdir() if path.name.startswith("a.") and path.suffix != ".png"), root)

    return {
        "captions": of_files(folders(pictures, captioned), lambda root: load_captions(first(root), images=root)),
        "class files": of_files(names, lambda root: read_names(_only(root))),
        "picture lists": of_files(
            folders(pictures, named("a.csv", tables(files, labels, splits, header="path,label,split"), zipped=False)),
            lambda root: load_images(root / "a.csv"),
        ),
        "picture manifests": of_files(folders(pictures, named("a.json", documents(manifest), zipped=False)), apply),
        "published splits": of_files(split, lambda root: load_published("eurosat", root)),
        "picture folders": of_files(folder, lambda root: [each.load() for each in _loaded(load_images(root))]),
        "pictures": of_files(
            st.builds(lambda content: {"a.png": content}, _any_picture()),
            lambda root: load_pictures(root)[0].load(),
        ),
    }


def _loaded(data: Any) -> Iterator[Any]:
    return (picture for split in data.splits.values() for picture in split.pictures)


def _picture(kind: str, **options: Any) -> bytes:
    return encoded(noise(1, (20, 16)), kind, **options)


def _any_picture() -> st.SearchStrategy[bytes]:
    """A picture of some format, damaged two times of three."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    sound = [_picture(kind) for kind in ("PNG", "GIF", "BMP", "TIFF", "PPM", "ICO", "TGA", "PCX", "SGI", "ICNS")]
    sound += [_picture(kind, exif=exif) for kind in ("JPEG", "WEBP", "PNG")]
    sound += [_picture("TIFF", compression="tiff_lzw"), encoded(noise(1).quantize(4), "PNG"), b"", b"\x89PNG\r\n\x1a\n"]
    return odd.damaged(odd.damaged(odd.damaged(st.sampled_from(sound))))


# --- what this package writes --------------------------------------------------------------------------------------


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
    from retrieval_prompts.vectors.blocks import _keep

    shutil.copytree(DATA / "clip_prompts_1", place / "old CLIP prompts")
    shutil.copytree(DATA / "text_prompts_1", place / "old prompts")
    base = {"name": "toy", "fingerprint": "0" * 64, "dimension": 8, "width": 8}
    feedback = Feedback({"map": torch.eye(8), "bias": torch.zeros(8), "gate": torch.zeros(4)}, 0.5)
    prompts = PromptFolder("input", {"query": torch.ones(1, 2, 8)}, base, 0.5, {"dev": [0.1, 0.2]}, 0.3, feedback)
    save_prompts(place / "prompts", prompts)
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
        "prompts": of_files(_artifact(place / "prompts", place / "old prompts"), _resealed(load_prompts)),
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
            files[name] = draw(_arrays())
        else:
            files[name] = draw(odd.damaged(st.just(content)))
    return files | ({RESEAL: b""} if draw(st.booleans()) else {})


def _arrays() -> st.SearchStrategy[bytes]:
    """numpy's files with headers of anything."""
    kinds = st.sampled_from(["<i8", "<f4", "|O", "<U5", ">i2", "<i8,<f4", "x"])
    shapes = st.one_of(
        st.sampled_from(["(6,)", "(1 << 40,)", "(-1,)", "()", "(2, 3)", "6", f"({'9' * 5000},)", "((((("]), texts
    )

    def one(kind: str, shape: str) -> bytes:
        header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode("utf-8", "replace")
        return b"\x93NUMPY\x01\x00" + (len(header) % 65536).to_bytes(2, "little") + header + bytes(48)

    return st.builds(one, kinds, shapes)


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
