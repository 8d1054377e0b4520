"""Ids in the bytes of a JSON list: as a list of strings, in all that is asked of one."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from retrieval_prompts.data import id_list
from retrieval_prompts.data.corpus import Corpus
from retrieval_prompts.data.groups import FirstOf, Groups
from retrieval_prompts.data.id_list import Ids
from retrieval_prompts.errors import UserError

ODD = ["a", 'quo"te', "back\\slash", "comma, ", '", "', "ünï", "雪", "\ud800", "new\nline", "", "[", "7", "b" * 300]


@pytest.fixture(params=[0, 1000], ids=["many", "few"], autouse=True)
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Few ids are held as strings too."""
    monkeypatch.setattr(id_list, "HELD", request.param)
    monkeypatch.setattr(id_list, "STRETCH", 4)
    monkeypatch.setattr(id_list, "CHECKED", 3)
    return int(request.param)


def test_as_a_list() -> None:
    ids = Ids.of(ODD)
    assert ids == ODD == list(ids)
    assert ids != ODD[::-1]
    assert ids != ODD[1:]
    assert ids == Ids.of(iter(ODD)) and Ids.of(ids) is ids
    assert ids != Ids.of([*ODD[:-1], "b"])
    assert [ids[at] for at in range(-len(ODD), len(ODD))] == ODD * 2
    assert ids[2:7] == ODD[2:7] and ids[::-2] == ODD[::-2] and ids[99:] == []
    assert ids[np.int64(3)] == ODD[3]
    with pytest.raises(IndexError):
        ids[len(ODD)]
    assert [ids.position(id) for id in ODD] == list(range(len(ODD)))
    assert "雪" in ids and "b" not in ids
    assert list(Ids.of([])) == [] and Ids.of([]).position("a") is None
    assert ids.repeated() == {} == Ids.of([]).repeated()
    assert Ids.of(["a", "b", "a", "c", "c", "a"]).repeated() == {"a": 3, "c": 2}


def test_round_trip(tmp_path: Path) -> None:
    for ids in (ODD, ["d1"], []):
        Ids.of(ids).save(tmp_path / "ids.json", tmp_path / "ids.npy")
        assert (tmp_path / "ids.json").read_text() == json.dumps(ids)
        content, table = np.fromfile(tmp_path / "ids.json", np.uint8), np.load(tmp_path / "ids.npy")
        opened = Ids.checked(content, table, "ids.json")
        assert opened == ids
        assert [opened.position(id) for id in ids] == list(range(len(ids)))


def test_ids_with_the_same_checksum_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_list, "id_check", lambda id: len(id))
    ids = Ids.of(["aa", "b", "cc", "d", "ee"])
    assert [ids.position(id) for id in ("ee", "d", "cc", "b", "aa", "ff", "gggg")] == [4, 3, 2, 1, 0, None, None]
    assert ids.repeated() == {}


@pytest.mark.parametrize("content", ['["a", "b", 77]', '["a", "b"}"c"]', '["a", "b", [""]', '["a",  "b","c"]'])
def test_what_is_no_list_of_ids(content: str) -> None:
    ids = Ids.of(["a", "b", "c"])
    table = np.stack([ids.starts, *ids.lookup])
    with pytest.raises(ValueError, match=r"ids\.json is not a list of ids"):
        Ids.checked(np.frombuffer(content.encode(), np.uint8), table, "ids.json")


def test_an_id_that_cannot_be_read_is_one_line() -> None:
    ids = Ids.of(["aaa", "b"])
    content = np.frombuffer(b'["a"a", "b"]', np.uint8)
    with pytest.raises(UserError, match=r"^x: expected a list of ids, got something else at 0; index again$"):
        list(Ids.checked(content, np.stack([ids.starts, *ids.lookup]), "x"))


def test_repeated_lines_of_a_corpus_are_left_out(tmp_path: Path) -> None:
    lines = [{"_id": f"d{number % 5}", "text": f"text {number % 5}"} for number in range(12)]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.warns(UserWarning, match=r"they say the same as an earlier one: 7 \(d0, d1, d2 and 2 more\)"):
        corpus = Corpus.open(path)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[:5]))
    once = Corpus.open(path)
    assert corpus.ids == once.ids == [f"d{number}" for number in range(5)]
    assert corpus.fingerprint == once.fingerprint
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"_id": "d3", "text": "other"}]))
    with pytest.raises(UserError, match=r"corpus\.jsonl:13: document id 'd3' was used on line 4 already, for another"):
        Corpus.open(path)


def test_groups_are_those_of_a_dictionary_that_is_filled_entry_by_entry() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        names = draw.sample("abcdefghij", 8)
        entries = [(id, draw.choice([None, None, *names, "x", "y"])) for id in names]
        entries = [(id, None if document == id else document) for id, document in entries]
        groups, positions = Groups(), dict[str, int]()
        first: dict[str, int] = {}
        expected: list[int] = []
        for here, (id, document) in enumerate(entries):
            positions[id] = here
            if document is None:
                expected.append(first.get(id, here))
            else:
                expected.append(first.setdefault(document, positions.get(document, here)))
            groups.add(id, document)
        groups.settle(Ids.of(names))
        assert groups.firsts.tolist() == expected, entries
        assert dict(groups.documents) == first
        chunks = {names[at]: names[to] for at, to in enumerate(expected) if at != to}
        named = {document: names[at] for document, at in first.items() if names[at] != document} | chunks
        found = FirstOf(Ids.of(names), groups.firsts, groups.documents)
        assert dict(found) == named and len(found) == len(named) and bool(found) == bool(named)
        assert found == named
