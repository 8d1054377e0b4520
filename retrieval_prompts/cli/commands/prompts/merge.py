"""retrieval-prompts merge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import Description, Device, Name, Overwrite, PromptVersion, Trust
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from retrieval_prompts.prompts.merging import Source


def merge(
    prompts: Annotated[list[Path], typer.Argument(help="two prompt folders or more, of one model")],
    out: Annotated[Path, typer.Option(help="the prompt folder to write")],
    method: Annotated[
        str, typer.Option(help="average (one length), concatenation (lengths add up), or mixture (chosen for a query)")
    ] = "average",
    weights: Annotated[
        str | None, typer.Option(help="one for each folder, as in 0.3,0.7  [default: all the same]")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="of a mixture: the BEIR folder that each was tuned on, in their order; for training queries"),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="of a mixture's choice, in cosines; lower is sharper  [default: 0.1]")
    ] = None,
    name: Name = None,
    description: Description = None,
    prompt_version: PromptVersion = None,
    model: Annotated[str | None, typer.Option(help="the base model, when it has moved  [default: as saved]")] = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Make one prompt folder of several over the same frozen model.

    A mixture gives each query the prompt of what it is like, or the frozen model where it is like none of them.

    Examples:

      retrieval-prompts merge A B --weights 0.3,0.7 --out AB

      retrieval-prompts merge A B --method mixture --data DATA_A --data DATA_B --out AB
    """
    from retrieval_prompts.files import PROMPTS

    console.claim(out, overwrite=overwrite, holds=PROMPTS)
    from retrieval_prompts.interop.sharing.hub import check_trust, located
    from retrieval_prompts.prompts import merging
    from retrieval_prompts.prompts.folder import load_prompts, save_prompts
    from retrieval_prompts.prompts.label import Label
    from retrieval_prompts.prompts.mixture import TEMPERATURE

    of_mixture = {"data": data or None, "temperature": temperature, "model": model, "device": device}
    if method != "mixture" and (unread := [f"--{name}" for name, value in of_mixture.items() if value is not None]):
        raise UserError(f"{', '.join(unread)}: used with --method mixture, not with {method}")
    if any(str(folder).startswith("hf:") for folder in prompts):
        check_trust(model, trust_remote_code)
    label, shares = Label(name, description, prompt_version), _numbers(weights)
    sources = [merging.Source(str(folder), load_prompts(located(folder))) for folder in prompts]
    merging.check(sources, method, shares)
    if method == "mixture":
        sources = _with_keys(sources, data or [], model, device, trust_remote_code)
    merged = merging.merge(sources, method, shares, temperature=TEMPERATURE if temperature is None else temperature)
    save_prompts(out, replace(merged, label=label), overwrite=overwrite)
    length = "+".join(str(value.shape[1]) for value in merged.vectors.values())
    size = sum(file.stat().st_size for file in out.iterdir())
    console.say(
        f"{out}: {method} of {len(sources)} {merged.kind} prompts, {length} vectors, strength {merged.strength:g} "
        f"({size / 1000:.1f} kB)"
    )
    console.say(f"next:\n  retrieval-prompts evaluate DATA --prompts {out}")


def _with_keys(
    sources: list[Source], data: list[Path], model: str | None, device: str | None, trust_remote_code: bool
) -> list[Source]:
    """The prompts, each with the key of what it was tuned on. Raises UserError."""
    from retrieval_prompts.data.beir_folder import load, with_test
    from retrieval_prompts.experiments.selection.keys import check_tuned_on, key_of
    from retrieval_prompts.towers.conventions import Conventions
    from retrieval_prompts.towers.probe import check_made
    from retrieval_prompts.towers.text import load_tower

    if len(data) != len(sources):
        raise UserError(
            f"a mixture chooses by the training queries of each prompt: pass --data once for each of {len(sources)} "
            f"folders, in their order; got {len(data)}"
        )
    datasets = [with_test(load(folder))[0] for folder in data]
    for source, dataset in zip(sources, datasets, strict=True):
        check_tuned_on(source.prompts, dataset, source.name)
    base = sources[0].prompts.base
    tower = load_tower(
        model or base["name"],
        device=device,
        trust_remote_code=trust_remote_code,
        conventions=Conventions.recorded(base),
    )
    check_made(tower, base, sources[0].name)
    return [replace(source, key=key_of(tower, dataset)) for source, dataset in zip(sources, datasets, strict=True)]


def _numbers(weights: str | None) -> list[float] | None:
    if weights is None:
        return None
    try:
        return [float(part) for part in weights.split(",")]
    except ValueError:
        raise UserError(f"--weights: expected numbers with commas between, as in 0.3,0.7, got {weights!r}") from None
