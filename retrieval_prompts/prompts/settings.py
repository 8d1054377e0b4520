"""What settings are made of (a default, a range, who reads it), and the settings of a text prompt.

Knows no training and no command line: only what an option is called, so that messages name it as it is typed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, Self

from retrieval_prompts.errors import UserError

LARGEST = 2**31 - 1  # of a count: what every library can hold


@dataclass(frozen=True)
class Rule:
    """What is known of a setting beside its name, type and default.

    Args:
        help: what it is, in a few words.
        choices: the values that it may have; "text:WORDS" stands for all that begin with "text:".
        low, above, high: its range: from `low`, or above `above`, up to `high`.
        option: what it is called on the command line; "": after its name.
        none: the word for None, where None is a value and not the same as "not given".
        shown: the default in words, where its value does not say it.
        read_by: another setting -> the values with which this one is read. A name that is no setting is something
            that only a command knows: see `check_read`.
    """

    help: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    above: float | None = None
    high: float | None = None
    option: str = ""
    none: str = ""
    shown: str = ""
    read_by: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def range(self) -> str:
        """The range in words; "" where there is none."""
        if self.above is not None:
            return f"above {self.above:g}" + (f" and at most {self.high:g}" if self.high is not None else "")
        if self.low is None:
            return ""
        high = f"{self.high:g}" if isinstance(self.high, float) else self.high
        return f"{self.low:g} or more" if self.high is None else f"from {self.low:g} to {high}"

    def allows(self, value: Any) -> bool:
        """Whether a value is one of the choices and in the range."""
        if self.choices:
            starts = tuple(choice.partition(":")[0] + ":" for choice in self.choices if ":" in choice)
            return value in self.choices or (bool(starts) and str(value).startswith(starts))
        if self.above is not None:
            return bool(self.above < value <= (self.high or sys.float_info.max))
        return self.low is None or bool(self.low <= value <= (self.high or LARGEST))


def setting(default: Any, **rule: Any) -> Any:
    """A dataclass field with a `Rule`. A default of None: that of the kind, in `DEFAULTS`, or none at all."""
    return field(default=default, metadata={"rule": Rule(**rule)})


def rule_of(of: Field[Any]) -> Rule:
    found: Rule = of.metadata["rule"]
    return found


def option_of(of: Field[Any]) -> str:
    """What a setting is called on the command line."""
    return rule_of(of).option or f"--{of.name.replace('_', '-')}"


@dataclass(frozen=True)
class Values:
    """Settings: frozen, checked values. One that is None was not given, and gets the default of its kind."""

    KIND: ClassVar[str]  # the setting that the defaults of others depend on
    DEFAULTS: ClassVar[Mapping[str, Mapping[str, Any]]]  # its values -> a setting -> the default
    GROUP: ClassVar[str] = ""  # of their options in the help; "": what a prompt is, or how it is trained

    def __post_init__(self) -> None:
        shared = dict(set.intersection(*(set(each.items()) for each in self.DEFAULTS.values())))
        of_kind = self.DEFAULTS.get(getattr(self, self.KIND), shared)  # of several kinds what is the same for them
        for each in fields(self):
            if getattr(self, each.name) is None and not rule_of(each).none:
                object.__setattr__(self, each.name, of_kind.get(each.name, each.default))
        check(self)

    @classmethod
    def of(cls, **given: Any) -> Self:
        """The settings by name.

        Raises:
            UserError: for a name that is no setting, and a value that cannot be.
        """
        if unknown := set(given) - {each.name for each in fields(cls)}:
            names = ", ".join(each.name for each in fields(cls))
            raise UserError(f"no such setting: {', '.join(sorted(unknown))}; there are {names}")
        return cls(**given)


def check(settings: Values) -> None:
    """Raises UserError for a value that is no choice or out of range, and for a flag that nothing reads."""
    for each in fields(settings):
        rule, value = rule_of(each), getattr(settings, each.name)
        if value is not None and not rule.allows(value):
            expected, got = (spoken(rule.choices), repr(value)) if rule.choices else (rule.range, value)
            raise UserError(f"{option_of(each)} must be {expected}, got {got}")
    # A number that is not read does no harm, and is saved beside the others; a flag asks for something
    check_read(settings, [each.name for each in fields(settings) if getattr(settings, each.name) is True])


def check_read(settings: Values, given: Iterable[str], **beside: str) -> None:
    """Refuse a given setting that the others leave unread; the message names what reads it. Raises UserError.

    Args:
        given: names of settings.
        beside: what is known beside the settings, such as data="captions".
    """
    known = {each.name: each for each in fields(settings)}
    for name in given:
        for other, values in rule_of(known[name]).read_by.items():
            now = beside.get(other) if other not in known else getattr(settings, other)
            if now in values or (other not in known and other not in beside):
                continue
            said = option_of(known[other]) if other in known else ""
            raise UserError(f"{option_of(known[name])} is used {_read(said, values)}, not {_read(said, (now,))}")


def spoken(values: Sequence[object]) -> str:
    """Values in a sentence: "a, b or c"."""
    *most, last = map(str, values)
    return f"{', '.join(most)} or {last}" if most else last


def readers(of: Field[Any], among: type[Values]) -> list[str]:
    """The conditions under which a setting is read: "with --side both"."""
    names = {each.name: option_of(each) for each in fields(among)}
    return [_read(names.get(other, ""), values) for other, values in rule_of(of).read_by.items()]


def _read(option: str, values: Sequence[Any]) -> str:
    if isinstance(values[0], bool):
        return f"{'with' if values[0] else 'without'} {option}"
    said = spoken([value for value in values if value is not None] or ["none"])  # None: the default
    return f"with {option} {said}" if option else f"with {said}"


FEEDBACK = {"encoder": ("feedback", "auto")}


@dataclass(frozen=True)
class PromptSettings(Values):
    """What a text prompt is. Inputs are read by one layer, prefixes by all, so that each kind has its own defaults."""

    KIND: ClassVar[str] = "kind"
    DEFAULTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "input": {"length": 8, "init": "gaussian", "learning_rate": 1e-2, "encoder": "table"},
        "prefix": {"length": 4, "init": "vocab", "learning_rate": 3e-2, "encoder": "table"},
    }

    side: str = setting("query", help="what gets a prompt", choices=("query", "document", "both"))
    kind: str = setting("input", help="of the prompt", choices=("input", "prefix", "auto"))
    encoder: str = setting(
        None,
        help="what makes the vectors",
        choices=("table", "mlp", "lstm", "feedback", "auto"),
        shown="table; feedback where a log is learned from",
    )
    feedback: int = setting(
        4, help="documents of a first search that a query's prompt is made from", low=1, high=100, read_by=FEEDBACK
    )
    feedback_bm25: float = setting(0.75, help="weight of BM25 in that search", low=0, high=1, read_by=FEEDBACK)
    length: int = setting(None, help="vectors a prompt", low=1)
    init: str = setting(None, help="where the vectors start", choices=("text:WORDS", "vocab", "gaussian"))
    common: bool = setting(False, help="add a part that both sides share (Semi-Siamese)", read_by={"side": ("both",)})
    seed: int = setting(0, help="of the initial vectors, the batches and the draws", low=0, high=2**32 - 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder in FEEDBACK["encoder"] and self.side != "query":
            raise UserError(f"feedback prompts are for the query side, got --side {self.side}")
