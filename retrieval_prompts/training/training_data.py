"""What prompts and baselines are trained on: a corpus, and its queries with a train and a dev split."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval_prompts.data.beir_folder import Corpus, Dataset, hold_out
from retrieval_prompts.data.judgements import Qrels

DEV_FRACTION = 0.1


@dataclass(frozen=True)
class TrainingData:
    """A corpus with queries to learn from and queries to choose by.

    Args:
        queries: query id -> text, of at least the train and dev queries.
        train, dev: judgements by query id; documents graded above 0 are relevant.
        held_out: dev was held out of train, for the data has no dev split.
    """

    corpus: Corpus
    queries: dict[str, str]
    train: Qrels
    dev: Qrels
    held_out: bool = False

    @classmethod
    def of(cls, dataset: Dataset, fraction: float = DEV_FRACTION) -> TrainingData:
        """The data's own train and dev split, or dev held out of train.

        The part that is held out does not depend on any seed, so runs with several seeds share it. Raises UserError
        when there is no train split.
        """
        _, train = dataset.split("train")
        if "dev" in dataset.qrels:
            return cls(dataset.corpus, dataset.queries, train, dataset.split("dev")[1])
        return cls(dataset.corpus, dataset.queries, *hold_out(train, fraction, seed=0), held_out=True)
