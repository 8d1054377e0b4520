"""How long a training is: its stages, rounds and steps, and which queries it has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from retrieval_prompts.data.judgements import Qrels
from retrieval_prompts.training.loop import LoopSettings
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.training.task import Positions
from retrieval_prompts.training.training_data import relevant

ROUNDS = 10  # dev evaluations of a training; half as many where each one encodes documents


@dataclass(frozen=True)
class Batch:
    """Queries by their number in training, and the step, which seeds whatever is drawn for them."""

    queries: Positions
    step: int


@dataclass(frozen=True)
class Plan:
    """A stage of training: its batches, round by round, and its loop. One round ends with a dev evaluation.

    With `fresh`, documents are encoded with their prompt; else their frozen vectors are looked up.
    """

    fresh: bool
    epochs: int
    steps: int
    batches: Callable[[int], list[Batch]]
    loop: LoopSettings


def learnable(train: Qrels, first_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Query -> its relevant documents, of those that have any: a document of the query's own id is none, for BEIR
    leaves it out of every ranking. `first_of`: see `Corpus`."""
    found = {
        query: [doc for doc in relevant(judged) if doc != first_of.get(query, query)] for query, judged in train.items()
    }
    return {query: documents for query, documents in found.items() if documents}


def length(settings: TuneSettings, queries: int, fresh: bool) -> tuple[int, int]:
    """(rounds, steps of each) of a stage over so many queries.

    With `fresh` documents, which cost more, it is shorter and scores dev less often.
    """
    most = min(
        settings.epochs * math.ceil(queries / settings.batch_size),
        settings.document_steps if fresh else settings.max_steps,
    )
    steps = math.ceil(most / (ROUNDS // 2 if fresh else ROUNDS))
    return most // steps, steps


def query_steps(settings: TuneSettings, train: Qrels, first_of: Mapping[str, str]) -> int:
    """The steps of a whole training of the query side alone."""
    rounds, steps = length(settings, len(learnable(train, first_of)), False)
    return rounds * steps
