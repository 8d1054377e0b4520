"""Index types on small vectors whose recall is known: measured, starred, drawn, and named on the command line."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from retrieval_prompts.errors import UserError
from retrieval_prompts.experiments.indexes import index_tradeoffs as tradeoffs
from retrieval_prompts.experiments.indexes import index_types as factories
from retrieval_prompts.experiments.indexes.index_types import (
    EachQuery,
    Measured,
    Measurement,
    parse_factories,
    settings,
)
from retrieval_prompts.vectors import faiss_index as ann


def unit(count: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def compare_factories(*given: Any, **options: Any) -> list[dict[str, Any]]:
    """With what is measured among the other options."""
    own = {each.name for each in fields(Measured)} & options.keys()
    measured = Measured(**{name: options.pop(name) for name in own})
    return [row.to_json() for row in factories.compare_factories(*given, measured=measured, **options)]


def names(count: int) -> list[str]:
    return [f"d{number}" for number in range(count)]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factories, "LEAST_SECONDS", 0)


# --- compare_factories --------------------------------------------------------------------------------------------


def test_recall_by_hand() -> None:
    # Two lists: along x (3 documents) and along y (2). A query near x that sees one list finds the 3 of its best 4
    vectors = np.array([[1, 0.1], [1, 0.05], [1, 0], [0.1, 1], [0, 1]], dtype=np.float32)
    with pytest.warns(UserWarning, match="IVF2,Flat should be trained on 78 vectors or more, got 5"):
        rows = compare_factories(vectors, names(5), np.array([[1, 0.2]]), ["Flat", "IVF2,Flat"], k=4, repeats=1)
    assert [(row["factory"], row["setting"], row["recall"]) for row in rows] == [
        ("Flat", {}, 1.0),
        ("IVF2,Flat", {"nprobe": 1}, 0.75),
    ]
    for row in rows:
        assert row["queries"] == "queries" and row["k"] == 4 and row["queries_per_second"] > 0
        assert row["threads"] >= 1 and row["gpu"] is False and row["build_seconds"] > 0
    assert rows[0].keys() == {
        *("factory", "setting", "queries", "recall", "k", "queries_per_second", "threads", "gpu", "build_seconds"),
        *("train_size", "bytes_per_vector"),
    }


def test_a_document_that_ties_with_the_last_exact_one_counts() -> None:
    vectors = np.repeat(unit(2), 30, axis=0)  # 30 copies of either
    rows = compare_factories(vectors, names(60), vectors[:1], ["HNSW8"], k=5, repeats=1)
    assert {row["recall"] for row in rows} == {1.0}


def test_documents_in_chunks_are_found_by_their_best() -> None:
    # Documents 0 and 3, of three chunks and of two, and 5. The best chunks of a query along x are 1, 2, 3, 5
    vectors = np.array([[0, 1], [1, 0], [0.9, 0], [0.8, 0], [0, 0.5], [0.7, 0]], dtype=np.float32)
    measured = Measured(k=2, repeats=1, firsts=np.array([0, 0, 0, 3, 3, 5]))
    query, qrels = np.array([[1, 0]], np.float32), {"q": {"d3": 1}}
    (row,) = factories.compare_factories(
        vectors, names(6), query, ["Flat"], query_ids=["q"], qrels=qrels, measured=measured
    )
    assert row.recall == 1 and row.ndcg == row.exact_ndcg == pytest.approx(1 / np.log2(3))
    found = factories._documents(np.array([[1.0, 0.8]]), np.array([[1, 3]]), measured)
    lost = factories._documents(np.array([[1.0, 0.9, -np.inf]]), np.array([[1, 2, -1]]), measured)
    assert lost.documents.tolist() == [[0]] and found.documents.tolist() == [[0, 3]]
    assert factories._recall(vectors, query, lost, found).tolist() == [0.5]


def test_more_effort_finds_more_and_all_lists_find_all() -> None:
    vectors, queries = unit(800), unit(40, seed=1)
    rows = compare_factories(vectors, names(800), queries, ["IVF16,Flat"], k=10, repeats=1)
    assert [row["setting"]["nprobe"] for row in rows] == [1, 4, 16]
    recalls = [row["recall"] for row in rows]
    assert recalls[0] < recalls[1] < recalls[2] == 1


def test_each_kind_of_queries_has_its_own_exact_ranking_over_one_index(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    build = ann.build

    def count(vectors: Any, factory: str = "Flat", **options: Any) -> Any:
        built.append(factory)
        return build(vectors, factory, **options)

    monkeypatch.setattr(ann, "build", count)
    vectors = unit(300)
    queries = {"frozen": vectors[:20], "tuned": -vectors[:20]}
    rows = compare_factories(vectors, names(300), queries, ["Flat", "SQ8"], repeats=1)
    assert built == ["Flat", "Flat", "SQ8"]  # exact search, then each type, whatever the kinds of queries
    assert [(row["factory"], row["queries"]) for row in rows] == [
        *(("Flat", "frozen"), ("Flat", "tuned"), ("SQ8", "frozen"), ("SQ8", "tuned"))
    ]
    assert [row["recall"] for row in rows[:2]] == [1, 1] and all(0.8 < row["recall"] <= 1 for row in rows[2:])


def test_ndcg_is_that_of_trec_eval_and_leaves_the_querys_own_document_out() -> None:
    vectors = np.array([[1, 0], [0.9, 0], [0.8, 0], [0, 1]], dtype=np.float32)
    ids = ["q", "a", "b", "c"]  # the best document of query q is itself: BEIR leaves it out
    options: dict[str, Any] = {"query_ids": ["q"], "qrels": {"q": {"b": 1}}, "measured": Measured(k=1, repeats=1)}
    (row,) = factories.compare_factories(vectors, ids, np.array([[1.0, 0]]), ["Flat"], **options)
    assert row.ndcg is not None
    assert row.ndcg == row.exact_ndcg == pytest.approx(1 / math.log2(3))  # b is second, after a
    assert row.each == EachQuery([1.0], {"q": row.ndcg}, {"q": row.ndcg})
    found = row.to_json()
    assert (found["ndcg@10"], found["exact_ndcg@10"]) == (row.ndcg, row.ndcg) and "each" not in found


class Blocks:
    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def __iter__(self) -> Any:
        return iter(np.array_split(self.vectors, 3))

    def rows(self, positions: np.ndarray) -> np.ndarray:
        return self.vectors[positions]


def test_blocks_give_what_an_array_gives() -> None:
    vectors, queries = unit(400), unit(30, seed=1)
    timed = {"queries_per_second", "build_seconds"}
    array, blocks = (
        [
            {name: value for name, value in row.items() if name not in timed}
            for row in compare_factories(each, names(400), queries, ["IVF8,SQ8"], repeats=1)
        ]
        for each in (vectors, Blocks(vectors))
    )
    assert array == blocks and array[0]["recall"] < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ids": names(3)}, "one id for each vector, got 4 vectors and 3 ids"),
        ({"k": 0}, "a k of at least 1, got k = 0 and 4 queries"),
        ({"queries": {}}, "got k = 10 and 0 queries"),
        ({"qrels": {"q": {"d0": 1}}}, "nDCG needs the id of each query"),
        ({"qrels": {"q": {"d0": 1}}, "query_ids": ["q"]}, "nDCG needs the id of each query"),
    ],
)
def test_bad_comparisons(options: dict[str, Any], message: str) -> None:
    parts = {"vectors": unit(4), "ids": names(4), "queries": unit(4), "factories": ["Flat"], **options}
    with pytest.raises(UserError, match=message):
        compare_factories(**parts)


def test_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    import faiss

    index, _ = ann.build(unit(100), "IVF2,SQ8")
    faiss.write_index(index, str(tmp_path / "index"))
    assert ann.size(index) == (tmp_path / "index").stat().st_size


@pytest.mark.parametrize(
    ("factory", "lists", "expected"),
    [
        ("Flat", None, [{}]),
        ("HNSW8", None, [{"ef_search": 16}, {"ef_search": 64}, {"ef_search": 256}]),
        ("PQ4x4,RFlat", None, [{"k_factor": 1}, {"k_factor": 4}, {"k_factor": 16}]),
        ("IVF5,Flat", 5, [{"nprobe": 1}, {"nprobe": 4}]),
        ("IVF5_HNSW8,Flat", 5, [{"nprobe": 1}, {"nprobe": 4}]),
        ("PCA8,IVF1,SQ8,RFlat", 1, [{"nprobe": 1, "k_factor": factor} for factor in (1, 4, 16)]),
    ],
)
def test_settings_of_a_type(factory: str, lists: int | None, expected: list[dict[str, int]]) -> None:
    assert settings(ann.accepted(ann.make(factory, 16)), lists) == expected


# --- names of factories -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["Flat"], ["Flat"]),
        (["Flat,HNSW32,SQ8"], ["Flat", "HNSW32", "SQ8"]),
        (["Flat,HNSW32,IVF256,SQ8"], ["Flat", "HNSW32", "IVF256,SQ8"]),
        (["IVF256,PQ8x4fs,RFlat"], ["IVF256,PQ8x4fs,RFlat"]),
        (["PCA8,IVF16,SQ8, Flat"], ["PCA8,IVF16,SQ8", "Flat"]),
        (["HNSW32,SQ8;Flat"], ["HNSW32,SQ8", "Flat"]),
        (["HNSW32,SQ8;"], ["HNSW32,SQ8"]),
        (["Flat", "IVF256,SQ8", "Flat"], ["Flat", "IVF256,SQ8"]),
    ],
)
def test_factories_in_a_text(texts: list[str], expected: list[str]) -> None:
    assert parse_factories(texts, 16) == expected


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "expected index types to compare, such as Flat,HNSW32 or 'Flat;IVF256,SQ8', got none"),
        ([" ; "], "got none"),
        (["Nonsense"], "cannot build the index 'Nonsense' on vectors of dimension 16: could not parse index string"),
        (["Flat;Nonsense"], "cannot build the index 'Nonsense' on vectors of dimension 16"),
        (["Flat,Nonsense"], "'Flat,Nonsense' is not a list of FAISS index types for vectors of dimension 16; separate"),
        (["PQ7"], "cannot build the index 'PQ7' on vectors of dimension 16: .*The dimension of the vector"),
        (
            ["IVF4,SQ8,HNSW8,SQ8"],
            "may mean IVF4,SQ8 and HNSW8 and SQ8, or IVF4,SQ8 and HNSW8,SQ8; separate index types by ';'",
        ),
    ],
)
def test_texts_that_name_no_factories(texts: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_factories(texts, 16)
    assert "\n" not in str(caught.value)


# --- what is shown ------------------------------------------------------------------------------------------------


def row(factory: str, recall: float, speed: float, bytes: float = 100, **more: Any) -> Measurement:
    timing = {"queries_per_second": speed, "threads": 1, "build_seconds": 1.5}
    common = {"queries": "frozen", "setting": {}, "k": 10, "train_size": None, "gpu": False}
    return Measurement(**{"factory": factory, "recall": recall, "bytes_per_vector": bytes, **timing, **common, **more})


def test_the_best_are_those_that_nothing_beats() -> None:
    rows = [
        row("exact", 1.0, 100),
        row("fast", 0.9, 1000),
        row("slow", 0.9, 500),  # as good as fast, but slower
        row("small", 0.9, 500, 10),
        row("noise", 1.0, 95),  # no slower than exact, up to noise
        row("elsewhere", 0.5, 10, queries="tuned"),
    ]
    assert tradeoffs.best(rows) == [True, True, False, True, True, True]


def test_table() -> None:
    from rich.console import Console

    rows = [
        row("Flat", 1.0, 1234, 64, ndcg=0.5),
        row("Flat", 1.0, 1300, 64, ndcg=0.625, queries="tuned"),
        row("IVF64,PQ96x4fs,RFlat", 0.5, 1000, 80, ndcg=0.25, setting={"nprobe": 64, "k_factor": 16}),
    ]
    rows.append(replace(rows[-1], recall=0.75, queries="tuned"))
    console = Console(width=80)
    with console.capture() as capture:
        console.print(tradeoffs.table(rows))
    lines = [line.split() for line in capture.get().splitlines()]
    assert lines[2:] == [
        ["*", "Flat", "100.0", "100.0", "50.0", "62.5", "1,300", "64", "1.5"],
        ["IVF64,PQ96x4fs,RFlat", "80", "1.5"],
        ["nprobe", "64,", "k_factor", "16", "50.0", "75.0", "25.0", "25.0", "1,000"],
    ]


def test_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    rows = [
        row("Flat", 1.0, 100),
        *(row("HNSW32", recall, speed, setting={"ef_search": 1}) for recall, speed in [(0.9, 900), (0.99, 300)]),
    ]
    rows += [replace(each, queries="tuned") for each in rows]
    tradeoffs.picture(rows, tmp_path / "a.svg", title="toy")
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn.startswith("<?xml") and "toy" in drawn
    assert "<!-- tuned queries -->" in drawn and drawn.count("<!-- HNSW32 -->") == 1  # one legend for both panels
    tradeoffs.picture(rows, tmp_path / "a.PNG")
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"a\.svg exists already"):
        tradeoffs.picture(rows, tmp_path / "a.svg")
    with pytest.raises(UserError, match=r"a\.jpg should end in \.svg, \.png, \.pdf"):
        tradeoffs.picture(rows, tmp_path / "a.jpg")


def test_a_picture_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r'a picture needs matplotlib: pip install "retrieval-prompts\[plot\]"'):
        tradeoffs.picture([row("Flat", 1, 1)], tmp_path / "a.svg")


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs `retrieval-prompts index`; returns what it prints."""
    from retrieval_prompts.cli.app import app

    monkeypatch.setenv("RETRIEVAL_PROMPTS_CACHE", str(tmp_path / "cache"))

    def run(*arguments: object) -> str:
        app(["index", *map(str, arguments)], standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_compare_on_the_command_line(command: Callable[..., str], model: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    from retrieval_prompts import BiEncoder

    BiEncoder.load(str(model)).attach("query", length=2).save(tmp_path / "prompts")
    printed = command(
        *(data, "--compare", "Flat,HNSW8,SQ8", "--compare", "HNSW8,SQ8;", "--model", model, "-k", 3),
        *("--prompts", tmp_path / "prompts", "--json", tmp_path / "found.json", "--picture", tmp_path / "found.svg"),
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["documents"], found["query_count"], found["split"]) == (40, 10, "test")
    kinds = {"Flat": 1, "HNSW8": 3, "SQ8": 1, "HNSW8,SQ8": 3}
    assert [row["factory"] for row in found["rows"]] == [
        name for name, count in kinds.items() for _ in range(2 * count)
    ]
    assert [row["queries"] for row in found["rows"]] == ["frozen", "tuned"] * 8
    flat, tuned = found["rows"][:2]
    assert flat["recall"] == tuned["recall"] == 1 and flat["ndcg@10"] != tuned["ndcg@10"] == tuned["exact_ndcg@10"]
    assert "HNSW8,SQ8" in printed and "* best trade-offs" in printed and (tmp_path / "found.svg").is_file()


def test_the_exact_numbers_are_those_of_evaluate(data: Path, model: Path, command: Any, tmp_path: Path) -> None:
    from retrieval_prompts import BiEncoder, load
    from retrieval_prompts.experiments.retrieval import evaluate

    command(data, "--compare", "Flat", "--model", model, "--json", tmp_path / "found.json")
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    expected = evaluate(BiEncoder.load(str(model)), load(data), bm25=False)
    assert row["ndcg@10"] == pytest.approx(expected.systems["frozen"]["ndcg@10"], abs=1e-12)


def test_of_documents_in_chunks_too(model: Path, command: Any, tmp_path: Path) -> None:
    from retrieval_prompts import BiEncoder, load
    from retrieval_prompts.experiments.retrieval import evaluate

    data = tiny.cut_in_two(tiny.write_data(tmp_path / "data"))
    command(data, "--compare", "Flat", "--model", model, "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    expected = evaluate(BiEncoder.load(str(model)), load(data), bm25=False)
    assert (found["documents"], found["vectors"]) == (40, 80)
    assert found["rows"][0]["ndcg@10"] == pytest.approx(expected.systems["frozen"]["ndcg@10"], abs=1e-12)
    assert found["rows"][0]["recall"] == 1


def test_build_options_reach_the_index(command: Callable[..., str], model: Path, data: Path, tmp_path: Path) -> None:
    common = (data, "--model", model, "--device", "cpu")
    with pytest.warns(UserWarning, match="IVF2,Flat should be trained on 78 vectors or more, got 30; Flat would fit"):
        command(*common, "--out", tmp_path / "lists", "--factory", "IVF2,Flat", "--train-size", 30)
    assert json.loads((tmp_path / "lists" / "manifest.json").read_text())["build"]["train_size"] == 30
    command(*common, "--out", tmp_path / "graph", "--factory", "HNSW8", "--ef-construction", 7)
    assert json.loads((tmp_path / "graph" / "manifest.json").read_text())["build"]["ef_construction"] == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pass --out, the index folder to write, --to, a store, or --compare, index types to compare"),
        (["--out", "x", "--picture", "x.svg"], "--json and --picture belong to --compare"),
        (["--compare", "Flat", "--out", "x"], "--compare writes no index: leave out --out"),
        (["--compare", "Flat", "--ef-construction", 9], "--ef-construction belongs to --out"),
        (["--compare", "Flat", "--split", "nope"], "has no split 'nope'"),
        (["--compare", "Flat", "--picture", "x.gif"], "x.gif should end in .svg, .png, .pdf"),
    ],
)
def test_bad_command_lines(arguments: list[object], message: str, command: Callable[..., str], data: Path) -> None:
    with pytest.raises(UserError, match=message):
        command(data, *arguments)


def test_prompts_with_a_document_side_are_not_compared(
    command: Callable[..., str], model: Path, data: Path, tmp_path: Path
) -> None:
    from retrieval_prompts import BiEncoder

    BiEncoder.load(str(model)).attach("both", length=2).save(tmp_path / "prompts")
    with pytest.raises(UserError, match="has a document prompt; --compare searches an index of frozen documents"):
        command(data, "--compare", "Flat", "--model", model, "--prompts", tmp_path / "prompts")
