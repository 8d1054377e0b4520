"""--query-words, --document-words, --similarity: in every command that loads a model, and kept by what they write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
import typer
from command_line import Command

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.cli import app as cli
from retrieval_prompts.files import sealed
from retrieval_prompts.prompts.folder import load_prompts
from retrieval_prompts.towers.conventions import Conventions
from retrieval_prompts.vectors.index import Index

WORDS = ("--query-words", "what does ", "--document-words", "the evidence ")
KEPT = Conventions("what does ", "the evidence ", "cosine")
QUESTION = "show about copper and river"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("tiny") / "data", dev=True)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    folder = tmp_path_factory.mktemp("prompts") / "both"
    biencoder = BiEncoder.load(model, device="cpu", query_words=KEPT.query_words, document_words=KEPT.document_words)
    biencoder.attach("query", length=3).save(folder)
    return folder


@pytest.mark.parametrize("name", ["tune", "evaluate", "beir", "index", "adopt", "search", "export", "convert", "push"])
def test_every_command_that_loads_a_model_has_them_once(name: str) -> None:
    made = typer.main.get_command(cli.app).commands[name]  # type: ignore[attr-defined]
    options = [option for parameter in made.params for option in parameter.opts]
    assert [options.count(each) for each in ("--query-words", "--document-words", "--similarity")] == [1, 1, 1]


def test_prompts_are_tuned_with_them_and_evaluated_without_being_asked(
    command: Command, model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "prompts"
    quick = ["--epochs", "2", "--batch-size", "8", "--length", "3", "--device", "cpu", "--folds", "1"]
    done = command("tune", data, "--out", out, "--model", model, *WORDS, "--similarity", "dot", *quick)
    assert done.code == 0, done.err
    assert Conventions.recorded(load_prompts(out).base) == Conventions(KEPT.query_words, KEPT.document_words, "dot")
    # What is to be done next without the prompts has to be told
    assert f"index {data} --out INDEX --model {model} --query-words 'what does ' --document-words " in done.out
    assert "--similarity dot" in done.out
    with_prompts = command("evaluate", data, "--prompts", out, "--json", "-").json
    asked = command("evaluate", data, "--model", model, *WORDS, "--similarity", "dot", "--json", "-").json
    assert with_prompts["systems"]["frozen"] == asked["systems"]["frozen"]
    plain = command("evaluate", data, "--model", model, "--json", "-").json
    assert plain["systems"]["frozen"] != asked["systems"]["frozen"]
    done = command("evaluate", data, "--prompts", out, "--query-words", "")
    assert (done.code, done.err) == (
        2,
        f"error: {out} were made with --query-words 'what does '; leave that to the prompts, or tune new ones\n",
    )


def test_an_index_is_searched_as_it_was_made(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    assert command("index", data, "--out", index, "--model", model, *WORDS).code == 0
    kept = Conventions(KEPT.query_words, KEPT.document_words)  # the model itself says that it is the cosine
    assert Conventions.recorded(Index.open(index).manifest["encoder"]) == kept
    search = ("search", index, QUESTION, "--bm25-weight", "0", "--json", "-")
    found = command(*search)
    assert (found.code, found.err) == (0, "")
    asked = BiEncoder.load(model, query_words=KEPT.query_words, document_words=KEPT.document_words)
    scores, ids = Index.open(index).search(asked.query_vectors([QUESTION]), 10)
    assert [(hit["id"], hit["score"]) for hit in found.json] == list(zip(ids[0], scores[0].tolist(), strict=True))
    done = command(*search, "--query-words", "")
    assert done.code == 2
    assert done.err == (
        "error: this index was made with --query-words 'what does ', --document-words 'the evidence ', got "
        "--query-words '', --document-words 'the evidence '; pass the same, or index the documents again\n"
    )


def test_an_index_without_a_record_is_searched_as_before(
    command: Command, model: Path, data: Path, tmp_path: Path
) -> None:
    """Also where words are found now that were not when it was made."""
    other = tmp_path / "other"
    shutil.copytree(model, other)
    file = other / "config_sentence_transformers.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prompts": {"search_query": "what does "}}))
    index = tmp_path / "index"
    assert command("index", data, "--out", index, "--model", other, "--query-words", "").code == 0
    manifest = json.loads((index / "manifest.json").read_text())
    del manifest["encoder"]["query_words"]
    (index / "manifest.json").write_text(json.dumps(sealed(manifest)))
    found = command("search", index, QUESTION, "--bm25-weight", "0", "--json", "-")
    assert (found.code, found.err) == (0, "")
    plain = BiEncoder.load(model).query_vectors([QUESTION])
    assert [hit["id"] for hit in found.json] == Index.open(index).search(plain, 10)[1][0]


def test_beir_takes_them_from_the_prompts(
    command: Command, model: Path, data: Path, prompts: Path, tmp_path: Path
) -> None:
    options = ("--datasets", data.name, "--data-dir", data.parent, "--model", model, "--baselines", "none")
    done = command("beir", *options, "--out", tmp_path / "one", "--prompts", prompts)
    assert done.code == 0, done.err
    asked = command("beir", *options, "--out", tmp_path / "two", *WORDS)
    assert asked.code == 0, asked.err
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert one["fingerprint"] == two["fingerprint"]
    frozen = [made["datasets"][data.name]["systems"]["frozen"] for made in (one, two)]
    assert frozen[0] == frozen[1]


def test_an_export_and_an_adapter_are_made_with_them(command: Command, prompts: Path, tmp_path: Path) -> None:
    assert command("export", prompts, "--out", tmp_path / "export").code == 0
    about = json.loads((tmp_path / "export" / "config_sentence_transformers.json").read_text())
    assert about["prompts"]["query"].endswith("what does ")
    assert about["prompts"]["document"] == "the evidence "
    done = command("convert", tmp_path / "export", "--out", tmp_path / "model.onnx", *WORDS)
    assert done.code == 2
    assert done.err == (
        f"error: --query-words, --document-words: {tmp_path / 'export'} is a checkpoint, which has its own already\n"
    )
    done = command("push", prompts, "user/name", "--similarity", "dot")
    assert done.err == "error: --similarity: used only with --exported, without which no model is loaded\n"


def test_a_similarity_that_is_none(command: Command, model: Path, data: Path) -> None:
    done = command("evaluate", data, "--model", model, "--similarity", "euclidean")
    assert (done.code, done.err) == (2, "error: --similarity must be cosine or dot, got 'euclidean'\n")
