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

from multimodal.data.caption_files import is_captions
from multimodal.data.captions import Captioned, load_captions, splits
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


def coco(images: list[tuple[int, str]], annotations: list[tuple[int, str]]) -> str:
    return json.dumps(
        {
            "info": {},
            "images": [{"id": id, "file_name": name, "height": 20, "coco_url": "http://"} for id, name in images],
            "annotations": [
                {"image_id": id, "id": at, "caption": caption} for at, (id, caption) in enumerate(annotations)
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


PLAIN = [(name, texts) for name, texts, _ in ROWS]
FLAT = [(name, text) for name, texts in PLAIN for text in texts]
UNSPLIT = {
    "captions_val2017.json": coco(
        [(7 + at, name) for at, (name, _) in enumerate(PLAIN)],
        [(7 + at, text) for at, (_, texts) in reversed(list(enumerate(PLAIN))) for text in texts],
    ),
    "list.json": json.dumps([{"image": name, "caption": texts, "image_id": "coco_1"} for name, texts in PLAIN]),
    "dict.json": json.dumps(dict(PLAIN), indent=1),
    "lines.json": lines(*({"file_name": name, "text": text} for name, text in FLAT)),
    "bom.json": "\ufeff"
    + json.dumps([{"filename": name, "sentences": [{"raw": t} for t in texts]} for name, texts in PLAIN]),
    "metadata.jsonl": lines(*({"file_name": name, "text": text} for name, text in FLAT)),
    "open_clip.csv": "filepath\ttitle\n" + "".join(f"{name}\t{text}\n" for name, text in FLAT),
    "kaggle.txt": "image,caption\n" + "".join(f"{name},{text}\n" for name, text in FLAT),  # commas unquoted
    "results.csv": "image_name| comment\n" + "".join(f"{name}| {text}\n" for name, text in FLAT),
    "Flickr8k.token.txt": "".join(f"{name}#{at}\t{text}\n" for name, texts in PLAIN for at, text in enumerate(texts)),
    "results.token": "".join(f"{name}#0\t{text}\r\n" for name, text in FLAT),
    "bare.tsv": "".join(f"{name}\t{text}\n" for name, text in FLAT),
    "bare.csv": "".join(f"{name},{text}\n" for name, text in FLAT),
}


@pytest.mark.parametrize("name", UNSPLIT)
def test_formats_without_splits(name: str, folder: Path) -> None:
    path = folder / name
    path.write_text(UNSPLIT[name], newline="")
    assert content(load_captions(path)) == PLAIN
    assert splits(path) == set() and is_captions(str(path))


def test_labels_are_no_captions(folder: Path) -> None:
    for text in ("path,label\na.jpg,dog\n", "path,label,title\na.jpg,dog,A dog\n", "a.jpg,dog\n"):
        (folder / "x.csv").write_text(text)
        assert not is_captions(str(folder / "x.csv"))
    (folder / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")  # where something is in the picture
    assert not is_captions(str(folder))


def test_what_coco_leaves_open_is_counted(folder: Path) -> None:
    path = folder / "captions.json"
    path.write_text(coco([(1, "a.jpg"), (2, "b.jpg")], [(1, "x"), (3, "y"), (3, "z")]))
    with pytest.warns(DataWarning) as caught:
        assert content(load_captions(path)) == [("a.jpg", ["x"])]
    assert [str(warning.message) for warning in caught] == [
        f"{path}: left out 2 captions of pictures that it does not list (3)",
        f"{path}: left out 1 pictures without a caption (b.jpg)",
    ]
    assert splits(path) == set(), "without a word"


@pytest.mark.parametrize(
    "place", ["annotations/../val2017/{}", "annotations/{}", "images/{}", "images/val2017/{}", "{}"]
)
def test_pictures_are_looked_for_where_coco_has_them(place: str, tmp_path: Path) -> None:
    path = tmp_path / "annotations" / "captions_val2017.json"
    path.parent.mkdir()
    path.write_text(coco([(1, "a.jpg")], [(1, "x")]))
    write(tmp_path / place.format("a.jpg"))
    assert content(load_captions(path)) == [("a.jpg", ["x"])]


@pytest.mark.parametrize("name", ["http://images.org/val2017/a.jpg?x=1", "val2017\\a.jpg", "./val2017/a.jpg"])
def test_pictures_named_from_elsewhere(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(lines({"image": name, "caption": "x"}))
    (picture,) = load_captions(tmp_path / "x.jsonl", images=write(tmp_path / "val2017" / "a.jpg").parents[1]).pictures
    assert picture.source == tmp_path / "val2017" / "a.jpg"


def test_pictures_by_their_id(tmp_path: Path) -> None:
    path = tmp_path / "train_caption.json"
    path.write_text(json.dumps([{"image_id": "522418", "id": 1, "caption": "x"}, {"image_id": 9, "caption": "y"}]))
    places = [tmp_path / "train2014" / "COCO_train2014_000000522418.jpg", tmp_path / "val2017" / "000000000009.jpg"]
    for place in places:
        write(place)
    data = load_captions(path)
    assert content(data) == [("522418", ["x"]), ("9", ["y"])]
    assert [picture.source for picture in data.pictures] == places


def test_a_folder_of_pictures_with_texts(folder: Path) -> None:
    for name, texts in PLAIN[:3]:
        (folder / name).with_suffix(".txt").write_text("\n".join(texts) + "\n")
    assert is_captions(str(folder))
    with pytest.warns(DataWarning, match=rf"^{folder}: left out 1 pictures without a .txt beside them \(d.jpg\)$"):
        assert content(load_captions(folder)) == PLAIN[:3]
    (folder / "metadata.csv").write_text("file_name,text\na.jpg,A dog\n")
    assert content(load_captions(folder)) == [("a.jpg", ["A dog"])]
    write(folder / "shards" / "train" / "e.png")
    (folder / "shards" / "train" / "e.txt").write_text("E")
    assert splits(folder / "shards") == {"train"} and is_captions(str(folder / "shards"))
    (folder / "shards" / "train").rename(folder / "shards" / "cat")
    assert not is_captions(str(folder / "shards")), "a class, with notes"


def test_images_elsewhere_and_gzip(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("elsewhere") / "list.jsonl.gz"
    path.write_bytes(gzip.compress(WRITTEN["list.jsonl"].encode()))
    assert len(load_captions(path, images=folder)) == 4
    with pytest.raises(
        UserError,
        match=r"4 of 4 pictures that .*list.jsonl.gz names are not in .* \(a.jpg, b.jpg.*--images",
    ):
        load_captions(path)
    with pytest.raises(UserError, match=r"gone is not a folder; expected the one that .*list.jsonl.gz names"):
        load_captions(path, images=folder / "gone")


def test_only_the_pictures_of_the_split_have_to_be_there(folder: Path) -> None:
    path = folder / "karpathy.json"
    path.write_text(WRITTEN["karpathy.json"])
    for name in "ab":
        (folder / f"{name}.jpg").unlink()
    assert len(load_captions(path, "test")) == 1
    with pytest.raises(UserError, match=r"2 of 2 pictures that .* \(a.jpg, b.jpg\);"):
        load_captions(path, "train")
    with pytest.warns(DataWarning) as caught:
        assert content(load_captions(path)) == [("c.jpg", ["A boat."]), ("d.jpg", ["The sea.", "Waves."])]
    assert [str(warning.message) for warning in caught] == [
        f"2 of 4 pictures that {path} names are not in {folder} (a.jpg, b.jpg); fetch them, or say where they are with"
        " --images (images=...); they are left out"
    ]


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
        ("x.json", '{"pictures": [{"file": "a.jpg"}]}', "x.json: expected Karpathy's"),
        ("x.json", '[{"file": "a.jpg"}]', 'x.json: entry 0: expected "captions": [TEXT, ...]'),
        ("x.json", coco([(1, "a.jpg")], [(2, "x")]), "x.json: none of the 1 annotations is of a picture in its images"),
        ("x.json", coco([(1, "a.jpg"), (1, "b.jpg")], []), "x.json: images[1]: the id 1 belongs to a.jpg already"),
        (
            "x.json",
            '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "bbox": []}]}',
            'annotations[0]: expected the field "caption", got only image_id, bbox; the file of',
        ),
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
        ("x.csv", "name,words\n", "x.csv:1: expected a header line image,caption[,split], got 'name,words'"),
        ("x.token", "a.jpg#0\tA dog.\nb.jpg\n", "x.token:2: expected the name of a picture, a separator as on line 1"),
        ("x.csv", "image,caption\n,A dog\n", "x.csv:2: the image is empty"),
        (
            "x.csv",
            "image,caption,split\na.jpg,A dog, running,test\n",
            "x.csv:2: expected 3 values as in the header, got",
        ),
        ("x.yaml", "", "x.yaml: expected captions as .json (COCO's, Karpathy's, a list), .jsonl, .csv"),
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
    with pytest.raises(UserError, match=r"gone.json is not a file; expected captions as"):
        load_captions(folder / "gone.json")
    path = folder / "x.csv"
    path.write_text("image,caption\na.jpg,x\n")
    with pytest.raises(UserError, match=r"captions: expected the split train, val \(dev\) or test, got 'odd'"):
        load_captions(path, "odd")


def test_a_caption_with_commas_that_nobody_quoted_stays_as_it_is(folder: Path) -> None:
    rows = "image,caption\n" + "".join(f"{name},A man with 1,000 balloons, all red.\n" for name, _, _ in ROWS)
    (folder / "captions.csv").write_text(rows)
    found = load_captions(folder / "captions.csv")
    assert found.captions == [["A man with 1,000 balloons, all red."]] * len(ROWS)


@pytest.mark.parametrize("content", ["", "no JSON\n", '{"file_name": "a.jpg", "label": 1}\n'])
def test_a_list_without_captions_makes_no_folder_of_captions(tmp_path: Path, content: str) -> None:
    (tmp_path / "metadata.jsonl").write_text(content)
    assert not is_captions(str(tmp_path))
    (tmp_path / "metadata.csv").write_text("file_name,text\na.jpg,A dog.\n")
    write(tmp_path / "a.jpg", 0)
    assert is_captions(str(tmp_path))
    assert load_captions(tmp_path).captions == [["A dog."]]
