"""What the stores have in common: the measure as an inner product, rows in the order that was asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_prompts.data.corpus import Document
from retrieval_prompts.errors import UserError, few
from retrieval_prompts.interop.stores.address import Address
from retrieval_prompts.vectors.foreign_files import ID_NAMES, named

NUMBER = re.compile(r"-?[0-9]{1,18}")


@contextmanager
def kept_open(close: Callable[[], object]) -> Iterator[None]:
    """Closes a client where opening the store fails."""
    try:
        yield
    except BaseException:
        close()
        raise


def check_place(address: Address, make: bool) -> None:
    """Raises UserError for a local path where nothing is, unless something is to be made there."""
    if "://" not in address.place and not make and not Path(address.place).exists():
        raise UserError(f"{address.shown}: {address.place} does not exist")


def check_name(address: Address, there: Iterable[str]) -> None:
    """Raises UserError for a collection that is not there."""
    names = list(there)
    if address.name not in names:
        raise UserError(f"{address.shown}: there is no {address.name}; it has {few(names) or 'nothing'}")


def id_field(wanted: str | None, names: Sequence[str], address: Address) -> str | None:
    """The field with the ids; None where no usual one is there.

    Raises:
        UserError: where the wanted one is not.
    """
    found = named(names, wanted, ID_NAMES)
    if found is None and wanted is not None:
        raise UserError(f"{address.shown} has no field {wanted}; it has {few(names)}")
    return found


def one_vector(wanted: str | None, names: Sequence[str], address: Address) -> str:
    """The field with the vectors.

    Raises:
        UserError: unless there is one, or it is named.
    """
    if wanted is not None and wanted not in names:
        raise UserError(f"{address.shown} has no field of vectors {wanted}; it has {few(names) or 'none'}")
    if wanted is None and len(names) != 1:
        raise UserError(
            f"{address.shown}: expected one field of vectors, got {few(names) or 'none'}; name it with --vector-field"
        )
    return wanted or names[0]


def from_distance(value: float, measure: str) -> float:
    """The inner product of what a store calls a distance ("l2": its square, of vectors of length 1; "dot" and "cosine":
    one less it)."""
    return 1 - value / 2 if measure == "l2" else 1 - value


def in_order(ids: Sequence[str], found: Mapping[str, Any]) -> np.ndarray:
    """The vectors (n, dimension) of these ids.

    Raises:
        KeyError: for one that was not found.
    """
    return np.array([found[id] for id in ids], dtype=np.float32)


def documents_of(ids: Sequence[str], found: Mapping[str, Mapping[str, Any]]) -> list[Document]:
    """Title and text of rows, "" where a row has none."""
    rows = ((id, found[id]) for id in ids)
    return [Document(id, str(row.get("title") or ""), str(row.get("text") or "")) for id, row in rows]


def typed(ids: Sequence[str], number: bool) -> list[Any]:
    """Ids as the store has them; one that is no number cannot be among numbers, and is left out."""
    return [int(id) for id in ids if NUMBER.fullmatch(id)] if number else list(ids)
