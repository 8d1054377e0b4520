"""A classifier of texts in two parts, the names of labels and a linear head, both over vectors that a prompt may move.

How much prompt and head count is decided on training examples that were held out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from torch import Tensor
from tqdm import tqdm

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.classification.linear_probe import STRENGTH, Probe, linear_probe
from retrieval_prompts.evaluation.classification.scores import fit_temperature
from retrieval_prompts.prompts.folder import PromptFolder
from retrieval_prompts.prompts.label_folder import BIAS, NAMES, QUERY, WEIGHT, SavedLabels
from retrieval_prompts.prompts.strength import between
from retrieval_prompts.towers.probe import check_made
from retrieval_prompts.towers.text import Floats, TextTower
from retrieval_prompts.training.task import Positions
from retrieval_prompts.training.tasks.labels import LabelTask, plain_temperature
from retrieval_prompts.training.tasks.settings import LabelSettings

SHARES = {"auto": (0.0, 0.25, 0.5, 0.75, 1.0), "names": (0.0,), "linear": (1.0,)}  # of the head
STRENGTHS = (0.0, 0.5, 1.0)  # of the prompt
FOLDS = 4
ENOUGH = 100  # examples that were held out, to choose by
TINY = 1e-12  # a probability whose logarithm is finite
Logits = NDArray[np.float64]


@dataclass(frozen=True)
class TwoParts:
    """What was learned.

    Args:
        biencoder: with the query prompt, if there is one, at the strength that is used.
        documents: (C, dimension) the frozen vectors of the names.
        probe: the head, on vectors of that strength; None where it has no share.
        share: of the head in the mean of log-probabilities, from 0 to 1.
        temperatures: what the similarities with names are divided by, and the mean.
        choice: what was taken and why, in a sentence.
        held_out: what share of the held-out texts each candidate got right; empty where nothing was held out.
    """

    biencoder: BiEncoder
    documents: Tensor
    probe: Probe | None
    share: float
    temperatures: tuple[float, float]
    choice: str
    held_out: dict[str, float] = field(default_factory=dict)

    @property
    def strength(self) -> float:
        """Of the prompt; 0 where there is none."""
        return self.biencoder.strength if self.biencoder.prompts else 0.0

    def probabilities(self, texts: Sequence[str]) -> Logits:
        """(n, C), rows sum to 1."""
        named = head = np.zeros((len(texts), len(self.documents)))
        if not len(texts):
            return named
        vectors = self.biencoder.query_vectors(texts)
        if self.share < 1:
            named = similarities(vectors, self.documents)
        if self.probe is not None:
            head = log_probabilities(self.probe, vectors)
        found: Logits = softmax(mixed(named, head, self.share, self.temperatures[0]) / self.temperatures[1], axis=1)
        return found

    def saved(self, classes: list[Any], names: list[str], training: dict[str, Any]) -> SavedLabels:
        """What a folder keeps of it, for these labels and what they are called."""
        biencoder, tensors = self.biencoder, {NAMES: self.documents}
        if (prompt := biencoder.prompt("query")) is not None:
            tensors[QUERY] = prompt
        if self.probe is not None:
            tensors |= {WEIGHT: torch.from_numpy(self.probe.weight), BIAS: torch.from_numpy(self.probe.bias)}
        parts = (biencoder.base(), biencoder.kind, biencoder.strength, self.share, self.temperatures)
        training = {**training, "choice": self.choice, "held_out": self.held_out}
        return SavedLabels(tensors, classes, names, *parts, training)

    @classmethod
    def of(cls, tower: TextTower, saved: SavedLabels, source: str) -> TwoParts:
        """What was kept, on the model at hand.

        Raises:
            UserError: where it is another one, or parts do not fit it.
        """
        tensors = saved.tensors
        for name in (NAMES, WEIGHT):
            if name in tensors and tensors[name].shape[1] != tower.dimension:
                shape = tuple(tensors[name].shape)
                raise UserError(f"{source}: {name} has shape {shape}, expected rows of {tower.dimension} numbers")
        check_made(tower, saved.base, source)
        biencoder, probe = BiEncoder(tower), None
        if QUERY in tensors:
            kept = PromptFolder(saved.kind, {QUERY: tensors[QUERY]}, saved.base, saved.strength)
            biencoder = BiEncoder.with_prompts(tower, kept, source=source)
        if saved.share > 0:
            probe = Probe(tensors[WEIGHT].numpy(), tensors[BIAS].numpy(), STRENGTH)
        said, held = saved.training.get("choice", ""), saved.training.get("held_out", {})
        return cls(biencoder, tensors[NAMES].to(tower.device), probe, saved.share, saved.temperatures, said, held)


def similarities(vectors: Floats, documents: Tensor) -> Logits:
    """(n, C) inner products of vectors with the names, both ready to be compared."""
    return vectors.astype(np.float64) @ documents.cpu().numpy().astype(np.float64).T


def log_probabilities(probe: Probe, vectors: Floats) -> Logits:
    """(n, C) of a head."""
    return np.log(probe.probabilities(vectors) + TINY)


def mixed(named: Logits, head: Logits, share: float, temperature: float) -> Logits:
    """(n, C) the mean of log-probabilities by the names and by the head, weighted by the share of the latter."""
    return (1 - share) * log_softmax(named / temperature, axis=1) + share * head


def names_alone(tower: TextTower, documents: Tensor) -> TwoParts:
    """The names alone, without a prompt."""
    choice = "the names of the labels, without a prompt: there are no examples"
    return TwoParts(BiEncoder(tower), documents, None, 0.0, (plain_temperature(tower), 1.0), choice)


# --- training ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Examples:
    """What is trained on.

    Args:
        labels: (n,) the number of each text's label.
        documents: (C, dimension) the frozen vectors of the names.
        head: a key of SHARES.
    """

    tower: TextTower
    texts: Sequence[str]
    labels: Positions
    documents: Tensor
    settings: LabelSettings
    head: str = "auto"

    @property
    def strengths(self) -> tuple[float, ...]:
        """Of a prompt, that are tried."""
        return STRENGTHS if self.settings.max_steps else (0.0,)

    @cached_property
    def frozen(self) -> Floats:
        """(n, dimension) the vectors without a prompt."""
        return BiEncoder(self.tower).query_vectors(self.texts)

    @cached_property
    def penalty(self) -> float:
        """The inverse penalty of all heads: chosen once, on frozen vectors, for it takes many fits."""
        return linear_probe(self.frozen, self.labels, len(self.documents)).strength


@dataclass(frozen=True)
class Candidate:
    """How much the parts count: the prompt's strength, the head's share, and the temperatures of a `TwoParts`."""

    strength: float
    share: float
    temperatures: tuple[float, float]


@dataclass(frozen=True)
class HeldOut:
    """Training examples as they look to parts that were trained on the others.

    Args:
        labels: (n,).
        named: strength of the prompt -> (n, C) similarities with the names.
        head: the same -> (n, C) log-probabilities by a head on such vectors.
    """

    labels: Positions
    named: dict[float, Logits]
    head: dict[float, Logits]


def fit_two_parts(data: Examples) -> TwoParts:
    """Train both parts, and choose how much each counts.

    Candidates are the strengths of the prompt with the shares of the head. The one that gives held-out examples the
    largest likelihood is taken, with the temperatures that fit them best; where they are too few to hold any out,
    prompt and head count by half.
    """
    found = held_out(data)
    chosen = _undecided(data) if found is None else best(found, SHARES[data.head])
    biencoder, probe = BiEncoder(data.tower), None
    if chosen.strength > 0:
        biencoder = prompted(data, np.arange(len(data.texts)))
        biencoder.strength = chosen.strength
    if chosen.share > 0:
        vectors = biencoder.query_vectors(data.texts) if chosen.strength else data.frozen
        probe = linear_probe(vectors, data.labels, len(data.documents), strength=data.penalty)
        # As it is kept on disk, so that a classifier says the same before and after
        probe = replace(probe, weight=probe.weight.astype(np.float32), bias=probe.bias.astype(np.float32))
    right = {} if found is None else accuracies(found, chosen)
    said = _said(chosen, right, 0 if found is None else len(found.labels))
    return TwoParts(biencoder, data.documents, probe, chosen.share, chosen.temperatures, said, right)


def prompted(data: Examples, positions: Positions) -> BiEncoder:
    """A bi-encoder whose prompt was trained on some of the examples."""
    biencoder = BiEncoder(data.tower).attach(data.settings)
    texts = [data.texts[at] for at in positions]
    task = LabelTask(biencoder, texts, data.labels[positions], data.documents, data.settings)
    for _ in tqdm(task.train(), desc="train", unit="step", total=data.settings.max_steps, delay=1, leave=False):
        pass
    return biencoder


def held_out(data: Examples) -> HeldOut | None:
    """Training examples by parts that were trained on the other folds, fold by fold until there are ENOUGH; None where
    fewer than two classes have two examples.

    An example that is alone in its class is always trained on. Of few examples a class each fold takes one: where it
    took two of some classes, these would have fewer left to train on than the others, and look worse than they are.
    """
    from sklearn.model_selection import StratifiedKFold

    labels, counts = data.labels, np.bincount(data.labels)
    several, alone = np.flatnonzero(counts[labels] > 1), np.flatnonzero(counts[labels] == 1)
    if (counts > 1).sum() < 2:
        return None
    fewest = int(counts[counts > 1].min())
    number = fewest if fewest <= FOLDS + 1 else FOLDS
    folds = StratifiedKFold(number, shuffle=True, random_state=data.settings.seed)
    answers: list[Positions] = []
    named, heads = [], []
    for rest, out in folds.split(several, labels[several]):
        if sum(len(fold) for fold in answers) >= ENOUGH:
            break
        rest, out = np.concatenate([several[rest], alone]), several[out]
        moved = prompted(data, rest).query_vectors(data.texts) if data.settings.max_steps else data.frozen
        names, head = {}, {}
        for strength in data.strengths:
            vectors = between(data.frozen, moved, strength, unit=data.tower.unit_length) if strength else data.frozen
            names[strength] = similarities(vectors[out], data.documents)
            head[strength] = np.zeros_like(names[strength])
            if data.head != "names":
                probe = linear_probe(vectors[rest], labels[rest], len(data.documents), strength=data.penalty)
                head[strength] = log_probabilities(probe, vectors[out])
        named.append(names)
        heads.append(head)
        answers.append(labels[out])
    whole = [
        {each: np.concatenate([fold[each] for fold in part]) for each in data.strengths} for part in (named, heads)
    ]
    return HeldOut(np.concatenate(answers), *whole)


def best(found: HeldOut, shares: Sequence[float]) -> Candidate:
    """The candidate with the largest likelihood; of equals the one with the weaker prompt and the smaller head."""
    tried = []
    for strength, named in found.named.items():
        first = fit_temperature(named, found.labels)
        for share in shares:
            logits = mixed(named, found.head[strength], share, first)
            second = fit_temperature(logits, found.labels)
            right = log_softmax(logits / second, axis=1)[np.arange(len(logits)), found.labels]
            tried.append((round(-float(right.mean()), 6), strength, share, (first, second)))
    _, strength, share, temperatures = min(tried)
    return Candidate(strength, share, temperatures)


def accuracies(found: HeldOut, chosen: Candidate) -> dict[str, float]:
    """Candidate in words -> the share of held-out examples that it gets right."""

    def right(strength: float, share: float, temperature: float = 1.0) -> float:
        logits = mixed(found.named[strength], found.head[strength], share, temperature)
        return float((logits.argmax(axis=1) == found.labels).mean())

    said, whole = {"names": right(0.0, 0.0)}, max(found.named)
    if whole:
        said["names+prompt"] = right(whole, 0.0)
    if any(logits.any() for logits in found.head.values()):
        said["head"] = right(0.0, 1.0)
    return said | {"taken": right(chosen.strength, chosen.share, chosen.temperatures[0])}


def _undecided(data: Examples) -> Candidate:
    share = {"auto": 0.5, "names": 0.0, "linear": 1.0}[data.head]
    return Candidate(0.5 if data.settings.max_steps else 0.0, share, (plain_temperature(data.tower), 1.0))


def _said(chosen: Candidate, right: Mapping[str, float], count: int) -> str:
    names = "the names of the labels"
    if chosen.share:
        names = "a linear head" if chosen.share == 1 else f"{names} and a linear head with a share of {chosen.share:g}"
    prompt = f"with a prompt at strength {chosen.strength:g}" if chosen.strength else "without a prompt"
    if not right:
        return f"{names}, {prompt}; nothing was held out to choose by"
    spoken = {"names": "names alone", "names+prompt": "names with the whole prompt", "head": "the head alone"}
    others = ", ".join(f"{spoken[name]} for {100 * right[name]:.1f} %" for name in spoken if name in right)
    return (
        f"{names}, {prompt}: the largest likelihood on {count:,} training examples that were held out, and right for "
        f"{100 * right['taken']:.1f} % of them; {others}"
    )
