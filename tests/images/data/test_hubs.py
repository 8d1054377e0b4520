"""Data sets by name: of the Hugging Face hub, of its local folders, of torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_pictures import encoded, image_folder, names, noise, pairs, write

from multimodal.data.images import load_images
from retrieval_prompts.errors import DataWarning, UserError

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
