"""Data sets of the package ir_datasets by their names (MacAvaney et al. 2021), read as tables: ir_datasets:NAME.

NAME is that of ir_datasets, such as beir/scifact/test; what is not there yet ir_datasets fetches itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from retrieval_prompts.data.sources.opened import NAMED
from retrieval_prompts.data.sources.rows import Rows, Table
from retrieval_prompts.errors import UserError, first_line

PARTS = {"docs": "documents", "queries": "queries", "qrels": "judgements"}
TEXTS = ("abstract", "text", "body")  # the fields of a document's text, those that are there, in this order
WHOLE = "default_text"  # what ir_datasets itself makes of a document


def parts(path: Path) -> set[str]:
    """Which of `PARTS` a data set has.

    Raises:
        UserError: for an unknown one, and without ir_datasets.
    """
    data = _load(path)
    return {part for part in PARTS if getattr(data, f"has_{part}")()}


def version() -> str:
    """Of ir_datasets, whose data of one name stay the same."""
    from importlib.metadata import version

    return version("ir_datasets")


def table(path: Path, part: str) -> Table:
    """One part of a data set; its columns are the fields of ir_datasets, which a document's whole text is added to.

    Raises:
        UserError: where the data set lacks it, and while it is read for what cannot be fetched or read.
    """
    data = _load(path)
    if not getattr(data, f"has_{part}")():
        there = [PARTS[each] for each in PARTS if getattr(data, f"has_{each}")()]
        raise UserError(f"{path} has no {PARTS[part]}; it has {', '.join(there) or 'nothing that is read here'}")
    fields = list(getattr(data, f"{part}_cls")()._fields)

    def read(wanted: Sequence[str]) -> Rows:
        for number, row in enumerate(_rows(path, data, part), 1):
            yield number, [row.default_text() if name == WHOLE else getattr(row, name) for name in wanted]

    whole = [WHOLE] if part == "docs" and hasattr(data.docs_cls(), WHOLE) else []
    return Table(path, [*fields, *whole], read)


def texts(path: Path) -> tuple[str, ...]:
    """The columns of a document's text beside its title: of `TEXTS` those that it has; else what ir_datasets makes of
    it."""
    kind = _load(path).docs_cls()
    types = get_type_hints(kind)
    found = tuple(name for name in TEXTS if name in kind._fields and types.get(name) is not bytes)
    return found or ((WHOLE,) if hasattr(kind, WHOLE) else ())


def _rows(path: Path, data: Any, part: str) -> Iterator[Any]:
    try:
        yield from getattr(data, f"{part}_iter")()
    except UserError:
        raise
    except Exception as error:  # of a download, or of whatever format it is in
        raise UserError(f"the {PARTS[part]} of {path} cannot be read: {first_line(error)}") from error


def _load(path: Path) -> Any:
    name = path.as_posix().removeprefix(NAMED)
    try:
        import ir_datasets
    except ImportError:
        raise UserError(f'{path} needs ir_datasets: pip install "retrieval-prompts[irds]"') from None
    try:
        return ir_datasets.load(name)
    except KeyError:
        raise UserError(f"ir_datasets has no data set called {name!r}; see https://ir-datasets.com") from None
