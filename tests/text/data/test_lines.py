"""Lines, JSON lines and CSV: what is read has a line number, what is malformed is named by file and line."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest

from retrieval_prompts.data import lines, packed
from retrieval_prompts.data.csv_rows import csv_rows
from retrieval_prompts.data.lines import characters, json_rows, read_at, string
from retrieval_prompts.errors import DataWarning, UserError, few


def test_lines_have_numbers_and_offsets(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfa\n\nb\r\n\xc3\xa9"
    for name, written in (("plain", content), ("packed.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(written)
        assert list(read_at(tmp_path / name)) == [(1, 3, "a\n"), (3, 6, "b\r\n"), (4, 9, "é")]


def test_what_packed_files_unpack_to_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(bytes(1 << 26)))
    tracemalloc.start()
    with pytest.raises(UserError, match=r"bomb\.jsonl\.gz:1: the line has more than 16 MB; expected a text a line"):
        list(read_at(path, longest=1 << 24))
    assert tracemalloc.get_traced_memory()[1] < 1 << 26
    tracemalloc.stop()
    monkeypatch.setattr(packed, "PLAIN", 1 << 20)
    path.write_bytes(gzip.compress(b'{"a": "x"}\n' * 400_000, mtime=0))  # 4 MB in 9 kB
    with pytest.raises(UserError, match=r"unpacks to over 1 MB, more than 200 times its size, which no text does; unp"):
        list(read_at(path))
    path.write_bytes(gzip.compress(b'{"a": "x"}\n' * 90_000, mtime=0))
    assert sum(1 for _ in read_at(path)) == 90_000


@pytest.mark.parametrize("content", [b"abcdefgh", b"abcdefgh\nx", b"abcd\nefgh\n", b"abc\nd", b"abcdefghijk\n\nl"])
def test_long_lines_are_read_in_parts(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "PART", 4)
    (tmp_path / "a").write_bytes(content)
    found = list(read_at(tmp_path / "a"))
    assert "".join(line for _, _, line in found) == content.decode().replace("\n\n", "\n")
    assert [content[offset : offset + len(line)].decode() for _, offset, line in found] == [each[2] for each in found]
    assert lines.read_text(tmp_path / "a") == "".join(line for _, _, line in found)


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
    with pytest.raises(UserError, match=r"^here: a title holds half of a surrogate pair, which is not a character$"):
        characters("\ud83d", "a title", "here")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_rows_in_any_order_with_what_is_optional(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n".join(separator.join(row) for row in (("B ", "odd", "a"), ("2", "3", f'"1{separator}"'))))
    with pytest.warns(DataWarning, match=r"columns that are not used: odd; used are a,b\[,c\]"):
        assert list(csv_rows(path, ["a", "b"], ["c"])) == [(2, {"a": f"1{separator}".strip(), "b": "2", "c": None})]


def test_messages_are_of_bounded_length() -> None:
    message = str(UserError("a" * 9000 + " what to do"))
    assert len(message) < 2000 and message.startswith("aaa") and message.endswith("what to do")
    assert len(few(["b" * 9000])) < 400 and str(UserError("short")) == "short"


def test_a_header_with_a_strange_line_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"path,label\rcat.png,cat\r")
    with pytest.raises(UserError, match=r"a\.csv:1: expected a header line path,label, got 'path,label\\rcat"):
        list(csv_rows(tmp_path / "a.csv", ("path", "label")))


def test_few_are_named() -> None:
    assert few([]) == "" and few("aab") == "a, b" and few("abc", "; ") == "a; b; c"
    assert few("abcdd") == "a, b, c and 1 more"
