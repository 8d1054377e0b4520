"""Words before texts and the similarity: given, found under other names, recorded, or said to be missing."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from toys import LONG, TEXTS

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.experiments.baselines import lora
from retrieval_prompts.files import sealed
from retrieval_prompts.prompts.folder import load_prompts
from retrieval_prompts.towers.conventions import Conventions
from retrieval_prompts.towers.text import TextTower, load_tower
from retrieval_prompts.vectors.index import Index

Toy = Callable[..., Path]
ALL = [*TEXTS, LONG, ""]
E5 = Conventions("query: ", "passage: ")


def edited(folder: Path, to: Path, **changes: Any) -> Path:
    """A copy of a model whose config_sentence_transformers.json has other values; None takes one out."""
    shutil.copytree(folder, to)
    file = to / "config_sentence_transformers.json"
    about = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in about.items() if value is not None}))
    return to


def words(tower: TextTower) -> tuple[str, str]:
    return tower.text_prompt("query"), tower.text_prompt("document")


# --- words that are given -------------------------------------------------------------------------------------------


def test_words_that_are_given_are_those_of_a_model_that_says_them(toy: Toy, kind: str) -> None:
    said = load_tower(toy("bert", prompts={"query": "query: ", "document": "passage: "}), device="cpu")
    given = load_tower(toy("bert"), device="cpu", conventions=E5)
    assert given.fingerprint == said.fingerprint
    assert given.conventions == said.conventions == Conventions("query: ", "passage: ", "cosine")
    ours, theirs = (BiEncoder(tower).attach("both", kind=kind, length=3) for tower in (given, said))
    assert np.array_equal(ours.encode_query(ALL), theirs.encode_query(ALL))
    assert np.array_equal(ours.encode_document(ALL), theirs.encode_document(ALL))
    live = ours.as_sentence_transformer()
    assert np.abs(live.encode_query(ALL) - ours.encode_query(ALL)).max() < 1e-6
    assert np.array_equal(given.sentence_transformer.encode_query(ALL), said.sentence_transformer.encode_query(ALL))
    assert np.abs(given.sentence_transformer.encode_query(ALL) - BiEncoder(given).encode_query(ALL)).max() < 1e-6


def test_they_take_the_place_of_the_models_own_and_may_be_none(toy: Toy) -> None:
    folder = toy("bert", prompts={"query": "query: ", "document": "passage: "})
    assert words(load_tower(folder, conventions=Conventions(query_words="search: "))) == ("search: ", "passage: ")
    bare = load_tower(folder, conventions=Conventions("", ""))
    assert words(bare) == ("", "")
    assert bare.fingerprint == load_tower(toy("bert")).fingerprint


def test_an_export_and_a_copy_with_lora_keep_them(toy: Toy, tmp_path: Path) -> None:
    model = BiEncoder.load(toy("bert"), query_words="query: ", document_words="passage: ", similarity="dot")
    made = lora.inject(model.tower, 2, 4, seed=0)
    assert made.conventions == model.tower.conventions == Conventions("query: ", "passage: ", "dot")
    model.attach("query", length=3).export(tmp_path / "folder")
    stock = SentenceTransformer(str(tmp_path / "folder"), device="cpu")
    assert stock.similarity_fn_name == "dot"
    assert np.abs(stock.encode_query(ALL) - model.encode_query(ALL)).max() < 1e-6
    assert np.abs(stock.encode_document(ALL) - model.encode_document(ALL)).max() < 1e-6


# --- words under other names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "query", "document"),
    [
        ({"search_query": "q: ", "search_document": "d: "}, "q: ", "d: "),
        ({"s2p_query": "q: ", "s2s_query": "s: "}, "q: ", ""),
        ({"retrieval.query": "q: ", "retrieval.passage": "d: ", "text-matching": "m: "}, "q: ", "d: "),
        ({"Retrieval-query": "q: ", "Retrieval-document": "d: ", "STS": "s: "}, "q: ", "d: "),
        ({"query": "q: ", "passage": "d: ", "Clustering": "c: "}, "q: ", "d: "),
        ({"query": "q: ", "corpus": "d: "}, "q: ", "d: "),
        (
            {"web_search_query": "q: ", "sts_query": "s: ", "bitext_query": "b: ", "summarization_query": "z: "},
            "q: ",
            "",
        ),
        ({"nq": "q: "}, "q: ", ""),
        ({"Query": "q: ", "Passage": "d: "}, "q: ", "d: "),
        ({"searchQuery": "q: ", "searchDocument": "d: "}, "q: ", "d: "),
        ({"biology_query": "q: ", "biology_passage": "d: "}, "q: ", "d: "),
        ({"query": "q: ", "search_query": "other: ", "document": "d: ", "passage": "other: "}, "q: ", "d: "),
        ({"query": "q: ", "document": ""}, "q: ", ""),
    ],
)
def test_names_that_are_understood(
    prompts: dict[str, str], query: str, document: str, toy: Toy, tmp_path: Path
) -> None:
    for number, folder in enumerate(
        (toy("bert", prompts=prompts), edited(toy("bert"), tmp_path / "m", prompts=prompts))
    ):
        tower = load_tower(folder, device="cpu")
        assert words(tower) == (query, document), number
        ours = BiEncoder(tower)
        model = tower.sentence_transformer
        assert np.abs(model.encode_query(ALL) - ours.encode_query(ALL)).max() < 1e-6
        assert np.abs(model.encode_document(ALL) - ours.encode_document(ALL)).max() < 1e-6


def test_callers_that_name_them_get_the_soft_prompt(toy: Toy, tmp_path: Path) -> None:
    """mteb prefers "Retrieval-query" to "query"."""
    folder = toy("bert", prompts={"Retrieval-query": "q: ", "passage": "d: ", "STS": "s: "})
    for number, given in enumerate((None, "other: ")):
        model = BiEncoder.load(folder, query_words=given).attach("both", length=3)
        model.export(tmp_path / str(number))
        stock = SentenceTransformer(str(tmp_path / str(number)), device="cpu")
        for made in (model.as_sentence_transformer(), stock):
            for name, encode in (("Retrieval-query", model.encode_query), ("passage", model.encode_document)):
                assert np.abs(made.encode(ALL, prompt_name=name) - encode(ALL)).max() < 1e-6
            frozen = model.tower.sentence_transformer.encode(TEXTS[:2], prompt_name="STS")
            assert np.abs(made.encode(TEXTS[:2], prompt_name="STS") - frozen).max() < 1e-6


@pytest.mark.parametrize(
    ("prompts", "sides", "options"),
    [
        ({"search": "s: "}, "(search)", "queries or documents: where it wants some there, pass --query-words "),
        ({"clustering": "c: ", "sts_query": "s: "}, "(clustering, sts_query)", "queries or documents"),
        ({"document": "d: ", "instruct": "i: "}, "(instruct)", "queries: where it wants some there, pass --query-w"),
        ({"nl2code_query": "n: ", "qa_query": "q: "}, "(nl2code_query, qa_query)", "queries or documents"),
        ({"query": "q: ", "code_passage": "c: ", "qa_passage": "a: "}, "(code_passage, qa_passage)", "documents: "),
    ],
)  # fmt: skip
def test_one_line_where_words_are_put_nowhere(prompts: dict[str, str], sides: str, options: str, toy: Toy) -> None:
    folder = toy("bert", prompts=prompts)
    with pytest.warns(DataWarning) as found:
        load_tower(folder)
    (line,) = {str(each.message) for each in found}
    assert line.startswith(f"model {folder}: it has words to put before texts {sides}, and none of them is put before ")
    assert options in line
    load_tower(folder, conventions=E5)  # and none where words are given


def test_default_words_that_neither_side_gets(toy: Toy, tmp_path: Path) -> None:
    """sentence-transformers puts them before the texts of plain `encode` alone."""
    folder = edited(toy("bert"), tmp_path / "m", prompts={"search": "s: "}, default_prompt_name="search")
    with pytest.warns(
        DataWarning, match=r"before texts \(search\), and none of them is put before queries or documents"
    ):
        tower = load_tower(folder)
    assert words(tower) == ("", "")


@pytest.mark.parametrize("prompts", [None, {"query": "q: "}, {"query": "q: ", "clustering": "c: ", "sts_query": "s: "}])
def test_no_line_where_nothing_is_missing(prompts: dict[str, str] | None, toy: Toy) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_tower(toy("bert", prompts=prompts))


# --- the similarity -------------------------------------------------------------------------------------------------


def test_a_similarity_that_is_not_said(toy: Toy, tmp_path: Path) -> None:
    silent = edited(toy("bert", normalize=False), tmp_path / "silent", similarity_fn_name=None)
    with pytest.warns(DataWarning) as found:
        cosine = BiEncoder.load(silent)
    assert [str(each.message) for each in found] == [
        f"model {silent}: it does not say how its vectors are compared: the cosine is assumed; where it was trained "
        'with the dot product, pass --similarity dot (similarity="dot")'
    ]
    dot = BiEncoder.load(silent, similarity="dot")  # without a warning, which would be an error here
    assert dot.tower.fingerprint == load_tower(toy("bert", normalize=False, similarity="dot")).fingerprint
    assert np.abs(np.linalg.norm(cosine.query_vectors(ALL), axis=1) - 1).max() < 1e-6
    assert np.array_equal(dot.query_vectors(ALL), cosine.encode_query(ALL))
    assert BiEncoder.load(silent, similarity="cosine").tower.fingerprint == cosine.tower.fingerprint


@pytest.mark.parametrize("options", [{}, {"truncate_dim": 12}])
def test_unit_vectors_need_no_line(options: dict[str, Any], toy: Toy, tmp_path: Path) -> None:
    load_tower(edited(toy("bert", **options), tmp_path / "silent", similarity_fn_name=None))


def test_a_similarity_takes_the_place_of_the_models_own(toy: Toy) -> None:
    tower = load_tower(toy("bert", normalize=False), conventions=Conventions(similarity="dot"))
    assert tower.similarity == tower.sentence_transformer.similarity_fn_name == "dot"
    assert not tower.normalizes_for_search


def test_another_similarity_is_refused(toy: Toy) -> None:
    with pytest.raises(UserError, match=r"^--similarity must be cosine or dot, got 'euclidean'$"):
        BiEncoder.load(toy("bert"), similarity="euclidean")


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_prompts_bring_them_along(toy: Toy, kind: str, tmp_path: Path) -> None:
    silent = edited(toy("bert", normalize=False), tmp_path / "silent", similarity_fn_name=None)
    model = BiEncoder.load(silent, query_words="query: ", document_words="passage: ", similarity="dot")
    model.attach("query", kind=kind, length=3).save(tmp_path / "prompts")
    again = BiEncoder.load(prompts=tmp_path / "prompts")
    assert again.tower.conventions == Conventions("query: ", "passage: ", "dot")
    assert np.array_equal(again.encode_query(ALL), model.encode_query(ALL))
    assert again.identity() == model.identity()
    with pytest.raises(UserError) as error:
        BiEncoder.load(prompts=tmp_path / "prompts", query_words="search: ")
    assert str(error.value) == (
        f"{tmp_path / 'prompts'} were made with --query-words 'query: '; leave that to the prompts, or tune new ones"
    )


def test_an_index_says_what_it_was_made_with(toy: Toy) -> None:
    model = BiEncoder.load(toy("bert"), document_words="passage: ")
    index = Index.build(model.encode_document(["fox", "dog"]), None, ["a", "b"], encoder=model.identity())
    index.check_encoder(BiEncoder.load(toy("bert"), document_words="passage: ").identity())
    with pytest.raises(UserError) as error:
        index.check_encoder(BiEncoder.load(toy("bert")).identity())
    assert str(error.value) == (
        "this index was made with --document-words 'passage: ', got the model's own words; pass the same, or index the "
        "documents again"
    )


def test_what_a_folder_says_must_be_words(toy: Toy, tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    BiEncoder.load(toy("bert")).attach("query", length=3).save(folder)
    for name, value, message in (
        ("query_words", 3, "--query-words must be words, got 3"),
        ("similarity", "cosin", "--similarity must be cosine or dot, got 'cosin'"),
    ):
        about = json.loads((folder / "prompt.json").read_text())
        about["base"][name] = value
        (folder / "changed.json").write_text(json.dumps(sealed(about)))
        shutil.copytree(folder, tmp_path / name)
        (tmp_path / name / "changed.json").replace(tmp_path / name / "prompt.json")
        with pytest.raises(UserError) as error:
            load_prompts(tmp_path / name)
        assert str(error.value) == f"{tmp_path / name / 'prompt.json'}: {message}"


def test_older_artifacts_of_a_model_whose_words_were_not_found(toy: Toy, tmp_path: Path) -> None:
    """They were made without these words, hold no conventions, and give what they gave."""
    folder = toy("bert", prompts={"search_query": "q: ", "search_document": "d: "})
    old = BiEncoder.load(folder, query_words="", document_words="").attach("query", length=3)
    old.save(tmp_path / "prompts")
    file = tmp_path / "prompts" / "prompt.json"
    about = json.loads(file.read_text())
    for name in ("query_words", "document_words", "similarity"):
        del about["base"][name]
    file.write_text(json.dumps(sealed(about)))
    again = BiEncoder.load(prompts=tmp_path / "prompts")
    assert words(again.tower) == ("", "")
    assert np.array_equal(again.encode_query(ALL), old.encode_query(ALL))
    now = load_tower(folder)
    assert not now.made({"fingerprint": "of another model"})
    assert words(now) == ("q: ", "d: ")
    assert now.fingerprint == load_tower(folder).fingerprint
