"""Captions of pictures: the three formats say the same, and what is malformed is named by file and line."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_pictures import noise, write

from multimodal.data.captions import Captioned, load_captions
from retrieval_prompts.errors import DataWarning, UserError

ROWS = [
    ("a.jpg", ["A dog.", "A brown dog, running."], "train"),
    ("b.jpg", ["Two cats."], "restval"),
    ("c.jpg", ["A boat."], "val"),
    ("d.jpg", ["The sea.", "Waves."], "test"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, (name, _, _) in enumerate(ROWS):
        write(tmp_path / name, number)
    return tmp_path


def karpathy(rows: list[tuple[str, list[str], str]], **more: str) -> str:
    return json.dumps(
        {
            "dataset": "toy",
            "images": [
                {"filename": name, "imgid": number, "sentences": [{"raw": text, "tokens": []} for text in texts]}
                | {"split": split}
                | more
                for number, (name, texts, split) in enumerate(rows)
            ],
        }
    )


def lines(*entries: Any) -> str:
    return "".join(f"{json.dumps(entry)}\n" for entry in entries)


WRITTEN = {
    "karpathy.json": karpathy(ROWS),
    "list.jsonl": lines(*({"file": name, "captions": texts, "flickr8k_split": split} for name, texts, split in ROWS)),
    "single.jsonl": lines(
        *({"image": name, "caption": text, "split": split} for name, texts, split in ROWS for text in texts)
    ),
    "table.csv": "image,caption,split\n"
    + "".join(f'{name},"{text}",{split}\n' for name, texts, split in ROWS for text in texts),
}


def content(data: Captioned) -> list[tuple[str, list[str]]]:
    return [(picture.name, texts) for picture, texts in zip(data.pictures, data.captions, strict=True)]


@pytest.mark.parametrize("name", WRITTEN)
def test_the_formats(name: str, folder: Path) -> None:
    path = folder / name
    path.write_text(WRITTEN[name])
    everything = load_captions(path)
    assert everything.name == name.split(".")[0]
    assert everything.split is None
    assert content(everything) == [(image, texts) for image, texts, _ in ROWS]
    train, dev = load_captions(path, "train"), load_captions(path, "dev")
    assert (train.split, dev.split) == ("train", "val")
    assert content(train) == [("a.jpg", ROWS[0][1]), ("b.jpg", ROWS[1][1])], "restval is trained on"
    assert content(dev) == [("c.jpg", ["A boat."])]
    assert len(load_captions(path, "test")) == 1
    assert np.array_equal(np.asarray(dev.pictures[0].load()), np.asarray(noise(2)))


def test_images_elsewhere_and_gzip(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("elsewhere") / "list.jsonl.gz"
    path.write_bytes(gzip.compress(WRITTEN["list.jsonl"].encode()))
    assert len(load_captions(path, images=folder)) == 4
    with pytest.raises(
        UserError, match=r"4 of 4 pictures that .*list.jsonl.gz names are not in .*, first a.jpg; .*--images"
    ):
        load_captions(path)
    with pytest.raises(UserError, match=r"gone is no folder; expected the one that .*list.jsonl.gz names"):
        load_captions(path, images=folder / "gone")


def test_only_the_pictures_of_the_split_have_to_be_there(folder: Path) -> None:
    path = folder / "karpathy.json"
    path.write_text(WRITTEN["karpathy.json"])
    for name in "ab":
        (folder / f"{name}.jpg").unlink()
    assert len(load_captions(path, "test")) == 1
    with pytest.raises(UserError, match=r"2 of 2 pictures that .* first a.jpg;"):
        load_captions(path, "train")
    with pytest.raises(UserError, match=r"2 of 4 pictures"):
        load_captions(path)


def test_folders_of_coco(folder: Path) -> None:
    path = folder / "dataset_coco.json"
    path.write_text(karpathy(ROWS, filepath="val2014"))
    data = load_captions(path)
    assert data.pictures[0].name == "val2014/a.jpg"
    assert data.pictures[0].source == folder / "a.jpg", "unpacked into one folder"
    write(folder / "val2014" / "a.jpg", 9)
    assert load_captions(path).pictures[0].source == folder / "val2014" / "a.jpg"


def test_pictures_without_a_split(folder: Path) -> None:
    path = folder / "list.jsonl"
    path.write_text(
        lines({"file": "a.jpg", "caption": "x", "split": "none"}, {"file": "b.jpg", "caption": "y", "split": "test"})
    )
    assert len(load_captions(path)) == 2
    assert content(load_captions(path, "test")) == [("b.jpg", ["y"])]
    with pytest.raises(UserError, match=r"has no captions of the split 'train'; it has no split at all, test"):
        load_captions(path, "train")
    path.write_text(lines({"file": "a.jpg", "caption": "x"}))
    with pytest.raises(UserError, match=r"has no captions of the split 'train'; it has no split at all$"):
        load_captions(path, "train")


def test_captions_without_a_word_are_counted(folder: Path) -> None:
    path = folder / "list.jsonl"
    path.write_text(lines({"file": "a.jpg", "captions": [" ", "A dog. "]}, {"file": "b.jpg", "captions": [""]}))
    with pytest.warns(DataWarning, match=r"2 captions without a word are left out \(.*:1, .*:2\)"):
        data = load_captions(path)
    assert content(data) == [("a.jpg", ["A dog."])]
    path.write_text(lines({"file": "a.jpg", "captions": []}))
    with pytest.raises(UserError, match=r"list.jsonl has no captions"):
        load_captions(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", '{"images": [}', "x.json is not valid JSON"),
        ("x.json", '[{"file": "a.jpg"}]', "x.json: expected Karpathy's"),
        ("x.json", '{"images": [3]}', "x.json: images[0]: expected an object, got int"),
        ("x.json", '{"images": [{"sentences": []}]}', 'images[0]: expected the field "filename", got only sentences'),
        ("x.json", '{"images": [{"filename": "a.jpg"}]}', 'images[0]: expected "sentences"'),
        ("x.json", '{"images": [{"filename": "a.jpg", "sentences": [{"tokens": []}]}]}', 'images[0]: expected "sent'),
        ("x.json", karpathy([*ROWS, ROWS[0]]), "x.json: images[4]: a.jpg is images[0] already"),
        ("x.json", karpathy([("a.jpg", ["x"], "odd")]), "images[0]: expected the split train, val (dev) or test"),
        ("x.jsonl", '{"file": "a.jpg", "caption": "x"}\n{"file"', "x.jsonl:2: expected a JSON object, got malformed"),
        ("x.jsonl", "\n[]", "x.jsonl:2: expected a JSON object, got list"),
        ("x.jsonl", '{"name": "a.jpg"}', 'x.jsonl:1: expected the field "file", got only name'),
        ("x.jsonl", '{"image": "", "caption": "x"}', 'x.jsonl:1: "image" must not be empty'),
        ("x.jsonl", '{"file": "a.jpg", "captions": [1]}', 'x.jsonl:1: expected "captions": [TEXT, ...]'),
        ("x.jsonl", '{"file": "a.jpg", "caption": "\\ud83d"}', "x.jsonl:1: a caption holds half of a surrogate pair"),
        (
            "x.jsonl",
            lines(*({"file": "a.jpg", "caption": "x", "split": split} for split in ("train", "test"))),
            "x.jsonl:2: a.jpg is in test here and in train above",
        ),
        ("x.csv", "file,text\n", "x.csv:1: expected a header line image,caption[,split], got 'file,text'"),
        ("x.csv", "image,caption\n,A dog\n", "x.csv:2: the image is empty"),
        ("x.csv", "image,caption\na.jpg,A dog, running\n", "x.csv:2: expected 2 values as in the header, got 3"),
        ("x.yaml", "", "x.yaml: expected captions as .json (Karpathy's), .jsonl or .csv"),
    ],
)
def test_what_is_refused(name: str, text: str, message: str, folder: Path) -> None:
    path = folder / name
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        load_captions(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_no_such_file_or_split(folder: Path) -> None:
    with pytest.raises(UserError, match=r"gone.json is no file; expected captions as"):
        load_captions(folder / "gone.json")
    path = folder / "x.csv"
    path.write_text("image,caption\na.jpg,x\n")
    with pytest.raises(UserError, match=r"captions: expected the split train, val \(dev\) or test, got 'odd'"):
        load_captions(path, "odd")
