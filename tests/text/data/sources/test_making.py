"""What people have, in every shape that is read, made into a data folder; what is left out is counted."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from retrieval_prompts.data.beir_folder import Dataset, load
from retrieval_prompts.data.sources import judged, making
from retrieval_prompts.data.sources.at_hand import at_hand
from retrieval_prompts.data.sources.chunks import Chunking
from retrieval_prompts.data.sources.documents import Columns
from retrieval_prompts.data.sources.making import Made, Sources, make
from retrieval_prompts.errors import UserError

ROWS: list[dict[str, Any]] = [
    {"sku": 7, "name": "Kettle", "body": "Boils water, fast.\nIn steel.", "price": 3.5},
    {"sku": 8, "name": "Lamp", "body": 'Gives "warm" light; dimmable.', "price": 9.0},
    {"sku": 9, "name": None, "body": "Ein Stuhl für draußen", "price": 1.0},
]
TEXTS = {
    "7": ("Kettle", "Boils water, fast.\nIn steel."),
    "8": ("Lamp", 'Gives "warm" light; dimmable.'),
    "9": ("", "Ein Stuhl für draußen"),
}
SAID = "id 'sku', text 'body', title 'name'"


def separated(rows: list[dict[str, Any]], delimiter: str) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=2)
    return file.getvalue()


def parquet_of(names: list[str], columns: list[Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array(each) for each in columns], names=names), file)
    return file.getvalue()


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def made(tmp_path: Path, **sources: Any) -> tuple[Made, Dataset]:
    for name in ("documents", "queries", "judgements"):
        sources[name] = tuple(str(tmp_path / each) for each in sources.get(name, ()))
    found = make(tmp_path / "data", Sources(**sources), overwrite=True)
    return found, load(tmp_path / "data")


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "a.csv": lambda rows: separated(rows, ","),
    "semicolons.csv": lambda rows: separated(rows, ";"),
    "a.tsv": lambda rows: separated(rows, "\t"),
    "a.csv.gz": lambda rows: gzip.compress(separated(rows, ",")),
    "a.tsv.zst": lambda rows: zstandard.compress(separated(rows, "\t")),
    "a.jsonl": lines,
    "a.ndjson.zst": lambda rows: zstandard.compress(lines(rows)),
    "array.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "lines.json": lines,
    "a.parquet": parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_table_gives_the_same_documents(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, WRITERS[name](ROWS))
    found, data = made(tmp_path, documents=[name])
    assert {document.id: (document.title, document.text) for document in data.corpus} == TEXTS
    assert found.documents == 3
    assert found.said == [f"{tmp_path / name}: {SAID}"]
    assert found.left_out == []


def test_an_object_of_texts_by_id_is_a_table(tmp_path: Path) -> None:
    write(tmp_path / "a.json", json.dumps({"a": "one", "b": "two"}, indent=1))
    assert [(each.id, each.text) for each in made(tmp_path, documents=["a.json"])[1].corpus] == [
        ("a", "one"),
        ("b", "two"),
    ]


def test_rows_that_are_looked_at_twice_are_counted_once(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "ort,inhalt\nBonn,Eine Stadt am Rhein\nKiel\n")
    assert made(tmp_path, documents=["a.csv"])[0].left_out == [
        f"rows with more or fewer values than columns: 1 ({table}:3)"
    ]


def test_a_hugging_face_data_set_with_splits_is_read(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    pairs = {
        "train": [{"question": "what boils", "answer": "the kettle"}],
        "validation": [{"question": "what glows", "answer": "the lamp"}],
    }
    splits = {name: Dataset.from_list(rows) for name, rows in pairs.items()}
    DatasetDict(splits).save_to_disk(tmp_path / "pairs")
    _, data = made(tmp_path, judgements=["pairs"])
    texts = {document.id: document.text for document in data.corpus}
    assert {name: list(qrels) for name, qrels in data.qrels.items()} == {"train": ["q1"], "dev": ["q2"]}
    assert [texts[id] for id in data.qrels["dev"]["q2"]] == ["the lamp"]


def test_columns_that_are_named_count_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", lines(ROWS))
    _, data = made(tmp_path, documents=["a.jsonl"], columns=Columns("name", None, ("body", "price")))
    assert data.corpus[0].id == "Kettle"
    assert data.corpus[0].text == "Boils water, fast.\nIn steel.\n3.5"
    with pytest.raises(UserError, match=r"a.jsonl has no column 'Body' \(--text\); it has sku, name, body, price"):
        made(tmp_path, documents=["a.jsonl"], columns=Columns(text=("Body",)))


def test_the_longest_column_is_the_text_where_no_name_says_it_and_rows_are_numbered(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "ort,inhalt\nBonn,Eine Stadt am Rhein\nKiel,Eine Stadt am Meer\n")
    found, data = made(tmp_path, documents=["a.csv"])
    assert [(each.id, each.title, each.text) for each in data.corpus][1] == ("2", "", "Eine Stadt am Meer")
    assert found.said == [f"{tmp_path / 'a.csv'}: ids are row numbers, text 'inhalt', no title"]


def test_what_is_left_out_is_counted_with_its_place(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "id,text\n1,one\n2,\n,three\n1,again\n5,five,too many\n6,ONE \n")
    found, data = made(tmp_path, documents=["a.csv"], duplicates="exact")
    assert data.corpus.ids == ["1"]
    assert set(found.left_out) == {
        f"documents without text: 1 ({table}:3)",
        f"documents without id: 1 ({table}:4)",
        f"documents whose id an earlier one has: 1 (1 in {table}:5)",
        f"rows with more or fewer values than columns: 1 ({table}:6)",
        "documents that say the same as an earlier one: 1 (6 as 1)",
    }


def test_near_duplicates_are_counted_or_left_out_and_judged_as_the_one_that_stays(tmp_path: Path) -> None:
    text = " ".join(f"word{number}" for number in range(60))
    write(
        tmp_path / "a.jsonl",
        lines([{"id": 1, "text": text}, {"id": 2, "text": f"{text} more"}, {"id": 3, "text": "x"}]),
    )
    write(tmp_path / "pairs.csv", "query,id\nfind it,2\n")
    arguments: dict[str, Any] = {"documents": ["a.jsonl"], "judgements": ["pairs.csv"]}
    assert made(tmp_path, **arguments, duplicates="exact")[1].corpus.ids == ["1", "2", "3"]
    found, data = made(tmp_path, **arguments, duplicates="near")
    assert data.corpus.ids == ["1", "3"]
    assert data.qrels["train"] == {"q1": {"1": 1}}


def test_a_source_that_is_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv does not exist; expected a file, a folder or a glob"):
        made(tmp_path, documents=["none.csv"])
    with pytest.raises(UserError, match=r"\*\.csv matches no file"):
        made(tmp_path, documents=["*.csv"])
    write(tmp_path / "pictures" / "a.jpg", b"x")
    with pytest.raises(
        UserError, match=r"holds nothing to read: files of other kinds: 1 \(.*a\.jpg\); expected tables"
    ):
        made(tmp_path, documents=["pictures"])
    write(tmp_path / "bad.csv", b"id,text\n1,caf\xe9\n")
    with pytest.raises(UserError, match=r"bad\.csv: expected UTF-8, got byte 0xe9"):
        made(tmp_path, documents=["bad.csv"])
    write(tmp_path / "bad.json", '[{"id": 1, "text": "a"}, {"id": ')
    with pytest.raises(UserError, match=r"bad\.json, object 2: malformed JSON"):
        made(tmp_path, documents=["bad.json"])


# --- judgements -----------------------------------------------------------------------------------------------------

DOCUMENTS = lines([{"id": f"d{number}", "text": f"text {number}"} for number in range(4)])
JUDGEMENTS: dict[str, tuple[str, str, dict[str, dict[str, int]]]] = {
    "query and id": (
        "p.csv",
        "query,doc_id\nhow,d1\n How ,d2\nwhy,d0\n",
        {"how": {"d1": 1, "d2": 1}, "why": {"d0": 1}},
    ),
    "query and text": ("p.tsv", "question\tanswer\nhow\tTEXT 1\nwhy\ttext 3\n", {"how": {"d1": 1}, "why": {"d3": 1}}),
    "names in another language": ("p.csv", "frage,artikel\nhow,d1\n", {"how": {"d1": 1}}),
    "texts under other names": ("p.csv", "frage,antwort\nhow,text 1\n", {"how": {"d1": 1}}),
    "other columns": (
        "p.csv",
        "date,query,page,clicks\n2026-11-01,how,d1,2\n2026-11-02,how,d1,1\n",
        {"how": {"d1": 2}},
    ),
    "clicks": (
        "c.csv",
        "query,id,clicks\nhow,d1,4\nhow,d1,6\nhow,d2,4\nhow,d3,0\nhow,d0,1\nwhy,d0,1\n",
        {"how": {"d1": 2, "d2": 1, "d0": 1}, "why": {"d0": 2}},
    ),
    "triples": (
        "t.jsonl",
        '{"anchor": "how", "positive": "text 1", "negative_1": "text 2", "negative_2": "text 3"}\n',
        {"how": {"d1": 1, "d2": 0, "d3": 0}},
    ),
    "lists": (
        "t.jsonl",
        '{"query": "how", "pos": ["text 1", "text 2"], "neg": ["text 3"]}\n',
        {"how": {"d1": 1, "d2": 1, "d3": 0}},
    ),
    "grades": (
        "g.csv",
        "query,id,score\nhow,d1,0.7\nhow,d2,0.2\nwhy,d0,3\n",
        {"how": {"d1": 1, "d2": 0}, "why": {"d0": 3}},
    ),
}


@pytest.mark.parametrize("shape", JUDGEMENTS)
def test_judgements_are_read_in_the_shapes_that_people_have(tmp_path: Path, shape: str) -> None:
    name, content, expected = JUDGEMENTS[shape]
    write(tmp_path / "docs.jsonl", DOCUMENTS)
    write(tmp_path / name, content)
    _, data = made(tmp_path, documents=["docs.jsonl"], judgements=[name])
    assert {data.queries[query].lower(): grades for query, grades in data.qrels["train"].items()} == expected
    assert len(data.corpus) == 4


def test_columns_that_are_named_may_be_those_of_one_table(tmp_path: Path) -> None:
    write(tmp_path / "docs.jsonl", DOCUMENTS)
    write(tmp_path / "q.csv", "nr,frage\n5,how\n")
    write(tmp_path / "j.csv", "nr,wert,ziel,schlecht\n5,2,d1,d2\n")
    arguments: dict[str, Any] = {"documents": ["docs.jsonl"], "queries": ["q.csv"], "judgements": ["j.csv"]}
    judged = {"query-id": "nr", "query": "frage", "id": "ziel", "grade": "wert", "negative": "schlecht"}
    _, data = made(tmp_path, **arguments, judged=judged)
    assert data.queries == {"5": "how"}
    assert data.qrels["train"] == {"5": {"d1": 2, "d2": 0}}
    with pytest.raises(
        UserError, match="--columns: no queries or judgements have a column 'Ziel'; they have nr, frage"
    ):
        made(tmp_path, **arguments, judged={"id": "Ziel"})


def test_queries_and_qrels_of_trec_are_read(tmp_path: Path) -> None:
    write(tmp_path / "docs.jsonl", DOCUMENTS)
    topics = "<top>\n<num> Number: 301\n<title> how\n<desc> Description: x\n</top>\n"
    topics += "<top>\n<num>302</num><title>why so</title></top>"
    write(tmp_path / "topics.txt", topics)
    write(tmp_path / "qrels.txt", "301 0 d1 2\n302 0 d0 1\n302 0 d9 1\n9 0 d1 1\n")
    found, data = made(tmp_path, documents=["docs.jsonl"], queries=["topics.txt"], judgements=["qrels.txt"])
    assert data.queries == {"301": "how", "302": "why so"}
    assert data.qrels["train"] == {"301": {"d1": 2}, "302": {"d0": 1}}
    assert f"judgements of unknown documents: 1 (d9 in {tmp_path / 'qrels.txt'})" in found.left_out
    assert f"judgements of unknown queries: 1 (9 in {tmp_path / 'qrels.txt'})" in found.left_out


def test_queries_by_id_by_header_or_without_one_and_as_lines(tmp_path: Path) -> None:
    write(tmp_path / "docs.jsonl", DOCUMENTS)
    write(tmp_path / "qrels.tsv", "5\td1\t1\n")
    for name, content in (("q.tsv", "5\thow does it work, I wonder, and why\n"), ("q.csv", "qid,query\n5,how\n")):
        write(tmp_path / name, content)
        _, data = made(tmp_path, documents=["docs.jsonl"], queries=[name], judgements=["qrels.tsv"])
        assert list(data.queries) == ["5"]
        assert data.qrels["train"] == {"5": {"d1": 1}}
    write(tmp_path / "log.txt", "how\nwhy\nHOW\n")
    assert made(tmp_path, documents=["docs.jsonl"], queries=["log.txt"])[1].queries == {"q1": "how", "q2": "why"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'\x80{"id": 1, "text": "a"}\n', r"a\.jsonl: expected UTF-8, got byte 0x80"),
        ("a.json", b'[{"id": 1, "text": "\x80"}]', r"a\.json: expected UTF-8, got byte 0x80"),
        ("a.json", b"[" * 100_000, r"a\.json, object 1: malformed JSON"),
        ("a.json", b'{"a":' * 50_000, r"a\.json:1: "),
        ("a.json", b'"a text"', r"a\.json:1: expected a JSON object"),
        ("a.jsonl.gz", gzip.compress(b'{"id": 1, "text": "a"}', mtime=0)[:-9], r"a\.jsonl\.gz cannot be read to its"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        make(tmp_path / "out", Sources((str(tmp_path / name),)))


def test_texts_that_no_source_has_become_documents(tmp_path: Path) -> None:
    write(tmp_path / "docs.jsonl", DOCUMENTS)
    write(tmp_path / "p.csv", "query,answer\nhow,a new text\nwhy,a new text\n")
    found, data = made(tmp_path, documents=["docs.jsonl"], judgements=["p.csv"])
    assert len(data.corpus) == 5
    assert data.qrels["train"] == {"q1": {"text1": 1}, "q2": {"text1": 1}}
    assert "texts of judgements that no source has, added as documents: 1" in found.said


def test_one_set_of_judgements_is_divided_and_queries_of_one_text_stay_together(tmp_path: Path) -> None:
    write(tmp_path / "docs.jsonl", DOCUMENTS)
    queries = [{"id": f"{number}{copy}", "text": f"question {number}"} for number in range(100) for copy in "ab"]
    write(tmp_path / "queries.jsonl", lines(queries))
    write(tmp_path / "j.csv", "qid,id\n" + "".join(f"{each['id']},d1\n" for each in queries))
    arguments: dict[str, Any] = {"documents": ["docs.jsonl"], "queries": ["queries.jsonl"], "judgements": ["j.csv"]}
    found, data = made(tmp_path, **arguments)
    assert found.splits == {"train": 140, "dev": 20, "test": 40}
    sides = {name: {query[:-1] for query in qrels} for name, qrels in data.qrels.items()}
    assert sides["train"].isdisjoint(sides["test"] | sides["dev"])
    assert made(tmp_path, **arguments)[1].qrels == data.qrels


def test_files_named_after_splits_are_these_and_train_gives_way(tmp_path: Path) -> None:
    write(tmp_path / "docs.jsonl", DOCUMENTS)
    write(tmp_path / "j" / "train.csv", "query,id\nhow,d1\nwhy,d2\n")
    write(tmp_path / "j" / "validation.csv", "query,id\nwhen,d1\n")
    write(tmp_path / "j" / "test.csv", "query,id\nHow,d1\n")
    found, data = made(tmp_path, documents=["docs.jsonl"], judgements=["j"])
    assert found.splits == {"train": 1, "dev": 1, "test": 1}
    assert [line for line in found.left_out if "text a later split has" in line]


def test_a_folder_at_hand_is_made_again_only_when_a_file_changed(tmp_path: Path) -> None:
    source = write(tmp_path / "docs.jsonl", DOCUMENTS)
    first, _ = at_hand(Sources((str(source),)), None, tmp_path / "cache")
    written = (first / "corpus.jsonl").stat().st_mtime_ns
    assert at_hand(Sources((str(source),)), None, tmp_path / "cache")[0] == first
    assert (first / "corpus.jsonl").stat().st_mtime_ns == written
    assert first.name == "docs"
    write(source, DOCUMENTS + lines([{"id": "d9", "text": "new"}]))
    second, found = at_hand(Sources((str(source),)), None, tmp_path / "cache")
    assert second != first
    assert found.documents == 5
    whole = (second / "sources.json").read_text()
    for damaged in ("", "[]", "{}", whole.replace('"documents": 5', '"documents": "5"'), whole[:-9]):
        (second / "sources.json").write_text(damaged)
        assert at_hand(Sources((str(source),)), None, tmp_path / "cache") == (second, found)
        assert (second / "sources.json").read_text() == whole


DAMAGED: dict[str, tuple[str, bytes]] = {
    "no UTF-8, lines": ("a.jsonl", '{"id": "1", "text": "é"}'.encode("latin-1")),
    "no UTF-8, array": ("a.json", '[{"id": "1", "text": "é"}]'.encode("latin-1")),
    "cut short": ("a.json.gz", gzip.compress(b'[{"id": "1", "text": "x"}' * 999)[:40]),
    "not packed so": ("a.csv.zst", b"id,text"),
    "too deep": ("a.json", b"[" * 200_000),
    "a column twice": ("a.parquet", parquet_of(["id", "text", "text"], [["1"], ["x"], ["y"]])),
    "a damaged column": (
        "a.parquet",
        (whole := parquet([{"id": str(number), "text": f"text {number * 7919}"} for number in range(9999)]))[:200]
        + bytes(500)
        + whole[700:],
    ),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_cannot_be_read_is_named_in_one_line(tmp_path: Path, what: str) -> None:
    name, content = DAMAGED[what]
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=name):
        made(tmp_path, documents=[path.name])


def test_queries_that_cannot_be_read_and_splits_that_are_none(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "id,text\n1,x\n")
    write(tmp_path / "pictures" / "a.jpg", b"x")
    with pytest.raises(UserError, match=r"pictures holds no tables of queries or judgements: files of other kinds: 1"):
        made(tmp_path, documents=["a.csv"], judgements=["pictures"])
    write(tmp_path / "q.txt", "é".encode("latin-1"))
    with pytest.raises(UserError, match=r"q\.txt: expected UTF-8"):
        made(tmp_path, documents=["a.csv"], queries=["q.txt"])
    (tmp_path / "hf").mkdir()
    write(tmp_path / "hf" / "dataset_dict.json", "{}")
    with pytest.raises(UserError, match="names no splits"):
        made(tmp_path, documents=["hf"])


def test_grades_that_no_file_of_judgements_can_have_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "\nid,text\n1,x\n")  # the header is the first line that is not blank
    write(tmp_path / "j.csv", "query,id,score\nfoo,1,12345\nbar,1,2\n")
    found, data = made(tmp_path, documents=["a.csv"], judgements=["j.csv"])
    assert data.qrels == {"train": {"q2": {"1": 2}}}
    assert found.left_out == [f"rows whose grade has more than 4 digits: 1 ({tmp_path / 'j.csv'}:2)"]


def test_chunks_are_of_one_row_and_found_by_its_whole_text(tmp_path: Path) -> None:
    how = Chunking(34, 0, lambda texts: [len(text.split()) for text in texts])
    long, other = (" ".join(f"{word}{number} is here." for number in range(30)) for word in "VW")
    write(tmp_path / "a.csv", f"id,text\na,{long}\na,{other} {other}\na,short\n")
    write(tmp_path / "j.csv", f"query,text\nfoo,{long}\n")
    sources = Sources(documents=(str(tmp_path / "a.csv"),), judgements=(str(tmp_path / "j.csv"),), cut_tables=True)
    make(tmp_path / "data", sources, how)
    data = load(tmp_path / "data")
    assert data.corpus.ids == ["a#1", "a#2", "a#3"]
    assert " ".join(each.text for each in data.corpus) == long
    assert data.qrels == {"train": {"q1": {"a#1": 1}}}


def test_reading_draws_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def bar(rows: Any, *, desc: str, **_: Any) -> Any:
        drawn.append(desc)
        return rows

    for module in (making, judged):
        monkeypatch.setattr(module, "tqdm", bar)
    write(tmp_path / "a.csv", "id,text\n1,x\n")
    write(tmp_path / "j.csv", "query,id\nfoo,1\n")
    made(tmp_path, documents=["a.csv"], judgements=["j.csv"])
    assert drawn == ["documents", "judgements"]


def test_a_quote_between_tabs_swallows_no_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.tsv", 'id\ttext\n1\t"open\n2\t"said" he\n3\t"two\nlines"\n\n4\tx\n')
    _, data = made(tmp_path, documents=["a.tsv"])
    assert [each.text for each in data.corpus] == ['"open', '"said" he', "two\nlines", "x"]
