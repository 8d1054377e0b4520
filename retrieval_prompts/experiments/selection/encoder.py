"""Which prompts: the kind, and the constant prompt or the one that reads what a first search finds, by dev."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.evaluation.metrics import HEADLINE
from retrieval_prompts.evaluation.significance import ALPHA, compare
from retrieval_prompts.experiments.run import PromptOutput
from retrieval_prompts.experiments.selection.trained import Trained
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.training.loop import Step
from retrieval_prompts.training.settings import TuneSettings

TRIED = ("table", "feedback")  # what costs a query less, first


def train(
    biencoder: BiEncoder,
    bench: Workbench,
    settings: TuneSettings,
    output: PromptOutput,
    *,
    bm25: bool = True,
    on_step: Callable[[Step, int], object] | None = None,
) -> Trained:
    """Attach prompts to `biencoder`, train them, and choose by dev; see `experiments.retrieval.tune`.

    With the encoder or the kind "auto" several are trained. Of two kinds the better is taken. An encoder that reads
    documents asks for a second search at every query and cannot be exported, so it has to be surely better on the
    queries that choose, or the only one that helps.
    """
    ways = candidates(settings)
    if ways == [settings]:
        bench.attach(biencoder, settings)
        return Trained.of(biencoder, bench, settings, output, bm25=bm25, on_step=on_step)
    ways, encoders = _attached(bench, settings, ways)
    found: list[Trained] = []
    done = 0

    def report(step: Step, total: int) -> None:
        if on_step is not None:
            ended = len(found)
            on_step(replace(step, step=done + step.step), done + total * (len(ways) - ended))

    for each, way in zip(encoders, ways, strict=True):
        with warnings.catch_warnings():
            if found:
                warnings.simplefilter("ignore", DataWarning)  # said once is enough
            found.append(Trained.of(each, bench, way, output, bm25=bm25, on_step=report))
        done += found[-1].steps[-1].step if found[-1].steps else 0
    best = 0
    for number in range(1, len(ways)):
        if _preferred(ways[number], found[number], ways[best], found[best]):
            best = number
    biencoder.take(encoders[best])
    names = _names(ways)
    tried = {name: each.choice.systems[each.choice.system] for name, each in zip(names, found, strict=True)}
    biencoder.training_record["encoders"] = {"used": names[best], "dev": tried}
    return found[best]


def _attached(
    bench: Workbench, settings: TuneSettings, ways: list[TuneSettings]
) -> tuple[list[TuneSettings], list[BiEncoder]]:
    """Fresh prompts for each of the ways, without those of a kind that this model does not take."""
    encoders: dict[TuneSettings, BiEncoder] = {}
    for way in ways:
        try:
            encoders[way] = bench.attach(BiEncoder(bench.tower), way)
        except UserError as error:
            if settings.kind != "auto" or way.kind == ways[0].kind:
                raise
            warnings.warn(f"--kind {way.kind} is left out: {error}", DataWarning, stacklevel=3)
    return list(encoders), list(encoders.values())


def candidates(settings: TuneSettings) -> list[TuneSettings]:
    """What is trained: the settings as they are, or each of what "auto" stands for, what costs a query less first.

    Where both are "auto", prompts that read documents are inputs, as they are by default.
    """
    kinds = tuple(settings.DEFAULTS) if settings.kind == "auto" else (settings.kind,)
    if settings.encoder != "auto":
        return [replace(settings, kind=kind) for kind in kinds]
    constant, reading = TRIED
    ways = [(kind, constant) for kind in kinds] + [(kinds[0], reading)]
    return [replace(settings, kind=kind, encoder=encoder) for kind, encoder in ways]


def _preferred(way: TuneSettings, trained: Trained, other_way: TuneSettings, other: Trained) -> bool:
    """Whether prompts are taken instead of others that cost a query no more."""
    if not (trained.choice.strength > 0 and other.choice.strength > 0):
        return trained.choice.strength > 0
    if way.encoder == other_way.encoder:
        return _dev(trained) > _dev(other)
    test = compare(other.scores, trained.scores, HEADLINE)
    return test.difference > 0 and test.p_value < ALPHA


def _dev(trained: Trained) -> float:
    """The mean of what was chosen; of all queries and of those with unseen documents, where there are both."""
    return fmean(trained.choice.systems[trained.choice.system].values())


def _names(ways: list[TuneSettings]) -> list[str]:
    """What tells them apart."""
    kinds, encoders = {way.kind for way in ways}, {way.encoder for way in ways}
    parts = [[way.kind] * (len(kinds) > 1) + [str(way.encoder)] * (len(encoders) > 1) for way in ways]
    return [" ".join(part) for part in parts]
