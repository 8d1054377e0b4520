"""Prompt methods: the first loss, its gradient, and where the prompts are after three epochs of one batch each.

Their side is their trainer: its `build_model` and `forward_backward`, with Dassl's optimizer and schedule, under their
configuration file. Ours is `training.classes.train` under the recipe "paper".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from eval.fidelity import models
from eval.fidelity.authors import Config, Repository
from eval.fidelity.compare import Row, Side, compare
from multimodal.prompts.contexts import Classes
from multimodal.prompts.methods import build_method
from multimodal.towers.clip import Clip
from multimodal.training.classes import Task, train
from multimodal.training.settings import Settings, on_data
from multimodal.vectors.image_data import GivenFeatures

EPOCHS = 3
Pairs = dict[str, list[nn.Parameter]]  # our parameter -> theirs that it holds, in order
FP32 = {"PREC": "fp32"}


@dataclass(frozen=True)
class Case:
    """How a method is found in a repository.

    Args:
        repository: the clone's name; module, trainer: in it.
        file: of its configuration, below configs/trainers.
        pairs: their model -> our parameters' names, and theirs.
        given: of their TRAINER's configuration, beside the file: what their scripts give on the command line.
        settings: of ours, beside the recipe.
        text_layers: of the model.
        adjust: what is changed in their trainer before it runs.
        why: what is not the same, in words.
    """

    repository: str
    module: str
    trainer: str
    file: str
    pairs: Callable[[Any], Pairs]
    given: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    text_layers: int = models.LAYERS
    adjust: Callable[[Any], None] | None = None
    why: str = ""


def _context(model: Any) -> Pairs:
    return {"encoder.vectors": [model.prompt_learner.ctx]}


def _meta(first: str, second: str) -> Callable[[Any], Pairs]:
    """A context, and a network of two layers, by our names of them."""

    def pairs(model: Any) -> Pairs:
        learner = model.prompt_learner
        layers = {first: learner.meta_net.linear1, second: learner.meta_net.linear2}
        return {"context.vectors": [learner.ctx], **_linear(layers)}

    return pairs


def _linear(layers: Mapping[str, Any]) -> Pairs:
    return {f"{name}.{part}": [getattr(layer, part)] for name, layer in layers.items() for part in ("weight", "bias")}


def _deeper(tower: Any) -> list[nn.Parameter]:
    return [block.VPT_shallow for block in tower.transformer.resblocks if hasattr(block, "VPT_shallow")]


def _text(model: Any) -> Pairs:
    return {"text.vectors": [model.prompt_learner.ctx, *_deeper(model.text_encoder)]}


def _visual(model: Any) -> Pairs:
    return {"visual.vectors": [model.image_encoder.VPT, *_deeper(model.image_encoder)]}


def _maple(model: Any) -> Pairs:
    learner = model.prompt_learner
    layers = dict(enumerate([learner.proj, *learner.compound_prompt_projections]))
    projections = _linear({f"project.{number}": layer for number, layer in layers.items()})
    return {"text.vectors": [learner.ctx, *learner.compound_prompts_text], **projections}


def _eps(trainer: Any) -> None:
    """TCP's README has its users write this into Dassl."""
    for group in trainer.optim.param_groups:
        group["eps"] = 1e-3


CASES = {
    "coop": Case("CoOp", "trainers.coop", "CoOp", "CoOp/vit_b16", _context, {"COOP": FP32}),
    "cocoop": Case(
        "CoOp",
        "trainers.cocoop",
        "CoCoOp",
        "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1",
        _meta("meta.0", "meta.2"),
        {"COCOOP": FP32},
    ),
    "kgcoop": Case(
        "KgCoOp", "trainers.kgcoop", "KgCoOp", "KgCoOp/vit_b16_ep100_ctxv1", _context, {"COOP": {**FP32, "W": 8.0}}
    ),
    "prograd": Case(
        "Prompt-align",
        "trainers.prograd",
        "ProGrad",
        "ProGrad/rn50",
        _context,
        {"COOP": {**FP32, "N_CTX": 16, "CTX_INIT": True}},
    ),
    "tcp": Case(
        "Textual-based_Class-aware_prompt_tuning",
        "trainers.tcp",
        "TCP",
        "TCP/vit_b16_ep100_ctxv1",
        _meta("down", "up"),
        {"COOP": {**FP32, "N_CTX": 4, "W": 1.0}},
        text_layers=12,
        adjust=_eps,
    ),
    "maple": Case(
        "multimodal-prompt-learning",
        "trainers.maple",
        "MaPLe",
        "MaPLe/vit_b16_c2_ep5_batch4_2ctx",
        _maple,
        {"MAPLE": {**FP32, "PROMPT_DEPTH": models.LAYERS}},
        {"depth": models.LAYERS},
    ),
    "vpt": Case(
        "multimodal-prompt-learning", "trainers.vpt", "VPT", "VPT/vit_b16_c2_ep5_batch4_4", _visual, {"VPT": FP32}
    ),
    "deep": Case(
        "multimodal-prompt-learning",
        "trainers.independentVL",
        "IVLP",
        "IVLP/vit_b16_c2_ep5_batch4_4ctx_language_only",
        _text,
        {"IVLP": FP32},
    ),
    "promptsrc": Case(
        "PromptSRC",
        "trainers.promptsrc",
        "PromptSRC",
        "PromptSRC/vit_b16_c2_ep50_batch4_4+4ctx_few_shot",
        lambda model: _text(model) | _visual(model),
        {"PROMPTSRC": {**FP32, "PROMPT_DEPTH_VISION": models.LAYERS, "PROMPT_DEPTH_TEXT": models.LAYERS}},
        {"depth": models.LAYERS},
    ),
}
DATASET = "Caltech101"


def row(method: str, clone: Callable[[str], Repository]) -> Row:
    case = CASES[method]
    repository, model = clone(case.repository), models.make(text_layers=case.text_layers)
    with repository.opened(lambda _: models.state(model)):
        given = {"TRAINER": case.given, "INPUT": {"SIZE": [models.SIDE] * 2}, "DATASET": {"NAME": DATASET}}
        config = repository.config(case.file, **given)
        expected, before = theirs(repository, case, config)
    found, settings = ours(models.ours(model), method, case, before)
    told = settings_of(config, settings)
    return compare(method, repository, "loss, gradient, three steps", (found, expected), case.why, told)


ROWS = {method: partial(row, method) for method in CASES}


def theirs(repository: Repository, case: Case, config: Config) -> tuple[Side, dict[str, Tensor]]:
    """What their trainer computed, and its prompts before the first step, by our names."""
    kind = getattr(repository.module(case.module), case.trainer)
    trainer = kind.__new__(kind)
    repository.module("dassl.engine.trainer").TrainerBase.__init__(trainer)
    trainer.cfg, trainer.device = config, torch.device("cpu")
    trainer.dm = SimpleNamespace(dataset=SimpleNamespace(classnames=list(models.CLASSES)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trainer.build_model()
    if case.adjust is not None:
        case.adjust(trainer)
    trainer.model.train()
    trainer.batch_idx, trainer.num_batches = 0, 1
    pairs = case.pairs(trainer.model)
    before = _joined(pairs)
    batch = {"img": models.pixels(), "label": models.LABELS}
    first, gradient = 0.0, {}
    for epoch in range(EPOCHS):
        said = trainer.forward_backward(batch)
        if epoch == 0:
            first = said["loss"] if "loss" in said else said["xe_loss"]
            gradient = _joined({name: [part.grad for part in parts] for name, parts in pairs.items()})
    return _side(first, gradient, before, _joined(pairs)), before


def ours(clip: Clip, method: str, case: Case, before: Mapping[str, Tensor]) -> tuple[Side, Settings]:
    """What ours computed from those prompts, and the settings as published."""
    published = on_data({"method": method, "recipe": "paper", **case.settings}, DATASET)
    settings = replace(published, batch_size=models.IMAGES)
    images = models.pixels()
    task = Task(
        clip,
        build_method(clip, settings, len(models.CLASSES)),
        Classes(clip, models.CLASSES, settings),
        GivenFeatures(models.features(clip, images), images),
        models.LABELS.numpy(),
        settings,
    )
    parameters = dict(task.method.prompter.named_parameters())
    if parameters.keys() != before.keys():
        raise ValueError(f"ours trains {sorted(parameters)}, theirs {sorted(before)}")
    with torch.no_grad():
        for name, value in before.items():
            parameters[name].copy_(value.reshape(parameters[name].shape))
    loss = task.loss(task.batches(0)[0])
    loss.backward()
    gradient = {name: _like(part.grad, before[name]) for name, part in parameters.items()}
    task.method.prompter.zero_grad()
    for _ in islice(train(task), EPOCHS):
        pass
    after = {name: _like(part, before[name]) for name, part in parameters.items()}
    return _side(float(loss.detach()), gradient, before, after), published


def settings_of(config: Config, settings: Settings) -> dict[str, tuple[Any, Any]]:
    """What a configuration and our settings both name: theirs, ours."""
    return {
        "epochs": (config.OPTIM.MAX_EPOCH, settings.epochs),
        "batch": (config.DATALOADER.TRAIN_X.BATCH_SIZE, settings.batch_size),
        "optimizer": (config.OPTIM.NAME, settings.optimizer),
        "learning rate": (config.OPTIM.LR, settings.learning_rate),
        "weight decay": (config.OPTIM.WEIGHT_DECAY, settings.weight_decay),
    }


def _side(
    loss: float, gradient: Mapping[str, Tensor], before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> Side:
    change = {name: after[name] - value for name, value in before.items()}
    return Side({"loss": {"": torch.tensor(loss)}, "gradient": gradient, "change": change})


def _joined(pairs: Mapping[str, Sequence[Any]]) -> dict[str, Tensor]:
    return {name: torch.stack([part.detach().clone() for part in parts]) for name, parts in pairs.items()}


def _like(value: Tensor | None, other: Tensor) -> Tensor:
    assert value is not None, "it has a gradient"
    return value.detach().clone().reshape(other.shape)
