"""Words near to vectors, and what they are worth beside random vectors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tiny
import torch

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.experiments.inspection.nearest import (
    DRAWN,
    MOST,
    Vocabulary,
    enough,
    in_words,
    own_vectors,
    prompt_words,
    without_words,
)
from retrieval_prompts.experiments.inspection.null import initial_prompt, random_prompt
from retrieval_prompts.towers.text import TextTower, load_tower


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> TextTower:
    return load_tower(tiny.write_model(tmp_path_factory.mktemp("model")), device="cpu")


@pytest.mark.parametrize("block", [7, 8192])
def test_a_prompt_of_words_is_nearest_to_these_words(
    small: TextTower, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval_prompts.experiments.inspection.nearest.BLOCK", block)
    found = prompt_words(BiEncoder(small).attach(length=3, init="text:river copper falcon"), count=4)
    assert list(found) == ["query"]
    words = found["query"]
    assert [vector.words[0].word for vector in words.vectors] == ["river", "copper", "falcon"]
    for vector in words.vectors:
        assert vector.words[0].cosine == pytest.approx(1.0, abs=1e-6)
        assert vector.words[0].distance == pytest.approx(0.0, abs=1e-5)
        assert len(vector.words) == 4
        cosines = [word.cosine for word in vector.words]
        assert cosines == sorted(cosines, reverse=True)
        assert not any(word.word.startswith("[") for word in vector.words)
        assert vector.p_value == pytest.approx(3 / (DRAWN + 1))  # no random vector is a word; Holm of three
    assert words.near == [1, 2, 3]
    assert words.kept == []  # nothing is known of what they began at
    assert words.sentence().startswith("3 of 3 vectors are nearer to a word than random ones (cosine 1.00 to 1.00;")


def test_cosines_and_distances_are_those_of_the_embedding_table(small: TextTower) -> None:
    biencoder = BiEncoder(small).attach(length=1, init="gaussian")
    vector = own_vectors(biencoder, "query")[0, 0]
    cosines = torch.nn.functional.cosine_similarity(vector[None], small.embeddings.weight)
    cosines[small.tokenizer.all_special_ids] = -2
    best = int(cosines.argmax())
    ((word,),) = [each.words for each in prompt_words(biencoder, count=1)["query"].vectors]
    assert word.word == small.tokenizer.convert_ids_to_tokens(best)
    assert word.cosine == pytest.approx(float(cosines.max()), abs=1e-6)
    assert word.distance == pytest.approx(float((small.embeddings.weight[best] - vector).norm()), abs=1e-5)


def test_random_vectors_mean_nothing(small: TextTower) -> None:
    vocabulary = Vocabulary.of(small)
    drawn = random_prompt(small, "input", torch.ones(1, 400, small.width), 0)[0]
    words = in_words(vocabulary, drawn[:5], drawn[5:])
    assert words.near == []
    assert words.sentence().startswith("These words mean nothing: no vector is nearer to a word than random vectors")
    assert words.null_cosine[0] < words.null_cosine[1] < 1
    # Half of the vectors are further from their nearest word than half of those of the same length
    assert all(0 < vector.null_distance < vector.length + words.word_length * 2 for vector in words.vectors)


def test_one_word_among_many_vectors_is_found(small: TextTower, monkeypatch: pytest.MonkeyPatch) -> None:
    """The random vectors are as many as the correction for the number of vectors takes."""
    monkeypatch.setattr("retrieval_prompts.experiments.inspection.nearest.ROWS", 64)
    vocabulary = Vocabulary.of(small)
    drawn = random_prompt(small, "input", torch.ones(1, 80 + enough(80), small.width), 0)[0]
    vectors = torch.cat([vocabulary.rows([3]), drawn[1:80]])
    assert in_words(vocabulary, vectors, drawn[80:]).near == [1]
    fewer = in_words(vocabulary, vectors, drawn[80 : 80 + DRAWN])
    assert fewer.near == []
    assert fewer.sentence().startswith(
        "Whether these words mean something cannot be told for 80 vectors at once beside 999"
    )
    assert (enough(8), enough(10**6)) == (DRAWN, MOST)


def test_words_that_training_left_where_they_were_say_nothing_of_it(small: TextTower) -> None:
    biencoder = BiEncoder(small).attach(length=2, init="text:river copper")
    settings = {"kind": "input", "init": "text:river copper", "seed": 0, "side": "query", "length": 2}
    biencoder.training_record["settings"] = settings
    words = prompt_words(biencoder)["query"]
    assert [vector.turned for vector in words.vectors] == pytest.approx([1.0, 1.0], abs=1e-6)
    assert [vector.initial.word for vector in words.vectors if vector.initial] == ["river", "copper"]
    assert words.kept == words.near == [1, 2]
    assert words.sentence().endswith("and each to a word that it began at or near: training put no words there.")


@pytest.mark.parametrize(
    "odd",
    [{"kind": "prefix"}, {"init": None}, {"seed": "zero"}, {"side": "document"}, {"length": 3}, {"init": "text:"}],
)
def test_a_start_that_the_record_does_not_say_is_not_known(small: TextTower, odd: dict[str, object]) -> None:
    biencoder = BiEncoder(small).attach(length=2)
    like = own_vectors(biencoder, "query")
    assert initial_prompt(biencoder, "query", like) is None
    settings = {"kind": "input", "init": "gaussian", "seed": 0, "side": "query", "length": 2}
    biencoder.training_record["settings"] = settings
    first = initial_prompt(biencoder, "query", like)
    assert first is not None and torch.equal(first, like)
    biencoder.training_record["settings"] = {**settings, **odd}
    assert initial_prompt(biencoder, "query", like) is None


def test_random_prompts_have_the_lengths_of_the_vectors(small: TextTower, kind: str) -> None:
    biencoder = BiEncoder(small).attach(kind=kind, length=3, init="vocab", seed=1)
    like = own_vectors(biencoder, "query") * torch.tensor([1.0, 2.0, 3.0])[:, None]
    drawn = random_prompt(small, kind, like, 0)
    parts = 1 if kind == "input" else 2  # keys and values have their own
    lengths = [each.unflatten(-1, (parts, -1)).norm(dim=-1) for each in (like, drawn)]
    assert torch.allclose(lengths[0], lengths[1], rtol=1e-5)
    assert not torch.equal(drawn, random_prompt(small, kind, like, 1))
    assert torch.equal(drawn, random_prompt(small, kind, like, 0))
    own = BiEncoder(small).attach(kind=kind, length=3, init="gaussian", seed=0)
    started = random_prompt(small, kind, own_vectors(own, "query"), 0)
    assert not torch.allclose(started, own_vectors(own, "query"))  # what training starts from is no null of it
    each = random_prompt(small, kind, torch.stack([like, 2 * like]), 0)  # a prompt a query
    assert torch.allclose(each, torch.stack([drawn, 2 * drawn]), rtol=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "xlm-roberta"])
def test_signs_of_tokenizers_are_no_part_of_a_word(toy_tower: Callable[..., TextTower], architecture: str) -> None:
    found = prompt_words(BiEncoder(toy_tower(architecture)).attach(length=2, init="text:the dog"), count=60)
    words = [word.word for vector in found["query"].vectors for word in vector.words]
    assert not any(sign in word for word in words for sign in ("##", "Ġ", "▁"))
    assert "the" in words


def test_a_prefix_has_no_words(toy_tower: Callable[..., TextTower]) -> None:
    tower = toy_tower("bert")
    prefix = BiEncoder(tower).attach(kind="prefix", length=2, init="vocab")
    assert prompt_words(prefix) == {}
    assert without_words(prefix).startswith("A prefix is made of keys and values of every layer")
    assert without_words(BiEncoder(tower)) == "There is no prompt to put into words."
    assert without_words(BiEncoder(tower).attach(length=2)) == ""
