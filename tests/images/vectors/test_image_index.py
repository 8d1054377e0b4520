"""Pictures are found as exact comparison finds them, in an index that is saved and opened again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clip
import torch
from torch import Tensor

from multimodal.data.pictures import Picture, load_pictures
from multimodal.prompts.methods import method
from multimodal.towers.clip import Clip, load_clip
from multimodal.training.settings import Settings
from multimodal.vectors.image_index import ImageIndex, build_index, encoder, picture_vector, search
from multimodal.vectors.texts import text_vectors
from retrieval_prompts.errors import DataWarning, UserError


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return load_clip(str(tiny_clip.write_clip(tmp_path_factory.mktemp("clip") / "clip")), device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 8 colours, 3 each, with 2 captions each; the last of each colour is in test."""
    return tiny_clip.write_captions(tmp_path_factory.mktemp("data"))


@pytest.fixture
def index(clip: Clip, data: Path) -> ImageIndex:
    return build_index(clip, load_pictures(data / "pictures"), root=data / "pictures")


def vectors_of(clip: Clip, pictures: list[Picture]) -> Tensor:
    return torch.cat([picture_vector(clip, picture) for picture in pictures])


def prompter(clip: Clip, **given: Any) -> Any:
    return method(given.get("method", "coop")).build(clip, Settings.of(**given)).prompter


def test_words_find_what_exact_comparison_finds(clip: Clip, index: ImageIndex, data: Path) -> None:
    pictures = load_pictures(data / "pictures")
    assert len(index) == len(pictures) == 24
    for context in (None, prompter(clip, init="gaussian")):
        vector = text_vectors(clip, ["a blue picture"], context)
        scores = (vectors_of(clip, pictures) @ vector[0]).numpy()
        best = np.argsort(-scores)[:5]
        hits = search(index, vector, 5)
        assert [hit.id for hit in hits] == [pictures[at].name for at in best]
        assert np.allclose([hit.score for hit in hits], scores[best], atol=2e-3)  # the cache is in half precision


def test_a_picture_finds_itself(clip: Clip, index: ImageIndex, data: Path) -> None:
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
    opened = ImageIndex.open(tmp_path / "index")
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
    assert (found.title, str(found.path)) == ("0.png", str(root / "test" / "orange" / "0.png"))


def test_an_unreadable_picture_is_left_out_and_named(clip: Clip, tmp_path: Path) -> None:
    for number in range(3):
        tiny_clip.write_picture(tmp_path / f"{number}.png", "blue", number)
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.warns(DataWarning, match=r"1 of 3 pictures are skipped: .*1\.png"):
        index = build_index(clip, load_pictures(tmp_path), root=tmp_path)
    assert index.ids == ["0.png", "2.png"]
    assert index.document("2.png").title == "2.png"


def test_another_model_is_refused(clip: Clip, index: ImageIndex, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.png", "a/../../secret.png"])
def test_a_picture_outside_the_folder_is_not_shown(name: str, clip: Clip, data: Path) -> None:
    picture = load_pictures(data / "pictures")[0]
    index = build_index(clip, [Picture(name, picture.source)], root=data / "pictures")
    with pytest.raises(UserError, match=f"the index names the picture '{name}', outside its"):
        search(index, picture_vector(clip, picture), 1)
    inside = build_index(clip, [Picture(f"{data}/pictures/./x.png", picture.source)], root=data / "pictures")
    assert len(search(inside, picture_vector(clip, picture), 1)) == 1


def test_pictures_are_shown_that_were_indexed_and_no_others(clip: Clip, tmp_path: Path) -> None:
    private = tiny_clip.write_picture(tmp_path / "home" / "a.png", "pink", 1)
    own = tiny_clip.write_picture(tmp_path / "images" / "a.png", "blue", 0)
    pictures = load_pictures(own.parent)
    vector = picture_vector(clip, pictures[0])
    build_index(clip, pictures, root=own.parent).save(tmp_path / "index")
    opened = ImageIndex.open(tmp_path / "index")
    (hit,) = search(opened, vector, 1)
    assert hit.path == own and hit.picture.load().tobytes() == pictures[0].load().tobytes()

    # Somebody else's index may name any folder
    build_index(clip, pictures, root=private.parent).save(tmp_path / "hostile")
    (hit,) = search(ImageIndex.open(tmp_path / "hostile"), vector, 1)
    with pytest.raises(UserError, match=r"home/a\.png is not the picture that was indexed; index again, or say where"):
        hit.picture.load()
    (hit,) = search(ImageIndex.open(tmp_path / "hostile"), vector, 1, images=own.parent)
    assert hit.picture.read() == own.read_bytes(), "where the user says"

    opened.digests = None  # as in an index of before there were any
    (hit,) = search(opened, vector, 1)
    with pytest.raises(UserError, match=r"the index has no checksums of its pictures, so .* is not shown; say where"):
        hit.picture.load()
    assert search(opened, vector, 1, images=own.parent)[0].picture.read() == own.read_bytes()


def test_damaged_digests_are_noticed(clip: Clip, data: Path, tmp_path: Path) -> None:
    build_index(clip, load_pictures(data / "pictures")[:2], root=data / "pictures").save(tmp_path / "index")
    file = tmp_path / "index" / "pictures" / "digests.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(
        UserError, match=r"pictures is damaged or of other documents, index again: pictures/digests\.npy"
    ):
        ImageIndex.open(tmp_path / "index")
