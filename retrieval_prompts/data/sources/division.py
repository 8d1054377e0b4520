"""One set of judgements divided into train, dev and test, by query, by a rule that anyone can follow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from retrieval_prompts.data.judgements import Qrels
from retrieval_prompts.data.sources.duplicates import folded
from retrieval_prompts.errors import UserError

LEAST = 50  # queries below which none are set aside: training holds out, or cross-validates, what it chooses by


@dataclass(frozen=True)
class Shares:
    """How judged queries are divided: shares of test and dev; the rest is train."""

    test: float = 0.2
    dev: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.test < 1 and 0 <= self.dev < 1 and self.test + self.dev < 1):
            raise UserError(f"--test and --dev must be shares that leave some for train, got {self.test}, {self.dev}")

    def rule(self) -> str:
        return (
            f"{100 * self.test:g} % test, {100 * self.dev:g} % dev, the rest train, in the order of the SHA-256 of "
            f"'{self.seed}:' and the query's text in small letters; queries of one text stay together"
        )


def divide(queries: Mapping[str, str], qrels: Qrels, shares: Shares) -> dict[str, Qrels]:
    """Split -> judgements; all of them are train where fewer than `LEAST` texts are judged.

    Args:
        queries: id -> text, of at least those that are judged.
    """
    groups: dict[str, list[str]] = {}
    for query in qrels:
        groups.setdefault(folded(queries[query]), []).append(query)
    if len(groups) < LEAST:
        return {"train": qrels}
    order = sorted(groups, key=lambda text: hashlib.sha256(f"{shares.seed}:{text}".encode()).digest())
    test, dev = round(shares.test * len(order)), round(shares.dev * len(order))
    side = dict.fromkeys(order[:test], "test") | dict.fromkeys(order[test : test + dev], "dev")
    of_query = {query: side.get(text, "train") for text, own in groups.items() for query in own}
    found: dict[str, Qrels] = {}
    for query, grades in qrels.items():
        found.setdefault(of_query[query], {})[query] = grades
    return {name: found[name] for name in ("train", "dev", "test") if name in found}


def apart(queries: Mapping[str, str], splits: Mapping[str, Qrels]) -> tuple[dict[str, Qrels], list[str]]:
    """Splits without the queries whose text a later one of train, dev, test has too; and the ids of these."""
    later: set[str] = set()
    kept, dropped = dict(splits), []
    for name in [name for name in ("test", "dev", "train") if name in splits]:
        texts = {query: folded(queries[query]) for query in splits[name]}
        dropped += [query for query, text in texts.items() if text in later]
        kept[name] = {query: grades for query, grades in splits[name].items() if texts[query] not in later}
        later |= set(texts.values())
    return kept, dropped
