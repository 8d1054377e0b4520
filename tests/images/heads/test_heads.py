"""The heads: what each paper's formula says, worked by hand or against the definition, on tiny features."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal.heads import (
    HEADS,
    clap,
    gda,
    head_file,
    logistic,
    lp_plus,
    proker,
    tip_adapter,
    tip_adapter_f,
    two_stage,
)
from multimodal.heads.choose import Held, best
from multimodal.heads.head import Head, Shots
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.classification.linear_probe import linear_probe

SCALE = 10.0


def made(per_class: int = 3, classes: int = 3, dimension: int = 6, noise: float = 0.4) -> Shots:
    """Classes around the axes; texts half-way between the axes and others."""
    random = torch.Generator().manual_seed(1)
    labels = torch.arange(classes).repeat_interleave(per_class)
    axes = torch.eye(dimension)
    features = axes[labels] + noise * torch.randn(len(labels), dimension, generator=random)
    text = axes[:classes] + axes[classes : 2 * classes]
    return Shots.of(F.normalize(features, dim=1), labels, F.normalize(text, dim=1), SCALE)


def same(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found.double(), expected.double(), atol=1e-5)


# --- Tip-Adapter


def test_tip_adapter_without_weight_is_the_text_classifier() -> None:
    shots = made()
    assert torch.equal(
        tip_adapter.fit(shots, alpha=0, beta=5.5).logits(shots.features), shots.features @ (SCALE * shots.text).T
    )


def test_tip_adapter_by_hand() -> None:
    shots = Shots.of(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), SCALE)
    found = tip_adapter.fit(shots, alpha=2.0, beta=3.0).logits(torch.tensor([[1.0, 0.0]]))
    assert same(found, torch.tensor([[10 + 2.0, 2 * math.exp(-3)]]))


def test_tip_adapter_f_begins_at_tip_adapter_and_fits_better() -> None:
    shots = made(noise=0.8)
    plain, none = tip_adapter.fit(shots, 1.0, 5.5), tip_adapter_f.fit(shots, 1.0, 5.5, steps=0)
    assert same(none.logits(shots.features), plain.logits(shots.features))
    trained = tip_adapter_f.fit(shots, 1.0, 5.5, steps=30)
    losses = [F.cross_entropy(head.logits(shots.features), shots.labels) for head in (trained, plain)]
    assert losses[0] < losses[1]
    assert same(trained.weight, plain.weight) and same(trained.values, plain.values), "only the keys are trained"


# --- GDA


def test_gda_is_the_closed_form_worked_by_hand() -> None:
    # Two classes on a line each side: means (1, 0) and (0, 1), one shot 0.1 off each way in the second coordinate
    x = torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.0, 1.1], [0.0, 0.9]])
    shots = Shots.of(x, torch.tensor([0, 0, 1, 1]), torch.eye(2), SCALE)
    S = torch.tensor([[0.0, 0.0], [0.0, 0.04 / 3]])  # sum of 4 squares of 0.1, by n - 1
    inverse = 2 * torch.linalg.inv(3 * S + (0.04 / 3) * torch.eye(2))
    assert same(gda.precision(shots), inverse)
    assert same(inverse, torch.diag(torch.tensor([150.0, 37.5])))
    head = gda.fit(shots, gain=0.25)  # alpha 1
    assert same(head.weight, SCALE * torch.eye(2) + torch.tensor([[150.0, 0.0], [0.0, 37.5]]))
    assert same(head.bias, torch.tensor([-75.0 - math.log(2), -18.75 - math.log(2)]))


def test_gda_needs_two_shots() -> None:
    assert gda.SHOTS == 2


def test_gda_of_shots_that_are_all_the_same() -> None:
    shots = made(noise=0.0)
    head = gda.fit(shots, gain=1e-3)
    assert bool(torch.isfinite(head.as_saved().logits(shots.features.float())).all())
    assert torch.equal(head.logits(shots.features).argmax(dim=1), shots.labels)


# --- ProKeR


def test_proker_minimises_its_objective() -> None:
    """The gradient of sum |f(x) - y|^2 + ridge |f - t|^2 in the coefficients is 0: K (K a - r) + ridge K a = 0."""
    shots = made()
    head = proker.fit(shots, beta=1.0, ridge=0.5)
    K = torch.exp(-(1 - shots.features @ shots.features.T))
    coefficients, left = head.values / SCALE, shots.one_hot - shots.features @ shots.text.T
    assert same(K @ (K @ coefficients - left) + 0.5 * K @ coefficients, torch.zeros_like(left))


def test_proker_between_the_labels_and_the_texts() -> None:
    shots = made()
    close = proker.fit(shots, beta=1.0, ridge=1e-9).logits(shots.features)
    assert torch.allclose(close, SCALE * shots.one_hot, atol=1e-4)
    assert torch.allclose(proker.fit(shots, 1.0, 1e9).logits(shots.features), shots.logits, atol=1e-4)


def test_the_evidence_is_that_of_a_gaussian_process() -> None:
    shots = made()
    left = shots.one_hot - shots.features @ shots.text.T
    left = left - left.mean(dim=1, keepdim=True)
    K = torch.exp(-2 * (1 - shots.features @ shots.features.T)) + 0.3 * torch.eye(9)
    variance = (left * torch.linalg.solve(K, left)).sum() / left.numel()
    normal = torch.distributions.MultivariateNormal(torch.zeros(9).double(), variance * K)
    constant = 0.5 * left.numel() * (1 + math.log(2 * math.pi))
    assert float(normal.log_prob(left.T).sum()) == pytest.approx(proker.evidence(shots, 2.0, 0.3) - constant)


def test_the_likely_ridge_has_the_largest_evidence() -> None:
    shots = made(per_class=1, noise=0.1)
    found = proker.likely_ridge(shots)
    top = max(proker.evidence(shots, beta, found) for beta in proker.WIDTHS)
    assert all(proker.evidence(shots, beta, ridge) <= top for beta in proker.WIDTHS for ridge in proker.RIDGES)
    assert same(proker.fit(shots).values, proker.fit(shots, proker.BETA, found).values)


# --- CLAP, LP++, 2SFS


def test_clap_holds_a_class_by_what_its_text_says_of_its_shots() -> None:
    shots = made()
    held = clap.multipliers(shots)
    right = shots.logits.softmax(dim=1)
    assert same(held, torch.stack([right[3 * c : 3 * c + 3, c].mean() for c in range(3)]))
    moved = shots.text + torch.tensor([[0.1], [0.2], [0.0]])
    expected = (held[0] * 6 * 0.01 + held[1] * 6 * 0.04) / 3
    assert float(clap.penalty(moved, shots, held)) == pytest.approx(float(expected))
    assert float(clap.penalty(shots.text, shots, held)) == 0


def test_clap_stays_nearer_than_without_its_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    shots = made(noise=1.0)
    near = clap.fit(shots).weight / SCALE
    monkeypatch.setattr(clap, "multipliers", lambda shots: torch.zeros(3))
    far = clap.fit(shots).weight / SCALE
    assert (near - shots.text).norm() < (far - shots.text).norm()


def test_lp_plus_starts_from_the_data() -> None:
    shots = made(per_class=2)
    weight, alpha = lp_plus.start(shots)
    assert same(weight, torch.stack([shots.features[2 * c : 2 * c + 2].sum(dim=0) for c in range(3)]))
    own = torch.stack([(shots.features[2 * c : 2 * c + 2] @ shots.text[c]).mean() for c in range(3)]).mean()
    assert same(alpha, torch.full((3,), 250 * float(own)))
    assert same(lp_plus.fit(shots, steps=0).weight, weight + alpha[:, None] * shots.text)


def test_lp_plus_descends() -> None:
    shots = made(noise=0.8)
    losses = [
        F.cross_entropy(lp_plus.fit(shots, 10.0, steps).logits(shots.features), shots.labels) for steps in (0, 50, 300)
    ]
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("summed", [0, 1])
def test_lp_plus_by_autograd(summed: int) -> None:
    """As published the gradient of the multipliers is never set back."""
    shots, steps = made(noise=0.8).single(), 2 * lp_plus.EVERY
    weight, alpha = (part.requires_grad_() for part in lp_plus.start(shots))
    bias, x = torch.zeros(3, requires_grad=True), shots.features
    cosines, n = x @ shots.text.T, len(x)
    rate = 4 * n / float(torch.linalg.eigvalsh(x.T @ x)[-1])
    optimizer = torch.optim.SGD([weight, bias], rate, momentum=lp_plus.MOMENTUM)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        if not summed:
            alpha.grad = None
        F.cross_entropy(x @ weight.T + bias + alpha * cosines, shots.labels).backward()
        optimizer.step()
        if step % lp_plus.EVERY == 0 and alpha.grad is not None:
            alpha.data -= n / (4 * cosines.square().sum(dim=0).max()) * alpha.grad
    found = lp_plus.fit(shots, steps=steps, summed=summed)
    expected = weight + alpha[:, None] * shots.text
    assert torch.allclose(found.weight, expected, rtol=1e-4) and torch.allclose(found.bias, bias, rtol=1e-3)


def test_the_second_stage_begins_at_the_texts() -> None:
    shots = made()
    assert same(two_stage.fit(shots, steps=0).logits(shots.features), shots.logits)
    assert F.cross_entropy(two_stage.fit(shots, 100).logits(shots.features), shots.labels) < F.cross_entropy(
        shots.logits, shots.labels
    )


def test_the_probe_is_the_linear_probe() -> None:
    shots = made()
    probe = linear_probe(shots.features.numpy(), shots.labels.numpy(), 3, strength=10.0)
    found = logistic.fit(shots, 10.0).logits(shots.features).softmax(dim=1).numpy()
    assert np.allclose(found, probe.probabilities(shots.features.numpy()))


# --- all


@pytest.mark.parametrize("name", HEADS)
def test_every_head_has_one_form(name: str) -> None:
    shots, file = made(per_class=4), head_file(name)
    head = file.fit(shots, **file.GRID[0])
    again = file.fit(shots, **file.GRID[0])
    x = shots.features.float()
    found = head.logits(x)
    assert found.shape == (12, 3) and found.dtype == torch.float32 and torch.equal(found, again.logits(x))
    assert float((found.argmax(dim=1) == shots.labels).float().mean()) >= 10 / 12
    assert same(head.divided(2.0).logits(x), found / 2)
    assert same(Head.of(head.tensors, head.beta).logits(x), found)
    assert same(head.of_classes(torch.tensor([2, 0])).logits(x), found[:, [2, 0]])


def test_parts_that_do_not_fit_are_refused() -> None:
    head = tip_adapter.fit(made(), 1.0, 1.0)
    with pytest.raises(ValueError, match="other sizes"):
        Head.of({**head.tensors, "values": head.values[:, :2]}, 1.0)


def test_an_unknown_head() -> None:
    with pytest.raises(UserError, match="there is no head 'svm'; the heads are probe, tip-adapter"):
        head_file("svm")


def test_of_equals_within_an_error_the_least_log_loss_is_best() -> None:
    labels = torch.tensor([0, 1] * 8)
    sure = torch.where(labels[:, None] == torch.arange(2), 3.0, 0.0).double()
    sure[0] = -sure[0] + 3  # one wrong
    torch.manual_seed(0)
    close = torch.where(labels[:, None] == torch.arange(2), 0.1, 0.0).double() * torch.rand(16, 1).double()
    wrong = -sure
    held = [
        Held.of(name, "frozen", {}, logits, labels)
        for name, logits in (("close", close), ("sure", sure), ("no", wrong))
    ]
    assert [each.right for each in held] == [1, 15 / 16, 1 / 16]
    assert best(held).name == ("sure" if held[1].loss < held[0].loss else "close")
    assert best([held[1], held[2]]).name == "sure"
