"""A prompt inspected: what it says in words, and with data what it does to queries; every figure beside its null."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.data.judgements import Qrels, Run
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.metrics import HEADLINE, METRICS, best_first, means, per_query
from retrieval_prompts.evaluation.significance import Comparison, compare
from retrieval_prompts.experiments.inspection import effects
from retrieval_prompts.experiments.inspection.effects import Attention, Compass, LeftOut, Movement
from retrieval_prompts.experiments.inspection.nearest import (
    PromptWords,
    Vocabulary,
    own_vectors,
    prompt_words,
    without_words,
)
from retrieval_prompts.experiments.inspection.null import Beside, initial_prompt, random_prompt, too_few
from retrieval_prompts.experiments.inspection.slots import Slots, slots_of
from retrieval_prompts.experiments.inspection.trial import Scores, Trial, turned
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.prompts.mixture import MixturePrompt
from retrieval_prompts.towers.text import Floats

DRAWS = 40  # random prompts: with fewer no two-sided p is below 0.05
QUERIES = 300  # that are asked, unless more are asked for
ATTENDED = 100  # texts whose attention is looked at
CHANGED = 10  # queries that are shown, of those helped and of those hurt
SHOWN = 3  # of their documents
FEEDBACK_PARTS = ("static", "documents", "others")


@dataclass(frozen=True)
class Hit:
    """A document of a ranking."""

    id: str
    title: str
    relevant: bool


@dataclass(frozen=True)
class Change:
    """A query that the prompt helped or hurt.

    Args:
        moved: 1 - cosine to the frozen query.
        before, after: nDCG@10, and the first documents, of the frozen model and of the prompt.
    """

    id: str
    text: str
    moved: float
    before: float
    after: float
    first_before: list[Hit]
    first_after: list[Hit]


@dataclass
class Asked:
    """What the query prompt does to the queries of a split.

    Args:
        queries: how many were asked, of how many there are.
        systems: "frozen", "tuned", "words" (the nearest words in place of the vectors), "initial" (before training),
            "random" (the mean of random prompts); of feedback prompts "static" and "documents" (the others left out),
            "others" (made from the documents of other queries) and "initial others" -> metric -> mean.
        tests: "<system>_vs_<other>", of nDCG@10.
        score, words_score: nDCG@10 of the prompt beside random vectors, and of its words beside random words.
    """

    dataset: str
    split: str
    queries: tuple[int, int]
    systems: dict[str, dict[str, float]]
    tests: dict[str, Comparison]
    score: Beside
    words_score: Beside | None
    left_out: list[LeftOut]
    movement: Movement
    changes: list[Change]
    slots: Slots | None
    runs: dict[str, Run] = field(repr=False)
    qrels: Qrels = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Every field but the rankings and the judgements."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "queries": list(self.queries),
            "systems": self.systems,
            "tests": {name: test.as_dict() for name, test in self.tests.items()},
            "score": self.score.to_json(),
            "words_score": self.words_score.to_json() if self.words_score else None,
            "left_out": [each.to_json() for each in self.left_out],
            "movement": self.movement.to_json(),
            "changes": [asdict(each) for each in self.changes],
            "slots": self.slots.to_json() if self.slots else None,
        }


@dataclass
class Inspection:
    """What was found of a prompt folder.

    Args:
        about: its kind, sides, length, strength and model.
        words, attention: side -> what was found; empty where there is nothing to say, and `notes` say why.
        asked: None without data, and without a prompt on the query side.
    """

    about: dict[str, Any]
    words: dict[str, PromptWords] = field(default_factory=dict)
    attention: dict[str, Attention] = field(default_factory=dict)
    asked: Asked | None = None
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.about,
            "words": {side: found.to_json() for side, found in self.words.items()},
            "attention": {side: found.to_json() for side, found in self.attention.items()},
            "asked": self.asked.to_json() if self.asked else None,
            "notes": self.notes,
        }


def inspect(
    biencoder: BiEncoder,
    data: Dataset | Workbench | None = None,
    split: str = "test",
    *,
    queries: int = QUERIES,
    draws: int = DRAWS,
    on_start: Callable[[int], Callable[[int], object]] | None = None,
) -> Inspection:
    """What the prompts of a bi-encoder say and do.

    Args:
        data: with judged queries; without it, what needs none.
        split: of the queries; "dev" is what chooses where the data have no such split.
        queries: at most so many of them are asked, taken evenly.
        draws: random prompts that every figure stands beside.
        on_start: called with the number of encodings of all queries; gives what is called with those that are done.

    Raises:
        UserError: for a bi-encoder without prompts, fewer than 1 draw, and a split that the data do not have.
    """
    if not biencoder.prompts:
        raise UserError("there is no prompt to inspect; give a prompt folder")
    if isinstance(biencoder.made_for_each, MixturePrompt):
        raise UserError("a mixture makes a prompt for each query from its parts; inspect the parts")
    if draws < 1 or queries < 1:
        raise UserError(f"expected one random prompt and one query at least, got {draws} and {queries}")
    found = Inspection(_about(biencoder), prompt_words(biencoder))
    if note := without_words(biencoder):
        found.notes.append(note)
    if 0 < biencoder.strength < 1:
        found.notes.append(f"Queries are asked at the strength of the prompts, {biencoder.strength:g}.")
    elif biencoder.strength == 0:
        found.notes.append("The prompts are saved with strength 0, as dev rejected them; here they are at strength 1.")
    if data is None:
        found.notes.append("What the prompts do to queries needs data: --data DATA.")
        return found
    found.notes += too_few(draws)
    bench = Workbench.of(biencoder.tower, data)
    if "document" in biencoder.prompts:
        texts = bench.dataset.corpus.contents(0, ATTENDED)
        _attend(found, biencoder, "document", texts, draws)
        found.notes.append(
            "The document prompt stays whole: without each of its vectors all documents would be encoded."
        )
    if "query" not in biencoder.prompts:
        found.notes.append("There is no prompt on the query side, so queries do not move.")
        return found
    asked, qrels, count = _queries(bench, split, queries)
    trial = Trial(bench, biencoder, asked, qrels)
    done = on_start(_encodings(trial, draws)) if on_start is not None else (lambda _: None)
    _attend(found, biencoder, "query", trial.texts[:ATTENDED], draws, trial, done)
    found.asked = _ask(trial, split, count, draws, done)
    return found


def _about(biencoder: BiEncoder) -> dict[str, Any]:
    lengths = {side: own_vectors(biencoder, side) for side in biencoder.prompts}
    reads = biencoder.feedback
    return {
        "model": biencoder.tower.name,
        "kind": biencoder.kind,
        "sides": {side: list(vectors.shape) for side, vectors in lengths.items()},
        "feedback_documents": reads.documents if reads is not None else 0,
        "strength": biencoder.strength,
        "initial_known": {
            side: initial_prompt(biencoder, side, vectors) is not None for side, vectors in lengths.items()
        },
    }


def _queries(bench: Workbench, split: str, most: int) -> tuple[dict[str, str], Qrels, int]:
    """The queries to ask, their judgements, and how many there are."""
    if split == "dev" and "dev" not in bench.dataset.qrels:
        queries, qrels = bench.choosing()
        if not queries:
            raise UserError(f"{bench.dataset.name} has no dev queries, and no train queries to set some aside from")
    else:
        queries, qrels = bench.dataset.split(split)
    names = list(queries)
    if len(names) > most:
        names = [names[at] for at in np.linspace(0, len(names) - 1, most).round().astype(int).tolist()]
    return {query: queries[query] for query in names}, {query: qrels[query] for query in names}, len(queries)


def _attend(
    found: Inspection,
    biencoder: BiEncoder,
    side: str,
    texts: list[str],
    draws: int,
    trial: Trial | None = None,
    done: Callable[[int], object] = lambda _: None,
) -> None:
    """Note the attention that texts pay to a side's prompt, or why it cannot be seen."""
    if trial is not None:
        own, began = trial.prompt[: len(texts)] if trial.prompt.dim() == 4 else trial.prompt, trial.initial
        began = began[: len(texts)] if began is not None and began.dim() == 4 else began
    else:
        own = own_vectors(biencoder, side)
        began = initial_prompt(biencoder, side, own)
    prompts = [own, *(random_prompt(biencoder.tower, biencoder.kind, own, seed) for seed in range(draws))]
    try:
        seen = effects.attention_to(biencoder.tower, side, biencoder.kind, texts, prompts, began, done)
    except UserError as error:
        found.notes.append(f"Attention is not shown: {error}.")
    else:
        found.attention = {**found.attention, side: seen}


def _encodings(trial: Trial, draws: int) -> int:
    vectors, words = trial.prompt.shape[-2], trial.biencoder.kind == "input"
    parts = len(FEEDBACK_PARTS) + (trial.initial is not None) if trial.biencoder.feedback is not None else 0
    parts += 1 + math.ceil(draws / 2) if words else 0
    looked = 1 + draws + (trial.initial is not None)
    vectors *= 1 + (trial.initial is not None)
    return looked + 2 + parts + draws + vectors + sum(1 + len(places) for places in effects.left_out_places(trial))


def _ask(trial: Trial, split: str, count: int, draws: int, done: Callable[[int], object]) -> Asked:
    vectors = {"frozen": trial.encode(None), "tuned": trial.encode(trial.prompt)}
    if trial.initial is not None:
        vectors["initial"] = trial.encode(trial.initial)
    done(2)
    drawn = [trial.random(seed) for seed in range(draws)]
    random_scores, random_vectors = effects.judge(trial, drawn, done)
    words_scores: list[float] = []
    if trial.biencoder.kind == "input":
        vocabulary = Vocabulary.of(trial.tower)
        vectors["words"] = trial.encode(trial.snapped(trial.prompt, vocabulary))
        done(1)
        fewer = drawn[: math.ceil(draws / 2)]  # one-sided: only words that are better than random ones say something
        words_scores, _ = effects.judge(trial, [trial.snapped(each, vocabulary) for each in fewer], done)
    vectors |= _parts(trial, done)
    runs = {system: trial.rank(found) for system, found in vectors.items()}
    values = {system: per_query(trial.qrels, run, METRICS) for system, run in runs.items()}
    scores = {system: found[HEADLINE] for system, found in values.items()}
    systems = {system: means(found) for system, found in values.items()}
    first = systems["initial"][HEADLINE] if "initial" in systems else None
    score = Beside.of(systems["tuned"][HEADLINE], random_scores, first, side="above")
    words = Beside.of(systems["words"][HEADLINE], words_scores, side="above") if words_scores else None
    systems["random"] = {HEADLINE: score.null_mean}
    if words is not None:
        systems["random words"] = {HEADLINE: words.null_mean}
    left_out, without = effects.leave_out(trial, vectors["tuned"], scores["tuned"], done)
    moved = effects.movement(Compass(trial), vectors["tuned"], random_vectors, vectors.get("initial"))
    changes = _changes(trial, vectors["tuned"], runs, scores)
    read = trial.biencoder.feedback is not None
    wanted = [change.id for change in changes]
    return Asked(
        trial.bench.dataset.name,
        split,
        (len(trial.ids), count),
        systems,
        _tests(scores),
        score,
        words,
        left_out,
        moved,
        changes,
        slots_of(trial, vectors["tuned"], scores["tuned"], without, wanted) if read else None,
        runs,
        trial.qrels,
    )


def _parts(trial: Trial, done: Callable[[int], object]) -> dict[str, Floats]:
    """The queries under parts of a feedback prompt, and under documents that belong to other queries."""
    if trial.biencoder.feedback is None:
        return {}
    read = np.roll(trial.found, max(1, len(trial.found) // 2), axis=0)
    made = (trial.prompt[..., : trial.static, :], trial.prompt[..., trial.static :, :], trial.made_from(read))
    prompts = dict(zip(FEEDBACK_PARTS, made, strict=True))
    if (began := trial.began_from(read)) is not None:
        prompts["initial others"] = began
    found = {name: trial.encode(prompt) for name, prompt in prompts.items()}
    done(len(found))
    return found


def _tests(scores: Mapping[str, Scores]) -> dict[str, Comparison]:
    pairs = [("tuned", "frozen"), ("tuned", "initial"), ("words", "frozen"), ("words", "tuned")]
    pairs += [("static", "tuned"), ("documents", "tuned"), ("others", "tuned"), ("initial others", "initial")]
    return {f"{a}_vs_{b}": compare(scores[b], scores[a], HEADLINE) for a, b in pairs if a in scores and b in scores}


def _changes(trial: Trial, tuned: Floats, runs: Mapping[str, Run], scores: Mapping[str, Scores]) -> list[Change]:
    """The queries that are helped most, then those that are hurt most."""
    before, after = scores["frozen"], scores["tuned"]
    moved = dict(zip(trial.ids, turned(trial.encode(None), tuned).tolist(), strict=True))
    order = sorted(trial.ids, key=lambda query: before[query] - after[query])
    helped = [query for query in order[:CHANGED] if after[query] > before[query]]
    hurt = [query for query in order[::-1][:CHANGED] if after[query] < before[query]]
    texts = dict(zip(trial.ids, trial.texts, strict=True))
    corpus = trial.bench.dataset.corpus

    def first(run: Run, query: str) -> list[Hit]:
        hits = []
        for id, _ in best_first(run[query])[:SHOWN]:
            document = corpus[corpus.position(id)]
            hits.append(Hit(id, document.title or document.text, trial.qrels[query].get(id, 0) > 0))
        return hits

    return [
        Change(
            query,
            texts[query],
            moved[query],
            before[query],
            after[query],
            first(runs["frozen"], query),
            first(runs["tuned"], query),
        )
        for query in [*helped, *hurt]
    ]
