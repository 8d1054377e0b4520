"""The contrastive loss against values worked out by hand."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
from torch import Tensor

from retrieval_prompts.training.losses import info_nce, symmetric_info_nce

SCORES = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
DIAGONAL = torch.eye(3, dtype=torch.bool)


def mask(*rows: str) -> Tensor:
    return torch.tensor([[sign == "+" for sign in row] for row in rows])


def test_one_positive_a_query() -> None:
    rows = [log(1 + exp(-1) + exp(-2)), log(1 + exp(-3) + exp(-2)), log(3)]
    assert info_nce(SCORES, DIAGONAL, 1.0).item() == pytest.approx(sum(rows) / 3)


def test_one_positive_a_query_is_cross_entropy() -> None:
    expected = torch.nn.functional.cross_entropy(SCORES / 0.05, torch.arange(3))
    assert info_nce(SCORES, DIAGONAL, 0.05).item() == pytest.approx(expected.item())


def test_temperature_divides_the_scores() -> None:
    rows = [log(1 + exp(-2) + exp(-4)), log(1 + exp(-6) + exp(-4)), log(3)]
    assert info_nce(SCORES, DIAGONAL, 0.5).item() == pytest.approx(sum(rows) / 3)


def test_several_positives_are_each_compared_with_the_negatives_alone() -> None:
    # Query 0 has positives 0 and 1 and the negative 2; the others have one positive
    rows = [(log(1 + exp(-2)) + log(1 + exp(-1))) / 2, log(1 + exp(-3) + exp(-2)), log(3)]
    assert info_nce(SCORES, mask("++-", "-+-", "--+"), 1.0).item() == pytest.approx(sum(rows) / 3)


def test_a_false_negative_that_is_marked_is_not_pushed_away() -> None:
    scores = SCORES.clone().requires_grad_()
    positive = mask("+-+", "-+-", "--+")  # document 2, the positive of query 2, is relevant to query 0 as well
    (gradient,) = torch.autograd.grad(info_nce(scores, positive, 1.0), scores)
    assert gradient[0, 2] < 0, "a step raises its score"
    (gradient,) = torch.autograd.grad(info_nce(scores, DIAGONAL, 1.0), scores)
    assert gradient[0, 2] > 0


def test_queries_without_a_positive_do_not_count() -> None:
    positive = mask("+--", "---", "---")
    assert info_nce(SCORES, positive, 1.0).item() == pytest.approx(log(1 + exp(-1) + exp(-2)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_query_without_negatives_costs_nothing_and_moves_nothing(dtype: torch.dtype) -> None:
    scores = SCORES.to(dtype).requires_grad_()
    loss = info_nce(scores, mask("+++", "---", "---"), 0.05)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert loss.item() == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_no_positive_at_all_is_zero() -> None:
    scores = SCORES.clone().requires_grad_()
    loss = info_nce(scores, torch.zeros(3, 3, dtype=torch.bool), 1.0)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert loss.item() == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_gradient_is_softmax_minus_one_hot() -> None:
    scores = SCORES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(info_nce(scores, DIAGONAL, 1.0), scores)
    assert torch.allclose(gradient, (SCORES.softmax(dim=1) - torch.eye(3)) / 3)


@pytest.mark.parametrize("rows", [("+--", "-+-", "--+"), ("++-", "-+-", "---"), ("+++", "-++", "+--")])
def test_gradients_agree_with_differences(rows: tuple[str, ...]) -> None:
    scores = SCORES.clone().requires_grad_()
    for loss in (info_nce, symmetric_info_nce):
        assert torch.autograd.gradcheck(lambda s, loss=loss: loss(s, mask(*rows), 0.3), (scores,))


def test_symmetric_by_hand() -> None:
    columns = [log(1 + exp(-2) + exp(-1)), log(1 + exp(-2) + exp(-2)), log(1 + exp(-1) + exp(0))]
    forward = info_nce(SCORES, DIAGONAL, 1.0).item()
    assert symmetric_info_nce(SCORES, DIAGONAL, 1.0).item() == pytest.approx((forward + sum(columns) / 3) / 2)


def test_symmetric_does_not_know_which_side_is_which() -> None:
    positive = mask("++-", "-+-", "--+")
    assert torch.equal(
        symmetric_info_nce(SCORES, positive, 0.1), symmetric_info_nce(SCORES.T.contiguous(), positive.T, 0.1)
    )


def test_rectangular_scores() -> None:
    scores, positive = SCORES[:2], mask("+--", "-+-")
    rows = [log(1 + exp(-1) + exp(-2)), log(1 + exp(-3) + exp(-2))]
    assert info_nce(scores, positive, 1.0).item() == pytest.approx(sum(rows) / 2)
    assert symmetric_info_nce(scores, positive, 1.0).isfinite(), "document 2 is nobody's positive"
