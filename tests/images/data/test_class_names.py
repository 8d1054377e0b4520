"""A class file says what classes are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multimodal.data.class_names import read_names, renamed
from multimodal.data.images import ImageData, Picture, Split
from retrieval_prompts.errors import UserError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def data() -> ImageData:
    classes = ("n01", "n02", "n03")
    pictures = [Picture(f"{number}.jpg", Path(f"{number}.jpg")) for number in range(5)]
    train = Split(pictures[:3], np.array([0, 1, 2]), classes)
    test = Split(pictures[3:], np.array([2, 0]), classes)
    return ImageData("birds", classes, {"train": train, "test": test}, held_out=True)


def named(some: ImageData) -> dict[str, list[tuple[str, str]]]:
    return {
        name: [(picture.name, some.classes[label]) for picture, label in zip(split.pictures, split.labels, strict=True)]
        for name, split in some.splits.items()
    }


@pytest.mark.parametrize(
    "text",
    [
        "n01\tgreat tit\nn02\traven\nn03\tkite\n",
        "\ufeffn01\tgreat tit\r\n\r\n n02 \t raven \r\nn03\tkite",
    ],
)
def test_labels_and_names(tmp_path: Path, text: str) -> None:
    assert read_names(write(tmp_path / "classes.txt", text)) == {"n01": "great tit", "n02": "raven", "n03": "kite"}


def test_names_alone_keep_their_order(tmp_path: Path) -> None:
    assert list(read_names(write(tmp_path / "classes.txt", "raven\ngreat tit\nkite\n")).items()) == [
        ("raven", "raven"),
        ("great tit", "great tit"),
        ("kite", "kite"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "classes.txt is empty; expected a class name on each line"),
        ("\n \n", "classes.txt is empty; expected a class name on each line"),
        ("n01\traven\nn02\t \n", "classes.txt:2: expected a class name, or a label, a tab and its name"),
        ("n01\traven\n\tkite\n", "classes.txt:2: expected a class name, or a label, a tab and its name"),
        ("n01\traven\n\nn01\tkite\n", "classes.txt:3: the label 'n01' comes twice"),
    ],
)
def test_files_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"{message}$"):
        read_names(write(tmp_path / "classes.txt", text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"classes.txt does not exist"):
        read_names(tmp_path / "classes.txt")
    with pytest.raises(UserError, match=r"classes.txt:1: expected UTF-8"):
        (tmp_path / "classes.txt").write_bytes(b"caf\xe9\n")
        read_names(tmp_path / "classes.txt")


def test_every_picture_keeps_its_class_under_its_name() -> None:
    names = {"n01": "raven", "n02": "great tit", "n03": "kite", "n04": "of no class here"}
    found = renamed(data(), names)
    assert found.classes == ("great tit", "kite", "raven"), "sorted"
    assert all(split.classes == found.classes for split in found.splits.values())
    expected = {split: [(picture, names[label]) for picture, label in rows] for split, rows in named(data()).items()}
    assert named(found) == expected
    assert (found.name, found.held_out) == ("birds", True)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"n01": "raven"}, "the class file has no name for n02, n03; name every class of birds"),
        (
            {"n01": "sea eagle", "n02": "kite", "n03": "Sea_eagle"},
            "the class file gives several classes the name sea eagle, Sea_eagle; names must differ",
        ),
    ],
)
def test_names_that_do_not_fit_the_data(names: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        renamed(data(), names)
