"""The training loop: a module, batches and a loss in; one record a step out. Knows no text, image or retriever.

The caller iterates over `fit`: it prints, plots or stops. A checkpoint holds all that a run depends on, so a killed
run that is started again ends with the same prompt, bit for bit on the CPU.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from retrieval_prompts.errors import Diverged, UserError
from retrieval_prompts.files import write_bytes

Batch = TypeVar("Batch")
CHECKPOINT_EVERY = 50  # steps


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast to train.

    Args:
        epochs: passes over the batches, 1 or more.
        learning_rate: of AdamW at its peak; it rises linearly over the `warmup` share of all steps, then falls
            as a cosine to zero.
        weight_decay: of AdamW.
        clip: the largest norm of the gradient.
        patience: stop after this many epochs without a better dev score; None: never.
    """

    epochs: int = 10
    learning_rate: float = 1e-2
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    patience: int | None = None


@dataclass(frozen=True)
class Step:
    """What one training step did. `dev` is the dev score where one was taken after this step."""

    step: int
    epoch: int
    loss: float
    learning_rate: float
    gradient_norm: float
    dev: float | None = None
    best: bool = False


@dataclass
class _State:
    """What is neither a tensor nor a setting."""

    step: int = 0
    best_step: int = 0
    best_score: float = -math.inf
    best_epoch: int = 0
    finished: bool = False


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
    history: list[Step] | None = None,
    advice: str = "try a smaller --lr or a larger --temperature",
) -> Iterator[Step]:
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
        history: an empty list that gets every record, those from before an interruption included.
        advice: what to do when training diverges; ends the message.
        identity: what a checkpoint must agree with (settings, data, model) to be resumed; any JSON value.

    Raises Diverged when the loss is not finite or the dev score fails (the module then holds the best weights so
    far), and UserError when the checkpoint is damaged or of another run.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    identity = json.loads(json.dumps({"settings": asdict(settings), "run": identity}, default=str))
    steps_per_epoch = len(batches(0))
    total = settings.epochs * steps_per_epoch
    state = _State()
    best = _copy(module)
    history = [] if history is None else history

    def stop(reason: str) -> Diverged:
        module.load_state_dict(best)
        return Diverged(
            f"{reason} at step {state.step} of {total}; the prompt of step {state.best_step} is kept; {advice}"
        )

    if checkpoint is not None and checkpoint.exists():
        state, best = _resume(checkpoint, identity, module, optimizer, history)
    elif evaluate is not None:
        state.best_score = evaluate()
        history.append(Step(0, 0, math.nan, 0.0, 0.0, dev=state.best_score, best=True))
        yield history[-1]
    while state.step < total and not state.finished:
        epoch, position = divmod(state.step, steps_per_epoch)
        for batch in batches(epoch)[position:]:
            rate = learning_rate(state.step, total, settings)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            value = loss(batch)
            value.backward()
            norm = float(nn.utils.clip_grad_norm_(parameters, settings.clip))
            state.step += 1
            if not (math.isfinite(value.item()) and math.isfinite(norm)):
                raise stop(f"the loss is not finite (loss {value.item()}, gradient norm {norm})")
            optimizer.step()
            record = Step(state.step, epoch, value.item(), rate, norm)
            ended = state.step % steps_per_epoch == 0
            if ended and epoch_end is not None:
                epoch_end(epoch)
            if ended and evaluate is None:
                best, state.best_step = _copy(module), state.step
            elif ended and evaluate is not None:
                try:
                    score = evaluate()
                except UserError as error:
                    raise stop(f"the dev score failed ({error})") from error
                better = score > state.best_score
                if better:
                    state.best_score, state.best_step, state.best_epoch = score, state.step, epoch + 1
                    best = _copy(module)
                record = replace(record, dev=score, best=better)
                waited = epoch + 1 - state.best_epoch
                state.finished = settings.patience is not None and waited >= settings.patience
            history.append(record)
            if checkpoint is not None and (state.step % CHECKPOINT_EVERY == 0 or ended):
                _save(checkpoint, identity, module, optimizer, state, best, history)
            yield record
            if state.finished:
                break
    module.load_state_dict(best)


def learning_rate(step: int, total: int, settings: LoopSettings) -> float:
    """Linear warm-up, then a cosine to zero at `total`; `step` counts from 0."""
    warmup = round(settings.warmup * total)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return settings.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _save(
    path: Path,
    identity: Any,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: _State,
    best: dict[str, Tensor],
    history: list[Step],
) -> None:
    from safetensors.torch import save

    tensors = {f"module.{name}": tensor for name, tensor in _copy(module).items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor.detach().clone() for name, tensor in values.items()}
    metadata = {
        "identity": json.dumps(identity),
        "state": json.dumps(asdict(state)),
        "history": json.dumps([astuple(step) for step in history]),
    }
    write_bytes(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))


def _resume(
    path: Path, identity: Any, module: nn.Module, optimizer: torch.optim.Optimizer, history: list[Step]
) -> tuple[_State, dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        if json.loads(metadata["identity"]) != identity:
            raise UserError(
                f"{path} is the checkpoint of a run with other settings, data or model; repeat those to resume it, "
                "or delete it to start afresh"
            )
        state = _State(**json.loads(metadata["state"]))
        history += [Step(*values) for values in json.loads(metadata["history"])]
        module.load_state_dict(part("module."))
    except (SafetensorError, RuntimeError, KeyError, TypeError, json.JSONDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is no checkpoint of a training run ({reason}); delete it to start afresh") from error
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in part("optimizer.").items():
        index, _, kind = name.partition(".")
        moments.setdefault(int(index), {})[kind] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    # load_state_dict copies to the parameters' device; so must the kept best
    device = next(module.parameters()).device
    return state, {name: tensor.to(device) for name, tensor in part("best.").items()}
