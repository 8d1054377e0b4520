"""A command that several processes were launched for: the first one runs it, the others help where it trains."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.grouped import Grouped
from retrieval_prompts.errors import UserError, first_line, out_of_memory
from retrieval_prompts.training.processes.place import Place

if TYPE_CHECKING:
    from retrieval_prompts.towers.text import TextTower


class OnMany(Grouped):
    """A command that trains on as many processes as were launched for it."""

    many = True


def helped(command: Callable[..., None]) -> Callable[..., None]:
    """For a command with the options of a model: processes but the first encode for it and do nothing else, and each
    has a device of its own."""

    @functools.wraps(command)
    def run(**values: Any) -> None:
        place = Place.here()
        if place.several:
            values["device"] = own_device(values["device"], place)
            console.printer(values["json_file"])(f"training on {place.count} processes")
        if place.first:
            command(**values)
        else:
            _help(place, values["device"], values["trust_remote_code"])

    return run


def own_device(device: str | None, place: Place) -> str | None:
    """The device of this process, by the one that was asked for. Raises UserError where there is none."""
    if device == "cpu":
        return device
    if device not in (None, "cuda"):
        raise UserError(f"with several processes --device is cpu or cuda, of which each takes its own; got {device!r}")
    import torch

    if not torch.cuda.is_available():
        return device
    if (there := torch.cuda.device_count()) < place.local_count:
        raise UserError(
            f"{place.local_count} processes on this machine want a GPU each, and it has {there}; launch {there}, or "
            "use --device cpu"
        )
    return f"cuda:{place.local_rank}"


def _help(place: Place, device: str | None, trust_remote_code: bool) -> None:
    from retrieval_prompts.training.processes.share import FirstEnded, helping

    def load(wanted: dict[str, Any]) -> TextTower:
        from retrieval_prompts.biencoder import BiEncoder

        return BiEncoder.load(device=device, trust_remote_code=trust_remote_code, **wanted).tower

    console.end_at_once()
    try:
        helping(load)
    except FirstEnded as ended:  # which has said why
        raise typer.Exit(1) from ended
    except (UserError, OSError, RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not out_of_memory(error):
            raise
        print(f"error: process {place.rank}: {console.one_line(first_line(error))}", file=sys.__stderr__)
        raise typer.Exit(2) from error
