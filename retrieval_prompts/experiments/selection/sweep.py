"""Several strengths of the same prompts: what each gains here and changes elsewhere, and the best trade, by dev."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.data.judgements import Qrels
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.metrics import HEADLINE, per_query
from retrieval_prompts.evaluation.significance import Comparison, compare
from retrieval_prompts.evaluation.words import paired_sentence, points
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.prompts.strength import between, checked


@dataclass(frozen=True)
class Line:
    """One set of queries under every strength.

    Args:
        split: "dev", "test" and so on; "test, one half" where data have test queries alone: then one half chooses and
            the other is shown.
        here: whether the prompts are evaluated on these data; else it is elsewhere.
        values: nDCG@10 at each strength; `frozen`: at strength 0.
        tests: of each strength against the frozen model.
    """

    dataset: str
    split: str
    here: bool
    queries: int
    frozen: float
    values: list[float]
    tests: list[Comparison]

    @property
    def name(self) -> str:
        return f"{self.dataset} ({self.split})"

    @property
    def gains(self) -> list[float]:
        return [value - self.frozen for value in self.values]


@dataclass(frozen=True)
class Sweep:
    """Strengths, and the one with the best trade: the highest sum of the gain here and the mean change elsewhere, on
    the queries that choose; the lowest of equal ones.

    Args:
        chosen_by, shown: the first of each is here.
    """

    strengths: list[float]
    best: float
    chosen_by: list[Line]
    shown: list[Line]

    def to_json(self) -> dict[str, Any]:
        """Every field; tests as `Comparison.as_dict` has them."""
        lines = {
            name: [asdict(line) | {"tests": [test.as_dict() for test in line.tests]} for line in getattr(self, name)]
            for name in ("chosen_by", "shown")
        }
        return {"strengths": self.strengths, "best": self.best, **lines}

    @property
    def lines(self) -> list[Line]:
        """All of them, those that choose first."""
        return [*self.chosen_by, *self.shown]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Changes of nDCG@10 x 100 for people: header, a row a strength."""
        lines = self.lines
        rows = [
            [f"{strength:g}", *(points(line.gains[at], signed=True) for line in lines)]
            for at, strength in enumerate(self.strengths)
        ]
        return ["strength", *(line.name for line in lines)], rows

    def sentences(self) -> list[str]:
        """The best trade, how it was chosen, and what it makes of the queries that did not choose."""
        at = self.strengths.index(self.best)
        chose = ", ".join(f"{points(line.gains[at], signed=True)} on {line.name}" for line in self.chosen_by)
        first = f"Best trade: strength {self.best:g}, chosen by gain and loss on other queries ({chose})."
        name, frozen = f"strength {self.best:g}", "frozen"
        return [first] + [
            paired_sentence(name, frozen, line.tests[at], on=line.name, values=(line.values[at], line.frozen))
            for line in self.shown
        ]


def sweep(
    biencoder: BiEncoder,
    bench: Workbench,
    others: Sequence[Dataset],
    strengths: Sequence[float],
    split: str,
    cache: Path | None = None,
) -> Sweep:
    """Every strength on a split and elsewhere; each query is encoded once without the prompts and once with them.

    Args:
        others: data sets with a test split.

    Raises:
        UserError: for prompts with a document side, and where the data have no queries to choose by.
    """
    if "document" in biencoder.prompts:
        raise UserError(
            "several strengths share one index, and a document prompt needs one of each; give one --strength"
        )
    wanted = [checked(strength) for strength in strengths]
    chosen, shown = [_choosing(bench, split)], [(split, *bench.dataset.split(split))]
    benches = [bench, *(Workbench(biencoder.tower, other, cache) for other in others)]
    for other in benches[1:]:
        one, rest = _elsewhere(other)
        chosen.append(one)
        shown.append(rest)
    lines = [
        [_line(biencoder, each, queries, wanted, here=each is bench) for each, queries in zip(benches, of, strict=True)]
        for of in (chosen, shown)
    ]
    trade = [_trade([line.gains[at] for line in lines[0]]) for at in range(len(wanted))]
    best = min(range(len(wanted)), key=lambda at: (-trade[at], wanted[at]))
    return Sweep(wanted, wanted[best], *lines)


def sweep_json(swept: Sweep | None) -> dict[str, Any]:
    """What a result in JSON has beside the rest: "sweep", where several strengths were asked for."""
    return {} if swept is None else {"sweep": swept.to_json()}


Asked = tuple[str, dict[str, str], Qrels]  # split, queries, judgements


def _trade(gains: Sequence[float]) -> float:
    here, *elsewhere = gains
    return here + (fmean(elsewhere) if elsewhere else 0.0)


def _choosing(bench: Workbench, split: str) -> Asked:
    queries, qrels = bench.choosing(split)
    name, there = bench.dataset.name, bench.dataset.qrels
    if not queries:
        why = "shows all its dev queries, and has none left" if split == "dev" else "has no train or dev queries"
        raise UserError(f"{name} {why} to choose a strength by; give one --strength")
    chosen = ("train", "dev") if "train" in there and bench.training.few else ("dev",)
    return " and ".join(each for each in chosen if each != split), queries, qrels


def _elsewhere(bench: Workbench) -> tuple[Asked, Asked]:
    """The queries that choose, and those that are shown."""
    test, qrels = bench.dataset.split("test")
    if bench.choosing("test")[0]:
        return _choosing(bench, "test"), ("test", test, qrels)
    if len(test) < 2:
        raise UserError(f"{bench.dataset.name} has one test query and no others: one is to choose by, and one to show")
    ordered = sorted(test, key=lambda query: hashlib.sha256(query.encode()).digest())
    halves = [sorted(ordered[start::2]) for start in (0, 1)]
    one, rest = (
        (name, {query: test[query] for query in half}, {query: qrels[query] for query in half})
        for name, half in zip(("test, one half", "test, other half"), halves, strict=True)
    )
    return one, rest


def _line(biencoder: BiEncoder, bench: Workbench, asked: Asked, strengths: Sequence[float], *, here: bool) -> Line:
    split, queries, qrels = asked
    tower, texts = bench.tower, list(queries.values())
    frozen, whole = bench.frozen_queries(texts), bench.bind(biencoder).whole().encode_query(texts)

    def scores(strength: float) -> Mapping[str, float]:
        ends = {0.0: frozen, 1.0: whole}
        point = ends[strength] if strength in ends else between(frozen, whole, strength, unit=tower.unit_length)
        run = bench.index.rank(list(queries), tower.comparable(point), 10)
        return per_query(qrels, run, [HEADLINE])[HEADLINE]

    before = scores(0.0)
    after = [scores(strength) for strength in strengths]
    tests = [compare(before, each, HEADLINE) for each in after]
    values = [fmean(each.values()) for each in after]
    return Line(bench.dataset.name, split, here, len(queries), fmean(before.values()), values, tests)
