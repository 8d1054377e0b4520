"""Lines, JSON lines and CSV: what is read has a line number, what is malformed is named by file and line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from retrieval_prompts.data.csv_rows import csv_rows
from retrieval_prompts.data.lines import characters, json_rows, read_at, string
from retrieval_prompts.errors import DataWarning, UserError, few


def test_lines_have_numbers_and_offsets(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfa\n\nb\r\n\xc3\xa9"
    for name, written in (("plain", content), ("packed.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(written)
        assert list(read_at(tmp_path / name)) == [(1, 3, "a\n"), (3, 6, "b\r\n"), (4, 9, "é")]


def test_json_rows_and_their_texts(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "x"}\n\n{"a": ""}\n[1]\n')
    rows = json_rows(path)
    assert [next(rows), next(rows)] == [(1, {"a": "x"}), (3, {"a": ""})]
    with pytest.raises(UserError) as error:
        next(rows)
    assert str(error.value) == f"{path}:4: expected a JSON object, got list [1]"
    assert string({"a": ""}, "a", "here") == ""
    with pytest.raises(UserError, match=r'^here: "a" must not be empty$'):
        string({"a": ""}, "a", "here", empty=False)
    with pytest.raises(UserError, match=r"^here: a title holds half of a surrogate pair, which is no character$"):
        characters("\ud83d", "a title", "here")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_rows_in_any_order_with_what_is_optional(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n".join(separator.join(row) for row in (("B ", "odd", "a"), ("2", "3", f'"1{separator}"'))))
    with pytest.warns(DataWarning, match=r"columns that are not used: odd; used are a,b\[,c\]"):
        assert list(csv_rows(path, ["a", "b"], ["c"])) == [(2, {"a": f"1{separator}".strip(), "b": "2", "c": None})]


def test_few_are_named() -> None:
    assert few([]) == "" and few("aab") == "a, b" and few("abc", "; ") == "a; b; c"
    assert few("abcdd") == "a, b, c and 1 more"
