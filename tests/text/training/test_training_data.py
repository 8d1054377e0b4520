"""Which queries are trained on, and which are chosen by."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from retrieval_prompts.data.beir_folder import Dataset, with_test
from retrieval_prompts.data.corpus import Corpus
from retrieval_prompts.data.judgements import Qrels
from retrieval_prompts.training.doubts import Doubts, doubts
from retrieval_prompts.training.training_data import TrainingData


def data(
    train: Qrels, dev: Qrels | None = None, documents: int = 100, texts: dict[str, str] | None = None
) -> TrainingData:
    corpus = Corpus(Path("corpus.jsonl"), [f"d{number}" for number in range(documents)], "", [])
    queries = {query: f"text of {query}" for query in {**train, **(dev or {})}}
    return TrainingData(corpus, queries | (texts or {}), train, dev or {})


def one_each(count: int, first: int = 0) -> Qrels:
    return {f"q{number}": {f"d{number}": 1} for number in range(first, first + count)}


def test_folds_set_every_query_aside_once() -> None:
    whole = data(one_each(13), {"q50": {"d50": 1}})
    folds = list(whole.folds(5))
    assert sorted(query for fold in folds for query in fold.dev) == sorted(whole.judged)
    assert sorted(len(fold.dev) for fold in folds) == [2, 3, 3, 3, 3]
    for fold in folds:
        assert fold.train.keys() | fold.dev.keys() == whole.judged.keys()
        assert not fold.train.keys() & fold.dev.keys()
    backwards = data(dict(reversed(one_each(13).items())), {"q50": {"d50": 1}})
    assert [set(fold.dev) for fold in backwards.folds(5)] == [set(fold.dev) for fold in folds]
    assert len(list(data(one_each(3)).folds(5))) == 3


def test_queries_that_share_a_document_stay_together() -> None:
    train = one_each(8)
    train["q1"]["d0"] = 1
    train["q2"]["d1"] = 1
    train["q3"]["d0"] = 0  # a grade of 0 connects nothing
    folds = list(data(train).folds(4))
    (together,) = [fold for fold in folds if "q0" in fold.dev]
    assert {"q0", "q1", "q2"} <= together.dev.keys()
    assert all(fold.unseen() == list(fold.dev) for fold in folds)


def test_queries_that_hang_together_all_are_divided_one_by_one() -> None:
    folds = list(data({f"q{number}": {"d0": 1} for number in range(10)}).folds(5))
    assert [len(fold.dev) for fold in folds] == [2] * 5
    assert all(fold.unseen() == [] for fold in folds)


def test_a_small_dev_split_of_large_data_is_added_to() -> None:
    corpus = data({}).corpus
    train = {f"q{number}": {"d1": 1} for number in range(600)}
    dev = {f"p{number}": {"d2": 1} for number in range(9)}
    queries = dict.fromkeys([*train, *dev], "text")
    learned = TrainingData.of(Dataset("data", Path(), corpus, queries, {"train": train, "dev": dev}))
    assert (len(learned.train), len(learned.dev), learned.held_out, learned.few) == (540, 69, True, False)
    small = TrainingData.of(Dataset("data", Path(), corpus, queries, {"train": one_each(20), "dev": dev}))
    assert (len(small.train), len(small.dev), small.held_out, small.few) == (20, 9, False, True)


def test_data_without_a_test_split_get_one() -> None:
    corpus = data({}).corpus
    made = Dataset("data", Path(), corpus, {}, {"train": one_each(50)})
    divided, held_out = with_test(made)
    assert held_out
    assert (len(divided.qrels["train"]), len(divided.qrels["test"])) == (40, 10)
    assert with_test(divided) == (divided, False)
    few = Dataset("data", Path(), corpus, {}, {"train": one_each(10)})
    assert with_test(few) == (few, False)


SPREAD = one_each(40)
TWICE = {"a": {"d1": 1}, "b": {"d1": 0, "d2": 1}} | one_each(40, 3)


@pytest.mark.parametrize(
    ("learned", "frozen", "said", "hopeless"),
    [
        (data(SPREAD), 0.5, [], False),
        (data({f"q{n}": {"d7": 1} for n in range(20)}), 0.5, ["ask for only 1 document of 100"], True),
        (data({f"q{n}": {f"d{n % 3}": 1} for n in range(20)}), 0.5, ["3 different documents of 100"], True),
        (data({f"q{n}": {f"d{n % 3}": 1} for n in range(20)}, documents=5), 0.5, [], False),  # answers of a small set
        (
            data({f"q{n}": {"d0" if n < 30 else f"d{n}": 1} for n in range(40)}),
            0.5,
            [r"as many as 1\.8 asked for evenly"],
            True,
        ),
        (
            data(SPREAD, texts=dict.fromkeys(SPREAD, "The  same")),
            0.5,
            ["all 40 judged queries have the same text"],
            True,
        ),
        (data(SPREAD), 1.0, ["nothing to gain"], True),
        (
            data(TWICE, texts={"a": "Twice", "b": "twice "}),
            0.5,
            ["1 pair of a query's text and a document is judged relevant"],
            False,
        ),
    ],
)
def test_what_judgements_cannot_teach(learned: TrainingData, frozen: float, said: list[str], hopeless: bool) -> None:
    found = doubts(learned, dict.fromkeys(learned.judged, frozen), deviation=0.001)
    assert len(found.remarks) == len(said)
    for remark, words in zip(found.remarks, said, strict=True):
        assert re.search(words, remark)
    assert found.hopeless == hopeless


def test_how_large_a_gain_must_be_is_said() -> None:
    found = doubts(data(one_each(16)), dict.fromkeys(one_each(16), 0.5), deviation=0.25)
    assert found == Doubts(
        (
            "16 queries to choose by: a gain under about 18.7 points cannot be told from noise, and prompts that gain "
            "less are not recommended",
        )
    )
    assert doubts(data(one_each(40)), dict.fromkeys(one_each(40), 0.5), deviation=0.05).remarks == ()
