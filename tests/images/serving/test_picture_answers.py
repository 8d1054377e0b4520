"""What a server of pictures answers is what the library finds: by words, by a picture, classes; pictures of hits."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import tiny_clip
from PIL import Image
from threads import at_once
from toy_picture_server import NAMES, Home, sent
from toy_pictures import encoded, noise
from toy_server import Running, running

from multimodal.data.metadata import ORIENTATION
from multimodal.data.pictures import Picture
from multimodal.evaluation.feedback import query_vectors
from multimodal.serving import answering
from multimodal.serving.asked import PictureLimits
from multimodal.vectors.image_index import ImageIndex, picture_vector, search
from retrieval_prompts.data.id_list import Ids

WORDS = ("a blue picture", "something orange, all over")
SEARCHED = (None, "coop", "half", "captions", "feedback", "head")
CLASSES = ("yellow", "pink", "violet")


def same(hits: list[dict[str, Any]], expected: Any) -> None:
    assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
    assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-6)
    assert [(hit["title"], hit["text"]) for hit in hits] == [(hit.title, hit.text) for hit in expected]


def found(home: Home, words: str, prompt: str | None, k: int, strength: float | None = None) -> Any:
    """What `multimodal-prompts search` finds."""
    used: Any = (None, 1.0) if prompt is None else home.prompts(prompt, strength).search_prompts()
    index = ImageIndex.open(home.folder / "index")
    return search(index, query_vectors(home.clip, [words], used[0], index, strength=used[1]), k)


def likely(home: Home, prompt: str, contents: Any, classes: Any = None, strength: float | None = None) -> Any:
    """What `multimodal-prompts classify` says: name -> probability, for each picture."""
    made = home.prompts(prompt, strength)
    rows = made.predict_proba(contents, classes)
    return [dict(zip(made.known_classes(classes).names, row.tolist(), strict=True)) for row in rows]


def said(classes: list[dict[str, Any]]) -> dict[str, float]:
    probabilities = [each["probability"] for each in classes]
    assert probabilities == sorted(probabilities, reverse=True)
    return {each["class"]: each["probability"] for each in classes}


def close(expected: dict[str, float]) -> Any:
    return pytest.approx(expected, abs=2e-3)  # features of the command are kept in half precision


@pytest.mark.parametrize("prompt", SEARCHED)
def test_words_find_what_the_command_finds(server: Running, home: Home, prompt: str | None) -> None:
    answer = server.search(query=WORDS[0], k=5, prompt=prompt, frozen=True)
    same(answer["hits"], found(home, WORDS[0], prompt, 5))
    same(answer["frozen"], found(home, WORDS[0], None, 5))
    assert answer["prompt"] == (prompt or "frozen")
    assert answer["strength"] == {None: None, "half": 0.5}.get(prompt, 1.0)
    less = server.search(queries=WORDS, k=2, prompt="coop", strength=0.25)["results"]
    for words, result in zip(WORDS, less, strict=True):
        same(result["hits"], found(home, words, "coop", 2, 0.25))
        assert "frozen" not in result


def test_a_picture_finds_what_is_like_it(server: Running, home: Home) -> None:
    picture = home.picture("pink1")
    answer = server.search(image=sent(picture), k=4)
    vector = picture_vector(home.clip, Picture("pink1", picture))
    same(answer["hits"], search(ImageIndex.open(home.folder / "index"), vector, 4))
    assert answer["hits"][0]["id"] == "pink1.png"


def test_a_picture_is_turned_as_its_exif_says(server: Running) -> None:
    image = noise(3, (40, 24))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    turned = server.search(image=sent(encoded(image, exif=exif)), k=3)["hits"]
    by_hand = server.search(image=sent(encoded(image.transpose(Image.Transpose.ROTATE_270))), k=3)["hits"]
    assert turned == by_hand
    assert turned != server.search(image=sent(encoded(image)), k=3)["hits"]


@pytest.mark.parametrize("prompt", [name for name in NAMES if name != "feedback"])
def test_classes_get_what_the_command_gives_them(classify: Callable[..., Any], home: Home, prompt: str) -> None:
    paths = [home.picture("blue2"), home.picture("pink2")]
    own = CLASSES if prompt == "captions" else None
    answer = classify(images=[sent(path) for path in paths], prompt=prompt, frozen=True, classes=own)
    for result, expected, frozen in zip(
        answer["results"], likely(home, prompt, paths, own), likely(home, prompt, paths, own, 0.0), strict=True
    ):
        assert said(result["classes"]) == close(expected)
        assert said(result["frozen"]) == close(frozen)
    if prompt == "specific":
        return
    for classes in (CLASSES, (*tiny_clip.NAMES[:2], *CLASSES)):  # new ones, and a mixture
        for strength in (None, 0.3):
            result = classify(image=sent(paths[0]), prompt=prompt, classes=classes, strength=strength)
            assert said(result["classes"]) == close(likely(home, prompt, paths[:1], classes, strength)[0])
    assert len(classify(image=sent(paths[0]), prompt=prompt, classes=CLASSES, k=2)["classes"]) == 2


def test_the_frozen_model_classifies(classify: Callable[..., Any], home: Home) -> None:
    picture = home.picture("blue2")
    text = home.clip.encode_texts([f"a photo of a {name.replace('_', ' ')}." for name in CLASSES])
    cosines = picture_vector(home.clip, Picture("blue2", picture)) @ text.T
    expected = (home.clip.scale * cosines).softmax(dim=1)[0].tolist()
    result = classify(image=sent(picture), classes=CLASSES)
    assert said(result["classes"]) == pytest.approx(dict(zip(CLASSES, expected, strict=True)), abs=1e-6)
    assert (result["prompt"], result["strength"]) == ("frozen", None)


def test_prompts_of_a_search_alone_classify_nothing(server: Running, home: Home) -> None:
    body = {"image": sent(home.picture("pink2")), "classes": CLASSES, "prompt": "feedback"}
    said = server.call("POST", "/classify", body)
    assert said.status == 422 and said.json["error"]["message"].startswith("feedback prompts are made for each query")


def mixed(home: Home) -> list[tuple[str, Any]]:
    """Requests of each kind; the last is refused."""
    return [
        *(
            ("/search", {"query": words, "prompt": prompt, "k": k, "frozen": True})
            for words in WORDS
            for prompt, k in (("coop", 3), ("half", 2), ("feedback", 3), (None, 3))
        ),
        *(("/search", {"image": sent(home.picture(name)), "k": 3}) for name in ("blue0", "white1")),
        *(
            ("/classify", {"image": sent(home.picture("blue0")), "prompt": prompt, "frozen": True})
            for prompt in ("coop", "vpt", "cocoop", "head")
        ),
        ("/classify", {"image": sent(b"no picture"), "prompt": "coop"}),
    ]


def answered_alike(server: Running, calls: list[tuple[str, Any]]) -> None:
    """One after another, and all at once."""
    alone = [server.call("POST", *each) for each in calls]
    together = at_once([partial(server.call, "POST", *each) for each in calls])
    for one, (other,) in zip(alone, together, strict=True):
        assert one.status == other.status
        for side in ("hits", "frozen", "classes"):
            for mine, its in zip(one.json.get(side, []), other.json.get(side, []), strict=True):
                assert mine.get("id") == its.get("id") and mine.get("class") == its.get("class")
                key = "score" if "score" in mine else "probability"
                assert mine[key] == pytest.approx(its[key], abs=1e-5)
    assert [one.status for one in alone] == [200] * (len(calls) - 1) + [422]


def test_a_mixed_batch_gives_each_what_it_gets_alone(server: Running, home: Home) -> None:
    answered_alike(server, mixed(home))
    rows = server.web.counters.rows
    assert rows._sum.get() > sum(bucket.get() for bucket in rows._buckets), "no two were in one batch"


def test_batches_at_a_time_give_each_what_it_gets_alone(home: Home) -> None:
    limits = PictureLimits(body=1 << 20, batch=3, batches=3)
    with running(home.web("coop", "half", "vpt", "cocoop", "head", "feedback", limits=limits)) as served:
        answered_alike(served, mixed(home))


def test_class_vectors_are_kept_within_bounds(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "KEPT", 7)
    web, real = home.web("coop"), home.clip.text.encode
    made, passes = web.shelf.get("coop"), Counter[str]()

    def encode(*given: Any) -> Any:
        passes["text"] += 1
        return real(*given)

    monkeypatch.setattr(home.clip.text, "encode", encode)
    work: Any = web.batcher._work
    picture = home.picture("blue0").read_bytes()

    def ask(classes: tuple[str, ...], strength: float = 1.0) -> Any:
        (answer,) = work([answering.Query(made, strength, picture=picture, classes=classes)])
        return answer.probabilities

    first = ask(CLASSES)
    once = passes["text"]
    assert np.array_equal(ask(CLASSES), first)
    assert not np.allclose(ask(CLASSES, 0.5), first), "another strength is another mean"
    assert passes["text"] == once > 0
    ask(("a", "b", "c"))
    ask(("a", "b"))  # 8 classes: the first list goes
    lists = work.kept._lists
    assert [names for _, names in lists] == [("a", "b", "c"), ("a", "b")]
    web.shelf.remove("coop")
    work([answering.Query(None, picture=picture, classes=CLASSES)])
    assert [prompt for prompt, _ in lists] == [None], "what was unloaded is not kept"


def test_the_pictures_of_hits(server: Running, home: Home) -> None:
    hits = server.search(query=WORDS[0], k=24)["hits"]
    assert len({hit["picture"] for hit in hits}) == 24
    for hit in hits[:3]:
        shown = server.call("GET", f"/{hit['picture']}")
        assert shown.status == 200 and shown.headers["content-type"] == "image/jpeg"
        assert shown.headers["cache-control"] == "private, max-age=86400"
        assert shown.headers["x-content-type-options"] == "nosniff"
        image = Image.open(io.BytesIO(shown.body))
        original = Image.open(home.folder / "pictures" / hit["id"]).convert("RGB")
        assert image.size == original.size and not image.getexif()
        mean, expected = (np.asarray(each, dtype=float).mean(axis=(0, 1)) for each in (image, original))
        assert np.allclose(mean, expected, atol=6)
        again = server.call("GET", f"/{hit['picture']}", If_None_Match=shown.headers["etag"])
        assert (again.status, again.body) == (304, b"")
    assert server.call("GET", "/prompts").headers["cache-control"] == "no-store"


def test_pictures_are_scaled_down_and_kept_within_bounds(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from multimodal.serving import thumbnails

    monkeypatch.setattr(thumbnails, "SIDE", 8)
    monkeypatch.setattr(thumbnails, "MOST", 2000)
    made = home.web().thumbnails
    sizes = [len(made(position)) for position in (*range(6), 0)]
    assert Image.open(io.BytesIO(made(0))).size == (8, 7)
    assert 0 < made._size <= 2000 < sum(sizes) and made._size == sum(map(len, made._kept.values()))


def test_only_what_was_indexed_is_shown(home: Home, tmp_path: Any) -> None:
    web = home.web(images=tmp_path)  # in which there is only one of them, and another one under its name
    (tmp_path / "black0.png").write_bytes(home.picture("black0").read_bytes())
    (tmp_path / "black1.png").write_bytes(home.picture("black0").read_bytes())
    ids = web.shelf.index.ids
    with running(web) as served:

        def status(number: object) -> Any:
            answer = served.call("GET", f"/pictures/{number}")
            assert answer.status == 200 or str(tmp_path) not in answer.message
            return answer.status

        assert status(ids.index("black0.png")) == 200
        assert [status(ids.index(name)) for name in ("black1.png", "black2.png")] == [404, 404]
        for number in (24, -1, "x", "0x1", "%2e%2e%2fpictures%2fblack0.png", "..", "9" * 30, "1/2", "", "black0.png"):
            assert status(number) == 404
        assert status(f"{ids.index('black0.png')}?v=0123456789abcdef") == 404, "of another index"
        web.shelf.index.ids = Ids.of([*ids[:3], "../index/manifest.json", *ids[4:]])
        assert status(3) == 404
        web.shelf.index.digests = None
        assert status(ids.index("black0.png")) == 404
        assert served.search(query="x", k=1)["hits"][0]["picture"] is None
