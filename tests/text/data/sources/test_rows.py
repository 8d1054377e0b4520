"""Tables as files: in bounded memory whatever is packed or wrong in them, and no row is lost without a word."""

from __future__ import annotations

import gzip
import json
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from retrieval_prompts.data import packed
from retrieval_prompts.data.sources import opened, rows
from retrieval_prompts.data.sources.at_hand import at_hand
from retrieval_prompts.data.sources.columns import as_text, known, longest_text
from retrieval_prompts.data.sources.documents import Columns, read_documents
from retrieval_prompts.data.sources.left_out import LeftOut
from retrieval_prompts.data.sources.making import Sources
from retrieval_prompts.data.sources.rows import open_table
from retrieval_prompts.errors import UserError

PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstandard.compress}


def read(path: Path, content: bytes | str) -> list[tuple[Any, ...]]:
    """The rows of a table with this content, their columns in the order of the file."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table = open_table(path, known, LeftOut())
    return [tuple(values) for _, values in table.read(table.columns)]


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl"])
def test_what_a_packed_table_unpacks_to_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, packing: str
) -> None:
    monkeypatch.setattr(packed, "PLAIN", 1 << 20)
    rows = {
        "a.csv": b"id,text\n" + b"1,x\n" * 600_000,
        "a.tsv": b"id\ttext\n" + b"1\tx\n" * 600_000,
        "a.json": b"[" + b'{"id": 1},' * 250_000 + b'{"id": 1}]',
        "a.jsonl": b'{"id": 1}\n' * 250_000,
    }
    with pytest.raises(UserError, match=r"unpacks to over 1 MB, more than 200 times its size"):
        read(tmp_path / f"{name}{packing}", PACK[packing](rows[name]))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json"])
def test_lines_values_and_objects_are_of_bounded_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for module in (opened, rows):
        monkeypatch.setattr(module, "LINE", 1 << 20)
    start = {"a.csv": "id,text\n1,", "a.tsv": "id\ttext\n1\t", "a.json": '[{"id": "'}[name]
    with pytest.raises(UserError, match=r"a\.\w+(:2|, object 1): .* more than 1 MB"):
        read(tmp_path / name, start + "x" * (3 << 20))


def test_a_quote_between_tabs_is_looked_at_once_in_each_line_and_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = [f'{number}\tof the "usual" kind\t\n' for number in range(500)]  # a tab more than the header has
    seen, real = list[int](), rows._goes_on

    def counted(line: str) -> bool:
        seen.append(len(line))
        return real(line)

    monkeypatch.setattr(rows, "_goes_on", counted)
    (tmp_path / "a.tsv").write_text("".join(['id\ttext\n1\tx\n2\t"open\t\n', *ends]))
    left = LeftOut()
    assert list(open_table(tmp_path / "a.tsv", known, left).read(["id"])) == [(2, ["1"])]
    assert sum(seen) < 30_000
    (tmp_path / "a.tsv").write_text("".join(['id\ttext\n1\tx\n2\t"5" disk\t\n', *ends]))
    left = LeftOut()
    assert list(open_table(tmp_path / "a.tsv", known, left).read(["id"])) == [(2, ["1"])]
    assert left.counts == {"rows with more or fewer values than columns": 501}
    monkeypatch.setattr(rows, "LINE", 1 << 20)
    (tmp_path / "a.tsv").write_text('id\ttext\n1\tx\n2\t"open\t\n' + ("3\t" + "x" * 9_999 + "\t\n") * 200)
    with pytest.raises(UserError, match=r"a\.tsv:3: a quoted value of this row has no end"):
        list(open_table(tmp_path / "a.tsv", known, LeftOut()).read(["id"]))


@pytest.mark.parametrize("content", ["", "\n \n", '""\n', "sep=;\n"])  # the third is how pandas writes an empty table
def test_a_table_without_a_row_is_empty(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError, match=r"a\.csv is empty; expected a table with a header"):
        read(tmp_path / "a.csv", content)


def test_a_zst_file_that_was_cut_is_refused_and_one_of_several_frames_read(tmp_path: Path) -> None:
    lines = [b'{"id": "%d", "text": "text number %d"}\n' % (number, number) for number in range(20_000)]
    whole = b"".join(lines)
    packer = zstandard.ZstdCompressor().compressobj()
    at_line_end = packer.compress(whole) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    for cut in (at_line_end, zstandard.compress(whole)[:-1], zstandard.compress(whole)[:2]):
        with pytest.raises(UserError, match=r"a\.jsonl\.zst cannot be read to its end \(the compressed data end too"):
            read(tmp_path / "a.jsonl.zst", cut)
    skipped = bytes.fromhex("502a4d1804000000") + b"skip"
    several = skipped + zstandard.compress(whole) + zstandard.compress(b"") + zstandard.compress(lines[0])
    assert len(read(tmp_path / "a.jsonl.zst", several)) == 20_001


def test_a_malformed_array_is_not_read_to_its_end(tmp_path: Path) -> None:
    good, path = '{"id": "1", "text": "x"}', tmp_path / "a.json"
    content = f'[{good}, {{"id": "2" "text": "y"}}, ' + ", ".join([good] * 400_000) + "]"
    path.write_text(content)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"a\.json, object 2: malformed JSON \(Expecting ',' delimiter\)"):
        list(rows._array(path))
    assert tracemalloc.get_traced_memory()[1] < 6 << 20 < len(content)
    tracemalloc.stop()


@pytest.mark.parametrize("piece", range(1, 24))
def test_an_array_is_the_same_wherever_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(rows, "PIECE", piece)
    objects = [{"id": -1.5e300, "text": 'a "q" \\ é\n', "b": [True, None]}, {"id": float("-inf"), "text": "\U0001f600"}]
    assert read(tmp_path / "a.json", "\n [" + json.dumps(objects)[1:]) == [
        (-1.5e300, 'a "q" \\ é\n', [True, None]),
        (float("-inf"), "\U0001f600", None),
    ]


def test_a_quote_that_is_never_closed_takes_no_rows_with_it(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"a\.csv:3: a quoted value of this row has no end, and takes in all rows after it"
    ):
        read(tmp_path / "a.csv", 'id,text\n1,"two\nlines"\n2,"open\n3,x\n4,y\n'.replace('"two\nlines"', "x"))
    # a quote in the middle of a value is a character
    found = read(tmp_path / "a.csv", 'id,text\n1,"two\nlines"\n2,5" pipe\n3,"x\n""y"""\n4,"a\nb" and 5"\n')
    assert found == [("1", "two\nlines"), ("2", '5" pipe'), ("3", 'x\n"y"'), ("4", 'a\nb and 5"')]


def test_a_header_may_have_line_breaks_and_blank_lines_before_it(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", '   \n"the\nid";text\n1;x\n;\n   \n') == [("1", "x"), ("", "")]


def test_one_object_in_one_line_is_id_and_text_unless_it_names_columns(tmp_path: Path) -> None:
    assert read(tmp_path / "a.json", '{"d1": "a text", "d2": "another"}') == [("d1", "a text"), ("d2", "another")]
    assert read(tmp_path / "a.json", '{"id": "d1", "text": "a text"}\n') == [("d1", "a text")]
    for content in ('{"a": ' + "1" * 5000 + "}", "null", '"text"'):
        with pytest.raises(UserError, match=r"a\.json:1: expected a JSON object"):
            read(tmp_path / "a.json", content)


def test_bytes_are_text() -> None:
    assert as_text("é".encode()) == "é" and as_text([b"a", b"b\0"]) == "a\nb"


def test_parquet_is_not_held_in_memory(tmp_path: Path) -> None:
    path, texts = tmp_path / "a.parquet", random.Random(0)
    with parquet.ParquetWriter(path, pa.schema([("id", pa.int64()), ("text", pa.string())])) as writer:
        for _ in range(16):
            rows = [texts.randbytes(500).hex() for _ in range(1000)]
            writer.write_table(pa.table({"id": list(range(1000)), "text": rows}))
    pool, most = pa.default_memory_pool(), 0
    before = pool.bytes_allocated()
    for _ in open_table(path, known, LeftOut()).read(["id", "text"]):
        most = max(most, pool.bytes_allocated() - before)
    assert most < path.stat().st_size / 2


def test_the_delimiter_is_what_divides_the_rows_or_what_excel_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert read(path, "\ufeffid;price, net;text\r\n1;2,50;a, b and c\r\n") == [("1", "2,50", "a, b and c")]
    assert read(path, "sep=;\r\nid;text\r\n1;one, two\r\n") == [("1", "one, two")]
    assert read(path, 'id,text\n1,"a, b; c"\n') == [("1", "a, b; c")]
    assert read(path, "id,words (a|b|c|d)\n1,x\n") == [("1", "x")]


def test_what_stands_behind_an_array_is_not_lost(tmp_path: Path) -> None:
    assert read(tmp_path / "a.json", '[{"id": "1"}] \n\n') == [("1",)]
    with pytest.raises(UserError, match=r"a\.json: expected one array of objects, got more after its 1 objects"):
        read(tmp_path / "a.json", '[{"id": "1"}]\n[{"id": "2"}]')


def test_the_longest_text_may_stand_in_an_object_and_numbers_are_none(tmp_path: Path) -> None:
    row = {"_index": "a", "_id": "1", "_source": {"body": "some text"}, "vector": [0.123456789] * 9}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    assert longest_text(open_table(tmp_path / "a.jsonl", known, LeftOut()), ["_id"]) == "_source"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_pipes_and_links_to_folders_are_said_and_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("x")
    (folder / "gone.txt").symlink_to("nowhere")
    (tmp_path / "other").mkdir()
    (folder / "link").symlink_to(tmp_path / "other")
    os.mkfifo(folder / "pipe.txt")
    assert [path.name for path in opened.files_in(folder)] == ["a.txt", "gone.txt", "link"]
    with pytest.raises(UserError, match=r"pipe\.txt is not a regular file but a pipe"):
        opened.expand([str(folder / "pipe.txt")])
    left = LeftOut()
    found = read_documents([str(folder)], Columns(), None, left)
    assert [each.id for each in found.entries] == ["a.txt"]
    assert any(line.startswith("links to folders, which are not followed") for line in left.lines())
    with pytest.raises(
        UserError, match=r"other holds nothing to read: files of other kinds: 1 \(.*a\.jpg\); expected tab"
    ):
        (tmp_path / "other" / "a.jpg").write_bytes(b"")
        read_documents([str(tmp_path / "other")], Columns(), None, LeftOut())
    sources = Sources((str(folder),))
    assert at_hand(sources, None, tmp_path / "cache") == at_hand(sources, None, tmp_path / "cache")
