"""Fit the head of a classifier: which one, on which texts, calibrated, and when to trust it beside new classes.

All of it is decided by shots that are held out: those of the head's own folds, and those that the prompt was
calibrated on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from multimodal.heads import head_file, options_of
from multimodal.heads.answer import PLAIN, Answer, evidence
from multimodal.heads.choose import ALONE, AUTO, Fold, Held, best, simplest, tried
from multimodal.heads.head import Shots
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.classification.scores import fit_temperature

FOLDS = 4  # at most
MATTERS = 4  # classes, of which half can play the new ones
UNTRAINED = ("tip-adapter", "proker")  # heads that are tried on the prompt's texts too
TOO_MANY = 5000  # shots: a kernel of all pairs takes gigabytes beyond
PAIRWISE = ("proker", "tip-adapter")  # of AUTO


@dataclass(frozen=True)
class Part:
    """What prompts that were trained on some of the shots say of the others.

    Args:
        rest, held: positions of the shots.
        logits: (held, C), before the temperature.
        text: (C, D), their class vectors; None where they have no one matrix, or belong to prompted images.
    """

    rest: NDArray[np.int64]
    held: NDArray[np.int64]
    logits: Tensor
    text: Tensor | None


def choose(
    name: str,
    shots: Shots,
    classes: Sequence[str],
    parts: Sequence[Part] = (),
    text: Tensor | None = None,
    *,
    published: bool = False,
) -> tuple[Answer | None, str]:
    """The fitted head, or None where the prompt alone is better; and why, in a line.

    Args:
        name: one of HEADS, or "auto".
        shots: on the frozen texts; every class has one.
        classes: their names.
        parts: of the prompt, where it was calibrated.
        text: (C, D) of the prompt; None as in `Part`.
        published: with the options of the head's authors, where its file has them, and no choice of them.

    Raises:
        UserError: for a head that so few shots cannot fit.
    """
    check(name, shots.labels)
    texts = {"frozen": shots.text, **({} if text is None else {"prompt": text.to(shots.text)})}
    folds = list(_folds(shots.labels))
    if not folds:
        return _alone(name, shots, classes, published)
    names = (
        [each for each in AUTO if len(shots.labels) <= TOO_MANY or each not in PAIRWISE] if name == "auto" else [name]
    )
    bar = tqdm(names, desc="choose a head", unit="head", delay=1, leave=False)
    grids = {each: options_of(each, shots, published=published) for each in names}
    frozen = [_fold(shots, *fold) for fold in folds]
    every = [held for each in bar for held in tried(each, "frozen", frozen, grids[each])]
    alone = _of_prompt(parts, shots)
    if parts and all(part.text is not None for part in parts) and text is not None:
        own = [_fold(replace(shots, text=part.text.to(shots.text)), part.rest, part.held) for part in parts]  # type: ignore[union-attr]
        wanted = [each for each in names if each in UNTRAINED or name != "auto"]
        every += [held for each in wanted for held in tried(each, "prompt", own, grids[each])]
    tops = [best(each for each in every if each.name == one) for one in dict.fromkeys(held.name for held in every)]
    chosen = simplest([*tops, *([] if alone is None else [alone])]) if name == "auto" else tops[0]
    against = f", the prompt alone {100 * alone.right:.1f}" if alone is not None else ""
    if chosen.name == "none":
        other = max(tops, key=lambda each: each.right)
        said = f"{100 * chosen.right:.1f} % of the held-out shots right"
        said += f", the best head ({other.name}) {100 * other.right:.1f}, no clear gain"
        return None, f"none, the prompt answers alone: {said}"
    base = replace(shots, text=texts[chosen.text])
    head = head_file(chosen.name).fit(base, **chosen.options).divided(chosen.temperature)
    options = ", ".join(f"{option} {value:g}" for option, value in chosen.options.items())
    on = "the prompt's texts" if chosen.text == "prompt" else "the frozen texts"
    why = f"{chosen.name} ({options}; on {on}): {100 * chosen.right:.1f} % of the held-out shots right{against}"
    cold = _frozen_temperature(shots)
    gate = _gate(chosen, base, shots.text, cold, folds)
    return Answer(chosen.name, tuple(classes), head.as_saved(), cold, gate, why), why


def check(name: str, labels: Tensor) -> None:
    """Raises UserError for a head of HEADS that so few shots cannot fit."""
    if name in ("auto", "none"):
        return
    needed, folds = head_file(name).SHOTS, list(_folds(labels))
    if not folds and int(torch.bincount(labels).max()) < needed:
        raise UserError(f"--head {name} needs {needed} images or more in a class; got one of each")
    if any(int(torch.bincount(labels[rest]).max()) < needed for rest, _ in folds):
        raise UserError(f"--head {name} needs {needed} images or more in a class beside those held out")


def _alone(name: str, shots: Shots, classes: Sequence[str], published: bool) -> tuple[Answer, str]:
    """Where nothing can be held out: the options that ask for no choice, as they are."""
    wanted = ALONE if name == "auto" else name
    head = head_file(wanted).fit(shots, **options_of(wanted, shots, published=published)[0])
    why = f"{wanted}: one image a class, none can be held out to choose by"
    return Answer(wanted, tuple(classes), head.as_saved(), _frozen_temperature(shots), PLAIN, why), why


def _folds(labels: Tensor) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(rest, held) positions; each class is in every rest, and one with a single shot is never held out."""
    numbers = labels.numpy()
    counts = np.bincount(numbers)
    if (counts > 1).sum() < 2:
        return
    fold = np.empty(len(numbers), dtype=np.int64)
    order = np.argsort(numbers, kind="stable")
    fold[order] = np.concatenate([np.arange(count) for count in counts]) % FOLDS
    fold[counts[numbers] == 1] = -1
    for number in range(FOLDS):
        held = np.flatnonzero(fold == number)
        if len(held):
            yield np.flatnonzero(fold != number), held


def _fold(shots: Shots, rest: NDArray[np.int64], held: NDArray[np.int64]) -> Fold:
    part = replace(shots, features=shots.features[rest], labels=shots.labels[rest])
    return Fold(part, shots.features[held], shots.labels[held])


def _of_prompt(parts: Sequence[Part], shots: Shots) -> Held | None:
    """What the prompt itself answered for what was held out of it."""
    if not parts:
        return None
    labels = torch.cat([shots.labels[part.held] for part in parts])
    return Held.of("none", "prompt", {}, torch.cat([part.logits for part in parts]).double(), labels)


def _frozen_temperature(shots: Shots) -> float:
    """The frozen texts have seen no shot, so all of them calibrate."""
    return fit_temperature(shots.logits.numpy(), shots.labels.numpy())


def _gate(
    chosen: Held,
    shots: Shots,
    frozen: Tensor,
    cold: float,
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> tuple[float, float, float]:
    """Fit the weights of `Answer.gate` where half of the classes plays the new ones, and shots are held out."""
    from sklearn.linear_model import LogisticRegression

    C = len(shots.text)
    if C < MATTERS:
        return PLAIN
    file, found, sides = head_file(chosen.name), [], []
    order = torch.randperm(C, generator=torch.Generator().manual_seed(0))
    for known, new in ((order[: C // 2], order[C // 2 :]), (order[C // 2 :], order[: C // 2])):
        number = torch.full((C,), -1)
        number[known] = torch.arange(len(known))
        mine = number[shots.labels] >= 0
        for rest, held in folds[:2]:
            inside = rest[mine[rest].numpy()]
            part = replace(
                shots, features=shots.features[inside], labels=number[shots.labels[inside]], text=shots.text[known]
            )
            x = shots.features[held]
            own = file.fit(part, **chosen.options).logits(x) / chosen.temperature
            cosines = shots.scale * x @ frozen.T / cold
            found.append(torch.stack(evidence(own, cosines[:, known], cosines[:, new]), dim=1))
            sides.append(mine[held])
    seen, side = torch.cat(found).numpy(), torch.cat(sides).numpy()
    if side.all() or not side.any():
        return PLAIN
    # Both kinds of evidence, or one where the other would count against
    wanted = [[0, 1], [1], [0]] if file.TEXT else [[0]]  # without texts its logits are on no scale that texts are on
    for columns in wanted:
        model = LogisticRegression().fit(seen[:, columns], side)
        if (model.coef_ > 0).all():
            weights = dict(zip(columns, model.coef_[0].tolist(), strict=True))
            return weights.get(0, 0.0), weights.get(1, 0.0), float(model.intercept_[0])
    return PLAIN
