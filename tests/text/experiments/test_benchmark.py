"""The benchmark on tiny data: BEIR's conventions, parity with beir's evaluation, what is kept and not run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import load
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.evaluation.hybrid import WEIGHTS
from retrieval_prompts.evaluation.metrics import per_query
from retrieval_prompts.evaluation.trec_runs import read_run
from retrieval_prompts.experiments import benchmark
from retrieval_prompts.experiments.benchmark_dataset import CUTOFFS, METRICS, BenchmarkDataset, BenchmarkSettings
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.files import sealed
from retrieval_prompts.prompts.folder import load_prompts
from retrieval_prompts.training.settings import TuneSettings

TUNE = TuneSettings(kind="input", length=2, epochs=1, batch_size=8, folds=1)


def run(*given: Any, **options: Any) -> dict[str, Any]:
    """The benchmark's result as its file has it."""
    return benchmark.run(*given, **options).to_json()


ALL = ("bm25", "frozen", "frozen+bm25", "tuned", "tuned+bm25", "linear", "nudge", "rrf", "rrf-tuned")


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> BiEncoder:
    return BiEncoder.load(tiny.write_model(tmp_path_factory.mktemp("model")), device="cpu")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    tiny.write_data(folder / "one", dev=True)
    tiny.write_data(folder / "two", seed=1)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(
    frozen: BiEncoder, data_dir: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("out") / "bench"
    settings = BenchmarkSettings(systems=ALL, tune=TUNE)
    return out, run(frozen, ["one", "two"], data_dir, out, settings, cache=cache)


def test_every_system_has_a_run_file_whose_scores_are_those_reported(
    finished: tuple[Path, dict[str, Any]], data_dir: Path
) -> None:
    out, result = finished
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(sealed(result)))
    for name in ("one", "two"):
        found = result["datasets"][name]
        _, qrels = load(data_dir / name).split("test")
        assert set(found["systems"]) == set(ALL)
        for system, means in found["systems"].items():
            kept = read_run(out / f"{name}.{system}.trec")
            assert list(means) == list(METRICS)
            for metric, values in per_query(qrels, kept, METRICS).items():
                assert means[metric] == pytest.approx(np.mean(list(values.values())))


def test_the_figures_are_those_of_beirs_own_evaluation(finished: tuple[Path, dict[str, Any]], data_dir: Path) -> None:
    evaluation = pytest.importorskip("beir.retrieval.evaluation", reason="beir is not installed")
    out, result = finished
    _, qrels = load(data_dir / "one").split("test")
    for system in ("frozen", "bm25"):
        kept = read_run(out / f"one.{system}.trec")
        theirs = evaluation.EvaluateRetrieval.evaluate(qrels, kept, list(CUTOFFS))
        for values, name in zip(theirs, ("ndcg", "map", "recall", "precision"), strict=True):
            for k, value in zip(CUTOFFS, values.values(), strict=True):
                # beir rounds to five digits
                assert result["datasets"]["one"]["systems"][system][f"{name}@{k}"] == pytest.approx(value, abs=6e-6)


def test_the_frozen_run_is_the_exact_ranking_of_all_documents(
    finished: tuple[Path, dict[str, Any]], data_dir: Path, frozen: BiEncoder
) -> None:
    out, _ = finished
    data = load(data_dir / "one")
    queries, _ = data.split("test")
    scores = frozen.encode_query(list(queries.values())) @ frozen.encode_document(data.corpus.contents(0, 40)).T
    kept = read_run(out / "one.frozen.trec")
    for query, row in zip(queries, scores, strict=True):
        assert kept[query] == pytest.approx(dict(zip(data.corpus.ids, row.tolist(), strict=True)), abs=1e-5)


def test_what_was_trained_is_tested_again_on_queries_whose_documents_training_did_not_see(
    frozen: BiEncoder, tmp_path: Path, cache: Path
) -> None:
    folder = tiny.write_data(tmp_path / "data" / "one")
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.write("q0\td30\t1\nq1\td31\t1\n")  # documents of two test queries
    settings = BenchmarkSettings(systems=("bm25", "frozen", "nudge", "linear"))
    found = run(frozen, ["one"], tmp_path / "data", tmp_path / "out", settings, cache=cache)["datasets"]["one"]
    unseen = [f"q{number}" for number in tiny.TEST if number not in (30, 31, 38, 39)]  # the last two: of q0, q1
    assert found["unseen_documents"]["queries"] == 6
    _, qrels = load(folder).split("test")
    for system, values in found["unseen_documents"]["systems"].items():
        scores = per_query(qrels, read_run(tmp_path / "out" / f"one.{system}.trec"), ["ndcg@10"])["ndcg@10"]
        assert values["ndcg@10"] == pytest.approx(np.mean([scores[query] for query in unseen]))
    names = {name for name in found["tests"] if name.endswith("unseen_documents")}
    assert names == {"linear_vs_frozen_unseen_documents", "nudge_vs_frozen_unseen_documents"}
    text = (tmp_path / "out" / "table.md").read_text()
    assert "no training query has" in text
    assert "one (6 of 10)" in text


def test_what_is_finished_is_not_run_again_and_more_systems_are_added(
    frozen: BiEncoder, data_dir: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, str]] = []
    real = BenchmarkDataset.make

    def make(self: BenchmarkDataset, system: str) -> Any:
        made.append((self.name, system))
        return real(self, system)

    monkeypatch.setattr(BenchmarkDataset, "make", make)
    first = BenchmarkSettings(systems=("frozen",))
    run(frozen, ["one"], data_dir, tmp_path / "out", first, cache=cache)
    assert made == [("one", "frozen")]
    result = run(frozen, ["one"], data_dir, tmp_path / "out", first, cache=cache)
    assert made == [("one", "frozen")]
    more = BenchmarkSettings(systems=("bm25", "frozen", "rrf"))
    result = run(frozen, ["one", "two"], data_dir, tmp_path / "out", more, cache=cache)
    assert made[1:] == [("one", "bm25"), ("one", "rrf"), ("two", "bm25"), ("two", "frozen"), ("two", "rrf")]
    assert set(result["datasets"]["one"]["tests"]) == {"bm25_vs_frozen", "rrf_vs_frozen"}


def test_run_files_that_were_cut_changed_or_deleted_are_made_again(
    frozen: BiEncoder, data_dir: Path, cache: Path, tmp_path: Path
) -> None:
    out, settings = tmp_path / "out", BenchmarkSettings(systems=("bm25", "frozen"))
    run(frozen, ["one"], data_dir, out, settings, cache=cache)
    before = {path.name: path.read_bytes() for path in out.glob("*.trec")}
    frozen_run, bm25_run = (out / f"one.{system}.trec" for system in ("frozen", "bm25"))
    frozen_run.write_bytes(before[frozen_run.name][: len(before[frozen_run.name]) // 2])
    with pytest.raises(UserError, match=r"one\.frozen\.trec was changed or cut after it was written"):
        read_run(frozen_run)
    bm25_run.unlink()
    more = BenchmarkSettings(systems=("bm25", "frozen", "rrf"))
    with pytest.warns(DataWarning, match=r"one\.frozen\.trec was changed or cut after it was .* is made again"):
        again = run(frozen, ["one"], data_dir, out, more, cache=cache)
    assert {path.name: path.read_bytes() for path in out.glob("*.trec") if "rrf" not in path.name} == before
    whole = run(frozen, ["one"], data_dir, tmp_path / "whole", more, cache=cache)
    assert again["datasets"]["one"]["systems"] == whole["datasets"]["one"]["systems"]
    (out / "results.json").write_text((out / "results.json").read_text().replace("0.", "0.1", 1))
    with pytest.raises(UserError, match=r"results\.json was changed after it was written"):
        run(frozen, ["one"], data_dir, out, more, cache=cache)


def test_rows_with_bm25_are_made_with_the_weights_that_are_recorded(
    finished: tuple[Path, dict[str, Any]], data_dir: Path, frozen: BiEncoder
) -> None:
    out, result = finished
    for name in ("one", "two"):
        weights = result["datasets"][name]["weights"]
        assert list(weights) == ["frozen", "tuned"]
        assert set(weights.values()) <= set(WEIGHTS)
        bench = Workbench(frozen.tower, load(data_dir / name))
        hybrid = bench.hybrid_of(bench.index)
        assert hybrid is not None
        queries, _ = bench.dataset.split("test")
        tuned = BiEncoder.with_prompts(frozen.tower, load_prompts(out / "prompts" / name))
        assert weights["tuned"] == tuned.bm25_weight
        for system, encoder in (("frozen", frozen), ("tuned", tuned)):
            vectors = encoder.query_vectors(list(queries.values()))
            (by_hand,) = hybrid.rank(queries, vectors, 1000, [weights[system]])
            kept = read_run(out / f"{name}.{system}+bm25.trec")
            for query, hits in by_hand.items():
                assert kept[query] == pytest.approx(hits, abs=1e-5)


def test_rows_with_bm25_can_be_added_and_their_weights_stay(
    frozen: BiEncoder, data_dir: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompted = BiEncoder(frozen.tower).attach("query", kind="input", length=2)
    prompted.bm25_weight = 0.3
    prompted.save(tmp_path / "prompts")
    out, given = tmp_path / "out", str(tmp_path / "prompts")
    first = BenchmarkSettings(systems=("bm25", "frozen", "frozen+bm25", "tuned"), prompts=given)
    found = run(frozen, ["one"], data_dir, out, first, cache=cache)["datasets"]["one"]
    assert list(found["weights"]) == ["frozen"]
    monkeypatch.setattr(BenchmarkDataset, "weight", weigh := Weighing(BenchmarkDataset.weight))
    more = BenchmarkSettings(systems=(*first.systems, "tuned+bm25"), prompts=given)
    found = run(frozen, ["one"], data_dir, out, more, cache=cache)["datasets"]["one"]
    assert found["weights"]["tuned"] == 0.3
    assert {"tuned+bm25_vs_frozen", "frozen+bm25_vs_frozen"} <= found["tests"].keys()
    assert weigh.asked == ["tuned"]
    again = run(frozen, ["one"], data_dir, out, more, cache=cache)["datasets"]["one"]
    assert weigh.asked == ["tuned"]
    assert again == found
    prompted.bm25_weight = 0.5
    prompted.save(tmp_path / "prompts", overwrite=True)
    with pytest.raises(UserError, match="made with other prompts for one"):
        run(frozen, ["one"], data_dir, out, more, cache=cache)


class Weighing:
    """BenchmarkDataset.weight, which keeps what it was asked for."""

    def __init__(self, real: Callable[[BenchmarkDataset, str], float]) -> None:
        self.real, self.asked = real, list[str]()

    def __get__(self, data: BenchmarkDataset, _: object) -> Callable[[str], float]:
        def weight(name: str) -> float:
            self.asked.append(name)
            return self.real(data, name)

        return weight


def test_overwrite_begins_anew(frozen: BiEncoder, data_dir: Path, cache: Path, tmp_path: Path) -> None:
    settings = BenchmarkSettings(systems=("bm25", "frozen", "tuned"), tune=TUNE)
    first = run(frozen, ["one"], data_dir, tmp_path, settings, cache=cache)
    assert first == run(frozen, ["one"], data_dir, tmp_path, settings, cache=cache)
    (tmp_path / "one.bm25.trec").write_text("q30 Q0 d1 1 1.0 stale\n")
    other = replace(TUNE, learning_rate=0.05)
    settings = BenchmarkSettings(systems=("frozen", "tuned", "rrf"), tune=other)
    again = run(frozen, ["one"], data_dir, tmp_path, settings, cache=cache, overwrite=True)["datasets"]["one"]
    assert set(again["systems"]) == {"frozen", "tuned", "rrf"}
    prompts = load_prompts(tmp_path / "prompts" / "one")
    assert prompts.training["settings"]["learning_rate"] == 0.05
    assert again["prompts"] != first["datasets"]["one"]["prompts"]
    fused = read_run(tmp_path / "one.rrf.trec")
    assert len(fused["q31"]) == len(fused["q30"]), "BM25's old file was not read"
    fresh = run(frozen, ["one"], data_dir, tmp_path / "new", settings, cache=cache)["datasets"]["one"]
    assert again["systems"] == fresh["systems"]


def test_an_interruption_loses_no_finished_system(
    frozen: BiEncoder, data_dir: Path, cache: Path, tmp_path: Path
) -> None:
    settings = BenchmarkSettings(systems=("bm25", "frozen"))

    def stop(name: str, system: str, _: Any) -> None:
        if system == "bm25":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(frozen, ["one"], data_dir, tmp_path, settings, cache=cache, on_system=stop)
    seen: list[str] = []
    result = run(
        frozen,
        ["one"],
        data_dir,
        tmp_path,
        settings,
        cache=cache,
        on_system=lambda name, system, _: seen.append(system),
    )
    assert seen == ["frozen"]
    assert set(result["datasets"]["one"]["systems"]) == {"bm25", "frozen"}
    assert "bm25_vs_frozen" in result["datasets"]["one"]["tests"]


def test_other_settings_or_data_are_refused(frozen: BiEncoder, data_dir: Path, cache: Path, tmp_path: Path) -> None:
    tiny.write_data(tmp_path / "data" / "one")
    out = tmp_path / "out"
    settings = BenchmarkSettings(systems=("bm25",))
    run(frozen, ["one"], tmp_path / "data", out, settings, cache=cache)
    with pytest.raises(UserError, match=r"results\.json was made with another settings; choose another --out"):
        run(frozen, ["one"], data_dir, out, BenchmarkSettings(systems=("bm25",), factory="SQ8"), cache=cache)
    corpus = tmp_path / "data" / "one" / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("river", "sea"))
    with pytest.raises(UserError, match=r"one is not the data of .*results\.json; choose another --out"):
        run(frozen, ["one"], tmp_path / "data", out, settings, cache=cache)


def test_a_document_of_the_querys_own_id_is_left_out_by_every_system(
    frozen: BiEncoder, tmp_path: Path, cache: Path
) -> None:
    folder = tiny.write_data(tmp_path / "data" / "one")
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/test.tsv"):
        file = folder / name
        file.write_text(file.read_text().replace('"_id": "d', '"_id": "q').replace("\td", "\tq"))
    settings = BenchmarkSettings(systems=("bm25", "frozen", "linear", "rrf"))
    run(frozen, ["one"], tmp_path / "data", tmp_path / "out", settings, cache=cache)
    for system in settings.systems:
        kept = read_run(tmp_path / "out" / f"one.{system}.trec")
        assert kept
        assert not any(query in hits for query, hits in kept.items())


def test_baselines_need_training_queries_and_say_so(
    frozen: BiEncoder, data_dir: Path, cache: Path, tmp_path: Path
) -> None:
    settings = BenchmarkSettings(systems=("frozen", "linear", "tuned"), tune=TUNE, split="train")
    result = run(frozen, ["one"], data_dir, tmp_path, settings, cache=cache)
    assert result["datasets"]["one"]["left_out"] == dict.fromkeys(("tuned", "linear"), "no training queries")
    assert set(result["datasets"]["one"]["systems"]) == {"frozen"}


def test_dev_queries_that_are_scored_choose_nothing(frozen: BiEncoder, data_dir: Path, tmp_path: Path) -> None:
    data = BenchmarkDataset.open("one", data_dir / "one", frozen, BenchmarkSettings(split="dev"), tmp_path)
    assert data.training is not None
    train, dev = data.training.train, data.training.dev
    scored = set(data.qrels)
    assert scored == {f"q{number}" for number in tiny.DEV}
    assert not scored & (train.keys() | dev.keys())


def test_the_average_and_the_adjusted_tests_over_data_sets(finished: tuple[Path, dict[str, Any]]) -> None:
    _, result = finished
    both = [result["datasets"][name] for name in ("one", "two")]
    for system in ALL:
        mean = (both[0]["systems"][system]["ndcg@10"] + both[1]["systems"][system]["ndcg@10"]) / 2
        assert result["average"]["systems"][system]["ndcg@10"] == pytest.approx(mean)
    raw = [found["tests"]["bm25_vs_frozen"]["p_value"] for found in both]
    adjusted = list(result["tests"]["bm25_vs_frozen"].values())
    assert min(adjusted) == pytest.approx(min(1.0, 2 * min(raw)))  # Holm, of two
    assert max(adjusted) == pytest.approx(max(max(raw), min(1.0, 2 * min(raw))))


def test_the_tables_hold_the_figures(finished: tuple[Path, dict[str, Any]]) -> None:
    out, result = finished
    value = 100 * result["datasets"]["one"]["systems"]["frozen"]["ndcg@10"]
    assert f"{value:.1f}" in (out / "table.md").read_text()
    assert "frozen model" in (out / "table.tex").read_text()
    header, *rows = (out / "table.csv").read_text().splitlines()
    assert header == "system,one,two,average"
    cells = next(row for row in rows if row.startswith("frozen model")).split(",")
    assert float(cells[1]) == pytest.approx(value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # beir's loader leaves a file open
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_query_without_a_relevant_document_counts_as_beir_counts_it(
    frozen: BiEncoder, tmp_path: Path, cache: Path
) -> None:
    evaluation = pytest.importorskip("beir.retrieval.evaluation", reason="beir is not installed")
    loader = pytest.importorskip("beir.datasets.data_loader", reason="beir is not installed")
    folder = tiny.write_data(tmp_path / "data" / "one")
    file = folder / "qrels" / "test.tsv"
    header, first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([header, first[:-1] + "0", *rest]) + "\n")
    result = run(frozen, ["one"], tmp_path / "data", tmp_path / "out", BenchmarkSettings(), cache=cache)
    _, queries, qrels = loader.GenericDataLoader(str(folder)).load(split="test")
    kept = read_run(tmp_path / "out" / "one.frozen.trec")
    assert len(queries) == len(kept) == result["datasets"]["one"]["queries"] == 10
    ndcg, *_ = evaluation.EvaluateRetrieval.evaluate(qrels, kept, [10])
    assert result["datasets"]["one"]["systems"]["frozen"]["ndcg@10"] == pytest.approx(ndcg["NDCG@10"], abs=6e-6)


def test_given_prompts_are_those_that_are_scored(
    frozen: BiEncoder, data_dir: Path, cache: Path, tmp_path: Path
) -> None:
    prompted = BiEncoder(frozen.tower).attach("query", kind="input", length=3, init="gaussian")
    prompted.save(tmp_path / "prompts-one")
    settings = BenchmarkSettings(systems=("frozen", "tuned"), prompts=str(tmp_path / "prompts-{}"))
    run(frozen, ["one"], data_dir, tmp_path / "out", settings, cache=cache)
    queries, _ = load(data_dir / "one").split("test")
    data = load(data_dir / "one")
    scores = prompted.encode_query(list(queries.values())) @ frozen.encode_document(data.corpus.contents(0, 40)).T
    kept = read_run(tmp_path / "out" / "one.tuned.trec")
    for query, row in zip(queries, scores, strict=True):
        assert kept[query] == pytest.approx(dict(zip(data.corpus.ids, row.tolist(), strict=True)), abs=1e-5)
    other = BiEncoder(frozen.tower).attach("query", kind="input", length=3, init="gaussian", seed=1)
    other.save(tmp_path / "prompts-one", overwrite=True)
    with pytest.raises(UserError, match="made with other prompts for one; choose another --out"):
        run(frozen, ["one"], data_dir, tmp_path / "out", settings, cache=cache)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match=r"expected systems of bm25, .*, got 'bm52'"):
        BenchmarkSettings(systems=("bm52",))
    with pytest.raises(UserError, match="the system tuned needs prompts"):
        BenchmarkSettings(systems=("tuned",))
    with pytest.raises(UserError, match="not both"):
        BenchmarkSettings(prompts="somewhere", tune=TUNE)
