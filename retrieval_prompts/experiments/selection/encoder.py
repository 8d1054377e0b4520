"""Which prompt encoder: the constant prompt, or the one that reads what a first search finds, by dev."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.errors import DataWarning
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

    With the encoder "auto" both are trained. The one that reads documents asks for a second search at every query and
    cannot be exported, so it has to be surely better on the queries that choose, or the only one that helps.
    """
    if settings.encoder != "auto":
        bench.attach(biencoder, settings)
        return Trained.of(biencoder, bench, settings, output, bm25=bm25, on_step=on_step)
    ways = [replace(settings, encoder=name) for name in TRIED]
    encoders = [bench.attach(BiEncoder(bench.tower), way) for way in ways]
    found: list[Trained] = []
    done = 0

    def report(step: Step, total: int) -> None:
        if on_step is not None:
            on_step(replace(step, step=done + step.step), done + total if done else 2 * total)

    for each, way in zip(encoders, ways, strict=True):
        with warnings.catch_warnings():
            if found:
                warnings.simplefilter("ignore", DataWarning)  # said once is enough
            found.append(Trained.of(each, bench, way, output, bm25=bm25, on_step=report))
        done += found[-1].steps[-1].step if found[-1].steps else 0
    static, reading = found
    best = int(reading.choice.strength > 0)
    if best and static.choice.strength > 0:
        test = compare(static.scores, reading.scores, HEADLINE)
        best = int(test.difference > 0 and test.p_value < ALPHA)
    biencoder.take(encoders[best])
    tried = {name: each.choice.systems[each.choice.system] for name, each in zip(TRIED, found, strict=True)}
    biencoder.training_record["encoders"] = {"used": TRIED[best], "dev": tried}
    return found[best]
