"""A CLIP context inspected: what it says in words, and with labelled pictures what it does; beside random contexts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal.classifier import PromptClassifier
from multimodal.data.images import ImageData
from multimodal.evaluation.rankings import Best, Entry, Rankings
from multimodal.experiments.results import ClassResult
from multimodal.experiments.systems import order_of
from multimodal.prompts.contexts import Classes, Prompts, initial_context, logits, still
from multimodal.prompts.methods import build_method
from multimodal.towers.clip import Clip
from multimodal.towers.image import encode_images
from multimodal.vectors.image_data import CachedImages
from multimodal.vectors.prediction import BATCH
from retrieval_prompts.data.ids import portable
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.classification.scores import classification
from retrieval_prompts.evaluation.significance import Comparison, adjust, compare
from retrieval_prompts.evaluation.words import paired_sentence, points
from retrieval_prompts.experiments.inspection.claims import Claim, beside, better, without_each
from retrieval_prompts.experiments.inspection.effects import LEFT_OUT, LeftOut
from retrieval_prompts.experiments.inspection.nearest import PromptWords, Vocabulary, enough, in_words
from retrieval_prompts.experiments.inspection.null import SEEDS, Beside, too_few
from retrieval_prompts.experiments.inspection.trial import turned

METRIC = "accuracy"
NO_CONTEXT = {
    "cocoop": "CoCoOp makes another context for every picture, so there is no one context to look at.",
    "feedback": "Feedback makes another vector for every query, from what it finds, so there is no one context.",
    "mmrl": "MMRL trains no context: its tokens are in the higher layers of both towers.",
    "promptkd": "PromptKD trains no context: its prompts are in the image tower, its texts are its teacher's.",
}
Done = Callable[[int], object]


@dataclass
class Shown:
    """What contexts do to labelled pictures.

    Args:
        result: of "zero-shot", "tuned", "words" (the nearest words in place of the vectors), "initial" (before
            training) and "random", with the rankings of all but the last.
        tests: "<system>_vs_<other>", of the accuracy, paired over pictures.
        score, words_score: the accuracy beside random contexts, and of the words beside random words.
        turned: 1 - cosine of the classes' texts to those of zero-shot, the mean.
    """

    result: ClassResult
    tests: dict[str, Comparison]
    score: Beside
    words_score: Beside
    turned: Beside
    left_out: list[LeftOut]

    def to_json(self) -> dict[str, Any]:
        return {
            "dataset": self.result.dataset,
            "split": self.result.settings["split"],
            "pictures": self.result.settings["images"],
            "systems": dict(self.result.systems),
            "tests": {name: test.as_dict() for name, test in self.tests.items()},
            "score": self.score.to_json(),
            "words_score": self.words_score.to_json(),
            "turned": self.turned.to_json(),
            "left_out": [each.to_json() for each in self.left_out],
        }


@dataclass
class ContextInspection:
    """What was found of a prompt folder for CLIP. `words` are empty where the context depends on the picture."""

    about: dict[str, Any]
    words: dict[str, PromptWords] = field(default_factory=dict)
    shown: Shown | None = None
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "claims": [asdict(claim) for claim in claims(self)],
            **self.about,
            "words": {name: found.to_json() for name, found in self.words.items()},
            "shown": self.shown.to_json() if self.shown else None,
            "notes": self.notes,
        }


@torch.no_grad()
def inspect(
    classifier: PromptClassifier,
    data: ImageData | None = None,
    split: str = "test",
    *,
    draws: int = 40,
    cache: Path | None = None,
    on_start: Callable[[int], Done] | None = None,
) -> ContextInspection:
    """What the context of a classifier says and does.

    Args:
        data: labelled pictures; without them, what needs none.
        draws: random contexts that every figure stands beside.
        cache: the folder of image features; None: the user's cache.
        on_start: called with the number of encodings of all classes; gives what is called with those that are done.

    Raises:
        UserError: for fewer than 1 draw, data without the split, and classes that the prompts do not serve.
    """
    if draws < 1:
        raise UserError(f"expected one random context at least, got {draws}")
    settings = classifier.settings
    about = {"model": classifier.clip.title, "method": settings.method, "context": settings.context}
    found = ContextInspection({**about, "strength": classifier.strength})
    if settings.method in NO_CONTEXT:
        found.notes.append(NO_CONTEXT[settings.method])
        return found
    names = classifier.classes or (tuple(data.classes) if data is not None else ("thing",))
    prompts, began = _still(classifier, classifier.known_classes(None if classifier.classes else names))
    found.words = {"context": _words(classifier, prompts, began)}
    if prompts.deep:
        found.notes.append(
            f"The vectors before {len(prompts.deep)} deeper layers have no words; those are at the first."
        )
    if prompts.visual:
        found.notes.append("The vectors in the image tower have no words; they stay, whatever stands for the context.")
    if classifier.answer is not None:
        found.notes.append("The head is not looked at: every figure is that of the context, which answers without it.")
    if classifier.strength < 1:
        found.notes.append(f"The strength of the prompts is {classifier.strength:g}; here they are at strength 1.")
    if data is None:
        found.notes.append("What the context does to pictures needs data: --data DATA.")
        return found
    found.notes += too_few(draws)
    gallery = _Gallery(classifier, data, split, cache)
    done = on_start(gallery.encodings(draws)) if on_start is not None else (lambda _: None)
    found.shown = _show(gallery, draws, done)
    return found


def claims(found: ContextInspection) -> list[Claim]:
    """All that can be said of it, what is beyond the null first."""
    return sorted(_claims(found), key=lambda claim: not claim.beyond)


def _claims(found: ContextInspection) -> Iterator[Claim]:
    for said in found.words.values():
        yield Claim(f"The context: {said.sentence()}", bool(said.near) and len(said.kept) < len(said.near))
    if (shown := found.shown) is None:
        return
    tuned, words = (shown.tests[f"{system}_vs_zero-shot"] for system in ("tuned", "words"))
    null = beside(shown.score, points, what="random contexts of the same lengths")
    yield Claim(
        f"{_than_zero_shot('the context', tuned)} Its accuracy is {points(shown.score.value)}; {null}.",
        shown.score.beaten and better(tuned) and better(shown.tests["tuned_vs_initial"]),
    )
    null = beside(shown.words_score, points, what="random words")
    yield Claim(
        f"As words the context reaches an accuracy of {points(shown.words_score.value)}; {null}. "
        f"{_than_zero_shot('the context with its nearest words in place of the vectors', words)}",
        shown.words_score.beaten and better(words),
    )
    null = beside(shown.turned, lambda value: f"{value:.3f}", what="random contexts")
    yield Claim(
        f"The texts of classes turn by {shown.turned.value:.3f} (1 - cosine) from zero-shot's; {null}.",
        shown.turned.beaten,
    )
    yield without_each(shown.left_out, "the texts of classes", METRIC)


def _than_zero_shot(system: str, test: Comparison) -> str:
    return paired_sentence(system, "zero-shot", test).replace("queries", "pictures")


def vocabulary(clip: Clip) -> Vocabulary:
    """The words of a CLIP's tokenizer, without special tokens."""
    tokenizer: Any = clip.text.tokens.tokenizer
    size = len(clip.text.embeddings.weight)
    if hasattr(tokenizer, "decoder"):
        names = {int(at): str(name) for at, name in tokenizer.decoder.items() if int(at) < size}
        special = set(tokenizer.all_special_ids)
    else:
        inner = tokenizer.tokenizer
        names = dict(enumerate(inner.convert_ids_to_tokens(list(range(min(len(inner), size))))))
        special = set(inner.all_special_ids)
    kept = [at for at, name in sorted(names.items()) if at not in special and name is not None]
    return Vocabulary(kept, [_written(names[at]) for at in kept], clip.text.embeddings.weight.detach())


def _written(token: str) -> str:
    """A token as a reader knows it: what goes on within a word ends with a dash."""
    from retrieval_prompts.experiments.inspection.nearest import shown

    return token.removesuffix("</w>") if token.endswith("</w>") else shown(token)


def _words(classifier: PromptClassifier, prompts: Prompts, began: Prompts) -> PromptWords:
    clip = classifier.clip
    vectors, first = (each.reshape(-1, each.shape[-1]) for each in (prompts.context, began.context))
    return in_words(vocabulary(clip), vectors, initial_context(clip, "gaussian", enough(len(vectors)), SEEDS), first)


def _still(classifier: PromptClassifier, known: Classes) -> tuple[Prompts, Prompts]:
    """The prompts, and what training began from: methods make the same for the same settings."""
    clip, settings = classifier.clip, classifier.settings
    features = torch.zeros(1, clip.dimension, device=clip.device)
    began = build_method(clip, settings, len(known)).prompter
    return still(classifier.method.prompter, known, features), still(began, known, features)


class _Gallery:
    """Pictures of a split, seen once, and the classes that they are told apart by."""

    def __init__(self, classifier: PromptClassifier, data: ImageData, split: str, cache: Path | None) -> None:
        self.classifier, self.data, self.split = classifier, data, split
        test = data.split(split)
        images = CachedImages(classifier.clip, test.pictures, 1, cache)
        test = test.take(images.kept)
        order = order_of(classifier.classes, data.classes) if classifier.classes else None
        self.known = classifier.known_classes(data.classes if order is None else None)
        self.labels = test.labels if order is None else np.array(order)[test.labels]
        self.pictures = test.pictures
        self.prompts, self.began = _still(classifier, self.known)
        self.frozen, self.seen = self._look(images)
        self.vocabulary = vocabulary(classifier.clip)

    def _look(self, images: CachedImages) -> tuple[Tensor, Tensor]:
        """The features of the pictures without prompts, and with those that enter the image tower."""
        everything = np.arange(len(self.pictures))
        frozen = images.features(everything, np.zeros_like(everything))
        if not self.prompts.visual:
            return frozen, frozen
        parts = []
        for start in range(0, len(everything), BATCH):
            some = everything[start : start + BATCH]
            pixels = images.pixels(some, np.zeros_like(some))
            parts.append(encode_images(self.classifier.clip, pixels, self.prompts.visual))
        return frozen, torch.cat(parts)

    def texts(self, prompts: Prompts) -> Tensor:
        """The classes under a context (C, D), which may have fewer vectors than the trained one."""
        known, length = self.known, prompts.context.shape[-2]
        if length == 0:
            return known.frozen
        if length != known.rows.length:
            known = Classes(self.classifier.clip, known.names, replace(self.classifier.settings, context=length))
        return known.features(prompts)

    def logits(self, texts: Tensor, *, frozen: bool = False) -> np.ndarray:
        scale = self.classifier.clip.scale / self.classifier.temperature
        return logits(scale, self.frozen if frozen else self.seen, texts).cpu().numpy()

    def right(self, scores: np.ndarray) -> dict[str, float]:
        """Picture -> 1 where its class comes first."""
        found = (scores.argmax(axis=1) == self.labels).astype(float).tolist()
        return dict(zip(map(str, range(len(found))), found, strict=True))

    def random(self, seed: int) -> Prompts:
        """A random context, and deeper vectors, of the lengths of the trained ones."""
        context, clip = self.prompts.context, self.classifier.clip
        drawn = initial_context(clip, "gaussian", context.shape[:-1].numel(), SEEDS + seed).reshape(context.shape)
        generator = torch.Generator().manual_seed(seed)
        deep = {
            layer: _of_length(torch.randn(part.shape, generator=generator).to(part), part)
            for layer, part in self.prompts.deep.items()
        }
        return Prompts(_of_length(drawn.to(context), context), deep, self.prompts.visual)

    def snapped(self, prompts: Prompts) -> Prompts:
        """The nearest words in place of the context's vectors."""
        context = prompts.context
        _, places = self.vocabulary.nearest(context.reshape(-1, context.shape[-1]), 1)
        words = self.vocabulary.rows(places[:, 0]).reshape(context.shape).to(context)
        return Prompts(words, prompts.deep, prompts.visual)

    @property
    def length(self) -> int:
        return self.prompts.context.shape[-2]

    def encodings(self, draws: int) -> int:
        return (
            3 + draws + math.ceil(draws / 2) + 2 * self.length + math.ceil(LEFT_OUT / self.length) * (self.length + 1)
        )


def _of_length(drawn: Tensor, like: Tensor) -> Tensor:
    return drawn * (like.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True).clamp_min(1e-12))


def _without(prompts: Prompts, place: int) -> Prompts:
    """Without one of the vectors, in all layers."""

    def fewer(part: Tensor) -> Tensor:
        return torch.cat([part[..., :place, :], part[..., place + 1 :, :]], dim=-2)

    return Prompts(fewer(prompts.context), {layer: fewer(part) for layer, part in prompts.deep.items()}, prompts.visual)


def _show(gallery: _Gallery, draws: int, done: Done) -> Shown:
    frozen = gallery.known.frozen
    began = gallery.texts(gallery.began)
    texts = {"zero-shot": frozen, "tuned": gallery.texts(gallery.prompts)}
    texts |= {"words": gallery.texts(gallery.snapped(gallery.prompts)), "initial": began}
    done(3)
    scores = {name: gallery.logits(each, frozen=name == "zero-shot") for name, each in texts.items()}
    systems = {name: _metrics(each, gallery.labels) for name, each in scores.items()}
    drawn = [gallery.random(seed) for seed in range(draws)]
    random, turns = [], []
    for each in drawn:
        found = gallery.texts(each)
        random.append(_metrics(gallery.logits(found), gallery.labels))
        turns.append(_turn(frozen, found))
        done(1)
    words = []
    for each in drawn[: math.ceil(draws / 2)]:
        words.append(_metrics(gallery.logits(gallery.texts(gallery.snapped(each))), gallery.labels)[METRIC])
        done(1)
    first, right = systems["initial"][METRIC], {name: gallery.right(each) for name, each in scores.items()}
    table = {**systems, "random": {name: float(np.mean([each[name] for each in random])) for name in random[0]}}
    pairs = (("tuned", "zero-shot"), ("tuned", "initial"), ("words", "zero-shot"), ("words", "tuned"))
    return Shown(
        result=_result(gallery, table, scores),
        tests={f"{a}_vs_{b}": compare(right[b], right[a], METRIC) for a, b in pairs},
        score=Beside.of(systems["tuned"][METRIC], [each[METRIC] for each in random], first, side="above"),
        words_score=Beside.of(systems["words"][METRIC], words, side="above"),
        turned=Beside.of(_turn(frozen, texts["tuned"]), turns, _turn(frozen, began)),
        left_out=_leave_out(gallery, texts["tuned"], right["tuned"], done),
    )


def _leave_out(gallery: _Gallery, whole: Tensor, right: Mapping[str, float], done: Done) -> list[LeftOut]:
    moves, tests, null, first = [], [], [], []
    began = gallery.texts(gallery.began)
    for place in range(gallery.length):
        first.append(_turn(began, gallery.texts(_without(gallery.began, place))))
        texts = gallery.texts(_without(gallery.prompts, place))
        moves.append(_turn(whole, texts))
        tests.append(compare(right, gallery.right(gallery.logits(texts)), METRIC))
        done(2)
    for seed in range(math.ceil(LEFT_OUT / gallery.length)):
        random = gallery.random(seed)
        before = gallery.texts(random)
        done(1)
        for place in range(gallery.length):
            null.append(_turn(before, gallery.texts(_without(random, place))))
            done(1)
    p_values = adjust([test.p_value for test in tests], "holm")
    rows = zip(moves, first, tests, p_values, strict=True)
    return [
        LeftOut(f"vector {at}", Beside.of(move, null, before, side="above"), test, p)
        for at, (move, before, test, p) in enumerate(rows, 1)
    ]


def _metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return classification(torch.from_numpy(scores).softmax(dim=1).numpy(), labels)


def _turn(a: Tensor, b: Tensor) -> float:
    return float(turned(a.float().cpu().numpy(), b.float().cpu().numpy()).mean())


def _result(gallery: _Gallery, table: Mapping[str, Any], scores: Mapping[str, np.ndarray]) -> ClassResult:
    clip = gallery.classifier.clip
    rankings = Rankings(
        "",
        [Entry(portable(picture.name), picture.name, picture) for picture in gallery.pictures],
        [Entry(portable(name), name) for name in gallery.known.names],
        [[label] for label in gallery.labels.tolist()],
        {name: Best.of(each) for name, each in scores.items()},
    )
    settings = {"split": gallery.split, "images": len(gallery.pictures)}
    return ClassResult(
        gallery.data.name, clip.title, clip.pretrained, "inspect", table, settings=settings, rankings=[rankings]
    )
