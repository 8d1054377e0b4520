"""Odd files, as hypothesis strategies: values, JSON, tables, and sound files that were damaged. Knows no reader."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

Files = dict[str, bytes]

TEXTS = (
    *("", " ", "d1", "q1", "d2", "0", "-1", "01", "1e999", "nan", "inf", "None", "null", "true", "\ufeffd1"),
    *(
        "a\tb",
        "a,b",
        'a"b',
        '"',
        '""',
        "'",
        "a;b",
        "a|b",
        "a\nb",
        "a\r\nb",
        "\x00",
        "\x1b]0;x\x07",
        "\x1b[2J",
        "\x9b31m",
    ),
    *("\u202egnp.exe", "\u2028", "\x85", "\ud800", "\udfff", "\U0001f600", "e\u0301", "\u0e01\u0e02", "漢字", "़"),
    *(
        "../../etc/passwd",
        "/etc/passwd",
        "C:\\x",
        "a/../b.png",
        "a.png",
        "cat/0.png",
        "<script>x</script>",
        "%s%n",
        "{}",
    ),
    *("x" * 5000, "a" * 300 + "/" + "b" * 300, "n01440764", "train", "test", "val"),
)
# JSON that no value would be written as
RAW = (
    *(
        "[" * 100_000,
        '{"a":' * 50_000,
        "9" * 10_000,
        "-" + "9" * 5000,
        "1e999",
        "-1e999",
        "Infinity",
        "-Infinity",
        "NaN",
    ),
    *(
        '"\\ud800"',
        '"\\u0000"',
        "{",
        "}",
        "[]",
        "{}",
        '""',
        "null",
        "0",
        "-0",
        "1.5e308",
        '{"a":1,"a":2}',
        "[1,]",
        "tru",
    ),
)
MARK = "\x02raw\x02"  # around the position of a piece of RAW in a text, until it is written
NUMBERS = (0, 1, -1, 2, 255, 1 << 16, 1 << 31, -(1 << 31), 1 << 40, 1 << 62, 1 << 63, 1 << 64, 10**30, 10**400, 0.5)

texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=12))
numbers = st.one_of(st.sampled_from(NUMBERS), st.integers(), st.floats())
raw = st.integers(0, len(RAW) - 1).map(lambda number: f"{MARK}{number}{MARK}")
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts, raw),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)


def mostly(
    usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any] = values, *, of: int = 20
) -> st.SearchStrategy[Any]:
    """The usual, but one time `of` so many."""
    return st.integers(1, of).flatmap(lambda which: odd if which == of else usual)


def objects(fields: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Objects with these fields, of which some are odd or not there, and maybe others."""
    some = st.fixed_dictionaries({}, optional={name: mostly(value) for name, value in fields.items()})
    whole = st.fixed_dictionaries({name: mostly(value) for name, value in fields.items()})
    more = st.dictionaries(texts, values, max_size=2).flatmap(lambda extra: whole.map(lambda own: own | extra))
    return mostly(mostly(whole, more, of=4), st.one_of(some, values), of=10)


def dumped(value: Any, plain: bool = False) -> bytes:
    """JSON as people may write it; pieces of RAW as they are. plain: characters instead of escapes."""
    try:
        text = json.dumps(value, ensure_ascii=not plain)
    except (ValueError, RecursionError):
        text = "9" * 5000  # a number that Python does not write
    for number, piece in enumerate(RAW):
        mark = json.dumps(f"{MARK}{number}{MARK}", ensure_ascii=not plain)
        text = text.replace(mark, piece) if mark in text else text
    return text.encode("utf-8", "surrogatepass")


def documents(value: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """JSON files of one value."""
    return damaged(st.builds(dumped, value, st.booleans()))


def lines(line: st.SearchStrategy[bytes], most: int = 6) -> st.SearchStrategy[bytes]:
    """Files of lines, with their various ends."""
    usual = st.sampled_from([b"\n"] * 6 + [b"\r\n", b"\n\n"])
    ends = mostly(usual, st.sampled_from([b"\r", b"\x0b", b"\xe2\x80\xa8", b""]))
    some = st.integers(1, 12).flatmap(
        lambda which: st.lists(st.tuples(line, ends), min_size=2 * (which < 12), max_size=most)
    )
    return damaged(some.map(lambda parts: b"".join(map(b"".join, parts))))


def json_lines(value: st.SearchStrategy[Any], most: int = 6) -> st.SearchStrategy[bytes]:
    return lines(st.builds(dumped, value, st.booleans()), most)


def tables(*columns: st.SearchStrategy[str], header: str | None = None) -> st.SearchStrategy[bytes]:
    """Lines of columns, with one separator; quoted or not; a column too few or too many at times."""

    def quoted(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    def row(separator: str) -> st.SearchStrategy[bytes]:
        cells = st.tuples(*(mostly(st.one_of(column, column.map(quoted)), texts) for column in columns)).map(list)
        more = mostly(st.just([]), st.lists(texts, max_size=2))
        fewer = mostly(st.just(0), st.just(1))
        return st.tuples(cells, more, fewer).map(
            lambda parts: separator.join([*parts[0][parts[2] :], *parts[1]]).encode("utf-8", "surrogatepass")
        )

    def table(separator: str) -> st.SearchStrategy[bytes]:
        body = lines(row(separator))
        if header is None:
            return body
        top = header.replace(",", separator).encode() + b"\n"
        return st.tuples(mostly(st.just(top), st.just(b"")), body).map(b"".join)

    return mostly(st.sampled_from(["\t", ","]), st.sampled_from([" ", ";", "|"]), of=5).flatmap(table)


@st.composite
def damaged(draw: st.DrawFn, content: st.SearchStrategy[bytes]) -> bytes:
    """The content as it is, three times of four; else cut, changed in places, in another encoding."""
    found = draw(content)
    if draw(st.integers(0, 3)):
        return found
    for _ in range(draw(st.integers(1, 3))):
        found = _one_fault(draw, found)
    return found


def _one_fault(draw: st.DrawFn, content: bytes) -> bytes:
    at = draw(st.integers(0, max(len(content) - 1, 0)))
    piece = draw(
        st.one_of(st.binary(max_size=8), st.sampled_from([b"\x00", b"\xff\xff\xff\xff", b"\x1b[2J", b"9" * 30]))
    )
    match draw(
        st.sampled_from(["cut", "change", "insert", "repeat", "remove", "mark", "utf-16", "latin-1", "nothing"])
    ):
        case "cut":
            return content[:at]
        case "change":
            return content[:at] + piece + content[at + len(piece) :]
        case "insert":
            return content[:at] + piece + content[at:]
        case "repeat":
            return content[:at] + content[at : at + 40] + content[at:]
        case "remove":
            return content[:at] + content[at + draw(st.integers(1, 40)) :]
        case "mark":
            return b"\xef\xbb\xbf" + content
        case "utf-16":
            return content.decode("utf-8", "replace").encode("utf-16")
        case "latin-1":
            return content.decode("utf-8", "replace").encode("latin-1", "replace")
    return b""


@st.composite
def named(draw: st.DrawFn, name: str, content: st.SearchStrategy[bytes], *, zipped: bool = True) -> Files:
    """A file under its name, at times gzipped under NAME.gz, well or badly; rarely none."""
    found, which = draw(content), draw(st.integers(0, 39 if zipped else 0))
    if which < 32:
        return {name: found}
    if which == 39:
        return {}
    packed = gzip.compress(found, mtime=0)
    return {f"{name}.gz": draw(damaged(st.just(packed))) if which == 38 else packed}


@st.composite
def folders(draw: st.DrawFn, *parts: st.SearchStrategy[Files]) -> Files:
    """The files of all parts together."""
    found: Files = {}
    for part in parts:
        found |= draw(part)
    return found


@st.composite
def edited(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value in which one place, at any depth, was replaced, removed or added to."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 5)) == 0:
        return draw(values)
    if isinstance(value, list):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(edited(value[at])), *value[at + 1 :]]
    name = draw(st.sampled_from(sorted(value)))
    match draw(st.integers(0, 7)):
        case 0:
            return {key: each for key, each in value.items() if key != name}
        case 1:
            return value | {draw(texts): draw(values)}
    return value | {name: draw(edited(value[name]))}


@st.composite
def safetensors(draw: st.DrawFn, content: bytes) -> bytes:
    """A file of safetensors whose header was edited and fits its length, or whose bytes were changed anywhere."""
    size = int.from_bytes(content[:8], "little")
    if draw(st.booleans()):
        return draw(damaged(st.just(content)))
    header = dumped(draw(edited(json.loads(content[8 : 8 + size]))))
    length = draw(st.sampled_from([len(header)] * 6 + [0, 1 << 20, 1 << 40, (1 << 64) - 1]))
    return length.to_bytes(8, "little") + header + content[8 + size :]


def arrays() -> st.SearchStrategy[bytes]:
    """numpy's files with headers of anything."""
    kinds = st.sampled_from(["<i8", "<f4", "|O", "<U5", ">i2", "<i8,<f4", "x"])
    shapes = st.one_of(
        st.sampled_from(["(6,)", "(1 << 40,)", "(-1,)", "()", "(2, 3)", "6", f"({'9' * 5000},)", "((((("]), texts
    )

    def one(kind: str, shape: str) -> bytes:
        header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode("utf-8", "replace")
        return b"\x93NUMPY\x01\x00" + (len(header) % 65536).to_bytes(2, "little") + header + bytes(48)

    return st.builds(one, kinds, shapes)
