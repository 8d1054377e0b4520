"""What changes a copy of the model, CLIP-LoRA and 2SFS: the whole of their run, and ours, on few steps of one batch.

Compared are the logits of each step's batch, all that has been learned, and for 2SFS the answers for a list of old and
new classes.
"""

from __future__ import annotations

import contextlib
import io
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eval.fidelity import models
from eval.fidelity.authors import Repository
from eval.fidelity.compare import Row, Side, compare
from eval.fidelity.heads import Kept
from multimodal.experiments import clip_lora, two_stages
from multimodal.experiments.adapting import in_template
from multimodal.towers.clip import Clip

NO_BARS = partial(contextlib.redirect_stderr, io.StringIO())
Clone = Callable[[str], Repository]
STEPS, TEMPLATE, NEW = 5, "a photo of a {}.", "red panda"
DATA = SimpleNamespace(template=[TEMPLATE], classnames=list(models.CLASSES))


class OneBatch:
    """In the place of `adapting.Crops`: the same pictures in each step."""

    def __init__(self, *_: Any) -> None: ...

    def batches(self, count: int, seed: int) -> list[int]:
        return list(range(count))

    def of(self, batch: int) -> tuple[Tensor, Tensor]:
        return models.pixels(), models.LABELS


def of_clip_lora(clone: Clone) -> Row:
    model, repository, initial = models.make(), clone("CLIP-LoRA"), dict[str, Tensor]()
    loader = [(models.pixels(), models.LABELS)]
    options: dict[str, Any] = {"encoder": "both", "position": "all", "params": ["q", "k", "v"], "r": 2, "alpha": 1}
    options |= {"dropout_rate": 0.25}
    options |= {"backbone": "ViT-B/16", "lr": 2e-4, "n_iters": STEPS, "shots": 1, "eval_only": False, "save_path": None}
    with repository.opened(lambda _: models.state(model)):
        code, theirs = repository.module("lora"), _theirs(repository, model)
        code.F, code.cls_acc = SimpleNamespace(cross_entropy=Kept(F.cross_entropy)), lambda *_: 0.0
        freeze = code.mark_only_lora_as_trainable

        def marked(clip: Any) -> None:
            freeze(clip)
            for module in clip.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0  # with a rate of 0 their layers compute in another way
            initial.update({name: part for name, part in _learned(clip).items() if "lora" in name})

        code.mark_only_lora_as_trainable = marked
        code.run_lora(Namespace(**options), theirs, models.SCALE, DATA, loader, loader, loader)
        expected = _side(code.F.cross_entropy.given, initial, _learned(theirs))
    inject = clip_lora.inject

    def injected(clip: Clip, seed: int) -> Clip:
        made = inject(clip, seed)
        with torch.no_grad():
            for name, part in made.model.named_parameters():
                if part.requires_grad:
                    part.copy_(initial[_plain(name)])
        return made

    losses = Kept(F.cross_entropy)
    with NO_BARS(), mock.patch.multiple(clip_lora, inject=injected, DROPOUT=0.0, Crops=OneBatch, F=_functional(losses)):
        made = clip_lora.fit(models.ours(model), [], models.LABELS.numpy(), _texts(), steps=STEPS)
    found = _side(losses.given, initial, _learned(made.model))
    return compare("clip-lora", repository, f"{STEPS} steps without dropout", (found, expected))


def of_2sfs(clone: Clone) -> Row:
    model, repository = models.make(), clone("rethinking_fewshot_vlms")
    loader = [(models.pixels(), models.LABELS)]
    options = {"peft": "ln", "ln_modality": "both", "ln_vision_start": 0, "ln_text_start": 0, "debug": False}
    options |= {"lr": 2e-4, "wd": 1e-2, "n_iters": STEPS, "n_iters_frac": 0.6, "shots": 1, "setting": "standard"}
    names = [*models.CLASSES[:2], NEW]
    with repository.opened(lambda _: models.state(model)):
        code, theirs = repository.module("fs.twostage"), _theirs(repository, model)
        code.F, code.cls_acc = SimpleNamespace(cross_entropy=Kept(F.cross_entropy)), lambda *_: 0.0
        code.evaluate_selective_inference = Kept(lambda *_, **__: 0.0)
        code.tokenize_texts = partial(code.tokenize_texts, device="cpu")
        initial = _learned(theirs)
        code.run_twostage(Namespace(**options), theirs, models.SCALE, DATA, loader, loader, loader)
        (made,) = code.evaluate_selective_inference.given
        answers = made.infer(models.pixels(), names, TEMPLATE)
        expected = _side(code.F.cross_entropy.given, initial, _learned(theirs), made.classifier, answers)
    losses = Kept(F.cross_entropy)
    pictures = models.pixels()
    with (
        NO_BARS(),
        mock.patch.multiple(two_stages, Crops=OneBatch, F=_functional(losses)),
        mock.patch.object(clip_lora, "F", _functional(losses)),
        mock.patch("multimodal.experiments.adapting.pixels", lambda _, at: pictures[at]),
    ):
        stages = two_stages.fit(models.ours(model), [], models.LABELS.numpy(), _texts(), steps=STEPS)
        every: Any = range(len(pictures))
        said = torch.from_numpy(two_stages.logits(stages, every, in_template(TEMPLATE, names)))
    found = _side(losses.given, initial, _learned(stages.clip.model), stages.weight, said)
    return compare("2sfs", repository, f"{STEPS} steps of both stages, old and new classes", (found, expected))


def _theirs(repository: Repository, model: Any) -> Any:
    return repository.module("clip.model").build_model(models.state(model)).float()


def _texts() -> list[str]:
    return in_template(TEMPLATE, models.CLASSES)


def _functional(cross_entropy: Kept) -> Any:
    return SimpleNamespace(
        cross_entropy=cross_entropy,
        normalize=F.normalize,
        scaled_dot_product_attention=F.scaled_dot_product_attention,
    )


def _plain(name: str) -> str:
    """Ours, by peft, as theirs."""
    return name.replace(".lora_", ".w_lora_").replace(".default.weight", "")


def _learned(model: Any) -> dict[str, Tensor]:
    """All weights, by their names there."""
    return {_plain(name): part.detach().clone() for name, part in model.named_parameters()}


def _side(
    logits: list[Tensor],
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    classifier: Tensor | None = None,
    answers: Tensor | None = None,
) -> Side:
    moved = {name: after[name] - value for name, value in before.items() if name in after}
    moved = {name: change for name, change in moved.items() if bool(change.any())}
    more = {} if classifier is None else {"classifier": {"": classifier.detach()}}
    more |= {} if answers is None else {"answers": {"": answers.detach()}}
    return Side({"logits": dict(zip(map(str, range(len(logits))), logits, strict=True)), "change": moved, **more})


ROWS: Mapping[str, Callable[[Clone], Row]] = {"clip-lora": of_clip_lora, "2sfs": of_2sfs}
