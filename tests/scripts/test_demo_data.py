"""The data shipped for the demo is whole: SciFact's counts, and every judged id exists."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

SCIFACT = Path(__file__).parents[2] / "eval" / "data" / "scifact"


def read_jsonl(name: str) -> list[dict[str, Any]]:
    with gzip.open(SCIFACT / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_qrels(split: str) -> list[tuple[str, str, int]]:
    header, *lines = (SCIFACT / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
    assert header == "query-id\tcorpus-id\tscore"
    rows = [line.split("\t") for line in lines]
    return [(query_id, document_id, int(score)) for query_id, document_id, score in rows]


def ids(name: str) -> set[str]:
    return {record["_id"] for record in read_jsonl(name)}


def test_corpus_has_5183_distinct_documents_with_text() -> None:
    corpus = read_jsonl("corpus.jsonl.gz")
    assert len({document["_id"] for document in corpus}) == len(corpus) == 5183
    assert all(set(document) == {"_id", "title", "text"} for document in corpus)
    assert all(document["title"] and document["text"] for document in corpus)


@pytest.mark.parametrize(("split", "queries", "judgements"), [("train", 809, 919), ("test", 300, 339)])
def test_qrels_judge_only_what_exists(split: str, queries: int, judgements: int) -> None:
    qrels = read_qrels(split)
    assert len({(query_id, document_id) for query_id, document_id, _ in qrels}) == len(qrels) == judgements
    assert len({query_id for query_id, _, _ in qrels}) == queries
    assert {score for _, _, score in qrels} == {1}
    assert {query_id for query_id, _, _ in qrels} <= ids("queries.jsonl.gz")
    assert {document_id for _, document_id, _ in qrels} <= ids("corpus.jsonl.gz")


def test_every_query_belongs_to_exactly_one_split() -> None:
    queries = [query["_id"] for query in read_jsonl("queries.jsonl.gz")]
    train, test = ({query_id for query_id, _, _ in read_qrels(split)} for split in ("train", "test"))
    assert not train & test
    assert sorted(queries) == sorted(train | test)


def test_the_archives_carry_no_file_name_and_no_time() -> None:
    """gzip's flags and time are zero (RFC 1952, 2.3), so the same text makes the same bytes."""
    for name in ("corpus.jsonl.gz", "queries.jsonl.gz"):
        assert (SCIFACT / name).read_bytes()[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"
