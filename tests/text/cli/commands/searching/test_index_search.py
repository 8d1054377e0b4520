"""index and search as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Command
from text_commands import prompts, refused

from retrieval_prompts.biencoder import BiEncoder


def test_search_finds_an_obvious_document(command: Command, index: Path, data: Path) -> None:
    document = json.loads((data / "corpus.jsonl").read_text().splitlines()[7])
    question = f"{document['title']} {document['text']}"
    dense = ["--bm25-weight", "0"]
    done = command("search", index, question, "--json", "-", "-k", "3", "--device", "cpu", *dense)
    assert (done.code, done.err) == (0, "")
    hits = json.loads(done.out)
    assert [list(hit) for hit in hits] == [["id", "score", "title", "text"]] * 3
    assert hits[0] == {"id": "d7", "score": hits[0]["score"], "title": document["title"], "text": document["text"]}
    assert hits[0]["score"] == pytest.approx(1)
    assert hits[0]["score"] > hits[1]["score"] > hits[2]["score"]
    assert all(type(hit["score"]) is float for hit in hits)

    done = command("search", index, question, "-k", "3", *dense)
    lines = done.out.splitlines()
    assert len(lines) == 7
    assert lines[0] == "dense"
    assert lines[1].split() == ["1.", "1.0000", *document["title"].split()]
    assert lines[2].strip() == f"[d7] {document['text']}"


def test_search_writes_its_hits_to_a_file_as_other_commands_do(command: Command, index: Path, tmp_path: Path) -> None:
    file = tmp_path / "hits.json"
    done = command("search", index, "copper", "--json", file)
    assert (done.code, done.err) == (0, "") and len(done.out.splitlines()) == 21
    assert json.loads(file.read_text()) == json.loads(command("search", index, "copper", "--json", "-").out)
    again = command("search", index, "copper", "--json", file)
    assert again.code == 2 and f"{file} exists already" in again.err
    assert command("search", index, "copper", "--json", file, "--overwrite").code == 0


def test_k_beyond_the_corpus_gives_every_document_once(command: Command, index: Path) -> None:
    done = command("search", index, "copper", "--json", "-", "-k", "1000")
    hits = json.loads(done.out)
    assert sorted(hit["id"] for hit in hits) == sorted(f"d{number}" for number in range(40))
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)


def test_query_prompts_search_an_index_of_frozen_documents(
    command: Command, index: Path, query_prompts: Path, model: Path
) -> None:
    def hits(*options: object) -> Any:
        dense = ["--json", "-", "--bm25-weight", "0"]
        done = command("search", index, "what does the evidence show about copper", *dense, *options)
        assert done.code == 0
        return [(hit["id"], hit["score"]) for hit in json.loads(done.out)]

    biencoder = BiEncoder.load(model, query_prompts, device="cpu")
    documents = BiEncoder(biencoder.tower).encode_document(load_contents(index))
    scores = biencoder.encode_query("what does the evidence show about copper") @ documents.T
    assert [id for id, _ in hits("--prompts", query_prompts)] == [f"d{n}" for n in np.argsort(-scores)[:10]]
    assert hits("--prompts", query_prompts) != hits()
    assert hits("--prompts", query_prompts, "--strength", "0") == hits()
    assert hits("--prompts", query_prompts, "--strength", "0.5") not in (hits(), hits("--prompts", query_prompts))


def load_contents(index: Path) -> list[str]:
    rows = [json.loads(line) for line in (index / "documents.jsonl").read_text().splitlines()]
    return [f"{row['title']} {row['text']}" for row in rows]


def test_an_index_and_a_search_must_share_the_document_prompt(
    command: Command, index: Path, model: Path, data: Path, both_prompts: Path, tmp_path: Path
) -> None:
    before = "this index was made with no document prompt, got the document prompt [0-9a-f]{12}; index the documents"
    refused(command("search", index, "copper", "--prompts", both_prompts), before)
    tuned = tmp_path / "index"
    assert command("index", data, "--out", tuned, "--model", model, "--prompts", both_prompts).code == 0
    assert len(json.loads(command("search", tuned, "copper", "--prompts", both_prompts, "--json", "-").out)) == 10
    message = "this index was made with the document prompt [0-9a-f]{12}, got no document prompt; index the documents"
    refused(command("search", tuned, "copper"), message)
    refused(command("search", tuned, "copper", "--prompts", both_prompts, "--strength", "0"), message)


def test_prompts_of_another_model_are_refused(
    command: Command, index: Path, other_model: Path, model: Path, data: Path, query_prompts: Path, tmp_path: Path
) -> None:
    alien = prompts(tmp_path / "alien", other_model, "query", "input")
    belong = rf"{alien} belong to {other_model} \(fingerprint [0-9a-f]{{12}}, dimension 32\), not to {model} \("
    refused(command("search", index, "copper", "--prompts", alien), belong)
    refused(command("evaluate", data, "--model", model, "--prompts", alien), belong)
    refused(command("index", data, "--model", model, "--prompts", alien, "--out", tmp_path / "index"), belong)
    refused(
        command("search", index, "copper", "--model", other_model, "--prompts", alien),
        "this index was made by another document encoder: .*; index the documents again, or use the model that made",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["alien"]


def test_index_counts_what_it_encodes(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    for expected in (40, 0):
        done = command(
            *("index", data, "--out", tmp_path / f"index{expected}", "--model", model),
            *("--cache", tmp_path / "cache", "--factory", "HNSW16"),
        )
        assert done.out.startswith(f"{tmp_path / f'index{expected}'}: 40 documents, HNSW16, BM25 (")
        assert f"; {expected} encoded now," in done.out
    assert command("search", tmp_path / "index0", "copper", "--ef-search", "50").code == 0
