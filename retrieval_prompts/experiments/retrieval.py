"""One experiment on one data set: tune prompts, or evaluate them, and say so in one schema.

A result is a dict with "dataset", "split", "model", "systems" (frozen, tuned, bm25; metrics as fractions), "tests",
"documents_encoded", "documents_reencoded", "seconds" and "settings". Prints nothing but progress bars.
"""

from __future__ import annotations

import glob
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset, hold_out
from retrieval_prompts.data.judgements import Qrels, Run
from retrieval_prompts.errors import Diverged
from retrieval_prompts.evaluation.bm25 import bm25_run
from retrieval_prompts.evaluation.metrics import drop_identical, means, per_query
from retrieval_prompts.evaluation.significance import compare
from retrieval_prompts.training.loop import Step
from retrieval_prompts.training.retrieval import run_identity, train
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.vectors.blocks import VectorBlocks
from retrieval_prompts.vectors.index import Index

TOP = 100  # documents kept of each ranking
DEV_FRACTION = 0.1
METRIC = "ndcg@10"
CURVE_POINTS = 60


@dataclass
class Experiment:
    """What an experiment found.

    Args:
        result: the machine-readable result (see the module's docstring).
        runs: system -> run.
        steps: a record for each training step, empty after an evaluation.
    """

    result: dict[str, Any]
    runs: dict[str, Run]
    steps: list[Step] = field(default_factory=list)


class Stopwatch:
    """Seconds spent in named parts of the work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 2)


def dev_split(dataset: Dataset, fraction: float = DEV_FRACTION) -> tuple[Qrels, Qrels, bool]:
    """(train, dev, whether dev was held out of train because the data has no dev split).

    The part that is held out does not depend on any seed, so runs with several seeds share it.
    """
    _, training = dataset.split("train")
    if "dev" in dataset.qrels:
        return training, dataset.split("dev")[1], False
    return *hold_out(training, fraction, seed=0), True


def tune(
    biencoder: BiEncoder,
    dataset: Dataset,
    settings: TuneSettings | None = None,
    *,
    split: str | None = "test",
    out: Path | None = None,
    overwrite: bool = False,
    cache: Path | None = None,
    bm25: bool = True,
    documents: VectorBlocks | None = None,
    on_step: Callable[[Step, int], object] | None = None,
) -> Experiment:
    """Attach prompts to a frozen bi-encoder, train them, save them, evaluate them.

    Args:
        split: evaluated afterwards when the data has it; None: no evaluation.
        out: the prompt folder. Training is checkpointed beside it, and goes on from there when it was interrupted.
        cache: the folder of document vectors; None: the user's cache.
        documents: the frozen vectors of the corpus, where they are at hand.
        on_step: called with each record and the number of all steps.

    Raises UserError for data or settings that cannot be trained on; nothing is then written.
    """
    from retrieval_prompts.files import check_output

    if out is not None:
        check_output(out, overwrite=overwrite, holds="prompt.json")
    settings = settings or TuneSettings()
    watch = Stopwatch()
    training, dev, held_out = dev_split(dataset)
    with watch("tune"):
        biencoder.attach(settings)
    if documents is None:
        with watch("encode documents"):
            documents = BiEncoder(biencoder.tower).encode_corpus(dataset.corpus, cache)
    steps: list[Step] = []
    with watch("tune"):
        checkpoint = None
        if out is not None:
            identity = run_identity(biencoder, dataset.corpus, dataset.queries, training, dev, settings)
            checkpoint = out.parent / f"{out.name}.{identity[:8]}.partial"
        try:
            for step, total in train(
                biencoder,
                dataset.corpus,
                dataset.queries,
                training,
                dev,
                settings,
                documents=documents,
                checkpoint=checkpoint,
                history=steps,
            ):
                if on_step is not None:
                    on_step(step, total)
        except Diverged as error:
            if out is None:
                raise
            kept = out.with_name(f"{out.name}.last-good")
            biencoder.save(kept, overwrite=True)
            _forget(out)
            raise Diverged(f"{error}; the last good prompt: {kept}") from error
    biencoder.training_record["curve"] = curve(steps)
    biencoder.training_record["dataset"] = dataset.name
    biencoder.training_record["dev_held_out_of_train"] = held_out
    if split is not None and split in dataset.qrels:
        experiment = _evaluate(biencoder, dataset, split, documents, cache, bm25, watch)
        biencoder.training_record["results"] = {split: experiment.result["systems"]}
        biencoder.training_record["tests"] = {split: experiment.result["tests"]}
    else:
        experiment = Experiment(_result(biencoder, dataset, split), {})
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        biencoder.save(out, overwrite=overwrite)
        _forget(out)
    experiment.steps = steps
    experiment.result["documents_encoded"] += documents.encoded
    experiment.result["seconds"] = watch.seconds
    experiment.result["settings"] = {
        **asdict(settings),
        "train_queries": len(training),
        "dev_queries": len(dev),
        "dev_held_out_of_train": held_out,
        "dev": biencoder.training_record["dev"],
        "document_prompt_on_dev": biencoder.training_record["document_prompt_on_dev"],
        "sides": sorted(biencoder.prompts),
        "strength": biencoder.strength,
    }
    return experiment


def evaluate(
    biencoder: BiEncoder,
    dataset: Dataset,
    split: str = "test",
    *,
    cache: Path | None = None,
    bm25: bool = True,
) -> Experiment:
    """Frozen, tuned (when there are prompts) and BM25 on one split, with a paired test of tuned against frozen.

    Raises UserError when the data has no such split.
    """
    watch = Stopwatch()
    dataset.split(split)
    with watch("encode documents"):
        documents = BiEncoder(biencoder.tower).encode_corpus(dataset.corpus, cache)
    experiment = _evaluate(biencoder, dataset, split, documents, cache, bm25, watch)
    experiment.result["documents_encoded"] += documents.encoded
    experiment.result["seconds"] = watch.seconds
    experiment.result["settings"] = {
        "kind": biencoder.kind if biencoder.prompts else None,
        "sides": sorted(biencoder.prompts),
        "strength": biencoder.strength,
        "factory": "Flat",
        "top_k": TOP,
    }
    return experiment


def _evaluate(
    biencoder: BiEncoder,
    dataset: Dataset,
    split: str,
    documents: VectorBlocks,
    cache: Path | None,
    bm25: bool,
    watch: Stopwatch,
) -> Experiment:
    queries, qrels = dataset.split(split)
    corpus = dataset.corpus
    frozen = BiEncoder(biencoder.tower)
    result = _result(biencoder, dataset, split)
    with watch("search"):
        index = Index.build(documents, None, corpus.ids, encoder=frozen.identity())
        runs = {"frozen": search_run(frozen, index, queries)}
    if biencoder.prompts:
        if biencoder.identity() != frozen.identity():
            with watch("re-encode documents"):
                tuned_documents = biencoder.encode_corpus(corpus, cache)
            result["documents_reencoded"] = len(corpus)
            result["documents_encoded"] = tuned_documents.encoded
            index = Index.build(tuned_documents, None, corpus.ids, encoder=biencoder.identity())
        with watch("search"):
            runs["tuned"] = search_run(biencoder, index, queries)
    if bm25:
        with watch("bm25"):
            texts = (corpus[position].content for position in range(len(corpus)))
            runs["bm25"] = drop_identical(bm25_run(texts, corpus.ids, queries, TOP + 1))
    scores = {system: per_query(qrels, run) for system, run in runs.items()}
    result["systems"] = {system: means(values) for system, values in scores.items()}
    if "tuned" in scores:
        frozen_scores, tuned_scores = scores["frozen"][METRIC], scores["tuned"][METRIC]
        result["tests"]["tuned_vs_frozen"] = compare(frozen_scores, tuned_scores, METRIC).as_dict()
        if "bm25" in scores:
            result["tests"]["tuned_vs_bm25"] = compare(scores["bm25"][METRIC], tuned_scores, METRIC).as_dict()
        unseen = unseen_queries(dataset, split)
        if 0 < len(unseen) < len(queries):
            result["tests"]["tuned_vs_frozen_unseen_documents"] = compare(
                {query: frozen_scores[query] for query in unseen},
                {query: tuned_scores[query] for query in unseen},
                METRIC,
            ).as_dict()
    return Experiment(result, runs)


def curve(steps: list[Step]) -> dict[str, list[tuple[int, float]]]:
    """The training in few points (step, value): "loss", the mean of at most 60 spans of steps, and "dev"."""
    losses = [step for step in steps if math.isfinite(step.loss)]
    size = max(1, math.ceil(len(losses) / CURVE_POINTS))
    spans = [losses[start : start + size] for start in range(0, len(losses), size)]
    return {
        "loss": [(span[-1].step, round(math.fsum(step.loss for step in span) / len(span), 5)) for span in spans],
        "dev": [(step.step, round(step.dev, 5)) for step in steps if step.dev is not None],
    }


def unseen_queries(dataset: Dataset, split: str) -> list[str]:
    """Queries of a split none of whose relevant documents is relevant to a training query.

    A gain on the others may be memory of documents; a gain on these is not.
    """
    trained = {doc for judged in dataset.qrels.get("train", {}).values() for doc, grade in judged.items() if grade > 0}
    return [
        query
        for query, judged in dataset.split(split)[1].items()
        if not any(grade > 0 and doc in trained for doc, grade in judged.items())
    ]


def search_run(biencoder: BiEncoder, index: Index, queries: dict[str, str]) -> Run:
    """The top 100 documents of each query, without a document of the query's own id (BEIR's convention)."""
    vectors = biencoder.tower.comparable(biencoder.encode_query(list(queries.values())))
    return index.rank(list(queries), vectors, TOP)


def _forget(out: Path) -> None:
    """Delete the checkpoints beside a prompt folder: its own, and those of abandoned runs with other settings."""
    for file in out.parent.glob(f"{glob.escape(out.name)}.????????.partial*"):
        file.unlink(missing_ok=True)


def _result(biencoder: BiEncoder, dataset: Dataset, split: str | None) -> dict[str, Any]:
    return {
        "dataset": dataset.name,
        "split": split,
        "model": biencoder.tower.name,
        "systems": {},
        "tests": {},
        "documents_encoded": 0,
        "documents_reencoded": 0,
        "seconds": {},
        "settings": {},
    }
