"""Labelled pictures: layouts, what is refused, choices that depend on nothing else, and odd files shown as RGB."""

from __future__ import annotations

import io
import json
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_pictures import RED, WHITE, encoded, image_folder, noise, write

from multimodal.data import images, pictures
from multimodal.data.caption_files import is_captions
from multimodal.data.images import ImageData, Split, few_shot, halves, load_images, same_name, subset
from multimodal.data.manifest import apply_manifest, write_manifest
from multimodal.data.pictures import Picture, decode, load_pictures
from retrieval_prompts.errors import DataWarning, UserError


def names(split: Split) -> list[str]:
    return [picture.name for picture in split.pictures]


def pairs(split: Split) -> list[tuple[str, str]]:
    return [
        (picture.name, split.classes[label])
        for picture, label in zip(split.pictures, split.labels.tolist(), strict=True)
    ]


# --- image folders --------------------------------------------------------------------------------------------------


def test_folders_of_splits(tmp_path: Path) -> None:
    data = load_images(
        image_folder(
            tmp_path, {"train/cat": 2, "train/a_dog": 1, "dev/cat": 1, "dev/a_dog": 1, "test/cat": 1, "test/a_dog": 1}
        )
    )
    assert data.name == tmp_path.name
    assert data.classes == ("a_dog", "cat"), "sorted, as written"
    assert list(data.splits) == ["train", "val", "test"]
    assert not data.held_out
    train = data.split("train")
    assert pairs(train) == [("train/a_dog/0.png", "a_dog"), ("train/cat/0.png", "cat"), ("train/cat/1.png", "cat")]
    assert train.labels.dtype == np.int64
    assert np.array_equal(np.asarray(train.pictures[0].load()), np.asarray(noise(2)))
    with pytest.raises(UserError, match="has no split 'dev'; it has train, val, test"):
        data.split("dev")


def test_only_pictures_count(tmp_path: Path) -> None:
    image_folder(tmp_path, {"cat": 0, "dog": 3})
    for name in (
        "a.JPG",
        "b.jpeg",
        "c.Png",
        "d.webp",
        "e.gif",
        "f.bmp",
        "g.tif",
        "h.TIFF",
        "i.jfif",
        "j.AVIF",
        "k.ppm",
    ):
        write(tmp_path / "cat" / name)
    for name in (".hidden.png", "notes.txt", "Thumbs.db", "jpg", "deeper/x.xcf", "y.XCF"):
        write(tmp_path / "cat" / name)
    write(tmp_path / ".git" / "x.png")
    write(tmp_path / "cat" / "deeper" / "x.png")
    (tmp_path / "README").write_text("not a class")
    write(tmp_path / "stray.png")
    with pytest.warns(DataWarning) as caught:
        data = load_images(tmp_path)
    assert [str(warning.message) for warning in caught] == [
        f"{tmp_path}: left out 4 files whose names are not those of pictures, 2 .xcf, 1 no extension, 1 .txt (cat/jpg,"
        " cat/notes.txt, cat/y.XCF and 1 more)",
        f"{tmp_path}: left out 1 pictures that are in no class folder (stray.png)",
    ]
    assert data.classes == ("cat", "dog")
    every = [name for split in data.splits.values() for name in names(split)]
    assert len(every) == 12 + 3 and "cat/deeper/x.png" in every


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "data", {"cat/small": 2, "cat": 1, "dog": 2})
    image_folder(tmp_path / "elsewhere", {".": 2})
    (root / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "again").symlink_to(root / "cat")
    (root / "cat" / "small" / "up").symlink_to(root)
    every = [picture.name for picture in load_pictures(root / "cat")]
    assert every[:5] == ["0.png", "more/0.png", "more/1.png", "small/0.png", "small/1.png"]
    assert len(load_pictures(root)) == 7, "each once"


def test_classes_may_be_folders_of_folders(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/cat/day": 2, "train/cat/night": 1, "train/dog/day": 1, "test/cat": 1, "test/dog": 1})
    message = rf"^{tmp_path}/train: all pictures are in folders of folders; cat, dog are the classes, not day, night$"
    with pytest.warns(DataWarning, match=message):
        data = load_images(tmp_path)
    assert data.classes == ("cat", "dog")
    assert names(data.splits["train"])[:3] == ["train/cat/day/0.png", "train/cat/day/1.png", "train/cat/night/0.png"]


def test_without_a_test_split_a_share_of_each_class_is_held_out(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 10, "b": 2, "c": 7})
    data, again, other = (load_images(tmp_path, split_seed=seed) for seed in (0, 0, 1))
    assert data.held_out
    assert np.bincount(data.splits["test"].labels).tolist() == [3, 1, 2]
    assert np.bincount(data.splits["train"].labels).tolist() == [7, 1, 5]
    assert sorted(names(data.splits["train"]) + names(data.splits["test"])) == sorted(
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")
    )
    assert names(again.splits["test"]) == names(data.splits["test"]) != names(other.splits["test"])
    image_folder(tmp_path, {"0": 4})
    more = load_images(tmp_path)
    assert [name for name in names(more.splits["test"]) if not name.startswith("0/")] == names(data.splits["test"]), (
        "another class changes nothing in the others"
    )


def test_the_only_picture_of_a_class_stays_in_train(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 5, "b": 1})
    with pytest.warns(DataWarning, match="test has no pictures of 1 of 2 classes: b"):
        data = load_images(tmp_path)
    assert np.bincount(data.splits["train"].labels).tolist() == [3, 1]
    for file in (tmp_path / "a").glob("[1-9].png"):
        file.unlink()
    with pytest.raises(UserError, match="no class has a second picture"):
        load_images(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    data = load_images(image_folder(tmp_path, {"train": 2, "bus": 2}))
    assert data.classes == ("bus", "train")


def test_val_is_the_test_split_where_there_is_none(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1})
    with pytest.warns(DataWarning, match="no test split; its val split is used as one"):
        data = load_images(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "test": 2}


def test_train_alone_and_test_alone(tmp_path: Path) -> None:
    train = load_images(image_folder(tmp_path / "1", {"train/a": 2, "train/b": 2}))
    assert train.held_out
    assert set(train.splits) == {"train", "test"}
    test = load_images(image_folder(tmp_path / "2", {"test/a": 2, "test/b": 2}))
    assert set(test.splits) == {"test"}
    assert not test.held_out


def test_other_folders_beside_the_splits_are_named(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/a": 1, "train/b": 1, "test/a": 1, "test/b": 1, "masks/a": 1, "val": 2})
    with pytest.warns(DataWarning, match=r"not used, .*: masks, val$"):
        data = load_images(tmp_path)
    assert set(data.splits) == {"train", "test"}


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "has no pictures; expected train/<class>/.* or <class>/.*jpg"),
        ({".": 2}, "has pictures but no class folders; expected"),
        ({"a": 2}, "has the class 'a' only; expected two classes or more"),
        ({"a": 2, "b": 0}, "b has no pictures; expected files that end in"),
        ({"data/a": 2, "data/b": 2}, "data are the classes, not a, b: is .*data the data's folder itself"),
        ({"train/a": 2, "train/b": 0, "test/a": 1}, "train/b has no pictures"),
        ({"test/a": 2, "test/b": 0}, "test/b has no pictures"),
        ({"train/a": 1, "train/b": 1, "test/a": 1, "test/c": 1}, "test has 1 classes that train does not have: c"),
        ({"train/a": 1, "train/b": 1, "val/a": 1, "dev/a": 1}, "folders dev and val are the same split"),
        ({"polar_bear": 1, "Polar Bear": 1}, "classes 'Polar Bear' and 'polar_bear' have the same name"),
    ],
)
def test_folders_that_are_refused(counts: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as refused:
        load_images(image_folder(tmp_path, counts))
    assert str(tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_class_without_test_pictures_is_named(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/a": 1, "train/b": 1, "train/c": 1, "test/a": 1, "test/b": 0})
    with pytest.warns(DataWarning, match="test has no pictures of 2 of 3 classes: b, c"):
        data = load_images(tmp_path)
    assert data.classes == ("a", "b", "c")


def test_no_such_source(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist; expected an image folder"):
        load_images(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"notes.md is not one of these; expected an image folder"):
        load_images(write(tmp_path / "notes.md"))


def test_same_name() -> None:
    assert same_name("Polar_bear") == same_name("polar  bear ") == same_name("POLAR BEAR")
    assert same_name("caf\u00e9") == same_name("cafe\u0301")
    assert same_name("Faces") != same_name("Faces_easy")


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


# --- few shots, halves, subsets -------------------------------------------------------------------------------------


def toy_split(counts: dict[str, int]) -> Split:
    """Pictures that are never read."""
    classes = tuple(sorted(counts))
    rows = [(f"{name}/{index}", name) for name in classes for index in range(counts[name])]
    labels = np.array([classes.index(label) for _, label in rows])
    return Split([Picture(name, Path(name)) for name, _ in rows], labels, classes)


def test_few_shots() -> None:
    split = toy_split({"a": 20, "b": 20, "c": 20})
    chosen = few_shot(split, 4, seed=1)
    assert chosen.dtype == np.int64
    assert np.array_equal(chosen, np.sort(chosen))
    assert np.bincount(split.labels[chosen]).tolist() == [4, 4, 4]
    assert np.array_equal(chosen, few_shot(split, 4, seed=1))
    assert not np.array_equal(chosen, few_shot(split, 4, seed=2))
    assert set(chosen) < set(few_shot(split, 8, seed=1)), "more shots keep the ones before"
    assert few_shot(split, None, seed=1).tolist() == list(range(60))
    with pytest.raises(UserError, match="expected at least 1 shot a class, got 0"):
        few_shot(split, 0, seed=1)


def test_few_shots_of_a_class_do_not_depend_on_other_classes_or_the_order() -> None:
    split = toy_split({"a": 20, "b": 20, "c": 20})
    expected = {name for name in names(split.take(few_shot(split, 4, 1))) if name[0] != "b"}
    data = subset(ImageData("toy", split.classes, {"train": split}), ["c", "a"])
    part = data.splits["train"]
    assert set(names(part.take(few_shot(part, 4, 1)))) == expected
    mixed = split.take(np.random.default_rng(0).permutation(60))
    assert {name for name in names(mixed.take(few_shot(mixed, 4, 1))) if name[0] != "b"} == expected


def test_few_shots_are_drawn_evenly() -> None:
    split = toy_split({"a": 10})
    drawn = np.concatenate([few_shot(split, 3, seed) for seed in range(1000)])
    assert np.bincount(drawn).min() > 240  # 300 expected, with a deviation of 14.5
    assert np.bincount(drawn).max() < 360


def test_fewer_pictures_than_shots_are_said() -> None:
    split = toy_split({"a": 3, "b": 16, "c": 1})
    with pytest.warns(
        DataWarning, match=r"fewer than 16 pictures in 2 of the classes, which give all: a \(3\), c \(1\)"
    ):
        chosen = few_shot(split, 16, seed=0)
    assert np.bincount(split.labels[chosen]).tolist() == [3, 16, 1]


def test_halves() -> None:
    assert halves(["d", "b", "a", "e", "c"]) == (["a", "b", "c"], ["d", "e"])
    assert halves(["b", "a"]) == (["a"], ["b"])


def test_subset() -> None:
    split = toy_split({"a": 2, "b": 1, "c": 2})
    data = subset(ImageData("toy", split.classes, {"train": split, "test": split}), ["c", "b"])
    assert data.classes == ("b", "c")
    assert pairs(data.splits["test"]) == [("b/0", "b"), ("c/0", "c"), ("c/1", "c")]
    assert data.splits["train"].labels.tolist() == [0, 1, 1]
    with pytest.raises(UserError, match="toy has no class d"):
        subset(data, ["b", "d"])


# --- manifests ------------------------------------------------------------------------------------------------------


def test_a_manifest_finds_the_same_pictures_elsewhere(tmp_path: Path) -> None:
    counts = {"a": 10, "b": 10}
    data = load_images(image_folder(tmp_path / "here", counts), split_seed=5)
    train = data.splits["train"]
    chosen = ImageData(data.name, data.classes, data.splits | {"train": train.take(few_shot(train, 4, 3))}, True)
    path = tmp_path / "manifest.json"
    write_manifest(path, chosen, seed=3, shots=4)
    content = json.loads(path.read_text())
    assert (content["seed"], content["shots"], content["classes"]) == (3, 4, ["a", "b"])
    assert str(tmp_path) not in path.read_text()
    there = load_images(image_folder(tmp_path / "there", counts | {"c": 3}))
    found = apply_manifest(path, there)
    assert found.classes == data.classes
    for split in ("train", "test"):
        assert pairs(found.splits[split]) == pairs(chosen.splits[split])
        assert found.splits[split].labels.dtype == np.int64
        assert all(str(tmp_path / "there") in str(picture.source) for picture in found.splits[split].pictures)
    with pytest.raises(UserError, match="exists already"):
        write_manifest(path, chosen, seed=3, shots=4)
    for name in ("0", "1"):
        (tmp_path / "there" / "a" / f"{name}.png").unlink()
    listed = len(chosen.splits["train"]) + len(chosen.splits["test"])
    lost = sum(name in {"a/0.png", "a/1.png"} for split in chosen.splits.values() for name in names(split))
    assert lost
    with pytest.raises(UserError, match=f"there lacks {lost} of the {listed} pictures that .*manifest.json lists: a/"):
        apply_manifest(path, load_images(tmp_path / "there"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": "a"}, 'expected "classes"'),
        ({"splits": {"train": ["x"]}}, 'expected "classes"'),
        ({"splits": {"train": {"a": [1]}}}, 'expected "classes"'),
        ({"splits": {"other": {}}}, "expected the splits train, val and test, got other"),
        ({"splits": {"train": {"z": []}}}, "not among its classes: z"),
        (None, "is not a manifest; expected a JSON object with data, seed"),
    ],
)
def test_what_is_no_manifest(change: dict[str, Any] | None, message: str, tmp_path: Path) -> None:
    whole = {"data": "x", "seed": 0, "shots": 1, "classes": ["a"], "splits": {"train": {"a": ["a/0"]}}}
    path = tmp_path / "m.json"
    path.write_text(json.dumps(["x"] if change is None else whole | change))
    with pytest.raises(UserError, match=message):
        apply_manifest(path, ImageData("toy", ("a",), {"train": toy_split({"a": 1})}))


# --- pictures -------------------------------------------------------------------------------------------------------


def shown(content: bytes) -> np.ndarray:
    image = decode(content, "x")
    assert image.mode == "RGB"
    return np.asarray(image)


def test_a_plain_picture() -> None:
    assert np.array_equal(shown(encoded(noise(1))), np.asarray(noise(1)))


@pytest.mark.parametrize("format", ["AVIF", "DDS", "ICO", "JPEG2000", "MPO", "PCX", "PPM", "QOI", "SGI", "TGA"])
def test_what_pillow_reads_is_read(format: str) -> None:
    image = noise(1, (32, 32))
    content = encoded(image, format)
    with Image.open(io.BytesIO(content)) as plainly:
        assert np.array_equal(shown(content), np.asarray(plainly.convert("RGB")))


def test_transparent_is_white() -> None:
    clear, half, full = (0, 0, 0, 0), (255, 0, 0, 128), (255, 0, 0, 255)
    image = Image.new("RGBA", (3, 1))
    for column, pixel in enumerate((clear, half, full)):
        image.putpixel((column, 0), pixel)
    assert shown(encoded(image)).tolist() == [[list(WHITE), [255, 127, 127], list(RED)]]
    assert shown(encoded(image, "WEBP", lossless=True)).tolist() == [[list(WHITE), [255, 127, 127], list(RED)]]
    gray = Image.new("LA", (1, 1), (0, 0))
    assert shown(encoded(gray)).tolist() == [[list(WHITE)]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 255, 0, *RED])
    palette.putpixel((1, 0), 1)
    assert shown(encoded(palette, transparency=0)).tolist() == [[list(WHITE), list(RED)]]
    assert shown(encoded(palette, "GIF", transparency=0)).tolist() == [[list(WHITE), list(RED)]]
    assert shown(encoded(palette)).tolist() == [[[0, 255, 0], list(RED)]]
    keyed = Image.new("RGB", (1, 1), RED)
    assert shown(encoded(keyed, transparency=RED)).tolist() == [[list(WHITE)]]


def test_cmyk_and_gray() -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(shown(encoded(red, "JPEG", quality=100)).astype(int) - RED).max() <= 2
    assert np.array_equal(shown(encoded(red, "TIFF")), np.broadcast_to(RED, (8, 8, 3)))
    assert shown(encoded(Image.new("L", (1, 1), 7))).tolist() == [[[7, 7, 7]]]
    assert shown(encoded(Image.new("1", (1, 1), 1))).tolist() == [[list(WHITE)]]


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    ramp = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for format in ("PNG", "TIFF"):
        assert shown(encoded(Image.fromarray(ramp), format))[0, :, 0].tolist() == [0, 1, 128, 255]
    whole = Image.fromarray(ramp.astype(np.int32))
    assert shown(encoded(whole, "TIFF"))[0, :, 0].tolist() == [0, 1, 128, 255]
    real = Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32))
    assert shown(encoded(real, "TIFF"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture(orientation: int) -> None:
    upright = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    # What a camera stores so that turning it as the tag says gives the picture
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # tag -> PIL's transpose that undoes it
    stored = upright.transpose(Image.Transpose(back[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(shown(encoded(stored, exif=exif)), np.asarray(upright))


def test_the_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, (0, 0, 255))]
    for format in ("GIF", "WEBP", "PNG", "TIFF"):
        content = encoded(
            frames[0],
            format,
            save_all=True,
            append_images=frames[1:],
            **({"lossless": True} if format == "WEBP" else {}),
        )
        assert getattr(Image.open(io.BytesIO(content)), "n_frames", 1) == 2
        assert np.array_equal(shown(content), np.broadcast_to(RED, (4, 4, 3)))
    stereo = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(stereo)).format == "MPO"
    assert np.abs(shown(stereo).astype(int) - RED).max() <= 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"<html>not found</html>", "it is not one of AVIF, BMP, DDS"),
        (encoded(noise(0), "EPS"), "it is not one of"),
        (encoded(noise(0, (64, 64)), "JPEG")[:-200], "image file is truncated"),
        (encoded(noise(0, (64, 64)))[:-2000], ""),
        (encoded(noise(0))[:30], ""),
        (encoded(Image.new("RGB", (2001, 10))), "2001 x 10 pixels, more than 200 times as long as wide"),
    ],
    ids=["empty", "a page", "a program", "a cut JPEG", "a cut PNG", "a cut header", "a strip"],
)
def test_what_is_no_picture_is_named(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f"{path} cannot be read as a picture ({reason}")) as refused:
        Picture("x.jpg", path).load()
    assert "\n" not in str(refused.value)


def test_a_decompression_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for side in (11, 40):  # Pillow warns of the first and refuses the second
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with pytest.raises(UserError, match=r"x cannot be read as a picture \(.*pixels"):
                decode(encoded(Image.new("RGB", (side, side))), "x")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone.png cannot be read \(No such file or directory\)"):
        Picture("gone.png", tmp_path / "gone.png").load()

    def offline() -> bytes:
        raise OSError("the server is away")

    with pytest.raises(UserError, match=r"^train/7 cannot be read \(the server is away\)"):
        Picture("train/7", offline).read()


def test_load_pictures(tmp_path: Path) -> None:
    image_folder(tmp_path, {"b": 2, "a/deep": 1, ".hidden": 1})
    (tmp_path / "b" / "notes.txt").write_text("x")
    write(tmp_path / "b" / "x.XCF")
    with pytest.warns(DataWarning, match=r"left out 1 files whose names are not those of pictures, 1 .xcf \(b/x.XCF\)"):
        found = load_pictures(tmp_path)
    assert [picture.name for picture in found] == ["a/deep/0.png", "b/0.png", "b/1.png"]
    assert np.array_equal(np.asarray(found[1].load()), np.asarray(noise(0)))
    odd = write(tmp_path / "odd.data")
    assert [picture.name for picture in load_pictures(odd)] == ["odd.data"], "a file that is named is taken"
    (tmp_path / "b" / "x.XCF").unlink()
    mixed = load_pictures([str(odd), tmp_path / "b", odd])
    assert [picture.name for picture in mixed] == [odd.as_posix(), *(f"{tmp_path}/b/{n}.png" for n in range(2))]
    with pytest.raises(UserError, match="gone does not exist; expected a picture or a folder of pictures"):
        load_pictures([odd, tmp_path / "gone"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no picture found in .*empty; expected files that end in \.jpg, \.png"):
        load_pictures(tmp_path / "empty")
    with pytest.raises(UserError, match="no picture found in an empty list"):
        load_pictures([])


# --- data sets by name ----------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`datasets`, with its own caches in the test's folder and no bars."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield datasets
    datasets.enable_progress_bars()


def parquet(hub: Any, folder: Path, splits: dict[str, list[Any]], label: Any, column: str = "label") -> Path:
    features = hub.Features({"img": hub.Image(), "other": hub.Value("int64"), column: label})
    folder.mkdir()
    number = 0
    for split, labels in splits.items():
        rows: dict[str, list[Any]] = {"img": [], "other": [], column: labels}
        for _ in labels:
            rows["img"].append({"bytes": encoded(noise(number)), "path": None})
            rows["other"].append(number)
            number += 1
        hub.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")
    return folder


def test_a_data_set_of_the_hub(hub: Any, tmp_path: Path) -> None:
    label = hub.ClassLabel(names=["zebra", "ant"])
    path = parquet(hub, tmp_path / "data", {"train": [0, 1, 1, 0], "validation": [1, 0], "test": [0, 1]}, label)
    data = load_images(f"hf:{path}")
    assert data.classes == ("ant", "zebra")
    assert not data.held_out
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "val": 2, "test": 2}
    assert [label for _, label in pairs(data.splits["train"])] == ["zebra", "ant", "ant", "zebra"]
    for number, picture in enumerate(
        picture for name in ("train", "val", "test") for picture in data.splits[name].pictures
    ):
        assert picture.read() == encoded(noise(number)), "the data set's own bytes"
    one = load_images(f"hf:{path}@train")
    assert one.held_out
    assert sorted(names(one.splits["train"]) + names(one.splits["test"])) == [f"train/{row:07d}" for row in range(4)]
    assert len(load_images(f"hf:{path}@test[:100%]").splits["test"]) == 2


def test_a_data_set_of_the_hub_without_labels_or_pictures(hub: Any, tmp_path: Path) -> None:
    label = hub.ClassLabel(names=["a", "b"])
    path = parquet(hub, tmp_path / "part", {"train": [0, 1, 0, 1], "test": [-1, -1]}, label)
    with pytest.warns(DataWarning, match="2 of 2 pictures of test have no label and are left out"):
        data = load_images(f"hf:{path}")
    assert data.held_out
    words = parquet(hub, tmp_path / "words", {"train": ["x", "y", "x", "y"]}, hub.Value("string"))
    assert load_images(f"hf:{words}").classes == ("x", "y")
    unlabelled = parquet(hub, tmp_path / "none", {"train": [0, 1]}, hub.Value("int64"), column="kind")
    with pytest.raises(UserError, match="no column of classes, or several; expected one, or label: img, other, kind"):
        load_images(f"hf:{unlabelled}")
    (tmp_path / "text").mkdir()
    hub.Dataset.from_dict({"text": ["x"]}).to_parquet(tmp_path / "text" / "train.parquet")
    with pytest.raises(UserError, match="has no column of pictures; its columns are text"):
        load_images(f"hf:{tmp_path / 'text'}")
    with pytest.raises(UserError, match=r"hf:.*nowhere cannot be loaded \(.*\)") as refused:
        load_images(f"hf:{tmp_path / 'nowhere'}")
    assert "\n" not in str(refused.value)


def test_a_folder_of_the_hub(hub: Any, tmp_path: Path) -> None:
    root = image_folder(tmp_path / "data", {"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1})
    data = load_images(f"hf:{root}")
    assert data.classes == ("a", "b")
    contents = {picture.read() for split in data.splits.values() for picture in split.pictures}
    assert contents == {encoded(noise(number)) for number in range(6)}


def test_data_sets_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    class Cifar(datasets.VisionDataset):
        classes = ("zebra", "ant")

        def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
            assert download
            super().__init__(root)
            self.targets = [0, 1, 1] if train else [1, 0]

        def __len__(self) -> int:
            return len(self.targets)

        def __getitem__(self, row: int) -> tuple[Image.Image, int]:
            return noise(10 * len(self) + row), self.targets[row]

    class Pets(datasets.VisionDataset):
        classes = ("cat", "dog")

        def __init__(self, root: str, split: str = "trainval", download: bool = False) -> None:
            if split not in ("trainval", "test"):
                raise ValueError(f"Unknown value {split!r} for argument split.")
            super().__init__(root)
            self._images = [write(Path(root) / "pets" / f"{split}{row}.jpg", row) for row in range(2)]
            self._labels = [0, 1]

        def __len__(self) -> int:
            return 2

    class Folders(datasets.VisionDataset):
        categories = ("x", "y")

        def __init__(self, root: str) -> None:
            super().__init__(root)
            self.samples = [(str(write(Path(root) / f"{row}.png", row)), row % 2) for row in range(4)]

        def __len__(self) -> int:
            return 4

    class Away(datasets.VisionDataset):
        def __init__(self, root: str) -> None:
            raise RuntimeError("Dataset not found.\nUse download=True")

    monkeypatch.setenv("RETRIEVAL_PROMPTS_CACHE", str(tmp_path))
    for kind in (Cifar, Pets, Folders, Away):
        monkeypatch.setattr(datasets, kind.__name__, kind, raising=False)
    cifar = load_images("torchvision:Cifar")
    assert pairs(cifar.splits["train"]) == [
        (f"train/{row:07d}", name) for row, name in enumerate(["zebra", "ant", "ant"])
    ]
    assert np.array_equal(np.asarray(cifar.splits["test"].pictures[1].load()), np.asarray(noise(21)))
    pets = load_images("torchvision:Pets")
    assert pairs(pets.splits["train"]) == [("pets/trainval0.jpg", "cat"), ("pets/trainval1.jpg", "dog")]
    assert len(pets.splits["test"]) == 2
    folders = load_images("torchvision:Folders")
    assert folders.held_out
    assert sorted(names(folders.splits["train"]) + names(folders.splits["test"])) == [f"{row}.png" for row in range(4)]
    with pytest.raises(UserError, match=r"torchvision:Away cannot be loaded \(Dataset not found.\)"):
        load_images("torchvision:Away")
    for name in ("Nonsense", "folder"):
        with pytest.raises(UserError, match=f"no data set '{name}'; names are written as there, like Caltech101"):
            load_images(f"torchvision:{name}")


def test_all_is_what_can_be_imported() -> None:
    assert sorted(images.__all__) == images.__all__
    assert all(hasattr(images, name) for name in images.__all__)
    assert images.load_pictures is pictures.load_pictures


def test_what_is_no_file_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(UserError, match=rf"{name} cannot be read as a picture \(it is not a file\)"):
            Picture(name, tmp_path / name).load()
    write(tmp_path / "large.png")
    monkeypatch.setattr(pictures, "MOST", 100)
    with pytest.raises(UserError, match=r"large\.png cannot be read as a picture \(it has 0 MB, more than 0\)"):
        Picture("large.png", tmp_path / "large.png").load()


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


def test_a_test_folder_without_pictures_is_said(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/a": 4, "train/b": 4})
    for label in "ab":
        (tmp_path / "test" / label).mkdir(parents=True)
    with pytest.warns(DataWarning, match=r"test has no pictures; 30% of each class of train are held out for it"):
        data = load_images(tmp_path)
    assert data.held_out and len(data.split("test")) == 2


def test_pictures_of_phones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif", reason="an extra")
    turned = Image.new("RGB", (64, 48), (200, 30, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    heif.from_pillow(turned).save(tmp_path / "a.HEIC", exif=exif.tobytes())
    (picture,) = load_pictures(tmp_path)
    shown = np.asarray(picture.load()).astype(int)
    assert shown.shape == (64, 48, 3) and abs(shown[9, 9] - (200, 30, 30)).max() < 9
    monkeypatch.setattr(pictures, "reads_heif", lambda: False)
    with pytest.raises(
        UserError, match=r'a.HEIC cannot be read as a picture \(it is HEIC: pip install "retrieval-prompts\[heic\]"'
    ):
        picture.load()
    write(tmp_path / "b.png")
    with pytest.warns(
        DataWarning, match=r'1 .heic \(a.HEIC\); of HEIC, pip install "retrieval-prompts\[heic\]" reads it'
    ):
        assert [one.name for one in load_pictures(tmp_path)] == ["b.png"]
