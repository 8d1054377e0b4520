"""What prompts lose elsewhere: frozen against tuned on data sets that they were not tuned for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset, load
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.metrics import HEADLINE
from retrieval_prompts.evaluation.significance import Comparison
from retrieval_prompts.evaluation.words import paired_sentence, system_name
from retrieval_prompts.experiments.retrieval import evaluate
from retrieval_prompts.experiments.workbench import Workbench

SPLIT = "test"


@dataclass(frozen=True)
class Elsewhere:
    """Frozen and tuned on a data set.

    Args:
        systems: "frozen", "tuned" -> metric -> mean over queries, a fraction.
        test: of nDCG@10, tuned against frozen.
    """

    dataset: str
    split: str
    systems: dict[str, dict[str, float]]
    test: Comparison

    def to_json(self) -> dict[str, Any]:
        """Every field; the test as `Comparison.as_dict` has it."""
        return vars(self) | {"test": self.test.as_dict()}

    def sentence(self) -> str:
        """What was lost or gained, and whether that may be noise."""
        tuned, frozen = (self.systems[system][HEADLINE] for system in ("tuned", "frozen"))
        on = f"{self.dataset} ({self.split})"
        return paired_sentence(system_name("tuned"), system_name("frozen"), self.test, on=on, values=(tuned, frozen))


def load_others(folders: Iterable[Path]) -> list[Dataset]:
    """BEIR folders that have test queries.

    Raises:
        UserError: for any other.
    """
    others = [load(folder) for folder in folders]
    for folder, other in zip(folders, others, strict=True):
        if SPLIT not in other.qrels:
            raise UserError(f"--also evaluates on {SPLIT} queries, and {folder} has no {SPLIT} split")
    return others


def elsewhere(biencoder: BiEncoder, others: Sequence[Dataset], cache: Path | None = None) -> list[Elsewhere]:
    """The prompts on the test queries of other data sets, each with its own documents.

    Args:
        cache: the folder of document vectors; None: the user's cache.

    Raises:
        UserError: when the bi-encoder has no prompts, or a data set no test split.
    """
    if others and not biencoder.prompts:
        raise UserError("there is nothing to compare with the frozen model elsewhere: the bi-encoder has no prompts")
    results = [evaluate(biencoder, Workbench(biencoder.tower, other, cache), SPLIT, bm25=False) for other in others]
    return [Elsewhere(found.dataset, SPLIT, found.systems, found.tests["tuned_vs_frozen"]) for found in results]


def also_json(found: Sequence[Elsewhere]) -> dict[str, Any]:
    """What a result in JSON has beside the rest: "also", where other data sets were asked for."""
    return {"also": [each.to_json() for each in found]} if found else {}
