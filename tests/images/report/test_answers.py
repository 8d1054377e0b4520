"""The page of classify: names as people write them, the wrong ones first, and what to label next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tiny_clip
from parsed_page import Parsed

from multimodal.data.class_names import by_folder
from multimodal.data.pictures import Picture, load_pictures, short_names
from multimodal.report.answers import Answers, answers_page

CLASSES = ("cat", "sea_animal")


def answers(folder: Path, right: list[int] | None, sure: list[float]) -> Answers:
    """Of pictures that are all answered "cat", so surely."""
    files = [
        tiny_clip.write_picture(folder / f"deep/{at}/a <b>.png", next(iter(tiny_clip.COLOURS)), at)
        for at in range(len(sure))
    ]
    pictures = [Picture(f"{at}", file) for at, file in enumerate(files)]
    return Answers("The head (gda)", pictures, CLASSES, np.array([[p, 1 - p] for p in sure], np.float32), right)


def test_the_wrong_ones_come_first(tmp_path: Path) -> None:
    found = answers(tmp_path, [0, 1, 1, 0], [0.9, 0.6, 0.8, 0.7])
    html = answers_page(found, ["toy"], 1, {})
    parsed = Parsed(html)
    assert parsed.text.startswith(
        "4 images classified 4 images classified toy The head (gda) answers, and expects to be"
    )
    assert "right on about 3 of 4 pictures; by the names of the folders it is on 2 (50.0 %)." in parsed.text
    assert "Label more pictures of sea animal (0 of 2 right; 2 times taken for cat)." in parsed.text
    shown = parsed.text[parsed.text.index("1 wrong") :]
    assert shown == (
        "1 wrong 2/a <b>.png cat 80.0 % sea animal ✓ 20.0 % 2 wrong 1/a <b>.png cat 60.0 % sea animal ✓ 40.0 % "
        "3 right 3/a <b>.png cat ✓ 70.0 % 4 right 0/a <b>.png cat ✓ 90.0 %"
    ), "the surest mistake first, the right class beside each"
    places = [one["title"] for one in parsed.all("p") if "title" in one]
    assert places[0] == str(tmp_path / "deep/2/a <b>.png"), "the whole path where one points"
    assert [figure.get("class") for figure in parsed.all("figure")] == ["missed", "missed", None, None]


def test_what_to_label_where_nothing_is_known(tmp_path: Path) -> None:
    found = answers(tmp_path, None, [0.9, 0.4, 0.3])
    found = Answers(
        found.system, found.pictures, ("a", "b", "c"), np.array([[0.9, 0.1, 0], [0.4, 0.3, 0.3], [0.3] * 3])
    )
    assert found.sentences() == [
        "The head (gda) answers, and expects to be right on about 2 of 3 pictures.",
        "It is less than half sure of 2. To tune it further, label those that it is least sure of first: 2/a <b>.png"
        " (30.0 %), 1/a <b>.png (40.0 %).",
    ]
    assert answers(tmp_path, None, [0.9]).sentences() == ["The head (gda) answers, and is 90.0 % sure."]
    assert "wrong" not in Parsed(answers_page(found, [], 1, {1: "b 50.0 %"})).text


def test_folders_say_the_class(tmp_path: Path) -> None:
    for place in ("test/Sea animal/deeper/1.png", "test/cat/2.png", "3.png"):
        tiny_clip.write_picture(tmp_path / "cat" / place, next(iter(tiny_clip.COLOURS)), 0)
    test, alone = tmp_path / "cat/test", tmp_path / "cat/3.png"
    assert by_folder(load_pictures(test), [test], CLASSES) == [1, 0]
    assert by_folder(load_pictures(test / "cat"), [test / "cat"], CLASSES) == [0], "the folder that was given counts"
    assert by_folder(load_pictures([test, alone]), [test, alone], CLASSES) is None, "nothing above it does"
    assert by_folder(load_pictures(test), [test], ("cat", "dog")) is None, "all or none"


def test_short_names() -> None:
    assert short_names(["a/cat/1.png", "b/dog/1.png", "x.png"]) == ["cat/1.png", "dog/1.png", "x.png"]
