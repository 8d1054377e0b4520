"""`index` and `search` by vectors and words as a user meets them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from command_line import Command, Done

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import load_corpus
from retrieval_prompts.data.corpus import Document
from retrieval_prompts.evaluation.hybrid import UNLABELLED, HybridIndex
from retrieval_prompts.files import sealed
from retrieval_prompts.vectors.index import Index

QUESTION = "what does the evidence show about copper and river"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    folder = tmp_path_factory.mktemp("prompts") / "query"
    BiEncoder.load(model, device="cpu").attach(length=3).save(folder)
    return folder


@pytest.fixture
def index(command: Command, model: Path, data: Path, tmp_path: Path) -> Path:
    assert command("index", data, "--out", tmp_path / "index", "--model", model).code == 0
    return tmp_path / "index"


@pytest.fixture
def wordless(command: Command, model: Path, data: Path, tmp_path: Path) -> Path:
    done = command("index", data, "--out", tmp_path / "wordless", "--model", model, "--no-bm25")
    assert (done.code, done.err) == (0, "")
    assert "wordless: 40 documents, Flat, no BM25; " in done.out
    return tmp_path / "wordless"


def hits(done: Done) -> list[tuple[str, float]]:
    assert (done.code, done.err) == (0, "")
    assert all(list(hit) == ["id", "score", "title", "text"] for hit in done.json)
    return [(hit["id"], hit["score"]) for hit in done.json]


def refused(done: Done, message: str) -> None:
    assert done.code == 2 and done.out == ""
    assert done.err.startswith("error: ") and done.err.count("\n") == 1
    assert re.search(message, done.err), f"{done.err!r} is not like {message!r}"


def expected(folder: Path, model: Path, weight: float, k: int = 10) -> list[tuple[str, float]]:
    opened = HybridIndex.open(folder)
    assert opened is not None
    vectors = BiEncoder.load(model, device="cpu").query_vectors([QUESTION])
    scores, ids = opened.search([QUESTION], vectors, k, weight=weight)
    return list(zip(ids[0], scores[0], strict=True))


# --- index --------------------------------------------------------------------------------------------------------


def test_the_index_holds_the_words_and_says_so(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    done = command("index", data, "--out", tmp_path / "index", "--model", model)
    size = sum(path.stat().st_size for path in (tmp_path / "index" / "bm25").iterdir())
    assert (done.code, done.err) == (0, "") and f"40 documents, Flat, BM25 ({size:,} bytes); " in done.out
    opened = HybridIndex.open(tmp_path / "index")
    assert opened is not None and opened.lexical.scores("copper").any()


def test_an_index_may_do_without_words(wordless: Path) -> None:
    assert sorted(path.name for path in wordless.iterdir()) == [
        *("documents.jsonl", "ids.json", "ids.npy", "index.faiss", "lines.npy", "manifest.json", "offsets.npy")
    ]
    assert HybridIndex.open(wordless) is None


def test_documents_without_words_are_indexed_without(command: Command, model: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = [{"_id": f"d{number}", "title": "", "text": text} for number, text in enumerate(["the", "?", "of a"])]
    tiny.write_lines(tmp_path / "data" / "corpus.jsonl", [json.dumps(row) for row in rows])
    done = command("index", tmp_path / "data", "--out", tmp_path / "index", "--model", model)
    assert (done.code, done.err) == (
        *(0, "warning: BM25 found no words in the 3 documents; the index is made without\n"),
    )
    assert "3 documents, Flat, no BM25; " in done.out
    assert len(hits(command("search", tmp_path / "index", "the", "--json", "-"))) == 3


def test_no_bm25_is_not_for_a_comparison(command: Command, model: Path, data: Path) -> None:
    done = command("index", data, "--model", model, "--compare", "Flat", "--no-bm25")
    refused(done, "--no-bm25 belongs to --out; --compare is of vectors alone")


# --- search -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0, 0.3, 1])
def test_search_ranks_by_the_weight_that_is_given(command: Command, index: Path, model: Path, weight: float) -> None:
    found = hits(command("search", index, QUESTION, "--json", "-", "--bm25-weight", weight))
    assert found == expected(index, model, weight)


def test_search_is_hybrid_where_the_index_holds_words(command: Command, index: Path, model: Path) -> None:
    found = hits(command("search", index, QUESTION, "--json", "-"))
    assert found == expected(index, model, UNLABELLED) != expected(index, model, 0)


def test_search_is_dense_where_it_holds_none(command: Command, index: Path, wordless: Path, model: Path) -> None:
    found = hits(command("search", wordless, QUESTION, "--json", "-"))
    assert found == expected(index, model, 0)
    assert hits(command("search", wordless, QUESTION, "--json", "-", "--bm25-weight", "0")) == found


def test_people_read_what_ranked(command: Command, index: Path, wordless: Path, tmp_path: Path) -> None:
    def first(*arguments: object) -> str:
        done = command("search", *arguments)
        assert (done.code, done.err) == (0, "") and len(done.out.splitlines()) == 21
        return done.out.splitlines()[0]

    assert first(index, QUESTION) == "dense + BM25, weight 0.75"
    assert first(index, QUESTION, "--bm25-weight", "0.5") == "dense + BM25, weight 0.5"
    assert first(index, QUESTION, "--bm25-weight", "0") == first(wordless, QUESTION) == "dense"
    assert first(index, QUESTION, "--json", tmp_path / "hits.json") == "dense + BM25, weight 0.75"
    assert len(json.loads((tmp_path / "hits.json").read_text())) == 10


def test_the_weight_of_the_prompts(
    command: Command, index: Path, wordless: Path, prompts: Path, tmp_path: Path
) -> None:
    def weighing(own: float) -> Path:
        folder = tmp_path / f"weight-{own}"
        shutil.copytree(prompts, folder)
        about = json.loads((folder / "prompt.json").read_text())
        (folder / "prompt.json").write_text(json.dumps(sealed({**about, "bm25_weight": own})))
        return folder

    def found(prompts: Path, *arguments: object) -> Any:
        return hits(command("search", index, QUESTION, "--json", "-", "--prompts", prompts, *arguments))

    given = {weight: found(prompts, "--bm25-weight", weight) for weight in (0, 0.2, 0.4)}
    folders = {own: weighing(own) for own in (0.4, 0.0)}
    for own, folder in folders.items():
        assert found(folder) == given[own]
        assert found(folder, "--bm25-weight", 0.2) == given[0.2]
        assert command("search", wordless, QUESTION, "--prompts", folder, "--bm25-weight", "0").err == ""
    assert command("search", index, QUESTION).out.startswith("dense + BM25, weight 0.75\n")
    for silent in (prompts, folders[0.0]):
        assert command("search", wordless, QUESTION, "--prompts", silent).err == ""

    done = command("search", wordless, QUESTION, "--prompts", folders[0.4])
    assert (done.code, done.out.splitlines()[0]) == (0, "dense")
    assert done.err == (
        f"warning: {folders[0.4]} asks for BM25 of weight 0.4, and {wordless} holds no words: the ranking is dense; "
        "index again without --no-bm25\n"
    )


def test_a_weight_without_words_is_refused(command: Command, wordless: Path) -> None:
    done = command("search", wordless, "copper", "--bm25-weight", "0.5")
    refused(done, "wordless holds no words for --bm25-weight 0.5; index again without --no-bm25$")


@pytest.mark.parametrize("weight", ["-0.1", "1.5", "nan"])
def test_what_is_no_weight(command: Command, index: Path, weight: str) -> None:
    refused(command("search", index, "copper", f"--bm25-weight={weight}"), r"from 0 .* to 1 .*, got")


def test_parameters_of_the_index_with_words(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    made = command("index", data, "--out", tmp_path / "graph", "--model", model, "--factory", "HNSW8")
    assert made.code == 0
    found = hits(command("search", tmp_path / "graph", QUESTION, "--json", "-", "--ef-search", "40"))
    assert len(found) == 10
    refused(command("search", tmp_path / "graph", QUESTION, "--nprobe", "2"), "type HNSW8 has no nprobe")


@pytest.mark.parametrize("weight", [(), ("--bm25-weight", "0")])
def test_damaged_words_are_one_line(command: Command, index: Path, weight: tuple[str, ...]) -> None:
    path = index / "bm25" / "vocab.index.json"
    path.write_bytes(path.read_bytes()[:-1])
    refused(command("search", index, "copper", *weight), "index is damaged, index again: bm25/vocab.index.json has")


def test_words_of_another_index_are_one_line(
    command: Command, index: Path, model: Path, data: Path, tmp_path: Path
) -> None:
    rows = (data / "corpus.jsonl").read_text().splitlines()
    (tmp_path / "data").mkdir()
    turned = [{**json.loads(row), "_id": f"d{39 - number}"} for number, row in enumerate(rows)]
    tiny.write_lines(tmp_path / "data" / "corpus.jsonl", [json.dumps(row) for row in turned[::-1]])
    assert command("index", tmp_path / "data", "--out", tmp_path / "other", "--model", model).code == 0
    shutil.rmtree(index / "bm25")
    shutil.copytree(tmp_path / "other" / "bm25", index / "bm25")
    refused(command("search", index, "copper"), "index/bm25 is damaged or of other documents, index again: bm25/")
    assert len(Index.open(index)) == 40  # the vectors are sound
    assert command("search", index, "copper", "--bm25-weight", "0").out.startswith("dense\n")


def test_what_a_title_does_to_a_terminal_is_shown_not_done(command: Command, model: Path, tmp_path: Path) -> None:
    odd = "\x1b]0;owned\x07\x1b[2J\u202e"
    row = {"_id": f"id{odd}", "title": f"title{odd}", "text": f"copper{odd}"}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "corpus.jsonl").write_text(json.dumps(row))
    assert command("index", tmp_path / "data", "--out", tmp_path / "index", "--model", model).code == 0
    done = command("search", tmp_path / "index", "copper")
    assert done.code == 0
    assert not set("\x1b\x07\u202e") & set(done.out)
    assert "title\\x1b]0;owned\\x07\\x1b[2J\\u202e" in done.out


def test_what_an_option_does_to_a_terminal_is_shown_not_done(command: Command) -> None:
    for given in (["search", "--\x1b[2J", "x"], ["search", "a", "b", "\u202e"], ["\x1b[2J"]):
        done = command(*given)
        assert done.code == 2 and not set("\x1b\u202e") & set(done.err) and "\\" in done.err


# --- documents in chunks ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chunked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.cut_in_two(tiny.write_data(tmp_path_factory.mktemp("chunks") / "data"))


@pytest.mark.parametrize("weight", ["0", "0.75"])
def test_a_document_in_chunks_is_found_once_by_its_best(
    command: Command, chunked: Path, model: Path, tmp_path: Path, weight: str
) -> None:
    place = tmp_path / "index"
    assert command("index", chunked, "--out", place, "--model", model, "--device", "cpu").code == 0
    asked = ["search", place, QUESTION, "--device", "cpu", "--bm25-weight", weight]
    passages = command(*asked, "--passages", "-k", "80", "--json", "-").json
    documents = command(*asked, "-k", "40", "--json", "-").json
    best: dict[str, Any] = {}
    for hit in passages:
        best.setdefault(hit["document"], hit)
    assert len(passages) == 80 and len(documents) == 40
    assert documents == list(best.values())
    first = documents[0]
    assert first["id"] == f"{first['document']}#{first['place'].removeprefix('Part ')}"
    assert first["source"] == f"{first['document']}.md"
    shown = command(*asked, "-k", "1").out
    assert f"     {first['source']}, {first['place']}\n     [{first['document']}] {first['text']}" in shown
    assert f"[{first['id']}]" in command(*asked, "-k", "1", "--passages").out


def test_an_index_of_before_chunks_were_known_shows_what_it_holds(
    command: Command, chunked: Path, model: Path, tmp_path: Path
) -> None:
    corpus = load_corpus(chunked)
    biencoder = BiEncoder.load(model, device="cpu")
    plain = [Document(each.id, each.title, each.text) for each in corpus]
    Index.build(biencoder.encode_corpus(corpus), plain, corpus.ids, encoder=biencoder.identity()).save(tmp_path / "old")
    assert not (tmp_path / "old" / "chunks.npy").exists()
    found = command("search", tmp_path / "old", QUESTION, "--device", "cpu", "--json", "-", "-k", "80").json
    assert len(found) == 80 and set(found[0]) == {"id", "score", "title", "text"}
