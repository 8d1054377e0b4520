"""A data set from lists, dictionaries and pairs, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from retrieval_prompts import from_texts
from retrieval_prompts.data.from_python import corpus_of
from retrieval_prompts.errors import UserError


def test_documents_of_every_form_and_pairs_by_id_and_by_text() -> None:
    documents = {"a": "Boil the kettle.", 7: ("Lamp", "Gives light.")}
    pairs = [("tea", "a"), (" TEA", "gives  light."), ("light", "Lamp Gives light."), ("new", "A new text.")]
    data = from_texts(documents, pairs)
    assert [(each.id, each.title, each.text) for each in data.corpus] == [
        ("a", "", "Boil the kettle."),
        ("7", "Lamp", "Gives light."),
        ("text3", "", "A new text."),
    ]
    assert data.queries == {"q1": "tea", "q2": "light", "q3": "new"}
    assert data.qrels == {"train": {"q1": {"a": 1, "7": 1}, "q2": {"7": 1}, "q3": {"text3": 1}}}
    assert corpus_of(["x", "y"]).ids == ["0", "1"]
    assert corpus_of(["x", "y"]).fingerprint != corpus_of(["x", "z"]).fingerprint


def test_a_text_that_is_added_takes_no_id_that_is_there() -> None:
    data = from_texts({"text2": "x"}, [("q", "new")])
    assert [(each.id, each.text) for each in data.corpus] == [("text2", "x"), ("text3", "new")]
    assert data.qrels == {"train": {"q1": {"text3": 1}}}


def test_judgements_by_query_and_by_split() -> None:
    documents, queries = ["x", "y", "z"], {"q": "one", "r": "two"}
    judged = from_texts(documents, queries=queries, judgements={"q": "0", "r": {"1": 2, "2": 0}})
    assert judged.qrels == {"train": {"q": {"0": 1}, "r": {"1": 2, "2": 0}}}
    split = from_texts(documents, queries=queries, judgements={"train": {"q": ["0", "1"]}, "test": {"r": "2"}})
    assert split.qrels == {"train": {"q": {"0": 1, "1": 1}}, "test": {"r": {"2": 1}}}
    assert split.split("test")[0] == {"r": "two"}
    numbered = from_texts({5: "x", 6: "y"}, queries={1: "one", 2: "two"}, judgements={1: 5, 2: [6]})
    assert numbered.qrels == {"train": {"1": {"5": 1}, "2": {"6": 1}}} and list(numbered.queries) == ["1", "2"]
    many = from_texts(documents, [(f"question {number}", "0") for number in range(50)])
    assert {name: len(own) for name, own in many.qrels.items()} == {"train": 35, "dev": 5, "test": 10}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"documents": []}, "there are no documents; pass at least one text"),
        ({"documents": [None]}, "expected a text at position 0"),
        ({"documents": ["x"], "pairs": ["ab"]}, r"expected pairs \(query, relevant document\), got \"ab\""),
        ({"documents": ["x"], "judgements": {"q": "0"}}, "judgements name the query 'q', which is not among the 0"),
        (
            {"documents": ["x"], "queries": {"q": "a"}, "judgements": {"q": "9"}},
            "judgements of query 'q' name the document '9', which is not there",
        ),
        (
            {"documents": ["x"], "queries": {"q": "a"}, "judgements": {"q": 9}},
            "judgements of query 'q' name the document '9', which is not there",
        ),
        (
            {"documents": ["x"], "queries": {"q": "a"}, "judgements": {"q": {"0": "high"}}},
            "judgements of query 'q' have the grade 'high'; expected a number",
        ),
        ({"documents": ["x"], "queries": {"q": 1}}, "expected a text at position 0"),
        (
            {"documents": {1: "x", "1": "y"}},
            "documents: '1' and another key are both the id '1'; give each an id of its own",
        ),
        ({"documents": ["x"], "queries": {1: "x", "1": "y"}}, "queries: '1' and another key are both"),
        (
            {"documents": {None: "x"}},
            r"documents: expected an id for each, got none at 1 of 1 places, the first at 0 \(",
        ),
        ({"documents": {float("nan"): "x"}}, "documents: expected an id for each"),
        (
            {"documents": ["x"], "queries": {"q": "a"}, "judgements": {"q": {0: 1, "0": 2}}},
            "judgements of query 'q': '0' and another key",
        ),
        ({"documents": ["x"], "queries": {"q": "a"}, "judgements": {"q": None}}, "query 'q': expected an id for each"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_texts(**arguments)
