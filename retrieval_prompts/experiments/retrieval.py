"""One experiment on one data set: tune prompts or evaluate them, one kind of result. Prints only progress bars."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.data.judgements import Run
from retrieval_prompts.evaluation.metrics import HEADLINE, means, per_query
from retrieval_prompts.evaluation.significance import Comparison
from retrieval_prompts.experiments.run import PromptOutput
from retrieval_prompts.experiments.workbench import TOP, Workbench, paired_tests, search_run
from retrieval_prompts.training.loop import Step
from retrieval_prompts.training.retrieval import run_identity, train
from retrieval_prompts.training.settings import TuneSettings

CURVE_POINTS = 60


@dataclass
class RetrievalResult:
    """What an experiment found.

    Args:
        systems: "frozen", "tuned", "bm25" -> metric -> mean over queries, a fraction; none without an evaluation.
        tests: "tuned_vs_frozen" and so on -> paired test of nDCG@10.
        documents_encoded: documents encoded now, for any system; the rest was found in the cache.
        documents_reencoded: documents that the prompts need other vectors of.
        seconds: part of the work -> seconds.
        runs: system -> run.
        steps: a record for each training step, empty after an evaluation.
    """

    dataset: str
    split: str | None
    model: str
    systems: dict[str, dict[str, float]] = field(default_factory=dict)
    tests: dict[str, Comparison] = field(default_factory=dict)
    documents_encoded: int = 0
    documents_reencoded: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Every field but `runs` and `steps`; a test as `Comparison.as_dict` has it."""
        plain = {name: value for name, value in vars(self).items() if name not in ("runs", "steps")}
        return plain | {"tests": {name: test.as_dict() for name, test in self.tests.items()}}


def tune(
    biencoder: BiEncoder,
    data: Dataset | Workbench,
    settings: TuneSettings | None = None,
    *,
    split: str | None = "test",
    out: Path | None = None,
    overwrite: bool = False,
    bm25: bool = True,
    on_step: Callable[[Step, int], object] | None = None,
) -> RetrievalResult:
    """Attach prompts to a frozen bi-encoder, train them, save them, evaluate them.

    Args:
        data: a workbench where vectors are at hand, or kept elsewhere than in the user's cache.
        split: evaluated afterwards when the data has it; None: no evaluation.
        out: the prompt folder. Training is checkpointed beside it, and goes on from there when it was interrupted.
        on_step: called with each record and the number of all steps.

    Raises UserError for data or settings that cannot be trained on; nothing is then written.
    """
    output = PromptOutput(out, overwrite=overwrite)
    settings = settings or TuneSettings()
    bench = Workbench.of(biencoder.tower, data)
    learned = bench.training
    with bench.watch("tune"):
        biencoder.attach(settings)
    documents = bench.documents
    with bench.watch("tune"):
        steps = _train(biencoder, bench, settings, output, on_step)
    record = biencoder.training_record
    record |= {"curve": curve(steps), "dataset": bench.dataset.name, "dev_held_out_of_train": learned.held_out}
    if split is not None and split in bench.dataset.qrels:
        result = _evaluate(biencoder, bench, split, bm25)
        found = result.to_json()
        record |= {"results": {split: found["systems"]}, "tests": {split: found["tests"]}}
    else:
        result = RetrievalResult(bench.dataset.name, split, biencoder.tower.name, documents_encoded=documents.encoded)
    output.save(biencoder.save)
    result.steps, result.seconds = steps, bench.watch.seconds
    result.settings = {
        **asdict(settings),
        "train_queries": len(learned.train),
        "dev_queries": len(learned.dev),
        "dev_held_out_of_train": learned.held_out,
        **{name: record[name] for name in ("dev", "document_prompt_on_dev", "given_up", "stages")},
        "sides": sorted(biencoder.prompts),
        "strength": biencoder.strength,
    }
    return result


def _train(
    biencoder: BiEncoder,
    bench: Workbench,
    settings: TuneSettings,
    output: PromptOutput,
    on_step: Callable[[Step, int], object] | None,
) -> list[Step]:
    identity = run_identity(biencoder, bench.training, settings) if output.folder is not None else ""
    with output.checkpoint(identity, good=biencoder.save) as checkpoint:
        training = train(biencoder, bench.training, settings, documents=bench.documents, checkpoint=checkpoint)
        for step in training:
            if on_step is not None:
                on_step(step, training.total)
    return training.steps


def evaluate(
    biencoder: BiEncoder, data: Dataset | Workbench, split: str = "test", *, bm25: bool = True
) -> RetrievalResult:
    """Frozen, tuned (when there are prompts) and BM25 on one split, with a paired test of tuned against frozen.

    Args:
        data: see `tune`.

    Raises UserError when the data has no such split.
    """
    bench = Workbench.of(biencoder.tower, data)
    result = _evaluate(biencoder, bench, split, bm25)
    result.seconds = bench.watch.seconds
    result.settings = {
        "kind": biencoder.kind if biencoder.prompts else None,
        "sides": sorted(biencoder.prompts),
        "strength": biencoder.strength,
        "factory": bench.factory,
        "top_k": TOP,
    }
    return result


def _evaluate(biencoder: BiEncoder, bench: Workbench, split: str, bm25: bool) -> RetrievalResult:
    queries, qrels = bench.dataset.split(split)
    result = RetrievalResult(bench.dataset.name, split, biencoder.tower.name)
    result.documents_encoded = bench.documents.encoded  # before the search, whose time is its own
    with bench.watch("search"):
        index = bench.index
        result.runs["frozen"] = search_run(bench.frozen, index, queries)
    if biencoder.prompts:
        own = bench.own_documents(biencoder)
        if own is not None:
            result.documents_reencoded = len(bench.dataset.corpus)
            result.documents_encoded += own.encoded
            index = bench.index_of(own, biencoder)
        with bench.watch("search"):
            result.runs["tuned"] = search_run(biencoder, index, queries)
    if bm25:
        result.runs["bm25"] = bench.bm25(queries, TOP)
    scores = {system: per_query(qrels, run) for system, run in result.runs.items()}
    result.systems = {system: means(values) for system, values in scores.items()}
    if "tuned" in scores:
        unseen = bench.unseen_queries(split)
        result.tests = paired_tests(
            {system: values[HEADLINE] for system, values in scores.items()},
            ["tuned"],
            ["tuned"],
            unseen if len(unseen) < len(queries) else [],
        )
    return result


def curve(steps: list[Step]) -> dict[str, list[tuple[int, float]]]:
    """The training in few points (step, value): "loss", the mean of at most 60 spans of steps, and "dev"."""
    losses = [step for step in steps if math.isfinite(step.loss)]
    size = max(1, math.ceil(len(losses) / CURVE_POINTS))
    spans = [losses[start : start + size] for start in range(0, len(losses), size)]
    return {
        "loss": [(span[-1].step, round(math.fsum(step.loss for step in span) / len(span), 5)) for span in spans],
        "dev": [(step.step, round(step.dev, 5)) for step in steps if step.dev is not None],
    }
