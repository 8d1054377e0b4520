"""Every reader of files, and what is tried with it: strategies of odd folders, and a function that reads one.

A reader may refuse by UserError; whatever else it raises is a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import odd
from hypothesis import strategies as st
from odd import Files, arrays, documents, folders, json_lines, mostly, named, objects, tables, texts
from toy_pictures import encoded, noise


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


def readers() -> dict[str, Reader]:
    """Name -> reader, of what people and other programs write."""
    return {**text_files(), **foreign_files(), **picture_files()}


# --- texts ---------------------------------------------------------------------------------------------------------


def text_files() -> dict[str, Reader]:
    from retrieval_prompts.data.judgements import read_qrels
    from retrieval_prompts.data.sources.labelled import read_labelled
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
        "documents in shards": of_files(named("a.jsonl", json_lines(objects(row))), _read_shards),
        "judgements": of_files(named("a.tsv", qrels), lambda folder: read_qrels(_only(folder))),
        "TREC runs": of_files(
            named(
                "a.trec", tables(queries, st.sampled_from(["Q0", "%Q0", "Q0%"]), ids, st.just("1"), score, st.just("x"))
            ),
            lambda folder: read_run(_only(folder)),
        ),
        "labelled texts": of_files(
            st.one_of(
                named("a.csv", tables(words, ids, header="text,label")),
                named("a.jsonl", json_lines(objects({"sentence": words, "class": ids}))),
            ),
            lambda folder: read_labelled(_only(folder)),
        ),
    }


def _only(folder: Path) -> Path:
    return next(folder.iterdir(), folder / "none")


def _read_shards(folder: Path) -> None:
    from retrieval_prompts.interop.scale.shards import of_files as shards_of

    path = _only(folder)
    whole = [document for shard in shards_of(path) for document in shard.documents()]
    assert [document for shard in shards_of(path, 20) for document in shard.documents()] == whole


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
        named("a.npy", arrays()),
    )
    return {
        "sources": of_files(sources, _read_sources),
        "foreign vectors": of_files(named("a.npy", arrays(), zipped=False), _read_vectors),
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
