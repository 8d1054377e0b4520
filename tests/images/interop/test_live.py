"""A live CLIP gives our vectors for texts and pictures, however it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clip
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from multimodal.data.pictures import Picture, load_pictures
from multimodal.interop.live import LiveModel, as_sentence_transformer
from multimodal.prompts.methods import method
from multimodal.towers.clip import Clip, load_clip
from multimodal.training.settings import Settings
from multimodal.vectors.image_index import build_index, encoder, picture_vector, search
from multimodal.vectors.texts import text_vectors
from retrieval_prompts.errors import DataWarning, UserError

TEXTS = ["a red boat", "Two dogs, running!", "box"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return load_clip(str(tiny_clip.write_clip(tmp_path_factory.mktemp("clip") / "clip")), device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """blue.png, orange.png, pink.png"""
    root = tmp_path_factory.mktemp("pictures")
    for number, colour in enumerate(("blue", "orange", "pink")):
        tiny_clip.write_picture(root / f"{colour}.png", colour, number)
    return root


def prompter(clip: Clip, name: str = "coop", **given: Any) -> Any:
    return method(name).build(clip, Settings.of(method=name, **given)).prompter


def close(ours: Any, theirs: Any) -> bool:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return ours.shape == theirs.shape and bool(np.abs(ours - theirs).max() < 1e-5)


@pytest.mark.parametrize("name", ["coop", "deep", "tcp"])
@pytest.mark.parametrize("strength", [1.0, 0.5, 0.0])
def test_texts(clip: Clip, name: str, strength: float) -> None:
    context = prompter(clip, name, depth=2)
    live = as_sentence_transformer(clip, context, strength=strength)
    assert isinstance(live, SentenceTransformer)
    queries, frozen = text_vectors(clip, TEXTS, context, strength=strength), text_vectors(clip, TEXTS)
    assert close(live.encode_query(TEXTS), queries)
    assert close(live.encode_query(TEXTS, batch_size=1), queries)
    assert close(live.encode_query(TEXTS[1]), queries[1])
    assert close(live.encode(TEXTS, prompt_name="query"), queries), "LlamaIndex names only the prompt"
    assert close(live.encode(TEXTS, prompt=live.prompts["query"]), queries), "BEIR gives only its words"
    assert close(live.encode_document(TEXTS), frozen)
    assert close(live.encode(TEXTS, prompt_name="document"), frozen)
    assert close(live.encode(TEXTS), frozen)
    assert (strength == 0) == close(queries, frozen)


def test_words_of_the_callers_own(clip: Clip) -> None:
    live = as_sentence_transformer(clip, prompter(clip))
    written = text_vectors(clip, [f"a photo of {text}" for text in TEXTS])
    assert close(live.encode(TEXTS, prompt="a photo of "), written)
    assert close(live.encode_query(TEXTS, prompt="a photo of "), written)


def test_pictures(clip: Clip, folder: Path) -> None:
    live = as_sentence_transformer(clip, prompter(clip))
    pictures = load_pictures(folder)
    ours = torch.cat([picture_vector(clip, picture) for picture in pictures])
    paths = [folder / picture.name for picture in pictures]
    assert close(live.encode_document([picture.load() for picture in pictures]), ours)
    assert close(live.encode_document(paths), ours)
    assert close(live.encode_document([str(path) for path in paths], batch_size=2), ours)
    assert close(live.encode_document([{"image": path} for path in map(str, paths)]), ours)
    assert close(live.encode_document([np.asarray(picture.load()) for picture in pictures]), ours)
    assert close(live.encode_query(paths), ours), "a picture that asks has no prompt"
    assert close(live.encode(paths[0]), ours[0])
    transparent = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    white = Image.new("RGB", (20, 20), "white")
    assert close(live.encode(transparent), live.encode(white)), "over white, as in an index"


def test_it_searches_an_index(clip: Clip, folder: Path) -> None:
    context = prompter(clip, init="gaussian")
    index = build_index(clip, load_pictures(folder), root=folder)
    index.check_encoder(encoder(clip))
    live = as_sentence_transformer(clip, context)
    vector = live.encode_query(["something pink"], convert_to_tensor=True)
    documents = live.encode_document(sorted(folder.iterdir()))
    order = np.argsort(-live.similarity(vector, documents)[0].numpy())
    assert [hit.id for hit in search(index, vector, 3)] == [sorted(folder.iterdir())[at].name for at in order]


def test_what_it_says_of_itself(clip: Clip) -> None:
    context = prompter(clip)
    live = as_sentence_transformer(clip, context)
    assert live.get_embedding_dimension() == clip.dimension
    assert live.similarity_fn_name == "cosine"
    assert live.max_seq_length == tiny_clip.CONTEXT_LENGTH
    assert live.tokenizer is clip.tokenizer
    assert live.modalities == ["text", "image"]
    assert {id(parameter) for parameter in live.parameters()} == {id(each) for each in context.parameters()}


def test_training_goes_on_underneath(clip: Clip) -> None:
    context = prompter(clip)
    live = as_sentence_transformer(clip, context)
    before = live.encode_query(TEXTS)
    with torch.no_grad():
        next(context.parameters()).neg_()
    assert not close(live.encode_query(TEXTS), before)
    assert close(live.encode_query(TEXTS), text_vectors(clip, TEXTS, context))


def test_without_prompts(clip: Clip) -> None:
    live = as_sentence_transformer(clip)
    assert close(live.encode_query(TEXTS), text_vectors(clip, TEXTS))


def test_long_texts_are_cut_and_counted(clip: Clip) -> None:
    live = as_sentence_transformer(clip, prompter(clip))
    with pytest.warns(DataWarning, match="1 of 2 texts are cut: 14 tokens fit beside a context of 4 vectors"):
        live.encode_query(["dog " * 15, "dog"])


def test_both_kinds_at_once_are_refused(clip: Clip, folder: Path) -> None:
    live = as_sentence_transformer(clip)
    with pytest.raises(ValueError, match="text"):
        live.encode(["a text", tiny_clip.picture("blue", 0)])
    with pytest.raises(UserError) as error:
        live.encode(["a text", folder / "blue.png"])
    assert str(error.value) == "expected texts or pictures in one call, got both; encode them one after the other"


@pytest.mark.parametrize("given", [Path("nowhere.png"), "https://example.org/cat.jpg"])
def test_pictures_that_are_not_here(clip: Clip, given: Any) -> None:
    with pytest.raises(UserError, match=r"is not a file; expected the path of a picture on this machine$"):
        as_sentence_transformer(clip).encode_document([given])


def test_a_broken_picture_is_named(clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"broken\.png cannot be read as a picture"):
        as_sentence_transformer(clip).encode_document([str(tmp_path / "broken.png")])


def test_what_is_neither(clip: Clip) -> None:
    with pytest.raises(UserError) as error:
        as_sentence_transformer(clip).encode([3])
    assert str(error.value) == "expected texts, or pictures as PIL images or paths, got int"
    with pytest.raises(UserError, match=r"at position 0 \(counted from 0\) has half a surrogate pair"):
        as_sentence_transformer(clip).encode_query(["smile \ud83d"])


def test_prompts_that_serve_no_search(clip: Clip) -> None:
    with pytest.raises(UserError, match="these prompts cannot serve a search: they depend on the picture"):
        as_sentence_transformer(clip, prompter(clip, "cocoop"))


def test_it_is_not_saved(clip: Clip, tmp_path: Path) -> None:
    live: LiveModel = as_sentence_transformer(clip, prompter(clip))
    for save in (live.save, live.save_pretrained):
        with pytest.raises(UserError) as error:
            save(str(tmp_path / "folder"))
        assert str(error.value) == (
            "a live model is not saved as a checkpoint: keep the prompt folder that its prompts came from, and load "
            "that with the CLIP"
        )
    assert not (tmp_path / "folder").exists()


def test_a_name_is_not_a_picture(clip: Clip, folder: Path) -> None:
    live = as_sentence_transformer(clip)
    assert close(live.encode("blue.png"), text_vectors(clip, ["blue.png"])[0]), "there is no such file here"
    assert close(live.encode(str(folder / "blue.png")), picture_vector(clip, Picture("", folder / "blue.png"))[0])
