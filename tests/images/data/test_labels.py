"""Pictures in lists of labels: CSV, JSON lines, and what people call the columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from toy_pictures import image_folder, noise, pairs, write

from multimodal.data.caption_files import is_captions
from multimodal.data.images import load_images
from retrieval_prompts.errors import DataWarning, UserError

# --- CSV ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def csv_of(tmp_path: Path) -> Callable[[str], Path]:
    """Text -> a CSV file beside pictures/0.png to pictures/5.png."""
    image_folder(tmp_path, {"pictures": 6})

    def make(text: str) -> Path:
        path = tmp_path / "data.csv"
        path.write_bytes(text.encode())
        return path

    return make


def test_csv_with_splits(csv_of: Callable[[str], Path], tmp_path: Path) -> None:
    path = csv_of(
        "path,label,split\npictures/0.png,cat,train\npictures/1.png,dog,Train\n"
        f"{tmp_path}/pictures/2.png,cat,dev\n\n./pictures/3.png,dog,val\npictures/4.png,dog,test\n../{tmp_path.name}/pictures/5.png,cat,test\n"
    )
    data = load_images(path)
    assert data.name == "data"
    assert pairs(data.splits["train"]) == [("pictures/0.png", "cat"), ("pictures/1.png", "dog")]
    assert [label for _, label in pairs(data.splits["test"])] == ["dog", "cat"]
    for number, picture in enumerate(picture for split in data.splits.values() for picture in split.pictures):
        assert np.array_equal(np.asarray(picture.load()), np.asarray(noise(number)))


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffpath,label\npictures/0.png,a\npictures/1.png,a\npictures/2.png,b\npictures/3.png,b\n",
        "label;path\r\na;pictures/0.png\r\na;pictures/1.png\r\nb;pictures/2.png\r\nb;pictures/3.png",
        ' Path\tLabel \npictures/0.png\t"a"\npictures/1.png\ta\npictures/2.png\t b\npictures/3.png\tb\n',
    ],
    ids=["byte order mark", "semicolons and carriage returns", "tabs and spaces"],
)
def test_csv_dialects(text: str, csv_of: Callable[[str], Path]) -> None:
    data = load_images(csv_of(text))
    assert data.held_out
    assert data.classes == ("a", "b")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 2, "test": 2}


def test_csv_quotes(csv_of: Callable[[str], Path]) -> None:
    quoted = '"a, ""b"""'
    data = load_images(
        csv_of(f'path,label\npictures/0.png,{quoted}\n"pictures/1.png",c\npictures/2.png,c\npictures/3.png, {quoted}\n')
    )
    assert data.classes == ('a, "b"', "c")


def test_csv_columns_that_are_not_used_are_named(csv_of: Callable[[str], Path]) -> None:
    path = csv_of("path,label,set\npictures/0.png,a,x\npictures/1.png,a,x\npictures/2.png,b,x\npictures/3.png,b,x\n")
    with pytest.warns(DataWarning, match=r"columns that are not used: set; used are path,label\[,split\]"):
        load_images(path)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "expected a header line path,label[,split], got an empty file"),
        ("file,colour\nx,y\n", 1, "expected a header line path,label[,split], got 'file,colour'"),
        ("pictures/0.png,a\nb/1.jpg,b,c\n", 2, "expected path,label as on line 1, got b/1.jpg,b,c"),
        ("path,label,label\n", 1, "the header has the column 'label' twice"),
        ("path,label\npictures/0.png,a\n\npictures/9.png,b\n", 4, "pictures/9.png does not exist"),
        ("path,label\npictures/0.png,a,b\n", 2, "expected 2 values as in the header, got 3"),
        ("path,label\npictures/0.png\n", 2, "expected 2 values as in the header, got 1"),
        ("path,label\npictures/0.png,\n", 2, "the label is empty"),
        ("path,label\n ,a\n", 2, "the path is empty"),
        ("path,label\npictures/0.png,a\npictures/0.png,b\n", 3, "pictures/0.png was listed on line 2 already"),
        ("path,label,split\npictures/0.png,a,other\n", 2, "expected the split train, val (dev) or test, got 'other'"),
        ('path,label\npictures/0.png,"a"b\n', 2, "malformed CSV"),
        ('path,label\npictures/0.png,"a\n', 2, "malformed CSV"),
    ],
)
def test_csv_that_is_refused(text: str, line: int, message: str, csv_of: Callable[[str], Path]) -> None:
    path = csv_of(text)
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        load_images(path)
    assert str(refused.value).startswith(f"{path}:{line}: ")


def test_csv_that_is_not_utf8(csv_of: Callable[[str], Path]) -> None:
    path = csv_of("")
    path.write_bytes("path,label\npictures/0.png,café\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"data.csv:2: expected UTF-8, got byte 0xe9"):
        load_images(path)
    path.write_text("path,label\n")
    with pytest.raises(UserError, match=r"data.csv has no pictures"):
        load_images(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "filename,class\na/1.jpg,a\na/2.jpg,a\nb/1.jpg,b\nb/2.jpg,b\n"),
        ("a.csv", "Image_Path;Category\na\\1.jpg;a\na/2.jpg;a\nb/1.jpg;b\nb/2.jpg;b\n"),
        ("a.csv", "a/1.jpg,a\na/2.jpg,a\nb/1.jpg,b\nb/2.jpg,b\n"),
        ("a.txt", "a/1.jpg a\na/2.jpg a\nb/1.jpg b\nb/2.jpg b\n"),
        ("a.jsonl", "".join(f'{{"file_name": "{c}/{n}.jpg", "label": "{c}"}}\n' for c in "ab" for n in (1, 2))),
    ],
)
def test_lists_of_labels_as_people_have_them(tmp_path: Path, name: str, text: str) -> None:
    for one in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"):
        write(tmp_path / one)
    (tmp_path / name).write_text(text)
    assert not is_captions(str(tmp_path / name))
    data = load_images(tmp_path / name)
    assert data.classes == ("a", "b") and sum(map(len, data.splits.values())) == 4


def test_the_list_of_a_hugging_face_folder(tmp_path: Path) -> None:
    for one in range(4):
        write(tmp_path / f"{one}.jpg")
    lines = [f'{{"file_name": "{one}.jpg", "label": {one % 2}, "split": "train"}}' for one in range(4)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert load_images(tmp_path).classes == ("0", "1")
    image_folder(tmp_path / "folders", {"train/a": 2, "train/b": 2})
    (tmp_path / "folders" / "metadata.csv").write_text("file_name,label\ntrain/a/0.jpg,c\n")
    assert load_images(tmp_path / "folders").classes == ("a", "b"), "class folders say it themselves"
