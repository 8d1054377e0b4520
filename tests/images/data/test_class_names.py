"""A class file says what classes are called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from toy_pictures import image_folder

from multimodal.data.class_files import check_names, read_names
from multimodal.data.class_names import load_named, renamed
from multimodal.data.images import ImageData, Picture, Split
from retrieval_prompts.errors import DataWarning, UserError


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


TENCH = {"n01440764": "tench", "n01443537": "goldfish", "n02012849": "crane"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classnames.txt", "n01440764 tench\nn01443537 goldfish\nn02012849 crane\n"),
        (
            "LOC_synset_mapping.txt",
            "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\nn02012849 crane\n",
        ),
        ("words.txt", "n01440764\ttench, Tinca tinca\nn01443537\tgoldfish\nn02012849\tcrane\n"),
        ("c.csv", 'wnid,name\nn01440764,"tench, Tinca tinca"\nn01443537,goldfish\nn02012849,crane\n'),
        ("c.csv", "n01440764,tench, Tinca tinca\nn01443537,goldfish\nn02012849,crane\n"),
        ("c.tsv", "label\tname\nn01440764\ttench\nn01443537\tgoldfish\nn02012849\tcrane\n"),
        ("c.txt", "n01440764: tench\nn01443537,goldfish\nn02012849  crane\r\n"),
        ("c.json", json.dumps(TENCH)),
        ("c.json", json.dumps({"n01440764": ["tench", "Tinca tinca"], "n01443537": "goldfish", "n02012849": "crane"})),
        ("imagenet_class_index.json", json.dumps({str(at): pair for at, pair in enumerate(TENCH.items())})),
        ("c.json", json.dumps([{"id": label, "name": name} for label, name in TENCH.items()])),
    ],
)
def test_files_of_wordnet_ids(tmp_path: Path, name: str, text: str) -> None:
    path = write(tmp_path / name, text)
    assert list(read_names(path).items()) == list(TENCH.items())
    assert read_names(path, {"n01443537", "n0"}) == {"n01443537": "goldfish"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", '["raven", "great tit"]'),
        ("c.json", '{"classes": ["raven", "great tit"], "x": 1}'),
        ("c.json", '{"great tit": 1, "raven": 0}'),
        ("c.csv", "raven\ngreat tit\n"),
    ],
)
def test_lists_of_names(tmp_path: Path, name: str, text: str) -> None:
    assert list(read_names(write(tmp_path / name, text)).items()) == [("raven", "raven"), ("great tit", "great tit")]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("0 raven\n1 great tit\n", "0"),
        ("1: raven\n2: great tit\n", "1"),
        ("0,raven\n1,great tit\n", "0"),
        ("{0: 'raven',\n 1: 'great tit'}\n", "0"),
        ('{"0": "raven", "1": "great tit"}', "0"),
        ("id,name\n0,raven\n1,great tit\n", "0"),
    ],
)
def test_numbers_are_labels(tmp_path: Path, text: str, first: str) -> None:
    name = "c.csv" if "id" in text else "c.txt"
    found = read_names(write(tmp_path / name, text))
    assert list(found.values()) == ["raven", "great tit"] and next(iter(found)) == first


def test_a_number_may_begin_a_name(tmp_path: Path) -> None:
    assert list(read_names(write(tmp_path / "c.txt", "3 wheeler\n911 turbo\n"))) == ["3 wheeler", "911 turbo"]


def test_synonyms_keep_names_apart(tmp_path: Path) -> None:
    path = write(
        tmp_path / "c.txt",
        "n03710637 maillot\nn03710721 maillot, tank suit\nn02012849 crane\nn03126707 crane\nn00000001 crane\n",
    )
    with pytest.warns(
        DataWarning, match=r"c.txt has classes of one name; the later ones are called crane 2, crane 3 here"
    ):
        assert list(read_names(path).values()) == ["maillot", "tank suit", "crane", "crane 2", "crane 3"]
    assert read_names(path, ["n03126707"]) == {"n03126707": "crane"}


def test_folders_of_wordnet_ids(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "data", dict.fromkeys(TENCH, 2))
    message = (
        r"^3 classes are called by WordNet's ids, n01440764, n01443537, n02012849, which say nothing to a text tower; "
        r"write a file of their names \(n01440764, a tab, tench\) and pass it as --class-file"
    )
    with pytest.raises(UserError, match=message):
        load_named(str(root))
    names = write(tmp_path / "LOC_synset_mapping.txt", "".join(f"{label} {name}, x\n" for label, name in TENCH.items()))
    for place in (names, names.rename(root / "synset_words.txt")):
        assert load_named(str(root)).classes == ("crane", "goldfish", "tench"), place
    write(root / "classnames.txt", "n01440764 tench\n")  # of other classes: the next is asked
    write(root / "LOC_synset_mapping.txt", "n01440764\n")
    assert load_named(str(root)).classes == ("crane", "goldfish", "tench")
    named = write(tmp_path / "mine.txt", "".join(f"{label}\tmy {name}\n" for label, name in TENCH.items()))
    assert load_named(str(root), named).classes == ("my crane", "my goldfish", "my tench")
    check_names(["tench", "n1", "an n01440764"])


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (["n02085620-Chihuahua", "n02085782-Japanese_spaniel"], ("Chihuahua", "Japanese_spaniel")),
        (["001.ak47", "002.american-flag"], ("ak47", "american-flag")),
        (["n02085620-Chihuahua", "dog"], ("dog", "n02085620-Chihuahua")),
        (["1.5 mm", "001.5 mm"], ("001.5 mm", "1.5 mm")),
    ],
)
def test_names_behind_ids(folders: list[str], classes: tuple[str, ...], tmp_path: Path) -> None:
    assert load_named(str(image_folder(tmp_path, dict.fromkeys(folders, 2)))).classes == classes


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
        (
            "n01440764\nn01443537\n",
            "classes.txt:1: n01440764 is a WordNet id and no name; write n01440764, a tab, tench",
        ),
        ("a\tb\na\tb\n", "classes.txt:2: the label 'a' appears twice"),
        ("n01\traven\n\nn01\tkite\n", "classes.txt:3: the label 'n01' appears twice"),
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


def test_classes_of_one_name_behind_their_ids(tmp_path: Path) -> None:
    folders = ["n02012849-crane", "n03126707-crane", "n02085620-Chihuahua"]
    root = image_folder(tmp_path, dict.fromkeys(folders, 2))
    with pytest.warns(DataWarning, match="the later ones are called crane 2 here"):
        assert sorted(load_named(str(root)).classes) == ["Chihuahua", "crane", "crane 2"]


@pytest.mark.parametrize("text", ["5", '"x"', "{}", "[]", "{[]: 2}", "{{1}: 2}"])
def test_json_that_is_no_list_of_names(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"names\.json( is not valid JSON|: expected a list of class names)"):
        read_names(write(tmp_path / "names.json", text))


def test_a_name_may_begin_as_json_does(tmp_path: Path) -> None:
    assert list(read_names(write(tmp_path / "names.txt", "[tench]\nbass\n"))) == ["[tench]", "bass"]


NAMES = ("tench", "sea lion")


@pytest.mark.parametrize(
    ("folders", "name", "text", "warned"),
    [
        (("tench", "sea_lion"), "a.txt", "Tench\nsea lion\n", False),
        (("tench", "sea_lion"), "a.txt", "0 tench\n1 sea lion\n", False),
        (("tench", "sea_lion"), "a.csv", "class_id,class_name\n1,tench\n2,sea lion\n", False),
        (("tench", "sea_lion"), "a.csv", "name\ntench\nsea lion\n", False),
        (("0", "1"), "a.json", '{"tench": 0, "sea lion": 1}', False),
        (("000", "001"), "a.txt", "0 tench\n1 sea lion\n", False),
        (("1", "2"), "a.txt", "tench\nsea lion\n", False),
        (("0", "1"), "a.json", '{"id2label": {"0": "tench", "1": "sea lion"}, "label2id": {"tench": 0}}', False),
        (("1", "2"), "a.json", '{"categories": [{"id": 1, "name": "tench"}, {"id": 2, "name": "sea lion"}]}', False),
        (("0", "1"), "a.yaml", "nc: 2\nnames:\n  0: tench\n  1: sea lion\n", False),
        (("0", "1"), "a.yml", "names: [tench, sea lion]\n", False),
        (("n01440764", "n02077923"), "a.txt", "tench\nsea lion\n", True),
    ],
)
def test_files_of_other_labels(
    tmp_path: Path, folders: tuple[str, str], name: str, text: str, warned: bool, recwarn: pytest.WarningsRecorder
) -> None:
    image_folder(tmp_path / "data", {folder: 2 for folder in folders})
    loaded = load_named(str(tmp_path / "data"), write(tmp_path / name, text))
    split = loaded.split("train")
    assert {
        picture.name.split("/")[0]: split.classes[label].lower()
        for picture, label in zip(split.pictures, split.labels, strict=True)
    } == dict(zip(folders, NAMES, strict=True))
    assert [str(one.message).partition(": ")[2] for one in recwarn] == ["n01440764 is tench, and so on"] * warned


def test_a_list_that_does_not_count_the_classes_is_refused(tmp_path: Path) -> None:
    image_folder(tmp_path / "data", {"0": 2, "1": 2})
    for text in ("1 tench\n2 sea lion\n", "label\tname\n0\ttench\nx\tsea lion\n"):
        with pytest.raises(UserError, match="the class file has no name for"):
            load_named(str(tmp_path / "data"), write(tmp_path / "a.txt", text))


def test_folders_of_numbers(tmp_path: Path) -> None:
    image_folder(tmp_path, {"0": 2, "1": 2})
    with pytest.warns(DataWarning, match="its classes are called by numbers, 0, 1; unless they are digits, say what"):
        assert load_named(str(tmp_path)).classes == ("0", "1")
    write(tmp_path / "labels.txt", "0.png 1\n1.png 0\nx.png 1\n")  # of pictures: not as many as classes
    with pytest.warns(DataWarning, match="its classes are called by numbers"):
        load_named(str(tmp_path))
    write(tmp_path / "classes.txt", "tench\nsea lion\n")
    assert load_named(str(tmp_path)).classes == ("sea lion", "tench")
