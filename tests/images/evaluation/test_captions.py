"""Captions and pictures compared both ways, by hand-computed cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal.data.captions import Captioned, load_captions
from multimodal.data.pictures import Picture
from multimodal.evaluation import captions
from multimodal.evaluation.captions import Pairs, Ranks, paired_tests
from multimodal.evaluation.metrics import best_ranks, recall_at
from multimodal.towers.clip import Clip, load_clip
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.vectors.index import Index


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return load_clip(str(tiny_clip.write_clip(tmp_path_factory.mktemp("clip") / "clip")), device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 8 colours, 3 each, with 2 captions each; the last of each colour is in test."""
    return tiny_clip.write_captions(tmp_path_factory.mktemp("data"))


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

    monkeypatch.setattr(captions, "best_ranks", counted)
    monkeypatch.setattr(captions, "SCORES", 300)
    blocks = pairs.ranks(texts)
    assert max(sizes) <= 300 and len(sizes) > 10
    assert blocks.i2t.tolist() == whole.i2t.tolist() and blocks.t2i.tolist() == whole.t2i.tolist()


def test_paired_tests_compare_pictures() -> None:
    owner = np.array([0, 0, 1])
    before = Ranks(i2t=np.array([11, 1]), t2i=np.array([11, 11, 1]), owner=owner)
    better = Ranks(i2t=np.array([1, 1]), t2i=np.array([1, 11, 1]), owner=owner)
    found = paired_tests(before, [better, before])
    assert found["i2t"].metric == "r@10"
    assert found["i2t"].difference == pytest.approx(0.25), "one of two pictures, in one of two seeds"
    assert found["t2i"].difference == pytest.approx(0.125)
    assert (found["t2i"].helped, found["t2i"].hurt, found["t2i"].unchanged) == (1, 0, 1)


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
