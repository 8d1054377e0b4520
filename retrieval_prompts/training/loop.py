"""The training loop: a module, batches and a loss in; one record a step out. Knows no text, image or retriever.

The caller iterates over `fit`: it prints, plots or stops. A checkpoint holds all that a run depends on, so a killed
run that is started again ends with the same prompt, bit for bit on the CPU with as many threads and processes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from retrieval_prompts.errors import Diverged, UserError, first_line, out_of_memory
from retrieval_prompts.files import write_bytes
from retrieval_prompts.prompts.encoders import CHANGING
from retrieval_prompts.towers.fingerprint import digest

Batch = TypeVar("Batch")
CHECKPOINT_EVERY = 50  # steps
MOMENTUM = 0.9  # of SGD
FIRST_EPOCH = 1e-5  # the learning rate in it, with the schedule "epochs"


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast to train.

    Args:
        epochs: passes over the batches, 1 or more.
        learning_rate: at its peak; see `schedule`.
        warmup: share of all steps, for the schedule "steps".
        weight_decay: decoupled from the gradient in AdamW, part of it in SGD and Adam.
        clip: the largest norm of the gradient; None: any.
        patience: stop after this many epochs without a better dev score; None: never.
        give_up: end when no dev score beat the one before training after this share of the epochs, one epoch at least;
            None: never.
        to_beat: that dev score, where it is not the initial weights' own. Which weights are kept does not depend on it.
        optimizer: "adamw", "adam" or "sgd" (of momentum 0.9).
        eps: of AdamW and Adam.
        schedule: "steps": the learning rate rises linearly over the `warmup` share of all steps, then falls as a cosine
            to `floor`; "epochs": the first epoch at 1e-5, then that cosine, which each epoch begins one further (as
            few-shot learning with Dassl has it).
        floor: where the cosine of the schedule "steps" ends.
        advice: what to do when training diverges; ends the message.
    """

    epochs: int = 10
    learning_rate: float = 1e-2
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float | None = 1.0
    patience: int | None = None
    give_up: float | None = None
    to_beat: float | None = None
    optimizer: str = "adamw"
    eps: float = 1e-8
    schedule: str = "steps"
    floor: float = 0.0
    advice: str = "try a smaller --lr or a larger --temperature"


@dataclass(frozen=True)
class Step:
    """What one training step did.

    Args:
        dev: the dev score where one was taken after this step; that of step 0 is the one to beat.
        best: `dev` beats the one before training, and all since.
    """

    step: int
    epoch: int
    loss: float
    learning_rate: float
    gradient_norm: float
    dev: float | None = None
    best: bool = False


@dataclass
class _State:
    """What is neither a tensor nor a setting. `helped`: a dev score was better than the one to beat."""

    step: int = 0
    to_beat: float = -math.inf
    helped: bool = False
    given_up: bool = False
    best_step: int = 0
    best_score: float = -math.inf
    best_epoch: int = 0
    finished: bool = False


class Training(Iterator[Step]):
    """A training that goes on as it is iterated.

    Attributes:
        steps: every record so far, those from before an interruption included.
        total: the number of steps, if nothing stops it early.

    Raises:
        UserError: where a step does not fit into memory.
    """

    SMALLER = "--batch-size"  # what a user may do about it

    def __init__(self, records: Iterator[Step], steps: list[Step], total: int, state: _State | None = None) -> None:
        self._records, self.steps, self.total, self._state = records, steps, total, state or _State()

    @property
    def given_up(self) -> bool:
        """It has ended early, for no dev score beat the one before training (see `LoopSettings`)."""
        return self._state.given_up

    def __next__(self) -> Step:
        try:
            return next(self._records)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise UserError(
                f"this training does not fit into memory ({first_line(error)}); use a smaller {self.SMALLER}, a "
                "smaller model, or --device cpu"
            ) from error


def fit(
    module: nn.Module,
    batches: Callable[[int], Sequence[Batch]],
    loss: Callable[[Batch], Tensor],
    evaluate: Callable[[], float] | None,
    settings: LoopSettings,
    *,
    epoch_end: Callable[[int], object] | None = None,
    checkpoint: Path | None = None,
    identity: Any = None,
) -> Training:
    """Train `module`; afterwards it holds the weights with the best dev score, the initial ones included, or the last
    ones where nothing is there to choose by.

    Args:
        batches: epoch (from 0) -> the batches of that epoch, the same whenever it is asked.
        loss: batch -> scalar. Randomness must come from the batch alone.
        evaluate: () -> dev score, higher is better; called before the first step and after each epoch. None: there is
            no dev split, as in few-shot learning.
        epoch_end: called with the number of each epoch (from 0) when it has ended, before it is kept in a checkpoint;
            what it changes must be in the module's state.
        checkpoint: a file written as training goes; when it is there, training resumes from it.
        identity: what a checkpoint must agree with (settings, data, model) to be resumed; any JSON value.

    Diverged comes from the iteration, when the loss is not finite or the dev score fails (the module then holds the
    best weights so far).

    Raises:
        UserError: at once when the checkpoint is damaged or of another run.
    """
    run = _Run(module, settings, identity, settings.epochs * len(batches(0)))
    if checkpoint is not None and checkpoint.exists():
        run.resume(checkpoint)
    records = _records(run, batches, loss, evaluate, epoch_end, checkpoint)
    return Training(records, run.steps, run.total, run.state)


def _records(
    run: _Run,
    batches: Callable[[int], Sequence[Batch]],
    loss: Callable[[Batch], Tensor],
    evaluate: Callable[[], float] | None,
    epoch_end: Callable[[int], object] | None,
    checkpoint: Path | None,
) -> Iterator[Step]:
    steps_per_epoch = len(batches(0))
    if evaluate is not None and not run.steps:
        yield run.start(evaluate)
    while not run.ended():
        epoch, position = divmod(run.state.step, steps_per_epoch)
        for batch in batches(epoch)[position:]:
            record = run.update(epoch, loss(batch))
            ended = run.state.step % steps_per_epoch == 0
            if ended and epoch_end is not None:
                epoch_end(epoch)
            if ended:
                record = run.choose(record, evaluate)
            run.steps.append(record)
            if checkpoint is not None and (run.state.step % CHECKPOINT_EVERY == 0 or ended):
                run.save(checkpoint)
            yield record
            if run.ended():
                break
    with CHANGING:
        run.module.load_state_dict(run.best)


class _Run:
    """All that a training changes: the module, the moments of its optimizer, the best weights, the records."""

    def __init__(self, module: nn.Module, settings: LoopSettings, identity: Any, total: int) -> None:
        self.module, self.settings, self.total = module, settings, total
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = _optimizer(self.parameters, settings)
        values = {name: value for name, value in asdict(settings).items() if name != "advice"}
        self.identity = json.loads(json.dumps({"settings": values, "run": identity}, default=str))
        self.state = _State()
        self.best = _copy(module)
        self.steps: list[Step] = []

    def ended(self) -> bool:
        return self.state.finished or self.state.step >= self.total

    def start(self, evaluate: Callable[[], float]) -> Step:
        """Score the initial weights; the record has the score to beat."""
        state, given = self.state, self.settings.to_beat
        state.best_score = evaluate()
        state.to_beat = state.best_score if given is None else given
        self.steps.append(Step(0, 0, math.nan, 0.0, 0.0, dev=state.to_beat))
        return self.steps[-1]

    def update(self, epoch: int, value: Tensor) -> Step:
        """One step down the gradient of the loss."""
        rate = learning_rate(self.state.step, self.total, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        clip = math.inf if self.settings.clip is None else self.settings.clip
        self.optimizer.zero_grad()
        value.backward()
        norm = float(nn.utils.clip_grad_norm_(self.parameters, clip))
        self.state.step += 1
        if not (math.isfinite(value.item()) and math.isfinite(norm)):
            raise self._stop(f"the loss is not finite (loss {value.item()}, gradient norm {norm})")
        with CHANGING:
            self.optimizer.step()
        return Step(self.state.step, epoch, value.item(), rate, norm)

    def choose(self, record: Step, evaluate: Callable[[], float] | None) -> Step:
        """At the end of an epoch: keep the weights if dev, where there is one, is better with them."""
        state = self.state
        if evaluate is None:
            self.best, state.best_step = _copy(self.module), state.step
            return record
        try:
            score = evaluate()
        except UserError as error:
            raise self._stop(f"the dev score failed ({error})") from error
        better = score > state.best_score
        if better:
            state.best_score, state.best_step, state.best_epoch = score, state.step, record.epoch + 1
            self.best = _copy(self.module)
        helps = score > state.to_beat
        state.helped = state.helped or helps
        epochs, settings = record.epoch + 1, self.settings
        if settings.give_up is not None and epochs >= max(1, round(settings.give_up * settings.epochs)):
            state.given_up = not state.helped
        waited = epochs - state.best_epoch
        state.finished = state.given_up or (settings.patience is not None and waited >= settings.patience)
        return replace(record, dev=score, best=better and helps)

    def _stop(self, reason: str) -> Diverged:
        with CHANGING:
            self.module.load_state_dict(self.best)
        return Diverged(
            f"{reason} at step {self.state.step} of {self.total}; the prompt of step {self.state.best_step} is kept; "
            f"{self.settings.advice}"
        )

    def save(self, path: Path) -> None:
        from safetensors.torch import save

        tensors = {f"module.{name}": tensor for name, tensor in _copy(self.module).items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor.detach().clone() for name, tensor in values.items()}
        metadata = {
            "identity": json.dumps(self.identity),
            "state": json.dumps(asdict(self.state)),
            "history": json.dumps([astuple(step) for step in self.steps]),
        }
        metadata["sha256"] = json.dumps(_digest(tensors, metadata))
        write_bytes(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))

    def resume(self, path: Path) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

        metadata, tensors = read_checkpoint(path)
        try:
            if json.loads(metadata["identity"]) != self.identity:
                raise UserError(
                    f"{path} is the checkpoint of a run with other settings, data or model; repeat those to resume it, "
                    "or delete it to start afresh"
                )
            self.state = _State(**json.loads(metadata["state"]))
            self.steps += [Step(*values) for values in json.loads(metadata["history"])]
            self.module.load_state_dict(part("module."))
        except UserError:
            raise
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise _no_checkpoint(path, error) from error
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in part("optimizer.").items():
            index, _, kind = name.partition(".")
            moments.setdefault(int(index), {})[kind] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        # load_state_dict copies to the parameters' device; so must the kept best
        device = next(self.module.parameters()).device
        self.best = {name: tensor.to(device) for name, tensor in part("best.").items()}


def read_checkpoint(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a checkpoint.

    Raises:
        UserError: unless they are those that were written.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        if json.loads(metadata["sha256"]) != _digest(tensors, metadata):
            raise ValueError("it was changed after it was written")
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError, OSError) as error:  # deep JSON as well
        raise _no_checkpoint(path, error) from error
    return metadata, tensors


def _no_checkpoint(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(f"{path} is not a checkpoint of a training run ({reason}); delete it to start afresh")


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    return digest(tensors, before="\n".join(metadata[name] for name in ("identity", "state", "history")))


def learning_rate(step: int, total: int, settings: LoopSettings) -> float:
    """That of a step, counted from 0, of so many; see `LoopSettings.schedule`."""
    if settings.schedule == "epochs":
        epoch = step // (total // settings.epochs)
        share = (epoch - 1) / settings.epochs
        return FIRST_EPOCH if epoch == 0 else settings.learning_rate * (1 + math.cos(math.pi * share)) / 2
    warmup = round(settings.warmup * total)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return settings.floor + (settings.learning_rate - settings.floor) * (1 + math.cos(math.pi * progress)) / 2


def _optimizer(parameters: Sequence[nn.Parameter], settings: LoopSettings) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=MOMENTUM, weight_decay=decay)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=rate, weight_decay=decay, eps=settings.eps)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
