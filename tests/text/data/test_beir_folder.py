"""Folders written line by line, so that every error can be asked for the file and line it names."""

from __future__ import annotations

import gzip
import json
import warnings
from pathlib import Path

import pytest

from retrieval_prompts.data import beir_folder as data
from retrieval_prompts.data.corpus import Corpus, Document
from retrieval_prompts.data.groups import best_passages
from retrieval_prompts.errors import DataWarning, UserError

CORPUS = [
    {"_id": "d0", "title": "Zero", "text": "naught"},
    {"_id": "d1", "text": "no title"},
    {"_id": "d2", "title": "Süd", "text": "ünï\ncode \u2028 \U0001f642", "metadata": {"year": 1}},
    {"_id": "d3", "title": None, "text": "last"},
]
QUERIES = [{"_id": "q0", "text": "nothing"}, {"_id": "q1", "text": "south"}, {"_id": "q2", "text": "end"}]
HEADER = "query-id\tcorpus-id\tscore\n"


def jsonl(*rows: object) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "beir"
    write(folder / "corpus.jsonl", jsonl(*CORPUS))
    write(folder / "queries.jsonl", jsonl(*QUERIES))
    write(folder / "qrels" / "train.tsv", HEADER + "q1\td2\t2\nq0\td0\t1\nq1\td0\t0\n")
    write(folder / "qrels" / "test.tsv", HEADER + "q2\td3\t1\n")
    return folder


def corpus_of(tmp_path: Path, content: str | bytes, name: str = "corpus.jsonl") -> Corpus:
    return Corpus.open(write(tmp_path / name, content))


# --- the corpus ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz"])
def test_plain_and_gzipped_give_the_same_documents(tmp_path: Path, name: str) -> None:
    corpus = corpus_of(tmp_path, jsonl(*CORPUS), name)
    documents = [
        Document("d0", "Zero", "naught"),
        Document("d1", "", "no title"),
        Document("d2", "Süd", "ünï\ncode \u2028 \U0001f642"),
        Document("d3", "", "last"),
    ]
    assert len(corpus) == 4
    assert corpus.ids == ["d0", "d1", "d2", "d3"]
    assert list(corpus) == documents
    assert [corpus[i] for i in range(4)] == documents
    assert corpus[-1] == documents[3]
    assert corpus.position("d2") == 2
    assert corpus.contents(0, 2) == ["Zero naught", "no title"]
    assert corpus.contents(3, 99) == ["last"]
    assert corpus.contents(4, 5) == corpus.contents(2, 1) == []
    with pytest.raises(IndexError):
        corpus[4]
    with pytest.raises(UserError, match="has no document 'x'"):
        corpus.position("x")


def test_blank_lines_carriage_returns_and_a_byte_order_mark_do_not_move_documents(tmp_path: Path) -> None:
    rows = [json.dumps(row) for row in CORPUS]
    content = b"\xef\xbb\xbf" + "\n".join([rows[0], "", "  \t", rows[1] + "\r", "\r", rows[2], rows[3]]).encode()
    corpus = corpus_of(tmp_path, content)
    plain = corpus_of(tmp_path, jsonl(*CORPUS), "plain.jsonl")
    assert list(corpus) == list(plain)
    assert [corpus[i].id for i in (3, 0, 2, 1)] == ["d3", "d0", "d2", "d1"]
    assert corpus.contents(1, 3) == plain.contents(1, 3)
    assert corpus.fingerprint == plain.fingerprint


def test_fingerprint_covers_ids_titles_texts_and_order_and_nothing_else(tmp_path: Path) -> None:
    def fingerprint(*rows: dict, name: str = "corpus.jsonl") -> str:
        return corpus_of(tmp_path, jsonl(*rows), name).fingerprint

    a, b = {"_id": "a", "title": "t", "text": "x"}, {"_id": "b", "title": "", "text": "y"}
    same = fingerprint(a, b)
    assert len(same) == 64
    assert same == fingerprint({**a, "url": "u"}, b) == fingerprint(a, b, name="c.jsonl.gz")
    others = [
        fingerprint(b, a),
        fingerprint(a),
        fingerprint({**a, "_id": "c"}, b),
        fingerprint({**a, "title": "T"}, b),
        fingerprint({**a, "text": "z"}, b),
        fingerprint({**a, "title": "tx", "text": ""}, b),  # the same characters, divided otherwise
    ]
    assert len({same, *others}) == 7


def test_a_corpus_that_changes_under_our_hands_is_noticed(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, jsonl(*CORPUS))
    write(corpus.path, jsonl(*CORPUS[1:]))
    with pytest.raises(UserError, match=r"changed after it was opened; open it again .found 'd1' where 'd0' was"):
        corpus[0]
    with pytest.raises(UserError, match="changed after it was opened"):
        corpus[3]
    corpus.path.unlink()
    with pytest.raises(UserError, match="changed after it was opened"):
        list(corpus)


def test_empty_documents_are_kept_and_counted_once(tmp_path: Path) -> None:
    rows = [{"_id": f"e{i}", "title": " ", "text": ""} for i in range(5)]
    with pytest.warns(DataWarning) as caught:
        corpus = corpus_of(tmp_path, jsonl(CORPUS[0], *rows))
    assert len(corpus) == 6 and corpus[5].content == ""
    assert len(caught) == 1
    assert "5 of 6 documents have neither title nor text (e0, e1, e2 and 2 more)" in str(caught[0].message)


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz"])
def test_a_line_that_says_the_same_again_is_left_out(tmp_path: Path, name: str) -> None:
    again = {"text": "no title", "_id": "d1", "title": None}  # the same document, written otherwise
    with pytest.warns(DataWarning) as caught:
        corpus = corpus_of(
            tmp_path, jsonl(CORPUS[0], CORPUS[0], CORPUS[1], "", CORPUS[0], CORPUS[2], again, CORPUS[3]), name
        )
    assert [str(warning.message) for warning in caught] == [
        f"{tmp_path / name}: lines left out, as they say the same as an earlier one: 3 (d0, d1)"
    ]
    plain = corpus_of(tmp_path, jsonl(*CORPUS), "plain.jsonl")
    assert corpus.ids == plain.ids and list(corpus) == list(plain) and corpus.fingerprint == plain.fingerprint
    assert [corpus[at].id for at in (3, 1, 2)] == ["d3", "d1", "d2"]
    assert corpus.contents(1, 3) == plain.contents(1, 3)


def test_a_document_may_be_its_title_and_an_id_a_number(tmp_path: Path) -> None:
    rows = ({"_id": 7, "title": "seven", "text": None}, '{"_id": "8", "title": NaN, "text": "eight"}')
    assert list(corpus_of(tmp_path, jsonl(*rows))) == [Document("7", "seven", ""), Document("8", "", "eight")]
    with pytest.raises(UserError, match=r":3: document id '7' was used on line 1 already, for another title or text"):
        corpus_of(tmp_path, jsonl(*rows, {"_id": "7", "text": "seven"}))
    with pytest.warns(DataWarning, match=r"1 of 3 documents have no field \"text\" \(t\)"):
        assert corpus_of(tmp_path, jsonl(*rows, {"_id": "t", "title": "title"}))[2].content == "title"
    with pytest.raises(UserError, match=r':1: expected the field "text", which no document of the file has'):
        corpus_of(tmp_path, jsonl({"_id": "t", "title": "title", "body": "x"}))
    with pytest.warns(DataWarning, match="1 of 1 documents have neither title nor text"):
        assert corpus_of(tmp_path, jsonl({"_id": "n", "text": None})).contents(0, 1) == [""]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"_id": "x", "text": ', "malformed JSON (Expecting value)"),
        ("[" * 100_000, "malformed JSON"),
        ('["x"]', "expected a JSON object, got list ['x']"),
        ('{"text": "t"}', 'expected the field "_id", got only text'),
        ("{}", 'expected the field "_id", got only an empty object'),
        ('{"_id": 7.5, "text": "t"}', '"_id" must be a string, got float 7.5'),
        ('{"_id": true, "text": "t"}', '"_id" must be a string, got bool True'),
        ('{"_id": "", "text": "t"}', '"_id" must not be empty'),
        ('{"_id": "x", "text": 7}', '"text" must be a string, got int 7; write "text": "7"'),
        ('{"_id": "x", "text": "t", "title": ["a"]}', "\"title\" must be a string, got list ['a']"),
        ('{"_id": "x", "text": "\\ud83d"}', '"text" holds half of a surrogate pair'),
        ('{"_id": "d0", "text": "t"}', "document id 'd0' was used on line 1 already"),
        (b'{"_id": "x", "text": "\xe9"}', "expected UTF-8, got byte 0xe9 at column 23"),
    ],
)
@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz"])
def test_a_bad_document_is_named_by_file_and_line(tmp_path: Path, line: str | bytes, message: str, name: str) -> None:
    raw = line if isinstance(line, bytes) else line.encode()
    with pytest.raises(UserError) as caught:
        corpus_of(tmp_path, jsonl(CORPUS[0], "").encode() + raw + b"\n", name)
    assert str(caught.value).startswith(f"{tmp_path / name}:3: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_corpus_without_documents_or_a_damaged_gzip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no documents"):
        corpus_of(tmp_path, "\n \n")
    with pytest.raises(UserError, match=r"missing\.jsonl does not exist"):
        Corpus.open(tmp_path / "missing.jsonl")
    path = write(tmp_path / "corpus.jsonl.gz", jsonl(*CORPUS))
    whole = path.read_bytes()
    middle = len(whole) // 2
    for damaged in (
        whole[:-9],
        whole[:middle],
        whole[:middle] + b"\0\xff\0\xff" + whole[middle + 4 :],
        b"not a gzip file",
    ):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"corpus\.jsonl\.gz cannot be read to its end"):
            Corpus.open(path)


# --- the folder ---------------------------------------------------------------------------------------------------


def test_load(folder: Path) -> None:
    dataset = data.load(str(folder))
    assert dataset.name == "beir"
    assert dataset.queries == {"q0": "nothing", "q1": "south", "q2": "end"}
    assert dataset.qrels == {"train": {"q1": {"d2": 2, "d0": 0}, "q0": {"d0": 1}}, "test": {"q2": {"d3": 1}}}
    queries, qrels = dataset.split("train")
    assert list(queries.items()) == [("q1", "south"), ("q0", "nothing")]  # the order of train.tsv
    assert qrels == dataset.qrels["train"]


def test_a_split_leaves_out_queries_without_a_relevant_document(folder: Path) -> None:
    write(folder / "qrels" / "dev.tsv", HEADER + "q1\td2\t0\nq0\td0\t1\nq1\td3\t-1\n")
    write(folder / "qrels" / "none.tsv", HEADER + "q1\td2\t0\n")
    dataset = data.load(folder)
    assert dataset.split("dev") == ({"q0": "nothing"}, {"q0": {"d0": 1}})
    with pytest.raises(UserError, match=r"split 'none' of .* has no query with a relevant document"):
        dataset.split("none")
    with pytest.raises(UserError, match="has no split 'val'; it has dev, none, test, train"):
        dataset.split("val")


def test_gzipped_files_give_the_same_dataset_and_plain_ones_are_preferred(folder: Path, tmp_path: Path) -> None:
    plain = data.load(folder)
    for path in [*folder.glob("*.jsonl"), *folder.glob("qrels/*.tsv")]:
        write(tmp_path / "gz" / path.relative_to(folder).with_name(path.name + ".gz"), path.read_bytes())
    gzipped = data.load(tmp_path / "gz")
    assert gzipped.corpus.fingerprint == plain.corpus.fingerprint
    assert (gzipped.queries, gzipped.qrels) == (plain.queries, plain.qrels)

    for name in ("corpus.jsonl.gz", "queries.jsonl.gz", "qrels/test.tsv.gz"):
        (folder / name).write_bytes(b"nonsense")
    (folder / "qrels" / "._test.tsv").write_bytes(b"\0")  # what macOS leaves behind
    assert data.load(folder).qrels == plain.qrels


def test_only_the_corpus(folder: Path) -> None:
    (folder / "queries.jsonl").unlink()
    assert data.load_corpus(folder).ids == ["d0", "d1", "d2", "d3"]
    with pytest.raises(UserError, match=r"has neither queries\.jsonl nor queries\.jsonl\.gz"):
        data.load(folder)


def test_a_folder_without_qrels_files_has_no_splits(folder: Path) -> None:
    for path in (folder / "qrels").iterdir():
        path.unlink()
    dataset = data.load(folder)
    assert dataset.qrels == {}
    with pytest.raises(UserError, match=r"has no split 'test'; there is no .*qrels.<split>\.tsv"):
        dataset.split("test")
    (folder / "qrels").rmdir()
    with pytest.raises(UserError, match=r"has no folder qrels; expected qrels/<split>\.tsv"):
        data.load(folder)


def test_folders_that_are_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent does not exist; expected a BEIR folder"):
        data.load(tmp_path / "absent")
    with pytest.raises(UserError, match=r"corpus\.jsonl is a file; expected a BEIR folder"):
        data.load(folder / "corpus.jsonl")
    with pytest.raises(UserError, match=r"has neither corpus\.jsonl nor corpus\.jsonl\.gz"):
        data.load(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"_id": "q0", "text": "again"}', "query id 'q0' was used on line 1 already"),
        ('{"_id": "q9", "text": 9}', 'write "text": "9"'),
        ('{"_id": "q9"}', 'expected the field "text"'),
        ("nonsense", "malformed JSON"),
    ],
)
def test_a_bad_query_is_named_by_file_and_line(folder: Path, line: str, message: str) -> None:
    path = write(folder / "queries.jsonl", jsonl(*QUERIES, line))
    with pytest.raises(UserError) as caught:
        data.load(folder)
    assert str(caught.value).startswith(f"{path}:4: ") and message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", " holds no judgements"),
        ("q0\td0\n", ":1: expected BEIR's 3 columns (query-id, corpus-id, score) or TREC's 4 columns"),
        (HEADER + "q0\td0\n", ":2: expected 3 columns with tabs between (query-id, corpus-id, score), got 2"),
        (HEADER + "q0 d0\n", ":2: expected 3 columns with tabs between (query-id, corpus-id, score), got 2"),
        (HEADER + "q0\t0\td0\t1\n", ":2: expected 3 columns"),
        (HEADER + "\nq0\td0\t1,5\n", ":3: expected a grade of at most 4 digits, got '1,5'"),
        (HEADER + "q0\td0\t4294967297\n", ":2: expected a grade of at most 4 digits"),
        (
            HEADER + "q0\td0\t1\nq0\td0\t1\nq0\td0\t2\n",
            ":4: document 'd0' has grade 2 for query 'q0' here, and 1 on an earlier line",
        ),
    ],
)
def test_bad_qrels_are_named_by_file_and_line(folder: Path, content: str, message: str) -> None:
    path = write(folder / "qrels" / "test.tsv", content)
    with pytest.raises(UserError) as caught:
        data.load(folder)
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)


def test_unknown_ids_in_qrels_are_dropped_with_one_warning_a_file(folder: Path) -> None:
    path = write(
        folder / "qrels" / "test.tsv",
        "\ufeff" + HEADER + "q2\td3\t1\r\n" + "".join(f"u{i}\td0\t1\n" for i in range(5)) + "q0\tx\t1\n",
    )
    with pytest.warns(DataWarning) as caught:
        dataset = data.load(folder)
    assert [str(warning.message) for warning in caught] == [
        f"{path}: dropped judgements: 5 with an unknown query (u0, u1, u2 and 2 more), 1 with an unknown document (x)"
    ]
    assert dataset.qrels["test"] == {"q2": {"d3": 1}}


@pytest.mark.parametrize(
    "content",
    [
        '"query-id"\t"corpus-id"\t"score"\n"q2"\t"d3"\t"1"\n',
        'query-id\tcorpus-id\tscore\r\n"q2"\td3\t1.0\r\n',
        "q2\td3\t1\n",
        "q2 d3 1\n",
        "q2 0 d3 1\n",
        "q2\tQ0\td3\t1\n",
        "query-id corpus-id score\nq2 d3 1\n",
        "query-id,corpus-id,score\nq2,d3,1\n",
        "corpus_id\tquery_id\trelevance\nd3\tq2\t1\n",
    ],
)
def test_judgements_are_read_however_they_are_written(folder: Path, content: str) -> None:
    write(folder / "qrels" / "test.tsv", content)
    assert data.load(folder).qrels["test"] == {"q2": {"d3": 1}}


def test_a_split_of_which_nothing_is_left_cannot_be_used(folder: Path) -> None:
    path = write(folder / "qrels" / "test.tsv", HEADER + "Q2\td3\t1\n" + "q2\tD3\t1\n")
    message = (
        f"{path}: dropped judgements: 1 with an unknown query (Q2), 1 with an unknown document (D3); none is left."
        " Expected ids of this folder, such as query 'q0' and document 'd0'"
    )
    dataset = data.load(folder)
    assert dataset.split("train")[1] == {"q1": {"d2": 2, "d0": 0}, "q0": {"d0": 1}}  # what is not used is no obstacle
    with pytest.raises(UserError) as refused:
        dataset.split("test")
    assert str(refused.value) == message
    (folder / "qrels" / "train.tsv").unlink()
    with pytest.raises(UserError) as refused:
        data.load(folder)
    assert str(refused.value) == message


def test_a_query_without_text_matters_where_it_is_judged(folder: Path) -> None:
    path = folder / "queries.jsonl"
    write(path, jsonl(*QUERIES, {"_id": "q3", "text": " "}, {"_id": 4, "text": None}, {"_id": "q5", "text": ""}))
    write(folder / "qrels" / "dev.tsv", HEADER + "q1\td2\t1\n4\td0\t0\n")
    dataset = data.load(folder)
    assert dataset.queries == {"q0": "nothing", "q1": "south", "q2": "end"}
    assert dataset.split("test") == ({"q2": "end"}, {"q2": {"d3": 1}})
    with pytest.raises(UserError, match=f"{path}:5: the text of query '4' is empty, and the split 'dev' judges it"):
        dataset.split("dev")


def test_a_query_may_come_twice_but_not_with_two_texts(folder: Path) -> None:
    path = write(folder / "queries.jsonl", jsonl(*QUERIES, QUERIES[1]))
    with pytest.warns(DataWarning) as caught:
        assert data.load(folder).queries == {"q0": "nothing", "q1": "south", "q2": "end"}
    assert [str(warning.message) for warning in caught] == [
        f"{path}: lines left out, as they say the same as an earlier one: 1 (q1)"
    ]


def test_repeated_equal_judgements_are_no_fuss(folder: Path) -> None:
    write(folder / "qrels" / "test.tsv", HEADER + "q2\td3\t1\nq2\td3\t1\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data.load(folder).qrels["test"] == {"q2": {"d3": 1}}


# --- holding out --------------------------------------------------------------------------------------------------


def test_hold_out_divides_the_queries() -> None:
    qrels = {f"q{i}": {"d": i} for i in range(100)}
    train, dev = data.hold_out(qrels, 0.2, seed=0)
    assert (len(train), len(dev)) == (80, 20)
    assert train.keys() | dev.keys() == qrels.keys()
    assert list(dev) == [query for query in qrels if query in dev]  # the order is kept
    assert all(qrels[query] == grades for part in (train, dev) for query, grades in part.items())


def test_hold_out_depends_on_the_seed_and_the_ids_alone() -> None:
    qrels = {f"q{i}": {"d": 1} for i in range(100)}
    dev = data.hold_out(qrels, 0.2, seed=0)[1]
    assert data.hold_out(dict(reversed(qrels.items())), 0.2, seed=0)[1] == dev
    assert data.hold_out(qrels, 0.3, seed=0)[1].keys() > dev.keys()
    assert data.hold_out(qrels, 0.2, seed=1)[1].keys() != dev.keys()
    assert sorted(data.hold_out({f"q{i}": {"d": 1} for i in range(6)}, 0.5, seed=0)[1]) == ["q0", "q4", "q5"]


@pytest.mark.parametrize(("queries", "fraction", "held_out"), [(2, 0.99, 1), (2, 0.01, 1), (3, 0.99, 2), (10, 0.04, 1)])
def test_hold_out_leaves_neither_side_empty(queries: int, fraction: float, held_out: int) -> None:
    train, dev = data.hold_out({str(i): {"d": 1} for i in range(queries)}, fraction, seed=0)
    assert (len(train), len(dev)) == (queries - held_out, held_out)


def test_hold_out_refuses_what_cannot_be_divided() -> None:
    with pytest.raises(UserError, match="needs at least 2 of them, got 1"):
        data.hold_out({"q": {"d": 1}}, 0.5, seed=0)
    for fraction in (0, 1, -0.1, float("nan")):
        with pytest.raises(UserError, match="must lie between 0 and 1, got"):
            data.hold_out({"q": {"d": 1}, "r": {"d": 1}}, fraction, seed=0)


# --- what others call things, and chunks of documents --------------------------------------------------------------


def test_id_for_the_underscored_one_csv_for_tsv_and_grades_that_are_no_integers(folder: Path) -> None:
    write(folder / "corpus.jsonl", jsonl(*({"id": f"d{number}", "text": "x"} for number in range(4))))
    (folder / "qrels" / "test.tsv").unlink()
    write(folder / "qrels" / "test.csv", "query-id,corpus-id,score\nq2,d3,0.7\nq2,d2,0.2\nq1,d1,2\n")
    with pytest.warns(DataWarning, match=r"rounded \(0.5 and more is 1\): 2 \(0.7 on line 2, 0.2 on line 3\)"):
        dataset = data.load(folder)
    assert dataset.corpus.ids == ["d0", "d1", "d2", "d3"]
    assert dataset.qrels["test"] == {"q2": {"d3": 1, "d2": 0}, "q1": {"d1": 2}}


def test_judgements_of_documents_and_of_chunks_are_those_of_the_first_chunk(folder: Path) -> None:
    rows = [
        {"_id": id, "text": id, **({"metadata": {"document": whole}} if whole else {})}
        for id, whole in (("a#1", "a"), ("b", None), ("a#2", "a"), ("c", "c"))
    ]
    write(folder / "corpus.jsonl", jsonl(*rows))
    write(folder / "qrels" / "train.tsv", HEADER + "q0\ta\t1\nq1\ta#2\t1\nq1\ta#1\t2\nq1\tb\t1\n")
    write(folder / "qrels" / "test.tsv", HEADER + "q2\tc\t1\n")
    dataset = data.load(folder)
    assert dataset.qrels["train"] == {"q0": {"a#1": 1}, "q1": {"a#1": 2, "b": 1}}
    assert dataset.corpus.groups is not None
    assert dataset.corpus.groups.firsts.tolist() == [0, 1, 0, 3]
    assert dataset.corpus.groups.members(0).tolist() == [0, 2]
    assert dataset.corpus.first_of == {"a#2": "a#1", "a": "a#1"}
    assert [dataset.corpus.stands_for(id) for id in ("a", "a#2", "c", "x")] == ["a#1", "a#1", "c", None]
    assert best_passages({"a#2": 3.0, "b": 2.0, "a#1": 1.0, "c": 0.5}, dataset.corpus.first_of, 2) == {
        "a#1": 3.0,
        "b": 2.0,
    }


def test_documents_of_their_own_are_no_groups(folder: Path) -> None:
    assert data.load(folder).corpus.groups is None


def test_a_document_that_bears_its_own_name_is_one_of_its_chunks(folder: Path) -> None:
    for order in (["a", "a#2", "b"], ["a#2", "a", "b"]):
        rows = [{"_id": id, "text": id, "metadata": {"document": id[0]}} for id in order]
        write(folder / "corpus.jsonl", jsonl(*rows))
        corpus = data.load_corpus(folder)
        assert [corpus.stands_for(id) for id in ("a", "a#2", "b")] == [order[0], order[0], "b"]
        assert corpus.groups is not None
        assert corpus.groups.firsts.tolist() == [0, 0, 2]
