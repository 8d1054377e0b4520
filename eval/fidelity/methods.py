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
from torch.nn import functional as F

from eval.fidelity import models
from eval.fidelity.authors import Config, Repository
from eval.fidelity.compare import Row, Side, compare
from multimodal.prompts.contexts import Classes
from multimodal.prompts.methods import build_method
from multimodal.prompts.teacher import Teacher
from multimodal.towers.clip import Clip
from multimodal.training.classes import Task, train
from multimodal.training.settings import Settings, on_data
from multimodal.vectors.image_data import GivenFeatures

EPOCHS = 3
Pairs = dict[str, list[nn.Parameter]]  # our parameter -> theirs that it holds, in order
FP32 = {"PREC": "fp32"}
DEPTHS = {"PROMPT_DEPTH_VISION": models.LAYERS, "PROMPT_DEPTH_TEXT": models.LAYERS}


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
        method: ours, where the row is called otherwise.
        whole: the three epochs are all, at whose end prompts may be averaged.
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
    method: str = ""
    whole: bool = False
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


def _mmrl(model: Any) -> Pairs:
    learner = model.representation_learner
    sides = {"text": learner.compound_rep_tokens_r2tproj, "visual": learner.compound_rep_tokens_r2vproj}
    layers = {
        f"{side}.{number}": layer
        for side, each in sides.items()
        for number, layer in enumerate(each, models.LAYERS - len(each))
    }
    return {
        "tokens.vectors": [learner.compound_rep_tokens],
        "last": [model.image_encoder.proj_rep],
        **_linear(layers),
    }


def _student(model: Any) -> Pairs:
    first, _, _, second = model.VPT_image_trans.conv1
    return _visual(model) | _linear({"first": first, "second": second})


def _our_projector(trainer: Any) -> None:
    """No normalisation over the batch; what goes in has a mean square of 1."""
    projector = trainer.model.VPT_image_trans
    projector.conv1[1] = nn.Identity()
    projector.register_forward_pre_hook(lambda _, given: (F.normalize(given[0], dim=-1) * given[0].shape[-1] ** 0.5,))


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
        {"PROMPTSRC": {**FP32, **DEPTHS}},
        {"depth": models.LAYERS},
    ),
    "promptsrc-average": Case(
        "PromptSRC",
        "trainers.promptsrc",
        "PromptSRC",
        "PromptSRC/vit_b16_c2_ep50_batch4_4+4ctx_few_shot",
        lambda model: _text(model) | _visual(model),
        {"PROMPTSRC": {**FP32, **DEPTHS, "GPA_MEAN": 2, "GPA_STD": 1}},
        {"depth": models.LAYERS, "epochs": EPOCHS, "average_at": 2 / EPOCHS, "average_width": 1 / EPOCHS},
        method="promptsrc",
        whole=True,
    ),
    "mmrl": Case(
        "MMRL",
        "trainers.mmrl",
        "MMRL",
        "MMRL/vit_b16_few_shot",
        _mmrl,
        {"MMRL": {**FP32, "REP_LAYERS": [2, 3]}},
        {"depth": 2},
    ),
    "promptkd": Case(
        "PromptKD",
        "trainers.promptkd",
        "PromptKD",
        "PromptKD/vit_b16_c2_ep20_batch8_4+4ctx",
        _student,
        {"NAME": "PromptKD", "MODAL": "cross", "PROMPTKD": {**FP32, **DEPTHS, "KD_WEIGHT": float(len(models.CLASSES))}},
        {
            **{"recipe": "default", "depth": models.LAYERS, "epochs": 20, "batch_size": 8, "learning_rate": 5e-3},
            **{"optimizer": "sgd", "weight_decay": 5e-4, "schedule": "epochs", "clip_norm": 0.0, "head": "none"},
        },
        adjust=_our_projector,
        why="with our projector in theirs, which normalises over the batch and starts at random; theirs takes 1000 / C "
        "times the divergence, and its teacher is tuned first",
    ),
}
DATASET = "Caltech101"
TAUGHT = 768  # the dimension of the teacher's space


def row(name: str, clone: Callable[[str], Repository]) -> Row:
    case = CASES[name]
    method = case.method or name
    repository, model = clone(case.repository), models.make(text_layers=case.text_layers)
    teacher = models.make(1, TAUGHT) if method == "promptkd" else None
    with repository.opened(lambda path: models.state(teacher if teacher is not None and "L-14" in path else model)):
        given = {"TRAINER": case.given, "INPUT": {"SIZE": [models.SIDE] * 2}, "DATASET": {"NAME": DATASET}}
        config = repository.config(case.file, **given)
        if case.whole:
            config.OPTIM.MAX_EPOCH = EPOCHS
        trainer, expected, before = theirs(repository, case, config)
        taught = None if teacher is None else trainer.model_teacher(models.pixels())[1:]
    found, settings = ours(models.ours(model), method, case, before, taught)
    told = settings_of(config, settings)
    compared = f"loss, gradient, {'all of three epochs' if case.whole else 'three steps'}"
    return compare(name, repository, compared, (found, expected), case.why, told)


ROWS = {name: partial(row, name) for name in CASES}


def theirs(repository: Repository, case: Case, config: Config) -> tuple[Any, Side, dict[str, Tensor]]:
    """Their trainer, what it computed, and its prompts before the first step, by our names."""
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
    return trainer, _side(first, gradient, before, _joined(pairs)), before


def ours(
    clip: Clip, method: str, case: Case, before: Mapping[str, Tensor], taught: tuple[Tensor, Tensor] | None = None
) -> tuple[Side, Settings]:
    """What ours computed from those prompts, and the settings as published.

    Args:
        taught: their teacher's class texts (C, D'), and what it says of the images (b, C).
    """
    published = on_data({"method": method, "recipe": "paper", **case.settings}, DATASET)
    settings = replace(published, batch_size=models.IMAGES)
    images, known = models.pixels(), {}
    if taught is not None:
        texts, logits = (each.detach() for each in taught)
        base = {"name": "", "pretrained": None, "fingerprint": "", "dimension": TAUGHT}
        known["teacher"] = Teacher(base, settings.template, models.CLASSES, texts)
    task = Task(
        clip,
        build_method(clip, settings, len(models.CLASSES), **known),
        Classes(clip, models.CLASSES, settings),
        GivenFeatures(models.features(clip, images), images),
        models.LABELS.numpy(),
        settings,
        None if taught is None else lambda positions, _: logits[positions],
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
    for _ in islice(train(task), None if case.whole else EPOCHS):
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
