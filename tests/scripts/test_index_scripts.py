"""The scripts of eval/ on indexes: sentences with judgements that follow them, paired tests, texts made of words."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import tiny

from retrieval_prompts import UserError, load
from retrieval_prompts.data.corpus import Document
from retrieval_prompts.experiments.indexes.index_types import EachQuery, Measurement

EVAL = Path(__file__).resolve().parents[2] / "eval"


def script(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, EVAL / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


make, sentences, units = (getattr(script("sentences"), name) for name in ("make", "sentences", "units"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One here. Two there! Is it? Yes.", ["One here.", "Two there!", "Is it?", "Yes."]),
        ("Seen, e.g. in mice, at 3.5 mg. Not so.", ["Seen, e.g. in mice, at 3.5 mg.", "Not so."]),
        ("spaced as of old . and so on . the end .", ["spaced as of old .", "and so on .", "the end ."]),
        ("def f(x):\n    return x\n\n\nf(1)", ["def f(x):", "return x", "f(1)"]),
        ("  ", []),
        ("...", []),
    ],
)
def test_sentences_by_hand(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_long_sentences_are_cut_into_equal_parts() -> None:
    words = [f"w{number}" for number in range(50)]
    assert [len(part.split()) for part in sentences(f"Short one. {' '.join(words).capitalize()}.")] == [2, 25, 25]
    pieces = sentences(" ".join(words))  # no sentences at all: about 12 words each
    assert [len(part.split()) for part in pieces] == [10] * 5
    assert " ".join(pieces).split() == words


def test_a_document_has_at_least_one_unit() -> None:
    assert units(Document("d", "A  title", "One. Two.")) == ["A title", "One.", "Two."]
    assert units(Document("d", "", "...")) == ["..."]
    assert units(Document("d", "", "")) == [""]


def test_a_folder_of_two_data_sets(tmp_path: Path) -> None:
    first = tiny.write_data(tmp_path / "first")
    second = tiny.write_data(tmp_path / "second", dev=True)
    (second / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{n}", "title": "", "text": f"Number {n}. End."}) + "\n" for n in range(40))
    )
    assert make([first, second], tmp_path / "out") == {"first": 80, "second": 80}
    made, source = load(tmp_path / "out"), load(second)
    assert len(made.corpus) == 160 and made.corpus.ids[80:82] == ["second/d0-0", "second/d0-1"]
    assert list(made.corpus)[82].text == "Number 1."
    assert made.qrels.keys() == {"train", "test", "dev"}
    assert made.queries["second/q3"] == source.queries["q3"]
    for split, judged in source.qrels.items():
        for query, grades in judged.items():
            expected = {f"second/{doc}-{n}": grade for doc, grade in grades.items() for n in (0, 1)}
            assert made.qrels[split][f"second/{query}"] == expected
    with pytest.raises(UserError, match="two data sets are called first; rename one of the folders"):
        make([first, first], tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_paired_tests_of_tuned_against_frozen_queries() -> None:
    def row(queries: str, recall: list[float], ndcg: list[float], exact: list[float]) -> Measurement:
        each = EachQuery(recall, *(dict(zip("ab", values, strict=True)) for values in (ndcg, exact)))
        return Measurement("SQ8", 1.0, None, 100.0, False, {}, queries, 10, 0.5, 100.0, 1, each=each)

    rows = [row("frozen", [1, 0.5], [0.5, 0.5], [0.5, 0.75]), row("tuned", [0.5, 0.5], [1, 0.5], [1, 1])]
    (found,) = script("compare_indexes").paired(rows, ["a", "b"])
    assert (found["factory"], found["setting"], found["queries"]) == ("SQ8", {}, "tuned")
    # recall -1/2 and 0; gains here 1/2 and 0, with exact search 1/2 and 1/4
    assert [found[name]["difference"] for name in ("recall", "gain", "gain_lost")] == [-0.25, 0.25, -0.125]


def test_texts_are_made_of_the_words_of_others() -> None:
    made = script("hybrid_latency").made
    texts = ["copper river", "copper copper falcon lantern"]
    more = made(texts, 200, seed=0)
    assert len(more) == 200 and {len(text.split()) for text in more} == {2, 4}
    words = [word for text in more for word in text.split()]
    assert {*words} == {"copper", "river", "falcon", "lantern"} and 0.4 < words.count("copper") / len(words) < 0.6
    assert made(texts, 200, seed=0) == more != made(texts, 200, seed=1)
    assert made(texts, 0, seed=0) == made(texts, -1, seed=0) == []


def test_the_latency_of_words_is_measured_on_so_many_documents(tmp_path: Path) -> None:
    main, out = script("hybrid_latency").main, tmp_path / "latency.json"
    arguments = [str(tiny.write_data(tmp_path / "tiny")), "--documents", "30", "60", "--json", str(out)]
    main([*arguments, "--dimension", "8"])
    result = json.loads(out.read_text())
    assert (result["query_count"], result["vectors"], result["dimension"]) == (10, "random, of length 1", 8)
    small, large = result["rows"]
    assert [(row["documents"], row["synthetic_texts"]) for row in (small, large)] == [(30, 0), (60, 20)]
    assert 0 < small["bm25_bytes"] < large["bm25_bytes"]
    names = {f"{way}_{part}_ms" for way in ("dense", "hybrid") for part in ("p50", "p99")}
    assert names | {"bm25_build_seconds", "open_seconds"} < small.keys()
    with pytest.raises(SystemExit, match="exists already"):
        main(arguments)


def test_the_latency_of_two_passes_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EVAL))
    out, model = tmp_path / "latency.json", tiny.write_model(tmp_path / "model")
    data = tiny.write_data(tmp_path / "tiny")
    arguments = [str(data), "--model", str(model), "--documents", "30", "60", "--queries", "4", "--json", str(out)]
    script("feedback_latency").main(arguments)
    result = json.loads(out.read_text())
    assert (result["query_count"], result["documents_read"], result["prompt_length"]) == (4, 4, 12)
    assert [(row["documents"], row["synthetic_texts"]) for row in result["rows"]] == [(30, 0), (60, 20)]
    ways = ("dense", "hybrid", "feedback_dense", "feedback_hybrid")
    assert {f"{way}_{part}_ms" for way in ways for part in ("p50", "p99")} < result["rows"][0].keys()


def test_curves_of_few_queries_are_those_of_the_draws(tmp_path: Path) -> None:
    module = script("small_picture")
    systems = {"frozen": 0.5, "frozen+bm25": 0.6, "tuned": 0.7, "linear": 0.4}
    draws = {
        "16.0": {"recommended": "tuned", "systems": systems},
        "5.0": {"recommended": "frozen", "systems": systems},
        "5.1": {"recommended": "frozen+bm25", "systems": {**systems, "linear": 0.3}},
    }
    found = module.curves({"draws": draws})
    assert found["recommended"] == {5: [0.5, 0.6], 16: [0.7]}
    assert found["linear"] == {5: [0.4, 0.3], 16: [0.4]}
    assert set(found) == {"recommended", "linear", "frozen", "frozen+bm25"}
    (tmp_path / "small.json").write_text(json.dumps({"dataset": "tiny", "draws": draws}))
    arguments = [str(tmp_path / "small.json"), "--out", str(tmp_path / "small.png")]
    pytest.importorskip("matplotlib", reason="needs matplotlib (extra `plot`)")
    module.main(arguments)
    assert (tmp_path / "small.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit, match="exists already"):
        module.main(arguments)
