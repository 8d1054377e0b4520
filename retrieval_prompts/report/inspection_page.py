"""An inspection as a page: what is beyond untrained prompts, what is not, and every figure beside its null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from retrieval_prompts.evaluation.words import capital, count, p_cell, points
from retrieval_prompts.experiments.inspection.claims import CHANCE, claims, percent, verdict
from retrieval_prompts.experiments.inspection.effects import Attention, LeftOut, Movement, Pull
from retrieval_prompts.experiments.inspection.inspected import Asked, Inspection
from retrieval_prompts.experiments.inspection.nearest import PromptWords
from retrieval_prompts.experiments.inspection.null import Beside
from retrieval_prompts.experiments.inspection.slots import Slots
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.report.assemble import with_words
from retrieval_prompts.report.build import section_of
from retrieval_prompts.report.content import Block, Curve, Figures, Heat, Lines, Report, Section, Span
from retrieval_prompts.report.embed import cut
from retrieval_prompts.report.page import WORDS_SHOWN

TITLE = 120  # characters of a title in a table
HEADER = ("Figure", "Prompt", "Random", "from", "to", "Before training", "p")


def inspection_report(found: Inspection, bench: Workbench | None, name: str) -> Report:
    """The page of `experiments.inspection.inspected.inspect`; `bench` is the data's, where there were any."""
    asked, made = found.asked, claims(found)
    sentences = [verdict(made), *(claim.text for claim in made if claim.beyond)]
    rest = [claim.text for claim in made if not claim.beyond]
    if asked is not None and bench is not None:
        section = _section(asked, bench)
    else:
        section = Section(Path(name).name, "", "ndcg@10", {}, {}, [], {})
    blocks = [Block("What untrained prompts do as well", rest)] if rest else []
    blocks += [vectors_block(f"{side} prompt", words) for side, words in found.words.items()]
    blocks += [_attention(side, seen) for side, seen in found.attention.items()]
    if asked is not None:
        blocks += [left_out_block(asked.left_out), _movement(asked.movement)]
        blocks += [_slots(asked.slots, asked)] if asked.slots is not None else []
    section = replace(with_words(section, found.words), sentences=sentences, blocks=blocks)
    sides = " and ".join(f"{side} side, {' x '.join(map(str, shape))}" for side, shape in found.about["sides"].items())
    facts = [f"model {found.about['model']}", f"{found.about['kind']} prompt, {sides}"]
    facts.append(f"strength {found.about['strength']:g}")
    return Report(f"{Path(name).name}: what it says and does", [section], facts, [CHANCE, *found.notes])


def _section(asked: Asked, bench: Workbench) -> Section:
    dataset = replace(bench.dataset, qrels={asked.split: asked.qrels})
    section = section_of(
        dataset,
        asked.split,
        asked.runs,
        systems=asked.systems,
        tests={name: test.as_dict() for name, test in asked.tests.items()},
    )
    asked_, there = asked.queries
    facts = [f"{len(dataset.corpus):,} documents", f"{asked_:,} of {count(there, 'query', 'queries')}"]
    return replace(section, facts=facts)


def vectors_block(name: str, words: PromptWords) -> Block:
    """The vectors of a prompt beside random ones."""
    header = (
        "Vector",
        "Length",
        "Nearest word",
        "Cosine",
        "p",
        "Distance",
        "Random distance",
        "Began at",
        "Cosine to that",
    )
    rows = []
    for number, vector in enumerate(words.vectors[:WORDS_SHOWN], 1):
        near = vector.words[0] if vector.words else None
        rows.append(
            [
                str(number),
                f"{vector.length:.2f}",
                near.word if near else "-",
                f"{near.cosine:.3f}" if near else "-",
                p_cell(vector.p_value),
                f"{near.distance:.2f}" if near else "-",
                f"{vector.null_distance:.2f}",
                vector.initial.word if vector.initial else "-",
                "-" if vector.turned is None else f"{vector.turned:.3f}",
            ]
        )
    middle, high = words.null_cosine
    caption = (
        f"p: the share of {words.drawn:,} random vectors that are as near to a word (median cosine {middle:.3f}, "
        f"one in twenty above {high:.3f}), times the number of vectors (Holm). A word's vector has a length of "
        f"{words.word_length:.2f} on average."
    )
    if len(words.vectors) > WORDS_SHOWN:
        caption += f" The first {WORDS_SHOWN} of {len(words.vectors):,} vectors; the JSON has all."
    return Block(f"Vectors of the {name}", tables=[Figures(caption, header, rows, texts=(2, 7))])


def _attention(side: str, seen: Attention) -> Block:
    layers = [str(at) for at in range(1, len(seen.layers) + 1)]

    def line(name: str, values: Sequence[float]) -> Curve:
        return Curve(name, [(float(at), value) for at, value in enumerate(values, 1)])

    curves = [line("prompt", [each.value for each in seen.layers])]
    curves.append(line("random vectors", [each.null_mean for each in seen.layers]))
    if all(each.initial is not None for each in seen.layers):
        curves.append(line("before training", [each.initial or 0.0 for each in seen.layers]))
    names = [str(at) for at in range(1, len(seen.vectors[0]) + 1)]
    rows = [_row(f"layer {at}", each, percent) for at, each in enumerate(seen.layers, 1)]
    return Block(
        f"Attention to the {side} prompt",
        plots=[
            Lines(f"Attention of {seen.texts:,} texts to all vectors, %", curves, "layer", "%", percent=True),
            Heat("Each vector (rows) in each layer", names, layers, _turned(seen.vectors)),
            Heat("Random vectors, the mean", names, layers, _turned(seen.null)),
        ],
        tables=[Figures("Attention to all vectors", HEADER, [_row("all layers", seen.total, percent), *rows])],
    )


def left_out_block(left: Sequence[LeftOut], what: str = "queries", metric: str = "nDCG@10") -> Block:
    """Each vector left out. `what` turns then; `metric` changes."""
    header = (
        "Left out",
        f"{capital(what)} turn",
        "Random",
        "from",
        "to",
        "Before training",
        "p",
        metric,
        "95 % interval",
        "p adjusted",
    )
    rows: list[list[str | Span]] = [
        [
            each.name,
            f"{each.moved.value:.4f}",
            f"{each.moved.null_mean:.4f}",
            f"{each.moved.null_low:.4f}",
            f"{each.moved.null_high:.4f}",
            "-" if each.moved.initial is None else f"{each.moved.initial:.4f}",
            p_cell(each.moved.p_value),
            points(each.test.difference, signed=True),
            Span(each.test.ci95[0], each.test.difference, each.test.ci95[1]),
            p_cell(each.p_adjusted),
        ]
        for each in left
    ]
    caption = (
        f"How far {what} turn (1 - cosine) when one vector is left out, beside vectors of random prompts that are left "
        f"out; and what that changes of {metric}, in points, paired, p corrected for the number of vectors (Holm)"
    )
    return Block("Without each vector", tables=[Figures(caption, header, rows)])


def _movement(moved: Movement) -> Block:
    rows = [
        _row("queries turn (1 - cosine)", moved.turned, lambda value: f"{value:.3f}"),
        _row("common to all queries", moved.shared, percent),
        _row("gain of relevant documents", moved.relevant, _signed),
        _row("largest gain of a word", moved.word_pull, _signed),
        _row("largest gain of a document", moved.document_pull, _signed),
    ]
    header = ("Nearer to", "Gain", "Random")
    tables = [Figures("How queries move from where the frozen model has them", HEADER, rows)]
    for what, pulls in (("words", moved.words), ("documents", moved.documents)):
        caption = (
            f"The {what} that all queries come nearer to: the change of the mean score, and that under random prompts"
        )
        tables += [Figures(caption, header, [_pulled(pull) for pull in pulls])] if pulls else []
    return Block("How queries move", tables=tables)


def _slots(slots: Slots, asked: Asked) -> Block:
    texts = {change.id: change.text for change in asked.changes}
    rows = [
        [
            cut(texts[query], TITLE) if slot.rank == 1 else "",
            str(slot.rank),
            cut(slot.title, TITLE),
            "yes" if slot.relevant else "no",
            f"{slot.moved:.4f}",
            points(slot.gained, signed=True),
        ]
        for query, found in slots.queries.items()
        for slot in found
    ]
    header = ("Query", "Rank", "Document", "Relevant", "Turns the query", "nDCG@10")
    caption = (
        "The documents that prompts read, of the queries that are helped and hurt most: how far the query turns "
        "without the document (1 - cosine), and what the document adds to nDCG@10"
    )
    return Block("Which document moved the query", tables=[Figures(caption, header, rows, texts=(2,))])


def _row(name: str, figure: Beside, write: object) -> list[str]:
    shown = write if callable(write) else str
    numbers = (figure.value, figure.null_mean, figure.null_low, figure.null_high)
    first = "-" if figure.initial is None else shown(figure.initial)
    return [name, *(shown(number) for number in numbers), first, p_cell(figure.p_value)]


def _pulled(pull: Pull) -> list[str]:
    return [cut(pull.title or pull.name, TITLE), _signed(pull.gain), _signed(pull.null)]


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _turned(values: Sequence[Sequence[float]]) -> list[list[float]]:
    """Rows become columns."""
    return [list(row) for row in zip(*values, strict=True)]
