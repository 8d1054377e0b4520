"""What judgements cannot teach, found before anything is trained on them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from retrieval_prompts.data.judgements import Qrels
from retrieval_prompts.evaluation.significance import detectable
from retrieval_prompts.evaluation.words import count, points
from retrieval_prompts.training.training_data import TrainingData, relevant

NARROW = 5.0  # documents, as many as count: below this, training can only learn to find these
TELLING = 0.05  # the gain that as many queries should be able to tell from noise
SOLVED = 0.999


@dataclass(frozen=True)
class Doubts:
    """What to know before training.

    Args:
        remarks: in sentences; none where the data are sound.
        hopeless: whether no prompt that is trained on them should be used, whatever dev says.
    """

    remarks: tuple[str, ...] = ()
    hopeless: bool = False


def doubts(data: TrainingData, frozen: Mapping[str, float], deviation: float) -> Doubts:
    """Look at judgements and at what the frozen model makes of them.

    Args:
        frozen: nDCG@10 of the frozen model for each of the queries to choose by.
        deviation: of the differences between two systems over these queries.
    """
    judged = data.judged
    hopeless, remarks = [], []
    documents = Counter(doc for grades in judged.values() for doc in relevant(grades))
    if (number := _effective(documents)) < NARROW and len(documents) < len(data.corpus) / 2:
        which = count(len(documents), "document", "different documents")
        hopeless.append(
            f"the {len(judged):,} judged queries ask for only {which}"
            + (f" (as many as {number:.1f} asked for evenly)" if len(documents) >= NARROW else "")
            + f" of {len(data.corpus):,}: prompts trained on them would learn to find these, whatever is asked"
        )
    texts = {" ".join(data.queries[query].lower().split()) for query in judged}
    if len(texts) == 1:
        hopeless.append(f"all {len(judged):,} judged queries have the same text")
    if clashes := _contradictions(data.queries, judged):
        remarks.append(
            f"{count(clashes, 'pair', 'pairs')} of a query's text and a document "
            f"{'is' if clashes == 1 else 'are'} judged relevant in one place and not relevant in another"
        )
    if min(frozen.values()) >= SOLVED:
        hopeless.append("the frozen model puts everything relevant first already: there is nothing to gain")
    chosen_by = len(frozen)
    if deviation > 0 and chosen_by > 1 and (least := detectable(deviation, chosen_by)) > TELLING and not hopeless:
        remarks.append(
            f"{chosen_by:,} queries to choose by: a gain under about {points(least)} points cannot be told from noise, "
            "and prompts that gain less are not recommended"
        )
    return Doubts(tuple(hopeless + remarks), bool(hopeless))


def _effective(documents: Counter[str]) -> float:
    """How many documents asked for evenly are as varied as these (inverse Simpson index)."""
    total = sum(documents.values())
    return total**2 / sum(number**2 for number in documents.values()) if total else 0.0


def _contradictions(queries: Mapping[str, str], judged: Qrels) -> int:
    """Pairs of a text and a document that are relevant under one query id, and not under another."""
    grades: dict[tuple[str, str], set[bool]] = defaultdict(set)
    for query, own in judged.items():
        text = " ".join(queries[query].lower().split())
        for doc, grade in own.items():
            grades[text, doc].add(grade > 0)
    return sum(len(found) > 1 for found in grades.values())
