"""Pictures are found as exact comparison finds them, and captions are judged by hand-computed cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal.classifier import PromptClassifier
from multimodal.data.captions import Captioned, load_captions
from multimodal.data.pictures import Picture, load_pictures
from multimodal.evaluation import retrieval
from multimodal.evaluation.metrics import best_ranks, recall_at
from multimodal.evaluation.retrieval import (
    Pairs,
    Ranks,
    build_index,
    encoder,
    evaluate_captions,
    paired_tests,
    picture_vector,
    search,
    search_prompts,
)
from multimodal.prompts.methods import method
from multimodal.towers.clip import Clip, load_clip
from multimodal.training.settings import Settings
from multimodal.vectors.texts import text_vectors
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.vectors.index import Index


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return load_clip(str(tiny_clip.write_clip(tmp_path_factory.mktemp("clip") / "clip")), device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 8 colours, 3 each, with 2 captions each; the last of each colour is in test."""
    return tiny_clip.write_captions(tmp_path_factory.mktemp("data"))


@pytest.fixture
def index(clip: Clip, data: Path) -> Index:
    return build_index(clip, load_pictures(data / "pictures"), root=data / "pictures")


def vectors_of(clip: Clip, pictures: list[Picture]) -> Tensor:
    return torch.cat([picture_vector(clip, picture) for picture in pictures])


def prompter(clip: Clip, **given: Any) -> Any:
    return method(given.get("method", "coop")).build(clip, Settings.of(**given)).prompter


# ---- search


def test_words_find_what_exact_comparison_finds(clip: Clip, index: Index, data: Path) -> None:
    pictures = load_pictures(data / "pictures")
    assert len(index) == len(pictures) == 24
    for context in (None, prompter(clip, init="gaussian")):
        vector = text_vectors(clip, ["a blue picture"], context)
        scores = (vectors_of(clip, pictures) @ vector[0]).numpy()
        best = np.argsort(-scores)[:5]
        hits = search(index, vector, 5)
        assert [hit.id for hit in hits] == [pictures[at].name for at in best]
        assert np.allclose([hit.score for hit in hits], scores[best], atol=2e-3)  # the cache is in half precision


def test_a_picture_finds_itself(clip: Clip, index: Index, data: Path) -> None:
    picture = Picture("elsewhere.png", data / "pictures" / "pink1.png")
    hits = search(index, picture_vector(clip, picture), 3)
    assert hits[0].id == hits[0].title == "pink1.png"
    assert hits[0].score == pytest.approx(1, abs=1e-3)
    assert hits[0].picture.load().tobytes() == picture.load().tobytes(), "a hit shows its picture"


def test_the_index_is_saved_and_opened(clip: Clip, data: Path, tmp_path: Path) -> None:
    pictures = load_pictures(data / "pictures")
    texts = {"blue0.png": "blue, number 0"}
    built = build_index(clip, pictures, root=data / "pictures", texts=texts, factory="SQfp16")
    built.save(tmp_path / "index")
    opened = Index.open(tmp_path / "index")
    opened.check_encoder(encoder(clip))
    made = opened.manifest["encoder"]
    assert made == {
        "fingerprint": clip.fingerprint,
        "model": clip.name,
        "pretrained": None,
        "images": str(data / "pictures"),
    }
    (hit,) = search(opened, picture_vector(clip, pictures[3]), 1)
    assert hit.id == pictures[3].name
    assert opened.document("blue0.png").text == "blue, number 0"
    assert opened.document("blue1.png").text == ""


def test_pictures_in_folders_keep_their_names(clip: Clip, tmp_path: Path) -> None:
    root = tiny_clip.write_images(tmp_path / "images")
    index = build_index(clip, load_pictures(root), root=root)
    hits = search(index, text_vectors(clip, ["orange"]), 100)
    assert len(hits) == len(index) == 20
    found = next(hit for hit in hits if hit.id == "test/orange/0.png")
    assert (found.title, found.picture.place) == ("0.png", str(root / "test" / "orange" / "0.png"))


def test_an_unreadable_picture_is_left_out_and_named(clip: Clip, tmp_path: Path) -> None:
    for number in range(3):
        tiny_clip.write_picture(tmp_path / f"{number}.png", "blue", number)
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.warns(DataWarning, match=r"1 of 3 pictures are skipped: .*1\.png"):
        index = build_index(clip, load_pictures(tmp_path), root=tmp_path)
    assert index.ids == ["0.png", "2.png"]
    assert index.document("2.png").title == "2.png"


def test_another_model_is_refused(clip: Clip, index: Index, tmp_path: Path) -> None:
    other = load_clip(str(tiny_clip.write_clip(tmp_path / "other", seed=1)), device="cpu")
    with pytest.raises(UserError, match="this index was made by another document encoder"):
        index.check_encoder(encoder(other))


def test_a_text_side_alone_makes_another_encoder(clip: Clip, tmp_path: Path) -> None:
    same = load_clip(clip.name, device="cpu")
    assert encoder(same) == encoder(clip)
    with torch.no_grad():
        same.model.token_embedding.weight[100] += 1
    changed = Clip(same.model, same.preprocess, same.tokenizer, same.name)
    assert changed.image_fingerprint == clip.image_fingerprint
    assert encoder(changed)["fingerprint"] != encoder(clip)["fingerprint"]


def test_prompts_that_stand_elsewhere_are_refused(clip: Clip) -> None:
    built = method("coop").build(clip, Settings.of())
    classifier = PromptClassifier(clip, position="end")
    classifier._method = built
    assert search_prompts(classifier) == (built.prompter, 1.0)
    classifier = PromptClassifier(clip, position="front")
    with pytest.raises(UserError) as error:
        search_prompts(classifier)
    assert str(error.value) == (
        "these prompts were tuned with the class name at the front of them, and a search puts them before the text; "
        'use prompts of the position "end"'
    )


# ---- captions


def unit(*rows: tuple[float, ...]) -> Tensor:
    return F.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


CAPTIONS = [["a dog", "A  Dog runs"], ["a cat"], [], ["a dog runs", "a fish"]]
IMAGES = unit((1, 0), (0, 1), (1, 1), (1, -1))
TEXTS = unit((1, 0.1), (1, -0.9), (0.1, 1), (1, -0.9), (-1, -0.2))  # of the captions, in order


def test_pairs() -> None:
    pairs = Pairs(IMAGES, CAPTIONS)
    assert pairs.captions == ["a dog", "A  Dog runs", "a cat", "a dog runs", "a fish"]
    assert pairs.owner.tolist() == [0, 0, 1, 3, 3]
    assert pairs.pictures_of == [[0], [0, 3], [1], [0, 3], [3]], "the same caption is right for both"
    assert [sorted(set(own)) for own in pairs.captions_of] == [[0, 1, 3], [2], [], [1, 3, 4]]


def test_ranks_of_a_case_by_hand() -> None:
    ranks = Pairs(IMAGES, CAPTIONS).ranks(TEXTS)
    # a dog: picture 0 first. a dog runs: picture 3, which is right. a cat: picture 1. a fish: all others before 3? the
    # cosines of (-1, -0.2) are -0.98, -0.20, -0.83, -0.55: second
    assert ranks.t2i.tolist() == [1, 1, 1, 1, 2]
    assert ranks.i2t.tolist() == [1, 1, 1], "the picture without captions asks nothing"
    assert ranks.recalls() == {
        "i2t": {"r@1": 1.0, "r@5": 1.0, "r@10": 1.0},
        "t2i": {"r@1": 0.8, "r@5": 1.0, "r@10": 1.0},
    }
    assert ranks.mean_reciprocal_rank() == pytest.approx((1 + 4.5 / 5) / 2)
    assert ranks.per_picture(1) == {
        "i2t": {"0": 1.0, "1": 1.0, "3": 1.0},
        "t2i": {"0": 1.0, "1": 1.0, "3": 0.5},
    }


@pytest.fixture
def random_pairs() -> tuple[Pairs, Tensor]:
    random = np.random.default_rng(0)
    captions = [[f"{number} {each}" for each in range(random.integers(1, 5))] for number in range(40)]
    captions[3][0] = captions[30][0]
    images = F.normalize(torch.tensor(random.normal(size=(40, 8)), dtype=torch.float32), dim=1)
    pairs = Pairs(images, captions)
    texts = images[pairs.owner] + torch.tensor(random.normal(size=(len(pairs.captions), 8)), dtype=torch.float32)
    return pairs, F.normalize(texts, dim=1)


def test_recalls_are_those_of_exact_search(random_pairs: tuple[Pairs, Tensor]) -> None:
    pairs, texts = random_pairs
    found = pairs.ranks(texts).recalls()
    for queries, candidates, right, way in (
        (texts, pairs.images, pairs.pictures_of, "t2i"),
        (pairs.images, texts, pairs.captions_of, "i2t"),
    ):
        names = list(map(str, range(len(candidates))))
        index = Index.build(candidates.numpy(), None, names, encoder={})
        for k in (1, 5, 10):
            _, ids = index.search(queries.numpy(), k)
            hits = [bool(set(map(int, row)) & set(own)) for row, own in zip(ids, right, strict=True)]
            assert found[way][f"r@{k}"] == pytest.approx(np.mean(hits))
        assert found[way] == pytest.approx(recall_at((queries @ candidates.T).numpy(), right))


def test_memory_is_bounded_without_a_change(
    random_pairs: tuple[Pairs, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, texts = random_pairs
    whole = pairs.ranks(texts)
    sizes: list[int] = []

    def counted(scores: np.ndarray, positives: Any) -> np.ndarray:
        sizes.append(scores.size)
        return best_ranks(scores, positives)

    monkeypatch.setattr(retrieval, "best_ranks", counted)
    monkeypatch.setattr(retrieval, "SCORES", 300)
    blocks = pairs.ranks(texts)
    assert max(sizes) <= 300 and len(sizes) > 10
    assert blocks.i2t.tolist() == whole.i2t.tolist() and blocks.t2i.tolist() == whole.t2i.tolist()


def test_paired_tests_compare_pictures() -> None:
    owner = np.array([0, 0, 1])
    before = Ranks(i2t=np.array([11, 1]), t2i=np.array([11, 11, 1]), owner=owner)
    better = Ranks(i2t=np.array([1, 1]), t2i=np.array([1, 11, 1]), owner=owner)
    found = paired_tests(before, [better, before])["tuned_vs_zero-shot"]
    assert found["i2t"]["metric"] == "r@10"
    assert found["i2t"]["difference"] == pytest.approx(0.25), "one of two pictures, in one of two seeds"
    assert found["t2i"]["difference"] == pytest.approx(0.125)
    assert (found["t2i"]["helped"], found["t2i"]["hurt"], found["t2i"]["unchanged"]) == (1, 0, 1)


def test_evaluate_captions(clip: Clip, data: Path, tmp_path: Path) -> None:
    test = load_captions(data / "captions.csv", "test")
    context = prompter(clip, init="gaussian")
    found = evaluate_captions(clip, test, context, cache=tmp_path)
    assert set(found["systems"]) == {"zero-shot", "tuned"}
    assert (found["images"], found["captions"], found["captions_cut"], found["images_encoded"]) == (8, 16, 0, 8)
    images = vectors_of(clip, test.pictures)
    texts = text_vectors(clip, [caption for own in test.captions for caption in own], context)
    t2i = recall_at((texts @ images.T).numpy(), [[at // 2] for at in range(16)])
    assert found["systems"]["tuned"]["t2i"] == pytest.approx(t2i, abs=0.07)  # half precision may swap neighbours
    assert set(found["tests"]["tuned_vs_zero-shot"]) == {"i2t", "t2i"}
    again = evaluate_captions(clip, test, context, strength=0.0, cache=tmp_path)
    assert again["images_encoded"] == 0
    assert again["systems"]["tuned"] == again["systems"]["zero-shot"] == found["systems"]["zero-shot"]
    alone = evaluate_captions(clip, test, cache=tmp_path)
    assert alone["systems"] == {"zero-shot": found["systems"]["zero-shot"]} and alone["tests"] == {}


def test_cut_captions_are_counted(clip: Clip, data: Path) -> None:
    test = load_captions(data / "captions.csv", "test")
    long = Captioned("long", test.pictures[:2], [["dog " * 17], ["dog " * 30, "cat"]])
    with pytest.warns(DataWarning, match="2 of 3 texts are cut: 14 tokens fit beside a context of 4 vectors"):
        found = evaluate_captions(clip, long, prompter(clip))
    assert found["captions_cut"] == 2


def test_unreadable_pictures_take_their_captions_along(clip: Clip, data: Path, tmp_path: Path) -> None:
    test = load_captions(data / "captions.csv", "test")
    (tmp_path / "broken.png").write_bytes(b"")
    pictures = [Picture("broken.png", tmp_path / "broken.png"), *test.pictures]
    with pytest.warns(DataWarning, match="1 of 9 pictures are skipped"):
        pairs = Pairs.of(clip, Captioned("broken", pictures, [["none"], *test.captions]))
    assert pairs.captions == [caption for own in test.captions for caption in own]
    with pytest.raises(UserError) as error:
        Pairs.of(clip, Captioned("one", test.pictures[:1], [["a"]]))
    assert str(error.value) == "expected two or more pictures with captions to compare, got 1"
