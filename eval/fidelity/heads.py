"""Heads over features: what both sides say of the same test features, fitted on the same shots and texts.

Their functions print accuracies; the logits that they hand to their `cls_acc`, or to the loss, are kept as they pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eval.fidelity.authors import Repository
from eval.fidelity.compare import Row, Side, compare
from multimodal.heads import clap, gda, lp_plus, tip_adapter, tip_adapter_f, two_stage
from multimodal.heads.head import Shots

Clone = Callable[[str], Repository]
CLASSES, PER_CLASS, DIMENSION, TESTS, SCALE = 5, 4, 24, 40, 100.0


def shots() -> Shots:
    """Features around a centre a class, and texts near the centres."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, DIMENSION, generator=generator)
    labels = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
    features = F.normalize(centres[labels] + 1.5 * torch.randn(len(labels), DIMENSION, generator=generator), dim=1)
    text = F.normalize(centres + 2.0 * torch.randn(CLASSES, DIMENSION, generator=generator), dim=1)
    return Shots(features, labels, text, SCALE)


def tests() -> Tensor:
    """(TESTS, DIMENSION)"""
    return F.normalize(torch.randn(TESTS, DIMENSION, generator=torch.Generator().manual_seed(1)), dim=1)


class Kept:
    """A function in the place of theirs, that keeps what it is first given; of a tensor a copy."""

    def __init__(self, then: Callable[..., Any]) -> None:
        self.given: list[Any] = []
        self.then = then

    def __call__(self, first: Any, *rest: Any, **more: Any) -> Any:
        self.given.append(first.detach().clone() if isinstance(first, Tensor) else first)
        return self.then(first, *rest, **more)


def no_weights(path: str) -> dict[str, Tensor]:
    raise FileNotFoundError(path)


def _logits(**named: Tensor) -> Side:
    return Side({name.replace("_", " "): {"": value} for name, value in named.items()})


def _images(x: Tensor) -> Any:
    """A CLIP whose images are their features."""
    return SimpleNamespace(encode_image=lambda images: images.clone(), dtype=x.dtype)


def of_tip_adapter(clone: Clone) -> Row:
    alpha, beta = 3.0, 5.5
    mine, x = shots(), tests()
    labels, repository = torch.zeros(len(x), dtype=torch.long), clone("Tip-Adapter")
    with repository.opened(no_weights):
        code = repository.module("main")
        code.cls_acc, code.search_hp = Kept(lambda *_: 0.0), lambda *_, **__: (beta, alpha)
        config = {"init_beta": beta, "init_alpha": alpha}
        given = (mine.features.T, mine.one_hot, x, labels, x, labels, mine.text.T)
        code.run_tip_adapter(config, *given)
    expected = _logits(logits=code.cls_acc.given[-1])
    found = _logits(logits=tip_adapter.fit(mine, alpha, beta).logits(x))
    return compare("tip-adapter", repository, "logits", (found, expected))


def of_tip_adapter_f(clone: Clone) -> Row:
    alpha, beta, epochs = 3.0, 5.5, 20
    mine, x = shots(), tests()
    labels, repository = torch.zeros(len(x), dtype=torch.long), clone("Tip-Adapter")
    kept: dict[str, Any] = {}
    with (
        repository.opened(kept.__getitem__),
        mock.patch.object(torch, "save", lambda value, path: kept.update({path: nn.Parameter(value.detach().clone())})),
    ):
        code = repository.module("main")
        code.cls_acc, code.search_hp = Kept(lambda *_: 0.0), lambda *_, **__: (beta, alpha)
        code.cls_acc.then = lambda *_: float(len(code.cls_acc.given))  # so that its best epoch is the last
        config = {
            "init_beta": beta,
            "init_alpha": alpha,
            "lr": 1e-3,
            "train_epoch": epochs,
            "cache_dir": "",
            "shots": 0,
        }
        given = (mine.features.T.clone(), mine.one_hot, x, labels, x, labels, mine.text.T)
        code.run_tip_adapter_F(config, *given, _images(x), [(mine.features, mine.labels)])
    expected = _logits(logits=code.cls_acc.given[-1])
    found = _logits(logits=tip_adapter_f.fit(mine, alpha, beta, steps=epochs).logits(x))
    return compare("tip-adapter-f", repository, f"logits after {epochs} steps", (found, expected))


def of_lp_plus(clone: Clone) -> Row:
    mine, x, repository = shots(), tests(), clone("FewShot-CLIP-Strong-Baseline")
    few, many = lp_plus.EVERY - 1, lp_plus.STEPS
    batch = [(mine.features, mine.labels)]
    with repository.opened(no_weights), mock.patch.object(nn.Linear, "reset_parameters", _zeros):
        code = repository.module("methods.linear_probe_p2")
        code.F = SimpleNamespace(cross_entropy=Kept(F.cross_entropy))
        options = {"train_epoch": many + 1, "shots": PER_CLASS, "dataset": "", "output_dir": ""}
        made = code.LinearProbe_P2(options)
        made(batch, batch, x, torch.zeros(len(x)), mine.text.T, _images(x), [])
    # The loss sees the shots' logits after so many steps
    given = code.F.cross_entropy.given
    expected = {f"logits after {steps} steps": {"": given[steps]} for steps in (few, many)}
    blend, summed = lp_plus.published(mine).values()
    found = {
        f"logits after {steps} steps": {"": lp_plus.fit(mine, blend, steps, summed).logits(mine.features)}
        for steps in (few, many)
    }
    why = "as published, but for the bias, which starts at random there; by default the gradients of the text's "
    why += "multipliers do not add up over all steps, as in the paper"
    return compare("lp++", repository, "logits of the shots", (Side(found), Side(expected)), why)


def _zeros(layer: nn.Linear) -> None:
    for part in layer.parameters():
        nn.init.zeros_(part)


def of_clap(clone: Clone) -> Row:
    """Their adapter, constraint and step, on features; their images, texts and loaders are left out."""
    steps, mine, x, repository = 20, shots(), tests(), clone("CLAP")
    with repository.opened(no_weights):
        code = repository.module("trainers.adapters")
        adapter = {"INIT": "ZS", "CONSTRAINT": "l2", "PREC": "fp32"}
        config = repository.config(
            "SGD_lr1e-1_B256_ep300", TRAINER={"ADAPTER": adapter}, OPTIM={"MAX_EPOCH": steps, "WARMUP_EPOCH": 0}
        )
        scale = nn.Parameter(torch.tensor(SCALE).log(), requires_grad=False)
        clip = SimpleNamespace(dtype=x.dtype, logit_scale=scale)
        trainer = code.ADAPTER.__new__(code.ADAPTER)
        repository.module("dassl.engine.trainer").TrainerBase.__init__(trainer)
        model = code.CustomCLIP.__new__(code.CustomCLIP)
        nn.Module.__init__(model)
        model.logit_scale, model.dtype = scale, x.dtype
        model.adapter = code.AdapterMethod(config, clip, mine.text)
        model.adapter.device = torch.device("cpu")
        model.adapter.init_lagrangian_multipliers(mine.labels, mine.logits.to(torch.float32))  # theirs is written out
        trainer.cfg, trainer.model, trainer.device = config, model, torch.device("cpu")
        trainer.features_test, trainer.labels_test = x, torch.zeros(len(x), dtype=torch.long)
        trainer.optim = code.build_optimizer(model.adapter, config.OPTIM)
        trainer.sched = code.build_lr_scheduler(trainer.optim, config.OPTIM)
        trainer.register_model("adapter", model.adapter, trainer.optim, trainer.sched)
        trainer.batch_idx, trainer.num_batches = 0, 1
        for _ in range(steps):
            trainer.forward_backward(mine.features.numpy(), mine.labels)
        expected = _logits(multipliers=model.adapter.alpha_constraint, logits=model.forward_features(x))
    found = _logits(multipliers=clap.multipliers(mine), logits=clap.fit(mine, steps).logits(x))
    why = (
        "given texts of unit length, where theirs are as long as the model makes them; its first epoch at 1e-5 left out"
    )
    return compare("clap", repository, f"multipliers, logits after {steps} steps", (found, expected), why)


def of_gda(clone: Clone) -> Row:
    mine, x, repository = shots(), tests(), clone("ICLR24")
    labels = torch.zeros(len(x), dtype=torch.long)
    with repository.opened(no_weights):
        code = repository.module("main_few_shots")
        code.cls_acc = Kept(lambda *_: 0.0)
        code.val_features = code.test_features = x
        code.val_labels = code.test_labels = labels
        code.run({"augment_epoch": 1}, [(mine.features, mine.labels)], mine.text.T, _images(x))
    expected = _logits(logits=code.cls_acc.given[-1])  # none is right, so its first weight of the Gaussians stays
    found = _logits(logits=gda.fit(mine, gain=0.1 / len(mine.features)).logits(x))
    return compare("gda", repository, "logits", (found, expected))


def of_two_stage(clone: Clone) -> Row:
    """Their second stage, over features, by their step, with what their run gives it."""
    mine, x, repository = shots(), tests(), clone("rethinking_fewshot_vlms")
    options = two_stage.published(mine)
    with repository.opened(no_weights):
        code = repository.module("fs.twostage")
        code.cls_acc = lambda *_: 0.0
        model = code.SingleStreamClassifier.__new__(code.SingleStreamClassifier)
        nn.Module.__init__(model)
        model.backbone, model.classifier = nn.Identity(), nn.Parameter(mine.text.clone())
        model.logit_scale = nn.Parameter(torch.tensor(SCALE).log(), requires_grad=False)
        optimizer = torch.optim.AdamW([model.classifier], lr=2e-4, weight_decay=1e-2)
        steps = int(options["steps"])
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-6)
        scaler, batches = torch.amp.GradScaler("cpu", enabled=False), [(mine.features, mine.labels)] * steps
        code.train_epoch_second_stage(model, optimizer, schedule, scaler, batches, 0, steps)
        expected = _logits(logits=model(x))
    found = _logits(logits=two_stage.fit(mine, steps, 2e-4, 1e-6).logits(x))
    why = "as published; the default takes fewer and larger steps, as many as held-out shots want"
    return compare("two-stage", repository, f"logits after {steps} steps", (found, expected), why)


ROWS: Mapping[str, Callable[[Clone], Row]] = {
    "tip-adapter": of_tip_adapter,
    "tip-adapter-f": of_tip_adapter_f,
    "lp++": of_lp_plus,
    "clap": of_clap,
    "gda": of_gda,
    "two-stage": of_two_stage,
}
