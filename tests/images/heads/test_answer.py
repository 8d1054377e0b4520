"""Head and prompt on one scale: what a list of known, new and both kinds of classes gives."""

from __future__ import annotations

import pytest
import torch

from multimodal.heads.answer import Answer
from multimodal.heads.head import Head
from retrieval_prompts.errors import UserError

HEAD = Head.linear(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0.5, 0.0]))
X = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
FROZEN = torch.tensor([[1.0, 2.0, 0.0, 3.0], [0.0, 1.0, 2.0, 1.0]])  # of dog, fox, cat, wolf
PROMPTED = torch.tensor([[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 3.0, 1.0]])
NAMES = ("dog", "fox", "cat", "wolf")


def answer(**given: object) -> Answer:
    return Answer("probe", ("cat", "dog"), HEAD, **given)  # type: ignore[arg-type]


def test_known_classes_alone_are_the_heads_in_the_order_of_the_list() -> None:
    own = answer().logits(X)
    assert torch.equal(answer().mixed(("dog", "Cat"), own, FROZEN[:, :2], None), own[:, [1, 0]])
    assert answer().knows(("wolf", "dog")) and not answer().knows(("wolf",))


def test_a_mixed_list_is_two_groups_by_the_texts_and_each_group_by_its_own() -> None:
    made = answer(temperature=2.0)
    own = made.logits(X)
    found = made.mixed(NAMES, own, FROZEN, PROMPTED).softmax(dim=1)
    texts = (FROZEN / 2).softmax(dim=1)
    known, new = [0, 2], [1, 3]
    assert torch.allclose(found.sum(dim=1), torch.ones(2))
    assert torch.allclose(found[:, known].sum(dim=1), texts[:, known].sum(dim=1))
    assert torch.allclose(found[:, known] / found[:, known].sum(dim=1, keepdim=True), own[:, [1, 0]].softmax(dim=1))
    assert torch.allclose(found[:, new] / found[:, new].sum(dim=1, keepdim=True), PROMPTED[:, new].softmax(dim=1))


def test_a_sure_head_speaks_for_the_known_classes() -> None:
    own = torch.tensor([[0.0, 0.0], [9.0, 0.0]])
    texts = torch.zeros(2, 4)
    found = answer(gate=(1.0, 1.0, 0.0)).mixed(NAMES, own, texts, texts).softmax(dim=1)[:, [0, 2]].sum(dim=1)
    assert found[0] == pytest.approx(0.5) and found[1] > 0.99


def test_what_a_folder_says_of_it() -> None:
    made = answer(temperature=2.0, gate=(1.0, 0.5, -1.0), why="because")
    again = Answer.of("here", made.about, made.head.tensors, 2)
    assert again.about == made.about and torch.equal(again.logits(X), made.logits(X))
    for wrong in (
        {"gate": [1]},
        {"temperature": 0},
        {"classes": ["cat"]},
        {"beta": "wide"},
        {"name": None, "gate": "abc"},
    ):
        with pytest.raises(UserError, match="here: its head lacks a part, or is damaged"):
            Answer.of("here", {**made.about, **wrong}, made.head.tensors, 2)
    with pytest.raises(UserError, match="is damaged"):
        Answer.of("here", made.about, {"weight": made.head.weight}, 2)
