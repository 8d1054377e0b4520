"""Texts in every form that people have them in, and one line that says which one is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retrieval_prompts.data.plain_texts import as_texts, one_or_many
from retrieval_prompts.errors import UserError

TWO = ["fox", "Füchse 🙂"]


class Column:
    """A column of a table, as pandas has it: its labels are not its positions."""

    index = (7, 3)

    def __iter__(self) -> Any:
        return iter(TWO)

    def __getitem__(self, label: int) -> str:
        return TWO[self.index.index(label)]


@pytest.mark.parametrize(
    "given",
    [
        TWO,
        tuple(TWO),
        np.array(TWO),
        np.array(TWO, dtype=object),
        (text for text in TWO),
        dict.fromkeys(TWO).keys(),
        dict(enumerate(TWO)).values(),
        Column(),
        [np.str_(text) for text in TWO],
    ],
    ids=["list", "tuple", "array", "objects", "generator", "keys", "values", "column", "numpy strings"],
)
def test_every_form_gives_plain_strings(given: Any) -> None:
    found = one_or_many(given)
    assert found == TWO
    assert {type(text) for text in found} == {str}


@pytest.mark.parametrize("given", ["fox", np.str_("fox"), np.array("fox")])
def test_one_text_stays_one(given: Any) -> None:
    assert one_or_many(given) == "fox"
    assert type(one_or_many(given)) is str


def test_none_at_all() -> None:
    assert as_texts([]) == as_texts(iter(())) == as_texts(np.array([])) == []


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (None, "None"),
        (float("nan"), "the float nan"),
        (5, "the int 5"),
        (True, "the bool True"),
        (np.float64(2), "the float64 2.0"),
        (b"fox", "bytes"),
        (["fox"], "list"),
        ({"text": "fox"}, "dict"),
    ],
)
def test_what_is_no_text_is_named_with_its_position(bad: Any, named: str) -> None:
    expected = f"expected a text at position {{}} (counted from 0), got {named}; leave it out, or make it a string"
    for position, given in ((0, [bad]), (2, ["fox", "", bad, None])):
        with pytest.raises(UserError) as error:
            as_texts(given)
        assert str(error.value) == expected.format(position)
    with pytest.raises(UserError) as error:
        as_texts(iter(["fox", bad]), first=2048)
    assert str(error.value) == expected.format(2049)


@pytest.mark.parametrize("half", ["\ud83d", "\ude42", "\ude42\ud83d"])
def test_half_a_surrogate_pair(half: str) -> None:
    with pytest.raises(UserError) as error:
        as_texts(["fox", f"smile {half}"])
    assert str(error.value) == (
        f"the text at position 1 (counted from 0) has half a surrogate pair, {half[0]!a}, which is not a character; "
        "decode its source as UTF-8 or UTF-16, or leave it out"
    )


@pytest.mark.parametrize(
    ("given", "named"),
    [(None, "None"), (5, "the int 5"), (b"fox", "bytes"), ({"q1": "fox"}, "dict"), ({"fox"}, "set")],
)
def test_what_is_no_list_of_texts(given: Any, named: str) -> None:
    with pytest.raises(UserError) as error:
        one_or_many(given)
    assert str(error.value) == f"expected a list of texts, got {named}; pass a string, or strings in a list"


def test_a_whole_table_is_not_its_column_names() -> None:
    table = np.recarray((2,), dtype=[("text", "U3")])
    table.columns = ["text"]
    with pytest.raises(UserError, match="expected a list of texts, got recarray; pass a string"):
        as_texts(table)
