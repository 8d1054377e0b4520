"""Data sets of ir_datasets by name: one that is registered here, in its own way, without a network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from retrieval_prompts.data.beir_folder import load
from retrieval_prompts.data.sources import named_sets
from retrieval_prompts.data.sources.at_hand import at_hand
from retrieval_prompts.data.sources.documents import Columns
from retrieval_prompts.data.sources.making import Made, Sources, make
from retrieval_prompts.errors import UserError

ir_datasets = pytest.importorskip("ir_datasets", reason="the extra irds is not installed")
NAME = "toys/shop/test"


class Paper(NamedTuple):
    doc_id: str
    title: str
    url: str
    abstract: str
    body: tuple[str, ...]


class Page(NamedTuple):
    doc_id: str
    body: bytes

    def default_text(self) -> str:
        return self.body.decode()


Base: Any = ir_datasets.formats.BaseDocs


class Docs(Base):
    """Documents from memory; how many have been asked for is counted."""

    def __init__(self, kind: type, rows: list[Any]) -> None:
        self.kind, self.rows, self.read = kind, rows, 0

    def docs_iter(self) -> Iterator[Any]:
        for row in self.rows:
            self.read += 1
            if row is None:
                raise OSError("the server is gone")
            yield row

    def docs_cls(self) -> type:
        return self.kind


PAPERS = Docs(
    Paper, [Paper(f"p{at}", "Tea", "http://x", "On tea.", ("Hot water.", f"{at} leaves.")) for at in range(3)]
)


@pytest.fixture(scope="module", autouse=True)
def registered(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("irds")
    (folder / "docs.tsv").write_text("d1\tBoils water.\nd2\tGives light.\nd3\tTo sit on.\n")
    (folder / "queries.tsv").write_text("q1\tkettle\nq2\tlamp\n")
    (folder / "qrels").write_text("q1 0 d1 2\nq2 0 d2 1\nq2 0 d9 1\n")
    given = {"docs_tsv": folder / "docs.tsv", "queries_tsv": folder / "queries.tsv", "qrels_trec": folder / "qrels"}
    whole = ir_datasets.create_dataset(**{name: str(path) for name, path in given.items()})
    ir_datasets.registry.register(NAME, whole)
    ir_datasets.registry.register("toys/papers", ir_datasets.Dataset(PAPERS))
    ir_datasets.registry.register("toys/pages", ir_datasets.Dataset(Docs(Page, [Page("w1", b"A page.")])))
    ir_datasets.registry.register("toys/broken", ir_datasets.Dataset(Docs(Page, [Page("w1", b"A page."), None])))


def made(tmp_path: Path, *documents: str, **more: Any) -> tuple[Path, Made]:
    found = make(tmp_path / "data", Sources(tuple(f"ir_datasets:{name}" for name in documents), **more))
    return tmp_path / "data", found


def test_documents_queries_and_judgements_come_along(tmp_path: Path) -> None:
    folder, found = made(tmp_path, NAME)
    data = load(folder)
    assert [(each.id, each.title, each.text) for each in data.corpus] == [
        ("d1", "", "Boils water."),
        ("d2", "", "Gives light."),
        ("d3", "", "To sit on."),
    ]
    assert data.queries == {"q1": "kettle", "q2": "lamp"}
    assert data.qrels == {"test": {"q1": {"d1": 2}, "q2": {"d2": 1}}}  # the last part of its name is a split
    assert found.said == [
        f"ir_datasets:{NAME}: id 'doc_id', text 'text', no title",
        f"ir_datasets:{NAME}: queries 'text', id 'query_id'",
        f"ir_datasets:{NAME}: queries 'query_id' (ids), relevant documents 'doc_id' (ids), grades 'relevance'",
    ]
    assert found.left_out == [f"judgements of unknown documents: 1 (d9 in ir_datasets:{NAME}:3)"]


def test_each_part_may_be_another_source(tmp_path: Path) -> None:
    table = tmp_path / "products.csv"
    table.write_text("id,text\nd1,A kettle\nd2,A lamp\n")
    named = (f"ir_datasets:{NAME}",)
    make(tmp_path / "data", Sources((str(table),), queries=named, judgements=named))
    data = load(tmp_path / "data")
    assert (data.corpus[1].text, data.qrels["test"]["q2"]) == ("A lamp", {"d2": 1})


def test_texts_are_of_abstract_and_body_and_said(tmp_path: Path) -> None:
    folder, found = made(tmp_path, "toys/papers")
    paper = load(folder).corpus[1]
    assert (paper.id, paper.title, paper.text) == ("p1", "Tea", "On tea.\nHot water.\n1 leaves.")
    assert found.said == ["ir_datasets:toys/papers: id 'doc_id', text 'abstract' + 'body', title 'title'"]
    paper = load(made(tmp_path / "own", "toys/papers", columns=Columns(text=("url",)))[0]).corpus[0]
    assert paper.text == "http://x"


def test_where_the_text_is_bytes_it_is_what_ir_datasets_makes_of_it(tmp_path: Path) -> None:
    folder, found = made(tmp_path, "toys/pages")
    assert load(folder).corpus[0].text == "A page."
    assert found.said == ["ir_datasets:toys/pages: id 'doc_id', text 'default_text', no title"]


def test_it_is_read_as_it_is_asked_for() -> None:
    before = PAPERS.read
    rows = named_sets.table(Path("ir_datasets:toys/papers"), "docs").read(["doc_id"])
    assert PAPERS.read == before
    assert next(rows) == (1, ["p0"])
    assert PAPERS.read == before + 1


def test_it_is_made_once_and_found_again(tmp_path: Path) -> None:
    sources = Sources((f"ir_datasets:{NAME}",))
    folder, found = at_hand(sources, None, tmp_path)
    assert folder.name == "toys-shop-test"
    changed = (folder / "corpus.jsonl").stat().st_mtime_ns
    assert at_hand(sources, None, tmp_path) == (folder, found)
    assert (folder / "corpus.jsonl").stat().st_mtime_ns == changed


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (Sources(("ir_datasets:toys/none",)), "ir_datasets has no data set called 'toys/none'; see https://ir-data"),
        (
            Sources(("ir_datasets:toys/papers",), queries=("ir_datasets:toys/papers",)),
            "ir_datasets:toys/papers has no queries; it has documents",
        ),
        (
            Sources(("ir_datasets:toys/broken",)),
            "the documents of ir_datasets:toys/broken cannot be read: the server is gone",
        ),
        (
            Sources((f"ir_datasets:{NAME}",), judged={"query": "frage"}),
            "--columns: no queries or judgements have a column 'frage'; they have query_id, doc_id, relevance, "
            "iteration, text",
        ),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, sources: Sources, message: str) -> None:
    with pytest.raises(UserError) as raised:
        make(tmp_path / "data", sources)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)
    assert not (tmp_path / "data").exists()


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(UserError) as raised:
        at_hand(Sources((f"ir_datasets:{NAME}",)), None, tmp_path)
    assert str(raised.value) == f'ir_datasets:{NAME} needs ir_datasets: pip install "retrieval-prompts[irds]"'
