"""Image evaluations as sections of a report: scores, tests and curves of toy cases, and pictures in bounds."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_clip
from PIL import Image

from multimodal.data.images import ImageData
from multimodal.data.pictures import Picture
from multimodal.evaluation.rankings import Best, Entry, Rankings
from multimodal.experiments.protocols import evaluate
from multimodal.experiments.results import CaptionResult, ClassResult
from multimodal.report import sections as report
from multimodal.report.sections import Album, classification, first_is_right, reciprocal
from multimodal.towers.clip import Clip
from retrieval_prompts.evaluation.metrics import means, per_query
from retrieval_prompts.evaluation.significance import compare
from retrieval_prompts.report.content import Matrix, Section
from retrieval_prompts.training.loop import Step

CLASSES = ("cat", "dog", "my fox")


def entries(folder: Path, count: int) -> list[Entry]:
    """Pictures of different colours that are there."""
    names = list(tiny_clip.COLOURS)
    files = [tiny_clip.write_picture(folder / f"{number}.png", names[number % 8], number) for number in range(count)]
    return [Entry(f"id{number}", file.name, Picture(file.name, file)) for number, file in enumerate(files)]


def ranked(rows: list[list[float]]) -> Best:
    return Best.of(np.array(rows, dtype=np.float32))


CAT, DOG, FOX = [3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [1.0, 2.0, 3.0]


def labelled(folder: Path, **systems: list[list[float]]) -> ClassResult:
    """A result of four pictures of a cat, a cat, a dog and a fox."""
    documents = [Entry(name.replace(" ", "%20"), name) for name in CLASSES]
    best = {name.replace("_", "-"): ranked(rows) for name, rows in systems.items()}
    rankings = Rankings("", entries(folder, 4), documents, [[0], [0], [1], [2]], best)
    scores = {}
    for system in dict.fromkeys(name.removesuffix("-1").removesuffix("-2") for name in best):
        own = [rankings.ranks(name) for name in best if name.startswith(system) and name != "zero-shot-ensemble"]
        scores[system] = {"accuracy": float(np.mean([ranks == 1 for ranks in own])), "mean_per_class": 0.5, "ece": 0.25}
    settings = {"split": "test", "temperature": 1.5, "images_skipped": 1}
    return ClassResult("pets", "m", None, "few-shot", scores, 4, settings=settings, rankings=[rankings])


def test_scores_of_ranks() -> None:
    ranks = np.array([1, 2, 10, 11, 0])
    assert first_is_right(ranks).tolist() == [1, 0, 0, 0, 0]
    assert reciprocal(ranks).tolist() == [1, 0.5, 0.1, 0, 0]


def test_a_classification(tmp_path: Path) -> None:
    result = labelled(tmp_path, zero_shot=[CAT, DOG, DOG, CAT], tuned=[DOG, CAT, DOG, FOX])
    (section,) = classification(result)
    assert (section.name, section.split, section.metric) == ("pets", "test", "accuracy")
    assert section.systems["tuned"] == {"accuracy": 0.75, "mean_per_class": 0.5}, "ECE, where less is more, is a fact"
    assert "4 pictures, 3 classes" in section.facts
    assert "expected calibration error: zero-shot 25.0 %, tuned 25.0 %" in section.facts
    assert {"temperature 1.50", "pictures that could not be read: 1"} <= set(section.facts)
    assert [query.text for query in section.queries] == ["0.png", "1.png", "2.png", "3.png"], "in their own order"
    first = section.queries[0]
    assert first.relevant == {"cat": 1} and first.scores == {"zero-shot": 1.0, "tuned": 0.0}
    assert first.rankings["tuned"] == [("dog", 3.0), ("my%20fox", 2.0), ("cat", 1.0)]
    assert section.documents["my%20fox"].title == "my fox" and not section.documents["my%20fox"].picture
    assert all(query.picture.startswith("data:image/") for query in section.queries)
    assert (section.baseline, section.system) == ("zero-shot", "tuned")
    test = section.tests["tuned_vs_zero-shot"]
    own = [{query.id: query.scores[name] for query in section.queries} for name in ("zero-shot", "tuned")]
    assert test == compare(own[0], own[1], "accuracy").as_dict()
    assert (test["helped"], test["hurt"], test["unchanged"]) == (2, 1, 1)


def test_class_by_class(tmp_path: Path) -> None:
    result = labelled(tmp_path, zero_shot=[DOG, DOG, FOX, CAT], tuned=[DOG, DOG, DOG, FOX])
    (section,) = classification(replace(result, labelled={"cat": 5, "my fox": 7}))
    wrong, classes = section.blocks
    assert wrong.title == "Answered wrong" and wrong.sentences == ["2 of 4 pictures"]
    assert [(shown.title, shown.right) for shown in wrong.pictures] == [("0.png", False), ("1.png", False)]
    assert wrong.pictures[0].text == "shows cat; answered dog, 66.5 % sure"  # e^3 of e + e^2 + e^3
    assert wrong.pictures[0].picture.startswith("data:image/")
    (matrix,) = classes.plots
    assert isinstance(matrix, Matrix) and matrix.counts == [[0, 2, 0], [0, 1, 0], [0, 0, 1]]
    assert matrix.said == "Taken most often: cat for dog (2)." and matrix.totals == [2, 1, 1]
    (table,) = classes.tables
    assert table.header == ["Class", "accuracy", "right", "pictures", "labelled", "taken for most often"]
    assert list(map(list, table.rows)) == [
        ["cat", "0.0", "0", "2", "5", "dog (2)"],
        ["dog", "100.0", "1", "1", "–", "–"],
        ["my fox", "100.0", "1", "1", "7", "–"],
    ]
    assert section.unit == ("picture", "pictures") and not any("quer" in line for line in section.sentences)


def test_seeds_are_averaged(tmp_path: Path) -> None:
    result = labelled(tmp_path, zero_shot=[CAT] * 4, tuned_1=[CAT, DOG, DOG, DOG], tuned_2=[CAT] * 4)
    (section,) = classification(result)
    assert [query.scores["tuned"] for query in section.queries] == [1, 0.5, 0.5, 0]
    assert list(section.queries[1].rankings) == ["zero-shot", "tuned"]
    assert section.queries[1].rankings["tuned"][0][0] == "dog", "of the first seed"
    assert section.facts[-1] == "tuned: the mean of 2 runs, of which tuned-1 is shown"
    assert section.tests["tuned_vs_zero-shot"]["difference"] == pytest.approx(0)


def test_zero_shot_alone_is_tested_against_nothing(tmp_path: Path) -> None:
    result = labelled(tmp_path, zero_shot=[CAT] * 4)
    (section,) = classification(result)
    assert section.tests == {} and set(section.queries[0].scores) == {"zero-shot"}
    assert section.system not in section.systems


def test_halves_and_a_system_without_an_answer(tiny_model: Clip, colours: ImageData) -> None:
    result = evaluate("base-to-new", colours, clip=tiny_model, keep_rankings=True)
    probe = {"base": 0.5, "new": None, "mean_per_class_base": 0.5, "ece_base": 0.1}
    result.systems = {**result.systems, "linear-probe": probe}
    base, new = classification(result)
    assert (base.name, new.name) == ("colours, base classes", "colours, new classes")
    assert set(base.systems) == {*new.systems, "linear-probe"}
    for section, name in ((base, "base"), (new, "new")):
        for system in ("zero-shot", "zero-shot-ensemble"):
            mean = np.mean([query.scores[system] for query in section.queries])
            assert section.systems[system]["accuracy"] == result.systems[system][name] == pytest.approx(mean)
    assert set(base.documents) == set(colours.classes[:2])
    assert base.tests.keys() == {"zero-shot-ensemble_vs_zero-shot"}


def captioned(folder: Path, pictures: int = 3, split: str = "test") -> CaptionResult:
    """Two captions a picture; tuned is right on all of them, zero-shot on the second ones alone."""
    shown = entries(folder, pictures)
    captions = [Entry(f"{each.id}#{number}", f"{each.text}, {number}") for each in shown for number in range(2)]
    right = np.repeat(np.eye(pictures), 2, axis=0)  # (captions, pictures)
    wrong = right.copy()
    wrong[::2] = np.roll(wrong[::2], 1, axis=1)
    to_images = {"zero-shot": ranked(wrong.tolist()), "tuned": ranked(right.tolist())}
    to_captions = {"zero-shot": ranked(wrong.T.tolist()), "tuned": ranked(right.T.tolist())}
    own = [[2 * at, 2 * at + 1] for at in range(pictures)]
    rankings = [
        Rankings("i2t", shown, captions, own, to_captions),
        Rankings("t2i", captions, shown, [[at // 2] for at in range(2 * pictures)], to_images),
    ]
    recalls = {way: {f"r@{k}": 0.5 for k in (1, 5, 10)} for way in ("i2t", "t2i")}
    systems = {"zero-shot": recalls, "tuned": recalls}
    result = CaptionResult("flickr", "m", None, "retrieval", systems, rankings=rankings, split=split)
    result.images, result.captions, result.captions_cut = pictures, 2 * pictures, 1
    return result


def test_captions(tmp_path: Path) -> None:
    result = captioned(tmp_path, split="val")
    words, pictures = report.captions(result)
    assert (words.name, pictures.name) == ("flickr, text to image", "flickr, image to text")
    assert (words.split, words.metric) == ("val", "mrr@10")
    for section, way in ((words, result.rankings[1]), (pictures, result.rankings[0])):
        for system, values in section.systems.items():
            expected = per_query(way.qrels(), way.run(system), ["mrr@10"])
            assert values["mrr@10"] == pytest.approx(means(expected)["mrr@10"])
            assert {query.id: query.scores[system] for query in section.queries} == pytest.approx(expected["mrr@10"])
            assert values["R@1"] == 0.5, "as in the result"
    assert words.queries[0].text == "0.png, 0" and words.queries[0].picture == ""
    assert words.documents["id0"].title == "0.png" and words.documents["id0"].picture.startswith("data:image/")
    assert pictures.queries[0].picture == words.documents["id0"].picture
    assert pictures.documents["id0#1"].text == "0.png, 1" and pictures.documents["id0#1"].title == ""
    assert {"3 pictures, 6 captions", "captions cut, too long for the model: 1"} <= set(words.facts)


def test_captions_of_a_picture_are_tested_as_one(tmp_path: Path) -> None:
    result = captioned(tmp_path)
    words, _ = report.captions(result)
    test = words.tests["tuned_vs_zero-shot"]
    scores = {name: [query.scores[name] for query in words.queries] for name in ("zero-shot", "tuned")}
    before, after = (dict(enumerate(np.reshape(own, (3, 2)).mean(axis=1))) for own in scores.values())
    expected = compare(before, after, "mrr@10").as_dict()  # type: ignore[arg-type]
    assert {name: test[name] for name in ("difference", "ci95", "p_value")} == {
        name: pytest.approx(expected[name]) for name in ("difference", "ci95", "p_value")
    }
    assert test["p_value"] == 0.25, "of three pictures, not of six captions: 2 of 8 patterns of signs"
    assert (test["helped"], test["hurt"], test["unchanged"]) == (3, 0, 3), "captions"


def test_runs_are_averaged_as_far_as_they_are_there(tmp_path: Path) -> None:
    result = captioned(tmp_path)
    members = {"zero-shot": ["zero-shot"], "tuned": ["coop-1", "coop-2", "lost"]}
    for each in result.rankings:
        each.systems = {
            "zero-shot": each.systems["zero-shot"],
            "coop-1": each.systems["tuned"],
            "coop-2": each.systems["zero-shot"],
        }
    words, _ = report.captions(result, members=members)
    assert words.queries[0].scores["tuned"] == (1 + words.queries[0].scores["zero-shot"]) / 2
    assert words.facts[-1] == "tuned: the mean of 2 runs, of which coop-1 is shown"


def steps(count: int, dev: float | None = None) -> list[Step]:
    losses = [Step(at, 0, 2.0 / at, 0.1, 1.0) for at in range(1, count + 1)]
    return losses if dev is None else [Step(0, 0, math.nan, 0, 0, dev=dev), *losses, replace(losses[-1], dev=0.7)]


def test_training_curves(tmp_path: Path) -> None:
    result = labelled(tmp_path, zero_shot=[CAT] * 4, tuned=[CAT] * 4)
    (section,) = classification(replace(result, steps=steps(3)))
    assert section.loss[0].points == [(1, 2.0), (2, 1.0), (3, 2 / 3)] and section.dev == ()
    (section,) = classification(replace(result, steps=steps(1000)))
    points = section.loss[0].points
    assert len(points) == 200 and points[-1][0] == 1000
    assert points[-1][1] == pytest.approx(np.mean([2 / at for at in range(996, 1001)]))

    described = captioned(tmp_path)
    dev = {"metric": "m", "zero-shot": 0.5, "tuned": 0.8, "full_strength": 0.6, "images": 2}
    described.settings = {"dev": dev, "strength": 0.25}
    words, pictures = report.captions(replace(described, steps=steps(4, dev=0.5)))
    assert words.dev[0].points == [(0, 0.5), (4, 0.7)]
    assert words.strength[0].points == [(0, 0.5), (0.25, 0.8), (1, 0.6)]
    assert pictures.loss == pictures.dev == pictures.strength == (), "once in a report"


def test_pictures_are_small_bounded_and_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = Picture.load

    def load(picture: Picture) -> Image.Image:
        read.append(picture.name)
        return real(picture)

    monkeypatch.setattr(Picture, "load", load)
    Image.new("RGB", (900, 300)).save(tmp_path / "wide.png")
    wide = Picture("wide.png", tmp_path / "wide.png")
    gone = Picture("gone.png", tmp_path / "gone.png")
    other = entries(tmp_path, 1)[0].picture
    album = Album(2)
    shown = [album.show(picture) for picture in (wide, wide, gone, gone, other, None)]
    assert read == ["wide.png", "gone.png"], "a limit of two"
    assert shown[2:] == ["", "", "", ""] and shown[0] == shown[1]
    content = base64.b64decode(shown[0].partition(",")[2])
    assert Image.open(io.BytesIO(content)).size == (160, 53)

    read.clear()
    result = captioned(tmp_path, pictures=8)
    sections = report.captions(result, limit=10)
    per_section = [{item.picture for item in own.documents.values()} - {""} for own in sections]
    assert (
        len(per_section[0]) == 5 and len(read) == 10 and sum(bool(query.picture) for query in sections[1].queries) == 5
    )


def test_those_that_changed_most_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RANKED", 2)
    result = labelled(tmp_path, zero_shot=[CAT, CAT, CAT, CAT], tuned=[CAT, CAT, DOG, FOX])
    (section,) = classification(result)
    assert [bool(query.rankings) for query in section.queries] == [False, False, True, True]
    assert [bool(query.picture) for query in section.queries] == [False, False, True, True]
    assert all(query.scores and query.relevant for query in section.queries)


def test_the_page(tmp_path: Path) -> None:
    pytest.importorskip("jinja2", reason="pages are made with jinja2")
    from retrieval_prompts.report.page import render

    sections: list[Section] = []
    first = labelled(tmp_path, zero_shot=[CAT, DOG, DOG, CAT], tuned=[DOG, CAT, DOG, FOX])
    sections += classification(replace(first, steps=steps(3)))
    second = captioned(tmp_path)
    sections += report.captions(second)
    for result in (first, second):
        page = report.report(result, sections)
        html = render(page)
        assert page.title in html and f"model {result.model}" in html and "my fox" in html
        assert html.count("<img") >= 4 and page.notes[0].split(":")[0] in html
    assert page.notes == [report.CAPTIONS]
