"""Losses of prompt learning: values by hand, and what each adds to the cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal.prompts.objectives import Outputs, cross_entropy, knowledge_guided, projected, self_regularised

Objective = Callable[[Outputs], Tensor]


def unit(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def made(*, images: int = 6, classes: int = 4, width: int = 5, seed: int = 0, scale: float = 10.0) -> Outputs:
    """Outputs that depend on two parameters: the class texts, and a shift common to all of them."""
    texts = nn.Parameter(unit(classes, width, seed=seed))
    shift = nn.Parameter(unit(width, seed=seed + 1))
    features = unit(images, width, seed=seed + 2)
    return with_text(
        Outputs(
            logits=torch.empty(0),
            labels=torch.arange(images) % classes,
            text=torch.empty(0),
            images=features,
            frozen_text=unit(classes, width, seed=seed + 3),
            ensemble_text=unit(classes, width, seed=seed + 4),
            frozen_images=features,
            scale=scale,
            parameters=[texts, shift],
        ),
        F.normalize(texts + shift, dim=-1),
    )


def with_text(outputs: Outputs, text: Tensor) -> Outputs:
    return replace(outputs, text=text, logits=outputs.scale * outputs.images @ text.T)


def gradient(loss: Tensor, outputs: Outputs) -> Tensor:
    """All parameters' gradient as one vector."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(outputs.parameters), retain_graph=True)])


def guide(outputs: Outputs) -> Tensor:
    """The gradient of the KL divergence from the zero-shot predictions, written out."""
    frozen = (outputs.scale * outputs.frozen_images @ outputs.frozen_text.T).log_softmax(dim=-1)
    tuned = outputs.logits.log_softmax(dim=-1)
    return gradient((frozen.exp() * (frozen - tuned)).sum(dim=-1).mean(), outputs)


def by_hand(text: Tensor, frozen: Tensor) -> Outputs:
    """One image along the first axis, of class 0, and two classes."""
    image = torch.tensor([[1.0, 0.0]])
    return Outputs(
        logits=image @ text.T,
        labels=torch.tensor([0]),
        text=text,
        images=image,
        frozen_text=frozen,
        ensemble_text=frozen,
        frozen_images=image,
        scale=1.0,
        parameters=[],
    )


def test_knowledge_guided_by_hand() -> None:
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    outputs = by_hand(text, torch.tensor([[1.0, 0.0], [0.6, 0.8]]))  # cosines 1 and 0.8
    assert cross_entropy(outputs).item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert knowledge_guided(outputs).item() == pytest.approx(math.log(1 + math.exp(-1)) + 8 * 0.1)
    assert knowledge_guided(outputs, 2.0).item() == pytest.approx(math.log(1 + math.exp(-1)) + 2 * 0.1)
    for_each_image = replace(outputs, text=text.expand(1, 2, 2))
    assert knowledge_guided(for_each_image).item() == pytest.approx(knowledge_guided(outputs).item())


def test_self_regularised_by_hand() -> None:
    text, frozen = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    turned = torch.tensor([[0.8, 0.6]])
    outputs = replace(by_hand(text, frozen), images=turned, logits=turned @ text.T)
    tuned_odds, frozen_odds = math.exp(0.8 - 0.6), math.exp(1 - 0.6)
    tuned, zero_shot = ([odds / (1 + odds), 1 / (1 + odds)] for odds in (tuned_odds, frozen_odds))
    text_part = (0.6 + 0.2) / 4
    image_part = (0.2 + 0.6) / 2
    divergence = sum(q * math.log(q / p) for p, q in zip(tuned, zero_shot, strict=True)) / 2
    expected = -math.log(tuned[0]) + 25 * text_part + 10 * image_part + divergence
    assert self_regularised(outputs).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("objective", [knowledge_guided, projected, self_regularised])
def test_without_its_weight_every_objective_is_the_cross_entropy(objective: Callable[[Outputs, float], Tensor]) -> None:
    for seed in range(10):
        outputs = made(seed=seed)
        loss, expected = objective(outputs, 0.0), cross_entropy(outputs)
        assert torch.equal(loss, expected)
        assert torch.allclose(gradient(loss, outputs), gradient(expected, outputs), atol=1e-7)


def test_where_nothing_has_moved_self_regularisation_adds_nothing() -> None:
    outputs = made()
    outputs = with_text(outputs, outputs.ensemble_text)
    assert self_regularised(outputs).item() == pytest.approx(cross_entropy(outputs).item(), abs=1e-7)


def test_the_projected_gradient_never_opposes_the_zero_shot_predictions() -> None:
    agreed = 0
    for seed in range(40):
        outputs = made(seed=10 * seed)
        a, b = gradient(cross_entropy(outputs), outputs), guide(outputs)
        loss = projected(outputs)
        got = gradient(loss, outputs)
        assert loss.item() == pytest.approx(cross_entropy(outputs).item())
        assert got @ b >= -1e-5 * got.norm() * b.norm()
        if a @ b >= 0:
            agreed += 1
            assert torch.allclose(got, a)
        else:
            assert torch.allclose(got, a - (a @ b) / (b @ b) * b, atol=1e-6)
            half = gradient(projected(outputs, 0.5), outputs)
            assert torch.allclose(half, (a + got) / 2, atol=1e-6), "the weight says how much is taken away"
    assert 0 < agreed < 40, "both cases were seen"


def test_the_projection_sees_all_parameters_as_one_vector() -> None:
    """Two parameters, where one alone conflicts and the sum does not: nothing is projected."""
    outputs = next(outputs for outputs in map(lambda seed: made(seed=seed), range(1000)) if one_conflicts(outputs))
    assert torch.allclose(gradient(projected(outputs), outputs), gradient(cross_entropy(outputs), outputs))


def one_conflicts(outputs: Outputs) -> bool:
    a, b = gradient(cross_entropy(outputs), outputs), guide(outputs)
    size = outputs.parameters[0].numel()
    return bool(a @ b > 0 > min(a[:size] @ b[:size], a[size:] @ b[size:]))


def test_projection_without_gradients_is_the_value_alone() -> None:
    outputs = made()
    with torch.no_grad():
        still = with_text(outputs, outputs.text.detach())
        assert torch.equal(projected(still), cross_entropy(still))


def test_a_parameter_that_the_loss_does_not_use_gets_a_zero_gradient() -> None:
    outputs = made()
    spare: Any = nn.Parameter(torch.ones(3))
    outputs = replace(outputs, parameters=[*outputs.parameters, spare])
    projected(outputs).backward()
    assert torch.equal(spare.grad, torch.zeros(3))


@pytest.mark.parametrize("objective", [cross_entropy, knowledge_guided, projected, self_regularised])
def test_the_order_of_images_and_classes_is_irrelevant(objective: Objective) -> None:
    outputs = made()
    images, classes = torch.tensor([3, 1, 0, 5, 4, 2]), torch.tensor([2, 0, 3, 1])
    turned = replace(
        outputs,
        logits=outputs.logits[images][:, classes],
        labels=classes.argsort()[outputs.labels[images]],
        text=outputs.text[classes],
        images=outputs.images[images],
        frozen_text=outputs.frozen_text[classes],
        ensemble_text=outputs.ensemble_text[classes],
        frozen_images=outputs.frozen_images[images],
    )
    assert objective(turned).item() == pytest.approx(objective(outputs).item(), rel=1e-5)
    assert torch.allclose(
        gradient(objective(turned), outputs), gradient(objective(outputs), outputs), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("objective", [cross_entropy, knowledge_guided, projected, self_regularised])
def test_half_precision_logits_give_a_full_precision_loss(objective: Objective) -> None:
    outputs = made()
    halved = replace(outputs, logits=outputs.logits.bfloat16())
    loss = objective(halved)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(objective(outputs).item(), rel=0.02)


# --- the papers' equations, written out: sums over images i and classes c of random features


def probabilities(outputs: Outputs, image: int, images: Tensor, text: Tensor) -> list[float]:
    """exp(cos(x, w_c) / τ) / Σ_j exp(cos(x, w_j) / τ), with 1 / τ the scale."""
    images, text = images.detach(), text.detach()
    own = text[image] if text.dim() == 3 else text
    cosines = [float(images[image] @ each / (images[image].norm() * each.norm())) for each in own]
    powers = [math.exp(outputs.scale * cosine) for cosine in cosines]
    return [power / sum(powers) for power in powers]


def likelihood(outputs: Outputs) -> float:
    """− 1/B Σ_i log p(y_i | x_i) (CoOp, eq. 2; CoCoOp, eq. 3, where the text is that of the image)."""
    B = len(outputs.labels)
    found = [probabilities(outputs, i, outputs.images, outputs.text)[int(outputs.labels[i])] for i in range(B)]
    return -sum(map(math.log, found)) / B


def of_own_text(seed: int) -> Outputs:
    """Each image has class texts of its own, as CoCoOp's."""
    outputs = made(seed=seed)
    text = unit(6, 4, 5, seed=seed + 50)
    cosines = torch.einsum("bd,bcd->bc", outputs.images, text)
    return replace(outputs, text=text, logits=outputs.scale * cosines)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_of_coop_and_its_kin(seed: int) -> None:
    outputs = made(seed=10 * seed)
    assert cross_entropy(outputs).item() == pytest.approx(likelihood(outputs), abs=1e-5)
    own = of_own_text(10 * seed)
    assert cross_entropy(own).item() == pytest.approx(likelihood(own), abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_of_kgcoop_and_tcp(seed: int) -> None:
    """Cross-entropy + λ / C Σ_c d(w_c, w_c^clip); the distance as both repositories have it, 1 − cos = ‖·‖² / 2."""
    outputs = made(seed=10 * seed)
    pairs = zip(outputs.text.detach(), outputs.frozen_text, strict=True)
    apart = [float(((w - v) ** 2).sum()) / 2 for w, v in pairs]
    expected = likelihood(outputs) + 8 * sum(apart) / len(apart)
    assert knowledge_guided(outputs, 8.0).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_of_prograd(seed: int) -> None:
    """Eq. 5: G = G_d where it does not oppose G_g, else G_d − λ (G_d · G_g / ‖G_g‖²) G_g, G_g that of the
    KL divergence from zero-shot."""
    outputs = made(seed=10 * seed)
    domain, general = gradient(cross_entropy(outputs), outputs), guide(outputs)
    angle = domain @ general
    expected = domain if angle >= 0 else domain - 0.8 * angle / general.norm() ** 2 * general
    assert torch.allclose(gradient(projected(outputs, 0.8), outputs), expected, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_of_promptsrc(seed: int) -> None:
    """Eq. 6: cross-entropy + λ₁ Σ|f̃ − f| + λ₂ Σ|g̃ − ḡ| + KL(q̃ ‖ q), as means over entries (25, 10, 1)."""
    outputs = replace(made(seed=10 * seed), images=unit(6, 5, seed=seed + 90))
    outputs = with_text(outputs, outputs.text)
    B, C, D = 6, 4, 5
    moved = outputs.text.detach()
    text = sum(abs(float(moved[c, d] - outputs.ensemble_text[c, d])) for c in range(C) for d in range(D))
    images = sum(abs(float(outputs.images[i, d] - outputs.frozen_images[i, d])) for i in range(B) for d in range(D))
    divergence = 0.0
    for i in range(B):
        tuned = probabilities(outputs, i, outputs.images, outputs.text)
        frozen = probabilities(outputs, i, outputs.frozen_images, outputs.ensemble_text)
        divergence += sum(q * math.log(q / p) for p, q in zip(tuned, frozen, strict=True))
    expected = likelihood(outputs) + 25 * text / (C * D) + 10 * images / (B * D) + divergence / (B * C)
    assert self_regularised(outputs).item() == pytest.approx(expected, abs=1e-5)
