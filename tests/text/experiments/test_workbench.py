"""How the systems on one data set are told apart: which are compared with which, and on which queries."""

from __future__ import annotations

from retrieval_prompts.evaluation.significance import compare
from retrieval_prompts.experiments.workbench import paired_tests, strongest_untuned

LEVELS = {"frozen": 0.5, "bm25": 0.4, "frozen+bm25": 0.6, "tuned": 0.55, "tuned+bm25": 0.65, "linear": 0.9}
QUERIES = [f"q{number}" for number in range(12)]
SCORES = {
    system: {query: level + 0.01 * (hash_of * number % 5) for number, query in enumerate(QUERIES)}
    for hash_of, (system, level) in enumerate(LEVELS.items(), 1)
}


def some(*systems: str) -> dict[str, dict[str, float]]:
    return {system: SCORES[system] for system in systems}


def test_the_strongest_of_what_needs_no_training() -> None:
    assert strongest_untuned(SCORES) == "frozen+bm25"  # whatever was trained is better
    assert strongest_untuned(some("frozen", "bm25", "tuned")) == "frozen"
    assert strongest_untuned({"frozen": {"q": 0.2}, "bm25": {"q": 0.3}}) == "bm25"
    assert strongest_untuned(some("frozen", "tuned")) == "frozen"
    same = {"frozen": {"q": 0.2}, "bm25": {"q": 0.2}, "frozen+bm25": {"q": 0.2}}
    assert strongest_untuned(same) == "frozen"


def test_prompts_are_compared_with_the_strongest_of_what_needs_no_training() -> None:
    systems = some("frozen", "tuned", "bm25", "frozen+bm25", "tuned+bm25")
    compared = ["tuned", "frozen+bm25", "tuned+bm25"]
    found = paired_tests(systems, compared, ["tuned", "tuned+bm25"], [])
    assert list(found) == [
        "tuned_vs_frozen",
        "frozen+bm25_vs_frozen",
        "tuned+bm25_vs_frozen",
        "tuned_vs_bm25",
        "tuned_vs_frozen+bm25",
        "tuned+bm25_vs_frozen+bm25",
    ]
    for name, test in found.items():
        system, baseline = name.split("_vs_")
        assert test == compare(SCORES[baseline], SCORES[system], "ndcg@10")
        assert test.queries == 12


def test_where_nothing_beats_the_frozen_model_no_test_is_made_twice() -> None:
    found = paired_tests(some("frozen", "tuned"), ["tuned"], ["tuned"], [])
    assert list(found) == ["tuned_vs_frozen"]
    better_words = {**some("frozen", "tuned"), "bm25": SCORES["linear"]}
    assert list(paired_tests(better_words, ["tuned"], ["tuned"], [])) == ["tuned_vs_frozen", "tuned_vs_bm25"]


def test_what_was_trained_is_compared_again_on_unseen_documents() -> None:
    unseen = QUERIES[:5]
    systems = some("frozen", "linear", "tuned", "bm25", "frozen+bm25", "tuned+bm25")
    found = paired_tests(systems, ["linear", "tuned"], ["linear", "tuned"], unseen)
    again = [name.removesuffix("_unseen_documents") for name in found if name.endswith("_unseen_documents")]
    assert again == [
        "linear_vs_frozen",
        "tuned_vs_frozen",
        "frozen+bm25_vs_frozen",
        "tuned_vs_frozen+bm25",
        "tuned+bm25_vs_frozen+bm25",
    ]
    for name in again:
        system, baseline = name.split("_vs_")
        before, after = ({query: SCORES[each][query] for query in unseen} for each in (baseline, system))
        assert found[f"{name}_unseen_documents"] == compare(before, after, "ndcg@10")
    assert not any("unseen" in name for name in paired_tests(systems, ["bm25"], [], unseen))
