"""Labelled pictures in folders: layouts, what is refused, and choices that depend on nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_pictures import image_folder, names, noise, pairs, write

from multimodal.data import images, pictures
from multimodal.data.images import ImageData, Split, few_shot, halves, load_images, same_name, subset
from multimodal.data.manifest import apply_manifest, write_manifest
from multimodal.data.pictures import Picture, load_pictures
from retrieval_prompts.errors import DataWarning, UserError

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


def test_a_test_folder_without_pictures_is_said(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train/a": 4, "train/b": 4})
    for label in "ab":
        (tmp_path / "test" / label).mkdir(parents=True)
    with pytest.warns(DataWarning, match=r"test has no pictures; 30% of each class of train are held out for it"):
        data = load_images(tmp_path)
    assert data.held_out and len(data.split("test")) == 2


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


def test_all_is_what_can_be_imported() -> None:
    assert sorted(images.__all__) == images.__all__
    assert all(hasattr(images, name) for name in images.__all__)
    assert images.load_pictures is pictures.load_pictures
