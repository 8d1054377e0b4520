"""The layouts of the 11 published data sets, small ones made here, and the published draw of shots."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from multimodal.data.images import Split
from multimodal.data.pictures import Picture
from multimodal.data.published import LAYOUTS, draw, load_published
from retrieval_prompts.errors import DataWarning, UserError

NAMES = ["water_lilly", "Faces", "anchor"]  # in the order of labels, which is not that of the alphabet


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def make(root: Path, name: str, train: int = 3, test: int = 2) -> None:
    """The data set's files as its authors and CoOp lay them out; pictures are empty, for nothing opens them here."""
    layout = LAYOUTS[name]
    folder = root / layout.folder
    images = folder / layout.images
    counts = {"train": train, "val": 1, "test": test}
    if name == "imagenet":
        wnids = ["n01440764", "n01443537", "n01484850"]
        for place in ("train", "val"):
            for wnid in wnids:
                for number in range(counts["train" if place == "train" else "test"]):
                    touch(images / place / wnid / f"{wnid}_{number}.JPEG")
        lines = [f"{wnid} {own}" for wnid, own in zip(wnids, ["tench", "great white shark", "tench"], strict=True)]
        (folder / "classnames.txt").write_text("\n".join([*lines, "n02084071 not here"]) + "\n")
    elif name == "fgvc_aircraft":
        for split, count in counts.items():
            lines = []
            for label, own in enumerate(["707-320", "F/A-18", "DH-82 b"]):
                for number in range(count):
                    image = f"{label}{number}{len(split)}"
                    touch(images / f"{image}.jpg")
                    lines.append(f"{image} {own}")
            (folder / f"images_variant_{split}.txt").write_text("\n".join(lines))
        (folder / "variants.txt").write_text("707-320\nF/A-18\nDH-82 b\n")
    else:
        content: dict[str, list[tuple[str, int, str]]] = defaultdict(list)
        for split, count in counts.items():
            for label in (2, 0, 1):
                for number in range(count):
                    path = f"{NAMES[label]}/{split}_{number}.jpg"
                    touch(images / path)
                    content[split].append((path, label, NAMES[label]))
        (folder / layout.listing).write_text(json.dumps(content))


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name not in ("imagenet", "fgvc_aircraft")])
def test_fixed_splits(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    data = load_published(name, tmp_path)
    assert (data.name, data.classes) == (name, tuple(NAMES))
    assert set(data.splits) == {"train", "test"} and data.held_out is False
    train, test = data.splits["train"], data.splits["test"]
    assert train.labels.tolist() == [2] * 3 + [0] * 3 + [1] * 3 and test.labels.tolist() == [2, 2, 0, 0, 1, 1]
    assert train.classes == data.classes
    assert train.pictures[3].name == "water_lilly/train_0.jpg"
    assert all(isinstance(picture.source, Path) and picture.source.is_file() for picture in train.pictures)
    assert not {p.name for p in train.pictures} & {p.name for p in test.pictures}


def test_the_layouts_are_those_of_coop() -> None:
    places = {name: f"{layout.folder}/{layout.images}" for name, layout in LAYOUTS.items()}
    assert len(places) == 11
    assert places["caltech101"] == "caltech-101/101_ObjectCategories" and places["food101"] == "food-101/images"
    assert places["stanford_cars"] == "stanford_cars/." and places["oxford_flowers"] == "oxford_flowers/jpg"
    assert places["eurosat"] == "eurosat/2750" and places["ucf101"] == "ucf101/UCF-101-midframes"
    assert LAYOUTS["dtd"].listing == "split_zhou_DescribableTextures.json"


def test_aircraft(tmp_path: Path) -> None:
    make(tmp_path, "fgvc_aircraft")
    data = load_published("fgvc_aircraft", tmp_path)
    assert data.classes == ("707-320", "F/A-18", "DH-82 b")
    assert data.splits["train"].labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 and len(data.splits["test"]) == 6
    assert data.splits["test"].pictures[0].name == "004.jpg"


def test_imagenet(tmp_path: Path) -> None:
    make(tmp_path, "imagenet")
    with pytest.warns(DataWarning, match="imagenet has classes of one name; the later ones are called tench 2 here"):
        data = load_published("imagenet", tmp_path)
    assert data.classes == ("tench", "great white shark", "tench 2")
    assert data.splits["train"].labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert data.splits["test"].pictures[2].name == "val/n01443537/n01443537_0.JPEG"


def test_what_is_not_there_or_contradicts_itself_is_refused(tmp_path: Path) -> None:
    def refused(message: str, name: str = "dtd") -> None:
        with pytest.raises(UserError, match=message):
            load_published(name, tmp_path)

    refused("there is no data set 'cifar'; expected one of imagenet, caltech101", "cifar")
    refused("split_zhou_DescribableTextures.json does not exist; CoOp's DATASETS.md says")
    make(tmp_path, "dtd")
    listing = tmp_path / "dtd" / LAYOUTS["dtd"].listing
    content = json.loads(listing.read_text())
    (tmp_path / "dtd" / "images" / "anchor" / "test_1.jpg").unlink()
    refused("1 pictures of .* are not in .*images: anchor/test_1.jpg")
    for wrong, message in [
        ({"train": content["train"]}, "expected .*train.*path, label, class name"),
        ({**content, "test": [["a.jpg", 0]]}, "expected .*train.*path, label, class name"),
        ({**content, "test": [["water_lilly/test_0.jpg", 0, "rose"]]}, "label 0 is called 'water_lilly' and 'rose'"),
        (
            {"train": [["water_lilly/train_0.jpg", 1, "water_lilly"]], "test": []},
            "expected the labels 0, 1, ... of two classes or more, got 1",
        ),
    ]:
        listing.write_text(json.dumps(wrong))
        refused(message)
    make(tmp_path, "fgvc_aircraft")
    (tmp_path / "fgvc_aircraft" / "images_variant_test.txt").write_text("123 Concorde\n")
    refused("expected lines of a number and a variant of variants.txt, got 123 Concorde", "fgvc_aircraft")
    (tmp_path / "fgvc_aircraft" / "images_variant_test.txt").unlink()
    refused("images_variant_test.txt does not exist", "fgvc_aircraft")
    make(tmp_path, "imagenet")
    (tmp_path / "imagenet" / "classnames.txt").write_text("n01440764 tench\n")
    refused("has no name for n01443537, n01484850 of", "imagenet")


def dassl(items: list[tuple[str, int]], shots: int, seed: int) -> list[str]:
    """generate_fewshot_dataset of Dassl's DatasetBase, after its set_random_seed."""
    random.seed(seed)
    tracker = defaultdict(list)
    for item in items:
        tracker[item[1]].append(item)
    dataset: list[tuple[str, int]] = []
    for group in tracker.values():
        dataset.extend(random.sample(group, shots) if len(group) >= shots else random.choices(group, k=shots))
    return [path for path, _ in dataset]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shots", [1, 4, 16])
def test_shots_are_drawn_as_dassl_draws_them(seed: int, shots: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(5), [30, 16, 3, 17, 40]))  # the third has fewer than 4
    pictures = [Picture(f"{number}.jpg", Path(f"{number}.jpg")) for number in range(len(labels))]
    split = Split(pictures, labels.astype(np.int64))
    state = random.getstate()
    chosen = [split.pictures[position].name for position in draw(split, shots, seed)]
    assert random.getstate() == state
    items = [(picture.name, label) for picture, label in zip(pictures, labels.tolist(), strict=True)]
    assert chosen == dassl(items, shots, seed)
    random.setstate(state)
