"""Rankings of pictures as TREC files: hand-made cases, ties, names, and the metrics that equal ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from multimodal.classifier import PromptClassifier
from multimodal.data.images import ImageData
from multimodal.data.pictures import Picture
from multimodal.evaluation import rankings as runs
from multimodal.evaluation.captions import Pairs
from multimodal.evaluation.rankings import Best, Entry, Rankings
from multimodal.experiments import protocols
from multimodal.towers.clip import Clip
from multimodal.training.settings import Settings
from retrieval_prompts.data.ids import original, portable
from retrieval_prompts.data.judgements import Qrels
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.metrics import means, per_query
from retrieval_prompts.evaluation.trec_runs import read_run


def read_qrels(path: Path) -> Qrels:
    header, *lines = path.read_text().splitlines()
    assert header == "query-id\tcorpus-id\tscore"
    qrels: Qrels = {}
    for line in lines:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    return qrels


def metric(folder: Path, stem: str, system: str, name: str) -> float:
    """As `retrieval-prompts compare` computes it, from the files alone."""
    run = read_run(folder / f"{stem}.{system}.trec")
    return means(per_query(read_qrels(folder / f"{stem}.qrels.tsv"), run, [name]))[name]


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("a/b.png", "a/b.png"),
        ("my cat.jpg", "my%20cat.jpg"),
        ("50%20.png", "50%2520.png"),
        ("a\tb\u00a0c\u2028.png", "a%09b%C2%A0c%E2%80%A8.png"),
        ("not utf-8 \udcff.png", "not%20utf-8%20%ED%B3%BF.png"),
        ("Käse#1.png", "Käse#1.png"),
    ],
)
def test_names_are_ids(name: str, id: str) -> None:
    assert portable(name) == id
    assert original(id) == name
    assert id.split() == [id] and id.encode()


def test_the_best_of_a_case_by_hand() -> None:
    found = Best.of(np.array([[0.1, 0.9, 0.5], [0.7, 0.2, 0.3]], dtype=np.float32), 2)
    assert found.positions.tolist() == [[1, 2], [0, 2]]
    assert found.scores.tolist() == np.array([[0.9, 0.5], [0.7, 0.3]], dtype=np.float32).tolist()
    assert Best.of(np.zeros((1, 2), dtype=np.float32), 100).positions.tolist() == [[0, 1]]


def test_of_equals_the_first_stays_first_for_every_reader() -> None:
    close = 1 + 1e-12  # other than 1 in double precision alone
    scores = np.array([[1, close, 1, 0.5, close], [0, 0, 0, 0, 0], [5, 4, 3, 2, 1]])
    found = Best.of(scores)
    assert found.positions.tolist() == [[1, 4, 0, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert (np.diff(found.scores) < 0).all() and found.scores.dtype == np.float32
    assert found.scores[:2] == pytest.approx(np.take_along_axis(scores, found.positions, 1)[:2], abs=1e-6)
    assert found.scores[2].tolist() == [5, 4, 3, 2, 1], "what differs is not changed"
    documents = [Entry(name, name) for name in "abcde"]
    ranked = Rankings("", [Entry("q", "q")], documents, [[2]], {"x": Best.of(np.ones((1, 5), dtype=np.float32))})
    reciprocal = per_query(ranked.qrels(), ranked.run("x"), ["mrr@10"])["mrr@10"]["q"]
    assert reciprocal == pytest.approx(1 / 3, abs=1e-6), "trec_eval, which prefers later names, has no tie to break"


def toy(systems: dict[str, Best] | None = None) -> Rankings:
    queries = [Entry("q1", "one"), Entry("q2", "two"), Entry("q3", "three")]
    documents = [Entry(portable(name), name) for name in ("a", "b b", "c", "d")]
    return Rankings("part", queries, documents, [[0, 2], [1], [3]], systems or {})


def best(rows: list[list[float]], k: int = 2) -> Best:
    return Best.of(np.array(rows, dtype=np.float32), k)


ROWS = [[0.1, 0.9, 0.5, 0.2], [0.3, 0.9, 0.1, 0.2], [0.9, 0.8, 0.7, 0.6]]


def test_ranks_are_those_of_the_first_right_document() -> None:
    ranked = toy({"x": best(ROWS), "all": best(ROWS, 4)})
    assert ranked.ranks("x").tolist() == [2, 1, 0], "d is not among the two that are kept"
    assert ranked.ranks("all").tolist() == [2, 1, 4]
    reciprocal = per_query(ranked.qrels(), ranked.run("all"), ["mrr@10"])["mrr@10"]
    assert list(reciprocal.values()) == pytest.approx(1 / ranked.ranks("all"))


def test_files_are_read_back(tmp_path: Path) -> None:
    ranked = toy({"zero-shot": best(ROWS), "my prompts": best(ROWS[::-1], 3)})
    runs.write(tmp_path, "hf:some/data", [ranked])
    names = ["qrels.tsv", "my_prompts.trec", "zero-shot.trec"]
    written = ["SHA256SUMS", *sorted(f"hf_some_data.part.{name}" for name in names)]
    assert sorted(path.name for path in tmp_path.iterdir()) == written
    lines = (tmp_path / "hf_some_data.part.my_prompts.trec").read_text().splitlines()
    assert lines[0].split()[:4] == ["q1", "Q0", "a", "1"] and lines[0].endswith(" my%20prompts")
    assert read_qrels(tmp_path / "hf_some_data.part.qrels.tsv") == ranked.qrels()
    found = runs.read(tmp_path, "hf:some/data", toy(), [*ranked.systems, "never written"])
    assert list(found.systems) == list(ranked.systems)
    for system, expected in ranked.systems.items():
        assert found.systems[system].positions.tolist() == expected.positions.tolist()
        assert found.systems[system].scores.tolist() == expected.scores.tolist()
    nothing = runs.read(tmp_path, "other", toy(), ranked.systems)
    assert nothing.systems == {} and nothing.queries == []


def test_queries_that_were_not_judged_are_left_out(tmp_path: Path) -> None:
    whole = toy({"x": best(ROWS)})
    some = replace(whole, queries=whole.queries[1:], right=whole.right[1:], systems={"x": best(ROWS[1:])})
    runs.write(tmp_path, "data", [some])
    found = runs.read(tmp_path, "data", toy(), ["x"])
    assert [query.id for query in found.queries] == ["q2", "q3"] and found.right == [[1], [3]]
    assert found.ranks("x").tolist() == [1, 0]


def test_runs_of_other_data_are_refused(tmp_path: Path) -> None:
    runs.write(tmp_path, "data", [toy({"x": best(ROWS)})])
    fewer = replace(toy(), documents=toy().documents[:2])
    with pytest.raises(UserError, match=r"data.part.x.trec is a run of other data: it has the document c; write it"):
        runs.read(tmp_path, "data", fewer, ["x"])
    fewer = replace(toy(), queries=toy().queries[:2], right=toy().right[:2])
    with pytest.raises(UserError, match=r"is a run of other data: it has the query q3; write it again"):
        runs.read(tmp_path, "data", fewer, ["x"])


def test_files_of_another_result_stay(tmp_path: Path) -> None:
    out, folder, page = tmp_path / "out.json", tmp_path / "runs", tmp_path / "page.html"
    runs.check_beside(out, folder, page, overwrite=False)
    with pytest.raises(UserError, match="--report is made of the run files; pass --runs as well"):
        runs.check_beside(out, None, page, overwrite=False)
    page.write_text("")
    with pytest.raises(UserError, match=r"page.html exists already"):
        runs.check_beside(out, folder, page, overwrite=False)
    runs.write(folder, "data", [toy({"x": best(ROWS)})])
    with pytest.raises(UserError, match="runs holds the runs of another result; choose another --runs or pass --over"):
        runs.check_beside(out, folder, None, overwrite=False)
    runs.check_beside(out, folder, page, overwrite=True)
    out.write_text("{}")
    runs.check_beside(out, folder, page, overwrite=False)
    with pytest.raises(UserError, match=r"page.html is a file; --runs expects a folder"):
        runs.check_beside(out, page, None, overwrite=True)


# ---- the metrics of `compare` that equal ours


@pytest.fixture(scope="module")
def tuned(tiny_model: Clip, colours: ImageData) -> Callable[..., PromptClassifier]:
    def fit(seed: int, count: int = 4) -> PromptClassifier:
        train = colours.split("train")
        train = train.take(np.flatnonzero(train.labels < count))
        settings = Settings.of(epochs=3, learning_rate=0.05, shots=None, seed=seed, calibrate=False)
        names = [colours.classes[label] for label in train.labels]
        return PromptClassifier(tiny_model, settings).fit(train.pictures, names, colours.classes[:count])

    return fit


def test_precision_at_1_is_the_accuracy(tuned: Any, colours: ImageData, tmp_path: Path) -> None:
    result = protocols.evaluate("few-shot", colours, [tuned(1)], keep_rankings=True)
    plain = protocols.evaluate("few-shot", colours, [tuned(1)])
    assert plain.systems == result.systems, "keeping rankings changes nothing"
    runs.write(tmp_path, "colours", result.rankings)
    assert set(result.rankings[0].systems) == set(result.systems) == set(protocols.SYSTEMS)
    for system, scores in result.systems.items():
        assert metric(tmp_path, "colours", system, "precision@1") == pytest.approx(scores["accuracy"], abs=1e-12)
        assert metric(tmp_path, "colours", system, "hit@4") == 1, "every class is ranked"
    judged = read_qrels(tmp_path / "colours.qrels.tsv")
    assert judged["test/blue/0.png"] == {"blue": 1} and len(judged) == 8


def test_seeds_and_halves_are_told_apart(tuned: Any, colours: ImageData, tmp_path: Path) -> None:
    result = protocols.evaluate("base-to-new", colours, [tuned(1, 2), tuned(2, 2)], keep_rankings=True)
    runs.write(tmp_path, "colours", result.rankings)
    assert [each.name for each in result.rankings] == ["base", "new"]
    assert [entry.text for entry in result.rankings[1].documents] == list(colours.classes[2:])
    systems = {"zero-shot", "zero-shot-ensemble", "tuned-1", "tuned-2", "with-head-1", "with-head-2"}
    assert set(result.rankings[1].systems) == systems, "a linear probe has no answer for new classes"
    assert set(result.rankings[0].systems) == systems | {"linear-probe-1", "linear-probe-2"}
    for part in ("base", "new"):
        for seed, scores in result.systems["tuned"]["per_seed"].items():
            found = metric(tmp_path, f"colours.{part}", f"tuned-{seed}", "precision@1")
            assert found == pytest.approx(scores[part], abs=1e-12)


def test_hit_at_k_is_the_recall_of_image_text_retrieval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    captions = [[f"{number} {each}" for each in range(random.integers(0, 5))] for number in range(30)]
    captions[3] = [*captions[3], "the same"]
    captions[20] = [*captions[20], "The same"]
    pictures = [Picture(f"my pictures/{number}.png", tmp_path / f"{number}.png") for number in range(30)]
    images = F.normalize(torch.tensor(random.normal(size=(30, 8)), dtype=torch.float32), dim=1)
    pairs = Pairs(images, captions, pictures=pictures)
    texts = images[pairs.owner] + torch.tensor(random.normal(size=(len(pairs.captions), 8)), dtype=torch.float32)
    texts = F.normalize(texts, dim=1)
    whole = pairs.ranks(texts, keep=12)
    monkeypatch.setattr("multimodal.evaluation.captions.SCORES", 100)
    ranks = pairs.ranks(texts, keep=12)
    for way, kept in whole.best.items():
        assert kept.positions.tolist() == ranks.best[way].positions.tolist(), "blocks change nothing"
    rankings = pairs.rankings({"x": ranks})
    runs.write(tmp_path, "data", rankings)
    asked = {"i2t": sum(map(bool, captions)), "t2i": len(pairs.captions)}
    for each in rankings:
        assert len(each.queries) == asked[each.name]
        assert each.systems["x"].positions.shape == (asked[each.name], 12)
        for k in (1, 5, 10):
            expected = ranks.recalls()[each.name][f"r@{k}"]
            assert metric(tmp_path, f"data.{each.name}", "x", f"hit@{k}") == pytest.approx(expected, abs=1e-12)
        ours = getattr(ranks, each.name)
        assert each.ranks("x").tolist() == np.where(ours <= 12, ours, 0).tolist()
    judged = read_qrels(tmp_path / "data.t2i.qrels.tsv")
    both = {"my%20pictures/3.png": 1, "my%20pictures/20.png": 1}
    assert judged[f"my%20pictures/3.png#{len(captions[3]) - 1}"] == both, "the same caption is right for both"
    assert judged["my%20pictures/20.png#0"] == ({"my%20pictures/20.png": 1} if len(captions[20]) > 1 else both)
