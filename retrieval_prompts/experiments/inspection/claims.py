"""What an inspection found, in sentences: what untrained prompts do not explain is told apart from what they do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from retrieval_prompts.evaluation.significance import ALPHA, Comparison
from retrieval_prompts.evaluation.words import capital, count, p_text, paired_sentence, points, system_name
from retrieval_prompts.experiments.inspection.effects import Attention, LeftOut
from retrieval_prompts.experiments.inspection.inspected import Asked, Inspection
from retrieval_prompts.experiments.inspection.null import Beside

RANDOM = "random vectors of the same lengths"
CHANCE = (
    "Every figure stands beside random prompts, and beside the prompt before training where that is known. Of twenty "
    "figures that mean nothing, one is beyond them by chance: a single finding should be seen again on other data, "
    "or with another seed of the training."
)


@dataclass(frozen=True)
class Claim:
    """A sentence about a prompt. `beyond`: neither random prompts explain it nor the prompt before training."""

    text: str
    beyond: bool


def claims(found: Inspection) -> list[Claim]:
    """All that can be said of a prompt, what is beyond the null first."""
    return sorted(_claims(found), key=lambda claim: not claim.beyond)


def with_claims(found: Inspection) -> dict[str, Any]:
    """The inspection as JSON, with what can be said of it."""
    return {"claims": [asdict(claim) for claim in claims(found)], **found.to_json()}


def verdict(made: Sequence[Claim]) -> str:
    """How much of what can be said untrained prompts do not explain."""
    beyond = sum(claim.beyond for claim in made)
    if not made:
        return "There is nothing to say about these prompts by themselves."
    if not beyond:
        return "Nothing that was found here is beyond what untrained prompts do."
    chance = f"of as many that mean nothing, {ALPHA * len(made):.1f} would be on average"
    return f"{beyond} of {count(len(made), 'finding is', 'findings are')} beyond what untrained prompts do; {chance}."


def _claims(found: Inspection) -> Iterator[Claim]:
    for side, words in found.words.items():
        yield Claim(
            f"{capital(side)} prompt: {words.sentence()}", bool(words.near) and len(words.kept) < len(words.near)
        )
    for side, seen in found.attention.items():
        yield _attention(side, seen)
    if found.asked is not None:
        yield from _asked(found.asked)


def _attention(side: str, seen: Attention) -> Claim:
    what = {"query": "Queries", "document": "Documents"}[side]
    even = f"evenly spread it would be {percent(seen.even)}"
    paid = f"{what} pay {percent(seen.total.value)} of their attention to the prompt ({even})"
    return Claim(f"{paid}; {beside(seen.total, percent)}.", seen.total.beaten)


def _asked(asked: Asked) -> Iterator[Claim]:
    test = asked.tests["tuned_vs_frozen"]
    gained = paired_sentence(system_name("tuned"), system_name("frozen"), test)
    yield Claim(
        f"{gained} {capital(beside(asked.score, points))} nDCG@10, the prompt {points(asked.score.value)}.",
        asked.score.beaten and all(better(asked.tests.get(f"tuned_vs_{other}")) for other in ("frozen", "initial")),
    )
    if asked.words_score is not None:
        yield _words(asked, asked.words_score)
    yield without_each(asked.left_out)
    moved = asked.movement
    yield Claim(
        f"Queries turn by {moved.turned.value:.3f} (1 - cosine) from the frozen ones; {beside(moved.turned, _number)}.",
        moved.turned.beaten,
    )
    yield Claim(
        f"{percent(moved.shared.value)} of that movement is common to all queries; {beside(moved.shared, percent)}.",
        moved.shared.beaten,
    )
    yield Claim(
        f"Relevant documents gain {moved.relevant.value:+.4f} of score on the first others of the frozen model; "
        f"{beside(moved.relevant, _signed)}.",
        moved.relevant.beaten,
    )
    for name, pull, nearest in (
        ("word", moved.word_pull, moved.words),
        ("document", moved.document_pull, moved.documents),
    ):
        if nearest:
            first = f"{nearest[0].name!r}" if name == "word" else f"{nearest[0].title[:80]!r}"
            yield Claim(
                f"All queries come nearest to the {name} {first} ({pull.value:+.3f}); the largest such gain under "
                f"{beside(pull, _signed, what='random prompts')}.",
                pull.beaten and pull.value > pull.null_mean,
            )
    if asked.slots is not None:
        yield from _slots(asked)


def _words(asked: Asked, score: Beside) -> Claim:
    after = paired_sentence(
        "the prompt with its nearest words in place of the vectors", "the prompt", asked.tests["words_vs_tuned"]
    )
    text = f"As words it reaches {points(score.value)} nDCG@10, frozen {points(asked.systems['frozen']['ndcg@10'])}; "
    return Claim(
        f"{text}{beside(score, points, what='random words')}. {after}",
        score.beaten and better(asked.tests["words_vs_frozen"]),
    )


def without_each(left: list[LeftOut], what: str = "queries", metric: str = "nDCG@10") -> Claim:
    """Whether a single vector matters. `what` turns without it; `metric` changes."""
    mattering = [each for each in left if each.matters]
    furthest = max(left, key=lambda each: each.moved.value)
    edges = f"{furthest.moved.null_low:.3f} to {furthest.moved.null_high:.3f}"
    null = f"leaving one out of random prompts turns them by {edges}"
    before = [each.moved.initial for each in left if each.moved.initial is not None]
    null += f", of the prompt before training by {min(before):.3f} to {max(before):.3f}" if before else ""
    if not mattering:
        surely = [each for each in left if each.p_adjusted < ALPHA]
        rank = f"; without {_names(surely)} {metric} is significantly different" if surely else ""
        return Claim(
            f"No single vector is shown to matter: without {furthest.name} {what} turn furthest, by "
            f"{furthest.moved.value:.3f}; {null}{rank}.",
            False,
        )
    told = "; ".join(
        f"without {each.name} {what} turn by {each.moved.value:.3f} and {metric} changes by "
        f"{points(each.test.difference, signed=True)} ({p_text(each.test.p_value, each.p_adjusted)})"
        for each in mattering
    )
    return Claim(f"{capital(told)}; {null}.", True)


def _slots(asked: Asked) -> Iterator[Claim]:
    assert asked.slots is not None
    test, start = asked.tests["others_vs_tuned"], asked.tests.get("initial others_vs_initial")
    made = paired_sentence("the prompt made from other queries' documents", "the prompt", test)
    before = "" if start is None else f" Before training that changed it by {points(start.difference, signed=True)}."
    yield Claim(made + before, better(test.turned()) and (start is None or test.difference < start.difference))
    relevant = asked.slots.relevant
    if relevant is not None:
        yield Claim(
            f"{percent(asked.slots.share)} of the documents that prompts read are relevant. Left out, they turn a "
            f"query by {relevant.value:+.4f} more than others of the same rank; "
            f"{beside(relevant, _signed, what='relevance exchanged between queries')}.",
            relevant.beaten,
        )


def beside(figure: Beside, shown: object, what: str = RANDOM) -> str:
    """The null of a figure in words; `shown` writes a number."""
    write = shown if callable(shown) else str
    edges = f"{write(figure.null_low)} to {write(figure.null_high)}" if figure.draws > 1 else write(figure.null_mean)
    before = f"; before training {write(figure.initial)}" if figure.initial is not None else ""
    return f"{what}: {write(figure.null_mean)} ({edges}, {p_text(figure.p_value)}{before})"


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _number(value: float) -> str:
    return f"{value:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def better(test: Comparison | None) -> bool:
    """Whether a test shows a gain; None, of what is not known, stands against none."""
    return test is None or (test.difference > 0 and test.p_value < ALPHA)


def _names(left: list[LeftOut]) -> str:
    return ", ".join(each.name for each in left)
