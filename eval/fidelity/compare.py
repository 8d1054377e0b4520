"""How far two computations are apart: a number a quantity, a row a method, and a table of them. Knows no method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from torch import Tensor

EQUAL = 1e-5


@dataclass(frozen=True)
class Side:
    """What one side computed: quantity ("loss", "gradient", "change", "logits" ...) -> name -> values."""

    quantities: Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Row:
    """One comparison.

    Args:
        name: of the method here.
        repository: "owner/name" of the authors' code; commit: its version.
        compared: what was run on both sides, in words.
        differences: quantity -> the largest relative difference.
        why: of what is not equal, in words.
        settings: setting -> [theirs, ours], where they differ.
    """

    name: str
    repository: str
    commit: str
    compared: str
    differences: dict[str, float]
    why: str = ""
    settings: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        return not self.settings and all(value <= EQUAL for value in self.differences.values())

    @property
    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "equal": self.equal}


def relative(one: Tensor, other: Tensor) -> float:
    """|one - other| / |other|, Euclidean; infinite where the shapes differ or `other` alone is zero or not finite."""
    if one.shape != other.shape:
        return float("inf")
    one, other = one.detach().double(), other.detach().double()
    apart, size = float((one - other).norm()), float(other.norm())
    if apart == 0:
        return 0.0
    return apart / size if size > 0 and apart == apart else float("inf")


def differences(ours: Side, theirs: Side) -> dict[str, float]:
    """Quantity -> the largest relative difference among its tensors.

    Raises:
        ValueError: where one side has what the other lacks.
    """
    found = {}
    for quantity, expected in theirs.quantities.items():
        given = ours.quantities.get(quantity, {})
        if given.keys() != expected.keys():
            raise ValueError(f"{quantity}: ours has {sorted(given)}, theirs {sorted(expected)}")
        found[quantity] = max(relative(given[name], value) for name, value in expected.items())
    return found


class Source(Protocol):
    """Where code is from; `authors.Repository` is one."""

    @property
    def name(self) -> str: ...

    @property
    def commit(self) -> str: ...


def compare(
    name: str,
    source: Source,
    compared: str,
    sides: tuple[Side, Side],
    why: str = "",
    settings: Mapping[str, tuple[Any, Any]] | None = None,
) -> Row:
    """`sides`: ours, theirs. `settings`: name -> theirs, ours, of which those that differ are kept."""
    apart = {key: list(both) for key, both in (settings or {}).items() if both[0] != both[1]}
    return Row(name, source.name, source.commit, compared, differences(*sides), why, apart)


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as JSON has them, as a Markdown table."""
    lines = ["| method | its code | compared | largest relative difference | equal to 1e-5 |", "|" + "---|" * 5]
    for row in rows:
        apart = ", ".join(f"{quantity} {value:.0e}" for quantity, value in row["differences"].items())
        odd = [f"{key}: {theirs} there, {ours} here" for key, (theirs, ours) in row["settings"].items()]
        said = "; ".join(filter(None, [row["why"], *odd]))
        verdict = "yes" if row["equal"] else "**no**"
        where = f"{row['repository']} {row['commit'][:7]}"
        lines.append(
            f"| {row['name']} | {where} | {row['compared']} | {apart} | {verdict}{': ' if said else ''}{said} |"
        )
    return "\n".join(lines)
