"""Prompts merged: numbers worked out by hand, and every reason why two do not fit together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from retrieval_prompts.errors import UserError
from retrieval_prompts.interop.sharing.model_card import model_card
from retrieval_prompts.prompts.folder import Feedback, PromptFolder
from retrieval_prompts.prompts.label import Label
from retrieval_prompts.prompts.merging import Key, Source, merge

BASE = {"name": "toy", "fingerprint": "f" * 64, "dimension": 3, "width": 4}


def source(value: float, name: str, *, length: int = 2, side: str = "query", **more: Any) -> Source:
    vectors = {side: torch.full((1, length, 4), value)}
    return Source(name, PromptFolder(**{"kind": "input", "vectors": vectors, "base": BASE, **more}))


ONE, THREE = source(1.0, "A", bm25_weight=0.5), source(3.0, "B", bm25_weight=0.75, training={"dataset": "claims"})


def test_an_average_by_hand() -> None:
    found = merge([ONE, THREE])
    assert torch.equal(found.vectors["query"], torch.full((1, 2, 4), 2.0))
    assert (found.strength, found.bm25_weight, found.kind, found.base) == (1, 0.625, "input", BASE)
    assert torch.equal(merge([ONE, THREE], weights=[1, 3]).vectors["query"], torch.full((1, 2, 4), 2.5))
    assert torch.equal(merge([ONE, THREE], weights=[0, 5]).vectors["query"], THREE.prompts.vectors["query"])
    assert found.training["dataset"] == "A + claims"
    assert [each["weight"] for each in found.training["merged"]["of"]] == [0.5, 0.5]


def test_a_part_of_a_strength_counts_as_much() -> None:
    half = source(1.0, "A", strength=0.5)
    found = merge([half, THREE])
    assert found.strength == 0.75
    torch.testing.assert_close(found.vectors["query"], torch.full((1, 2, 4), (0.5 * 1 + 1 * 3) / 1.5))
    nothing = source(1.0, "A", strength=0.0)
    found = merge([nothing, THREE])
    assert found.strength == 0.5
    assert torch.equal(found.vectors["query"], THREE.prompts.vectors["query"])
    with pytest.raises(UserError, match="all of these prompts are the frozen model"):
        merge([nothing, nothing])


def test_one_behind_the_other() -> None:
    found = merge([ONE, source(3.0, "B", length=1)], "concatenation")
    assert found.vectors["query"][0, :, 0].tolist() == [1, 1, 3]


def test_a_mixture_keeps_all_of_them() -> None:
    keys = [Key(torch.eye(3)[row], 0.1 * row) for row in (1, 2)]
    found = merge([replace(one, key=key) for one, key in zip((ONE, THREE), keys, strict=True)], "mixture", [1, 3])
    assert found.vectors["query"][0, :, 0].tolist() == [1, 1, 3, 3]
    assert found.mixture is not None
    assert torch.equal(found.mixture.keys, torch.eye(3)[1:])
    assert (found.mixture.floors, found.mixture.weights, found.strength) == ((0.1, 0.2), (0.5, 1.5), 1)


def test_a_model_card_says_of_what_it_was_merged() -> None:
    card = model_card(merge([ONE, THREE], weights=[1, 3]), "me/both")
    mixed = merge([replace(one, key=Key(torch.ones(300), 0.1)) for one in (ONE, THREE)], "mixture")
    assert "2.5 kB, which the model reads" in model_card(mixed, "me/both"), "with its keys"
    assert "Not trained itself: the average of prompts, A (0.25), claims (0.75)." in card


@pytest.mark.parametrize(
    ("others", "method", "weights", "message"),
    [
        ([], "average", None, "expected two prompt folders or more, got 1"),
        ([THREE], "sum", None, "--method must be average, concatenation or mixture, got 'sum'"),
        ([THREE], "average", [1.0], "--weights: expected one for each of 2 prompt folders, got 1"),
        ([THREE], "average", [1.0, -1.0], "--weights must be numbers of 0 or more, got 1, -1"),
        ([THREE], "concatenation", [1.0, 1.0], "--weights is used with --method average or mixture, not with conc"),
        ([THREE], "mixture", None, "pass --data once for each folder"),
        (
            [source(1.0, "C", base={**BASE, "name": "other", "fingerprint": "e" * 64})],
            "average",
            None,
            "A and C belong to different models, toy (ffffffffffff) and other (eeeeeeeeeeee); merge prompts of one",
        ),
        ([source(1.0, "C", kind="prefix")], "average", None, "A and C are of different kinds, input and prefix"),
        ([source(1.0, "C", side="document")], "average", None, "A and C are for different sides, query and document"),
        ([source(1.0, "C", length=3)], "average", None, "A and C have lengths 2 and 3, and --method average needs one"),
        (
            [source(1.0, "C", feedback=Feedback({}, 0.5))],
            "concatenation",
            None,
            "C: its prompts read documents, so there are no fixed vectors to merge; leave it out",
        ),
    ],
)
def test_what_does_not_fit_together(
    others: list[Source], method: str, weights: list[float] | None, message: str
) -> None:
    with pytest.raises(UserError) as error:
        merge([ONE, *others], method, weights)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": ""}, "the name of prompts must be a text of 1 to 100 characters, got 0 characters"),
        ({"version": 3}, "the version of prompts must be a text of 1 to 50 characters, got the int 3"),
        ({"name": "a\nb"}, "the name of prompts must be one line, got 2"),
        ({"description": "x" * 3000}, "of 1 to 2,000 characters, got 3,000 characters"),
    ],
)
def test_a_label_is_a_short_text(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        Label(**given)
    assert message in str(error.value)
