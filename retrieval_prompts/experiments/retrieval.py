"""One experiment on one data set: tune prompts or evaluate them, one kind of result. Prints only progress bars."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.data.judgements import Run
from retrieval_prompts.errors import UserError, first_line, out_of_memory
from retrieval_prompts.evaluation.metrics import HEADLINE, means, per_query
from retrieval_prompts.evaluation.recommendation import Recommendation
from retrieval_prompts.evaluation.significance import Comparison
from retrieval_prompts.experiments.pairs.prepare import prepare, settled
from retrieval_prompts.experiments.records.provenance import Provenance
from retrieval_prompts.experiments.run import FINISHED, IDENTITY, PromptOutput
from retrieval_prompts.experiments.selection.advice import by_dev, by_evaluation, frozen_bm25_weight, tuned_bm25_weight
from retrieval_prompts.experiments.selection.choice import Choice
from retrieval_prompts.experiments.selection.encoder import train
from retrieval_prompts.experiments.selection.trained import Trained
from retrieval_prompts.experiments.workbench import TOP, Workbench, paired_tests
from retrieval_prompts.prompts.folder import load_prompts
from retrieval_prompts.prompts.label import Label
from retrieval_prompts.training.loop import Step
from retrieval_prompts.training.retrieval import run_identity
from retrieval_prompts.training.settings import TuneSettings, check_given
from retrieval_prompts.vectors.given import Given

CURVE_POINTS = 60
RECORDED = ("pairs", "dev", "document_prompt_on_dev", "given_up", "stages", "encoders")  # also in a result


@dataclass
class RetrievalResult:
    """What an experiment found.

    Args:
        systems: "frozen", "tuned", "bm25", "frozen+bm25", "tuned+bm25" -> metric -> mean over queries, a fraction; none
            without an evaluation.
        tests: "tuned_vs_frozen" and so on -> paired test of nDCG@10.
        recommendation: what to use, by dev and, where there was an evaluation, with what it gains there.
        choice: what dev said, after a training.
        weights: "frozen", "tuned" -> weight of BM25 in the systems with it.
        documents_encoded: documents encoded now, for any system; the rest was found in the cache.
        documents_reencoded: documents that the prompts need other vectors of.
        seconds: part of the work -> seconds.
        runs: system -> run.
        steps: a record for each training step, empty after an evaluation.
        failed: why the evaluation after a training came to no end; the prompts were saved before.
        fingerprint: of the model.
        documents, queries: how many the data have, and how many of them the split asks.
        provenance: when, with which version and by which command it was made.
    """

    dataset: str
    split: str | None
    model: str
    systems: dict[str, dict[str, float]] = field(default_factory=dict)
    tests: dict[str, Comparison] = field(default_factory=dict)
    recommendation: Recommendation | None = None
    choice: Choice | None = None
    weights: dict[str, float] = field(default_factory=dict)
    documents_encoded: int = 0
    documents_reencoded: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    failed: str | None = None
    fingerprint: str = ""
    documents: int = 0
    queries: int = 0
    provenance: Provenance = field(default_factory=Provenance.now)

    def to_json(self) -> dict[str, Any]:
        """Every field but `runs`, `steps` and `failed`; a test as `Comparison.as_dict` has it."""
        plain = {name: value for name, value in vars(self).items() if name not in ("runs", "steps", "failed")}
        typed = {name: part.to_json() if (part := plain[name]) else None for name in ("recommendation", "choice")}
        tests = {name: test.as_dict() for name, test in self.tests.items()}
        return plain | typed | {"tests": tests, "provenance": self.provenance.to_json()}


def tune(
    biencoder: BiEncoder,
    data: Dataset | Workbench,
    settings: TuneSettings | None = None,
    *,
    documents: Given | None = None,
    out: Path | str | PromptOutput | None = None,
    overwrite: bool = False,
    on_step: Callable[[Step, int], object] | None = None,
    **given: Any,
) -> RetrievalResult:
    """Attach prompts to a frozen bi-encoder, train them, choose by dev what of them is used, save and evaluate them.

    See `choice` for how the strength of the prompts and the weight of BM25 are chosen. Where dev is small, prompts are
    judged by cross-validation (see `folds`) and then trained on every query. What the judgements cannot teach is
    warned of before training (DataWarning), and where they can teach nothing there is none.

    Args:
        data: a workbench where vectors are at hand, or kept elsewhere than in the user's cache.
        documents: their frozen vectors, where they are not to be encoded: an array (documents, dimension) in the
            corpus's order, or an index of them, in a folder or over a store. A sample is compared with what the model
            makes (see `vectors.likeness`).
        out: the prompt folder, or a `PromptOutput`. Training is checkpointed beside it, and goes on from there when it
            was interrupted; prompts are saved before they are evaluated, and an evaluation that fails is in the result.
        on_step: called with each record and the number of all steps.
        given: `label`, what people call the prompts; `split`, evaluated afterwards when the data has it ("test"; None:
            no evaluation); `bm25`, whether BM25 is there too, alone and beside the dense scores (True); and settings by
            name, such as max_steps=100, which go before those of `settings`.

    Raises:
        UserError: for data or settings that cannot be trained on; nothing is then written.
    """
    split, bm25, label = given.pop("split", "test"), given.pop("bm25", True), given.pop("label", Label())
    settings = TuneSettings.of(**{**(asdict(settings) if settings is not None else {}), **given})
    check_given(settings, given)
    with out if isinstance(out, PromptOutput) else PromptOutput(out, overwrite=overwrite) as output:
        bench = Workbench.of(biencoder.tower, data, documents)
        made = prepare(bench, settings, split or bench.scored)
        settings = settled(settings, made)
        learning = bench if made is None else bench.learning(made)
        learned = learning.training
        identity = run_identity(biencoder, learned, settings) if output.folder is not None else ""
        vectors = bench.documents
        trained = _kept(biencoder, bench, output) if output.made_by(identity) else None
        record = biencoder.training_record
        biencoder.label = label
        if trained is None:
            with bench.watch("tune"):
                trained = train(biencoder, learning, settings, output, bm25=bm25, on_step=on_step)
            record = _record(biencoder, bench, settings, trained, identity)
            record["pairs"] = made.what if made is not None else "judged queries"
            record["dev_held_out_of_train"] = learned.held_out
            biencoder.label = label
            if split not in bench.dataset.qrels:
                _finish(record, by_dev(trained.choice))
            output.save(biencoder.save)
        result = _empty(bench, split)
        result.documents_encoded = vectors.encoded
        result.recommendation = by_dev(trained.choice)
        if split is not None and split in bench.dataset.qrels:
            try:
                result = _evaluate(biencoder, bench, split, bm25, trained.choice)
                found = result.to_json()
                record |= {"results": {split: found["systems"]}, "tests": {split: found["tests"]}}
            except (UserError, OSError, MemoryError, RuntimeError) as error:
                if output.folder is None or (isinstance(error, RuntimeError) and not out_of_memory(error)):
                    raise
                result.failed = first_line(error)
                again = "the same command" + (" without --overwrite" if output.overwrite else "")
                warnings.warn(
                    f"the prompts are saved in {output.folder}, but their evaluation failed ({result.failed}); {again} "
                    "evaluates them again without training",
                    UserWarning,
                    stacklevel=2,
                )
        if result.failed is None and record.get(FINISHED) is False:
            assert result.recommendation is not None
            _finish(record, result.recommendation)
            output.save(biencoder.save)
    result.choice, result.steps, result.seconds = trained.choice, trained.steps, bench.watch.seconds
    result.settings = {
        **asdict(settings),
        "train_queries": len(learned.train),
        "dev_queries": len(learned.dev),
        "dev_held_out_of_train": learned.held_out,
        **{name: record.get(name) for name in RECORDED},
        "sides": sorted(biencoder.prompts),
        "strength": biencoder.strength,
        "bm25_weight": biencoder.bm25_weight,
    }
    return result


def _empty(bench: Workbench, split: str | None) -> RetrievalResult:
    """A result that has found nothing yet."""
    tower, dataset = bench.tower, bench.dataset
    asked = len(dataset.split(split)[1]) if split is not None and split in dataset.qrels else 0
    return RetrievalResult(
        dataset.name,
        split,
        tower.name,
        fingerprint=tower.fingerprint,
        documents=len(dataset.corpus),
        queries=asked,
    )


def _record(
    biencoder: BiEncoder, bench: Workbench, settings: TuneSettings, trained: Trained, identity: str
) -> dict[str, Any]:
    """Take what was chosen, and note in the prompts' record how they came about; returns it."""
    choice, record = trained.choice, biencoder.training_record
    biencoder.strength, biencoder.bm25_weight = choice.strength, choice.weight
    record.setdefault("settings", asdict(settings))  # where nothing was trained to the end
    record |= {"curve": curve(trained.steps), "dataset": bench.dataset.name, "corpus": bench.dataset.corpus.fingerprint}
    record |= {"choice": choice.to_json()}
    record |= {IDENTITY: identity, FINISHED: False}
    return record


def _finish(record: dict[str, Any], recommendation: Recommendation) -> None:
    """Nothing is still to be added."""
    del record[FINISHED]
    record["recommendation"] = recommendation.without_times().to_json()


def _kept(biencoder: BiEncoder, bench: Workbench, output: PromptOutput) -> Trained | None:
    """Give the bi-encoder the prompts that the same run has saved before it was cut short."""
    assert output.folder is not None
    saved = BiEncoder.with_prompts(biencoder.tower, load_prompts(output.folder), source=str(output.folder))
    choice = Choice.recorded(saved.training_record, bench.dataset.corpus.fingerprint)
    if choice is None:
        return None
    biencoder.take(saved)
    return Trained(choice, [])


def evaluate(
    biencoder: BiEncoder, data: Dataset | Workbench, split: str = "test", *, bm25: bool = True
) -> RetrievalResult:
    """Every system on one split, with paired tests: frozen and tuned (when there are prompts), each alone and beside
    BM25, and BM25.

    Args:
        data: see `tune`.

    Raises:
        UserError: when the data has no such split.
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


def _evaluate(
    biencoder: BiEncoder, bench: Workbench, split: str, bm25: bool, choice: Choice | None = None
) -> RetrievalResult:
    queries, qrels = bench.dataset.split(split)
    if choice is None and (recorded := Choice.recorded(biencoder.training_record, bench.dataset.corpus.fingerprint)):
        choice = recorded if recorded.strength == biencoder.strength else None
    result = _empty(bench, split)
    result.documents_encoded = bench.documents.encoded  # before the search, whose time is its own
    indexes = {"frozen": bench.index}
    encoders = {"frozen": bench.frozen} | ({"tuned": biencoder} if biencoder.prompts else {})
    if biencoder.prompts:
        own = bench.own_documents(biencoder)
        indexes["tuned"] = bench.index_for(biencoder)
        if own is not None:
            result.documents_reencoded = len(bench.dataset.corpus)
            result.documents_encoded += own.encoded
    with bench.watch("search"):
        vectors = {system: bench.query_vectors(encoder, queries.values()) for system, encoder in encoders.items()}
        for system, found in vectors.items():
            result.runs[system] = indexes[system].rank(list(queries), found, TOP)
    if bm25:
        result.runs["bm25"] = bench.bm25(queries, TOP)
        result.weights = {"frozen": frozen_bm25_weight(bench, split, choice)}
        result.weights |= {"tuned": tuned_bm25_weight(biencoder)} if biencoder.prompts else {}
        for system, found in vectors.items():
            if (hybrid := bench.hybrid_of(indexes[system])) is not None:
                with bench.watch("search"):
                    (result.runs[f"{system}+bm25"],) = hybrid.rank(queries, found, TOP, [result.weights[system]])
    scores = {system: per_query(qrels, run) for system, run in result.runs.items()}
    result.systems = {system: means(values) for system, values in scores.items()}
    headline = {system: values[HEADLINE] for system, values in scores.items()}
    unseen = bench.unseen_queries(split)
    if len(headline) > 1:
        result.tests = paired_tests(
            headline,
            [system for system in headline if system.startswith("tuned") or system == "frozen+bm25"],
            [system for system in headline if system.startswith("tuned")],
            unseen if len(unseen) < len(queries) else [],
        )
    result.recommendation = by_evaluation(biencoder, bench, split, headline, result.weights, choice)
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
