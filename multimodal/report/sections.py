"""An image evaluation as a report: pictures, captions and classes with their rankings. Knows no HTML and no model.

Each part of a classification and each direction of retrieval is a section. Every query has its scores; pictures are
small, bounded in number, and read again only where they are shown: those of the queries that changed most.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multimodal.data.pictures import short_names
from multimodal.data.templates import spoken
from multimodal.evaluation.metrics import RECALL_AT
from multimodal.experiments.results import CaptionResult, ClassResult, Result
from multimodal.experiments.which_system import argued, headlines, looked_at, next_labels
from multimodal.report.class_by_class import WRONG, class_blocks
from multimodal.report.gallery import thumbnail
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.significance import compare
from retrieval_prompts.report.about import origin
from retrieval_prompts.report.content import Block, Curve, Item, Query, Report, Section
from retrieval_prompts.report.summary import summarize

if TYPE_CHECKING:
    from multimodal.data.pictures import Picture
    from multimodal.evaluation.rankings import Best, Rankings
    from retrieval_prompts.training.loop import Step

PICTURES = 400  # in a report
SIDE = 160  # pixels of the longer side
RANKED = 1000  # queries of a section with their rankings
HITS = 10  # documents of a ranking that are described
POINTS = 200  # of a curve
BASELINE = "zero-shot"
UNIT = ("picture", "pictures")  # what a classification asks about
_Curves = dict[str, list[Curve]]  # "loss", "dev", "strength" -> lines
PARTS = {
    "base": "base classes",
    "new": "new classes",
    "t2i": "text to image",
    "i2t": "image to text",
}
CLASSES = (
    "Classification is a ranking: a picture asks for classes, ordered by their logits, and scores 1 where the first "
    "one is right. In the run files that is precision@1; its mean is the accuracy."
)
CAPTIONS = (
    "R@k is the share of queries with a right answer among the first k: hit@k in the run files, not recall@k, the "
    "share of the right answers that is found. The test compares pictures, over whose captions scores are averaged, "
    "for the captions of one picture are not independent queries."
)


class Album:
    """Thumbnails, at most `limit` of them, each made once."""

    def __init__(self, limit: int = PICTURES) -> None:
        self.limit = limit
        self.shown: dict[Picture, str] = {}

    def show(self, picture: Picture | None) -> str:
        """A data: address; empty for no picture, one beyond the limit, and one that cannot be read any more."""
        if picture is not None and picture not in self.shown and len(self.shown) < self.limit:
            try:
                self.shown[picture] = thumbnail(picture.load(), SIDE)[0]
            except (UserError, OSError):
                self.shown[picture] = ""
        return "" if picture is None else self.shown.get(picture, "")


def classification(result: ClassResult, *, limit: int = PICTURES) -> list[Section]:
    """A section for each of the result's rankings; several of a system, called NAME-SEED, are averaged.

    limit: of the pictures.
    """
    settings = result.settings
    shared = [f"temperature {settings['temperature']:.2f}"] if "temperature" in settings else []
    if settings.get("images_skipped"):
        shared.append(f"pictures that could not be read: {settings['images_skipped']:,}")
    curves, said, looked, label = _curves(result.steps), argued(result), looked_at(result), next_labels(result)
    sections: list[Section] = []
    for each in result.rankings:
        half = f"_{each.name}" if each.name else ""
        table, errors = {}, []
        for system, scores in result.systems.items():
            accuracy = scores[each.name or "accuracy"]
            if accuracy is not None:
                table[system] = {"accuracy": accuracy, "mean_per_class": scores[f"mean_per_class{half}"]}
                errors.append(f"{system} {100 * scores[f'ece{half}']:.1f} %")
        members = {system: _seeds(system, each.systems) for system in table}
        values = {system: _mean([first_is_right(each.ranks(one)) for one in own]) for system, own in members.items()}
        counted = f"{len(each.queries):,} pictures, {len(each.documents):,} classes"
        facts = [counted, f"expected calibration error: {', '.join(errors)}", *shared]
        compared = _Compared(each, "accuracy", table, members, values, facts, {} if sections else curves)
        section = compared.section(result.dataset, settings["split"], limit // len(result.rankings))
        system = looked.get(each.name) or max(table, key=lambda name: table[name]["accuracy"])
        blocks: list[Block] = []
        if members.get(system):
            album = Album(min(WRONG, limit // len(result.rankings)))
            blocks = class_blocks(
                each, members[system][0], system, album.show, result.labelled, label.get(each.name, "")
            )
        tests = {name: test.as_dict() for name, test in result.tests.get(each.name, {}).items()} or section.tests
        section = replace(section, tests=tests, unit=UNIT, blocks=blocks)
        own = said.get(each.name) or [
            line.replace("queries", UNIT[1]).replace("query", UNIT[0]) for line in summarize(section)
        ]
        sections.append(replace(section, sentences=own))
    return sections


def captions(
    result: CaptionResult, *, members: Mapping[str, Sequence[str]] | None = None, limit: int = PICTURES
) -> list[Section]:
    """A section for each of the result's rankings, which are the directions.

    Args:
        members: system -> those of the rankings that it is the mean of; None: systems are called as in the rankings.
        limit: of the pictures.
    """
    curves, shared = _curves(result.steps), [f"{result.images:,} pictures, {result.captions:,} captions"]
    if result.captions_cut:
        shared.append(f"captions cut, too long for the model: {result.captions_cut:,}")
    if curves:
        dev, strength = result.settings["dev"], result.settings["strength"]
        points = {0.0: dev["zero-shot"], strength: dev["tuned"], 1.0: dev["full_strength"]}
        curves["strength"] = [Curve("held-out pictures", sorted(points.items()))]
        shared.append(f"dev and strength: {dev['metric']}, of {dev['images']:,} pictures held out of training")
    wanted = members or {system: [system] for system in result.systems}
    sections: list[Section] = []
    for each in sorted(result.rankings, key=lambda one: one.name, reverse=True):
        named = {system: [one for one in own if one in each.systems] for system, own in wanted.items()}
        values = {system: _mean([reciprocal(each.ranks(one)) for one in own]) for system, own in named.items()}
        recalls = {system: result.systems[system][each.name] for system in named}
        table = {
            system: {"mrr@10": float(values[system].mean()), **{f"R@{k}": own[f"r@{k}"] for k in RECALL_AT}}
            for system, own in recalls.items()
            if len(values[system])
        }
        compared = _Compared(each, "mrr@10", table, named, values, shared, {} if sections else curves)
        sections.append(compared.section(result.dataset, result.split, limit // len(result.rankings)))
    return sections


def report(result: Result, sections: Sequence[Section]) -> Report:
    """The sections of a result as a page of their own."""
    facts = [f"model {result.model}", f"{result.images_encoded:,} images encoded now"]
    notes = [CAPTIONS if isinstance(result, CaptionResult) else CLASSES]
    verdict = [*headlines(result).values()] if isinstance(result, ClassResult) else []
    title = f"{result.dataset}, {result.protocol}"
    return Report(title, sections, facts, notes, verdict=verdict, about=origin(result.provenance))


def first_is_right(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Ranks from 1, 0 for none -> precision@1 of each query."""
    return (ranks == 1).astype(np.float64)


def reciprocal(ranks: NDArray[np.int64], k: int = 10) -> NDArray[np.float64]:
    """Ranks from 1, 0 for none -> the reciprocal rank of each query, 0 beyond k: mrr@k."""
    return np.where((ranks > 0) & (ranks <= k), 1 / np.maximum(ranks, 1), 0.0)


@dataclass(frozen=True)
class _Compared:
    """One part or direction: systems, what they ranked, and how good each query's ranking is.

    Args:
        table: system -> metric -> mean.
        members: system -> its rankings, of which the first is shown.
        values: system -> each query's value of the metric.
    """

    rankings: Rankings
    metric: str
    table: Mapping[str, Mapping[str, float]]
    members: Mapping[str, Sequence[str]]
    values: Mapping[str, NDArray[np.float64]]
    facts: Sequence[str]
    curves: _Curves

    def section(self, dataset: str, split: str, limit: int) -> Section:
        rankings, values = self.rankings, self.values
        systems = [system for system in self.table if len(values.get(system, ()))]
        other = next((system for system in systems if not system.startswith(BASELINE)), "zero-shot-ensemble")
        change = np.zeros(len(rankings.queries))
        if BASELINE in systems and other in systems:
            change = np.abs(values[other] - values[BASELINE])
        shown = {system: rankings.systems[self.members[system][0]] for system in systems}
        queries, documents = _queries(rankings, np.argsort(-change, kind="stable"), shown, values, Album(limit))
        averaged = [
            f"{system}: the mean of {len(own)} runs, of which {own[0]} is shown"
            for system, own in self.members.items()
            if system in systems and len(own) > 1
        ]
        return Section(
            name=f"{dataset}, {PARTS[rankings.name]}" if rankings.name else dataset,
            split=split,
            metric=self.metric,
            systems=self.table,
            tests=_tests(rankings, values, other, self.metric),
            queries=queries,
            documents=documents,
            facts=[*self.facts, *averaged],
            loss=self.curves.get("loss", ()),
            dev=self.curves.get("dev", ()),
            strength=self.curves.get("strength", ()),
            baseline=BASELINE,
            system=other if other in systems else "tuned",
        )


def _queries(
    rankings: Rankings,
    order: NDArray[np.int64],
    shown: Mapping[str, Best],
    values: Mapping[str, NDArray[np.float64]],
    album: Album,
) -> tuple[list[Query], dict[str, Item]]:
    """All queries, and what the first RANKED in `order` show: their rankings and the documents there."""
    ids = [document.id for document in rankings.documents]
    classes = rankings.name not in ("i2t", "t2i")
    short = short_names([query.text for query in rankings.queries]) if classes else [q.text for q in rankings.queries]
    documents: dict[str, Item] = {}
    pictures: dict[int, str] = {}
    hits: dict[int, dict[str, list[tuple[str, float]]]] = {}

    def describe(positions: Iterable[int]) -> None:
        for at in positions:
            if ids[at] not in documents:
                document = rankings.documents[at]
                named = rankings.name != "i2t"  # captions have no title
                picture, text = album.show(document.picture), spoken(document.text) if classes else document.text
                documents[ids[at]] = Item(text if named else "", "" if named else text, picture)

    for row in order[:RANKED].tolist():
        pictures[row] = album.show(rankings.queries[row].picture)
        describe(rankings.right[row])
        hits[row] = {}
        for system, best in shown.items():
            positions = best.positions[row, np.isfinite(best.scores[row])].tolist()
            describe(positions[:HITS])
            hits[row][system] = list(zip((ids[at] for at in positions), best.scores[row].tolist(), strict=False))
    queries = [
        Query(
            query.id,
            short[row],
            {ids[at]: 1 for at in rankings.right[row]},
            hits.get(row, {}),
            {system: float(values[system][row]) for system in shown},
            pictures.get(row, ""),
        )
        for row, query in enumerate(rankings.queries)
    ]
    return queries, documents


def _tests(
    rankings: Rankings, values: Mapping[str, NDArray[np.float64]], system: str, metric: str
) -> dict[str, dict[str, Any]]:
    """The system against zero-shot. Captions of a picture are averaged; who is helped is counted by queries."""
    if system not in values or BASELINE not in values:
        return {}
    before, after = values[BASELINE], values[system]
    groups = [query.id.rpartition("#")[0] if rankings.name == "t2i" else query.id for query in rankings.queries]
    _, numbers = np.unique(groups, return_inverse=True)
    counts = np.bincount(numbers)
    means = [
        dict(zip(map(str, range(len(counts))), (np.bincount(numbers, each) / counts).tolist(), strict=True))
        for each in (before, after)
    ]
    helped, hurt = int((after > before).sum()), int((after < before).sum())
    found = replace(
        compare(means[0], means[1], metric), helped=helped, hurt=hurt, unchanged=len(before) - helped - hurt
    )
    return {f"{system}_vs_{BASELINE}": found.as_dict()}


def _curves(steps: Iterable[Step]) -> _Curves:
    """The losses, averaged over stretches where there are many steps, and the dev scores."""
    taken = list(steps)
    losses = [(step.step, step.loss) for step in taken if math.isfinite(step.loss)]
    dev = [(float(step.step), step.dev) for step in taken if step.dev is not None]
    if not losses:
        return {}
    stretches = np.array_split(np.array(losses), min(POINTS, len(losses)))
    curves = {"loss": [Curve("training", [(float(part[-1, 0]), float(part[:, 1].mean())) for part in stretches])]}
    return curves | ({"dev": [Curve("held-out pictures", dev)]} if dev else {})


def _seeds(system: str, found: Iterable[str]) -> list[str]:
    """Those of the rankings that are of this system: itself, or one a seed."""
    return [
        name
        for name in found
        if name == system or (name.startswith(f"{system}-") and name[len(system) + 1 :].isdigit())
    ]


def _mean(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.mean(values, axis=0) if values else np.zeros(0)
