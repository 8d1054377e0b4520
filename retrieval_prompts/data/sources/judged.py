"""Queries and judgements as people have them: lists, pairs, click logs, triples, qrels and topics of TREC."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from retrieval_prompts.data.judgements import Qrels, parse_qrels
from retrieval_prompts.data.sources import columns as named
from retrieval_prompts.data.sources import named_sets
from retrieval_prompts.data.sources.duplicates import folded
from retrieval_prompts.data.sources.left_out import LeftOut
from retrieval_prompts.data.sources.opened import is_named, kind, open_text, text_lines
from retrieval_prompts.data.sources.rows import TABLES, Table, open_table
from retrieval_prompts.errors import UserError

# Of the clicks of a query's most clicked document: with at least so many a document has grade 2, grade 1
CLICKS = ((0.5, 2), (0.1, 1))
CLICK_RULE = (
    "clicks of a query on a document are added up; a document with at least half as many as the query's most clicked"
    " one has grade 2, with at least a tenth grade 1"
)
HIGHEST = 9999.5  # behind the grades that a file of judgements can have, see `data.judgements.GRADE`
TAG = re.compile(r"<[^>]*>")
SPLITS = {"train": "train", "training": "train", "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev"} | {
    "test": "test",
    "eval": "test",
}


@dataclass
class Queries:
    """id -> text; a text that comes without an id gets one, the same each time (see `folded`)."""

    texts: dict[str, str] = field(default_factory=dict)
    _ids: dict[str, str] = field(default_factory=dict)

    def of_text(self, text: str) -> str:
        """The id of a query with this text."""
        text = " ".join(text.split())
        if (key := folded(text)) not in self._ids:
            number = len(self.texts) + 1
            while f"q{number}" in self.texts:
                number += 1
            self.put(f"q{number}", text)
        return self._ids[key]

    def put(self, id: str, text: str) -> None:
        """Add a query; of one text, the first id is that of the text."""
        self.texts[id] = text
        self._ids.setdefault(folded(text), id)


@dataclass
class Judged:
    """Judgements as they were read.

    Args:
        splits: name -> judgements; "" where a source has one set of them.
        said: how the tables were understood, a line each.
    """

    splits: dict[str, Qrels] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Known:
    """What is known of the documents.

    Args:
        find: an id -> the ids that stand for it, of its chunks or of the document that says the same; none for unknown.
        add: the text of a document -> its id; one that no source has is added to the corpus.
    """

    find: Callable[[str], Sequence[str]]
    add: Callable[[str], str]


def read_queries(paths: Sequence[Path], given: Mapping[str, str], left: LeftOut) -> tuple[Queries, list[str]]:
    """Queries of tables (id and text, or text alone), lines of text, TREC's topics; and how they were understood.

    given: role -> column.
    """
    queries, said = Queries(), []
    for path in paths:
        if is_named(path):
            table = named_sets.table(path, "queries")
            said.append(_read_queries(table, _roles(table, named.QUERIES, given), queries, left))
            continue
        if (topics := _topics(path)) is not None:
            for number, topic in topics:
                queries.put(number, topic)
            said.append(f"{path}: {len(topics):,} topics")
            continue
        if kind(path) in (".txt", ""):
            with open_text(path) as file:
                for line in filter(str.strip, text_lines(file, path)):
                    queries.of_text(line)
            said.append(f"{path}: a query a line")
            continue
        table = open_table(path, named.known, left)
        roles = _roles(table, {name: named.QUERIES[name] for name in named.QUERIES}, given)
        if not table.header and len(table.columns) > 1:
            roles = {"query-id": "1", "query": "2"} | roles
        said.append(_read_queries(table, roles, queries, left))
    return queries, said


def _read_queries(table: Table, roles: Mapping[str, str], queries: Queries, left: LeftOut) -> str:
    """Take the queries of a table; returns how it was understood."""
    id, text = roles.get("query-id"), roles.get("query")
    text = text or named.longest_text(table, [id] if id else [])
    if text is None:
        raise UserError(f"{table.path}: no column looks like the text of a query, of {', '.join(table.columns)}")
    for number, values in table.read([text, *([id] if id else [])]):
        words, own = named.as_text(values[0]), named.as_text(values[-1]).strip() if id else ""
        if not words.strip() or (id and not own):
            left.note("queries without " + ("id" if words.strip() else "text"), f"{table.path}:{number}")
        elif id and queries.texts.get(own, words) != words:
            left.note("queries whose id another one has", f"{table.path}:{number}")
        elif id:
            queries.put(own, words)
        else:
            queries.of_text(words)
    return f"{table.path}: queries {text!r}, " + (f"id {id!r}" if id else "numbered")


def check_columns(paths: Sequence[Path], given: Mapping[str, str]) -> None:
    """Raises UserError for a column that was named and that none of the tables has."""
    columns = [name for path in paths for table in _tables(path) for name in table.columns]
    for name in given.values():
        if name not in columns:
            there = ", ".join(dict.fromkeys(columns)) or "no columns"
            raise UserError(f"--columns: no queries or judgements have a column {name!r}; they have {there}")


def _tables(path: Path) -> list[Table]:
    """What has columns at a path."""
    if is_named(path):
        return [named_sets.table(path, part) for part in sorted(named_sets.parts(path) - {"docs"})]
    return [open_table(path, named.known, LeftOut())] if path.is_dir() or kind(path) in TABLES else []


def may_name_texts(paths: Sequence[Path], given: Mapping[str, str]) -> bool:
    """Whether any judgements may name documents by their text, so that documents have to be found by it."""
    for path in paths:
        if not is_named(path) and _qrels(path, LeftOut()) is None:
            table = open_table(path, named.known, LeftOut())
            roles = _roles(table, named.JUDGEMENTS, given)
            if "id" not in roles or "document" in roles or "negative" in given or named.negatives(table.columns):
                return True
    return False


def read_judgements(
    paths: Sequence[Path], given: Mapping[str, str], queries: Queries, known: Known, left: LeftOut
) -> Judged:
    """Judgements of tables and qrels files. Files called train, dev (val, validation) and test are these splits.

    A file may have: query and the id of a document; query and a text; clicks beside them (see `CLICK_RULE`);
    documents that are not relevant, which get grade 0; grades, which are rounded. A query stands by its id where the
    queries have one, else by its text.
    """
    judged = Judged()
    for path in paths:
        split = _split(path, alone=len(paths) == 1)
        own = judged.splits.setdefault(split, {})
        if is_named(path):
            _read_table(named_sets.table(path, "qrels"), given, queries, known, left, judged, own)
            continue
        if (lines := _qrels(path, left)) is not None:
            pairs: Iterator[tuple[str, str, float, str]] = (
                (query, document, grade, str(path))
                for query, grades in lines.items()
                for document, grade in grades.items()
            )
            for query, document, grade, place in pairs:
                if query not in queries.texts:
                    left.note("judgements of unknown queries", f"{query} in {place}")
                elif not (ids := known.find(document)):
                    left.note("judgements of unknown documents", f"{document} in {place}")
                else:
                    _grade(own, query, ids, int(grade))
            judged.said.append(f"{path}: qrels")
            continue
        _read_table(open_table(path, named.known, left), given, queries, known, left, judged, own)
    return judged


def _read_table(
    table: Table, given: Mapping[str, str], queries: Queries, known: Known, left: LeftOut, judged: Judged, own: Qrels
) -> None:
    roles = _roles(table, named.JUDGEMENTS, given)
    bad = [roles.pop("negative")] if "negative" in roles else named.negatives(table.columns)
    _by_content(table, roles, bad, queries, known)
    wanted = [roles[name] for name in ("query", "target", "value") if name in roles]
    by_text, clicked = roles["document-is"] == "text", roles["value-is"] == "clicks"
    clicks: dict[str, dict[str, float]] = {}
    rows = table.read([*wanted, *bad])
    for number, values in tqdm(rows, desc="judgements", unit="", delay=1, mininterval=0.5):
        place = f"{table.path}:{number}"
        query = _query(named.as_text(values[0]), roles["query-is"], queries)
        if query is None:
            left.note("judgements of unknown queries" if roles["query-is"] == "id" else "rows without a query", place)
            continue
        value = _number(values[2]) if "value" in roles else 1.0
        if value is None:
            left.note("rows whose grade or clicks are not a number", place)
            continue
        if not clicked and abs(value) >= HIGHEST:
            left.note("rows whose grade has more than 4 digits", place)
            continue
        for name in _each(values[1]):
            ids = [known.add(name)] if by_text else known.find(name)
            if not ids:
                left.note("judgements of unknown documents", f"{name[:40]} in {place}")
            elif clicked:
                for id in ids:
                    counted = clicks.setdefault(query, {})
                    counted[id] = counted.get(id, 0.0) + value
            else:
                if not float(value).is_integer():
                    left.note("grades that are not whole numbers, rounded", f"{value:g} in {place}")
                _grade(own, query, ids, math.floor(value + 0.5))
        for cell in values[len(wanted) :]:
            for name in _each(cell):
                ids = known.find(name) or ([known.add(name)] if by_text else ())
                _grade(own, query, [id for id in ids if id not in own.get(query, {})], 0)
    if clicked:
        _from_clicks(clicks, own, left)
        judged.said.append(f"{CLICK_RULE}")
    judged.said.insert(0, _said(table, roles, bad))


def _roles(table: Table, roles: Mapping[str, Sequence[str]], given: Mapping[str, str]) -> dict[str, str]:
    given = {role: name for role, name in given.items() if name in table.columns}
    rest = [name for name in table.columns if name not in given.values()]
    return {**named.by_name(rest, {role: names for role, names in roles.items() if role not in given}), **given}


def _by_content(table: Table, roles: dict[str, str], bad: Sequence[str], queries: Queries, known: Known) -> None:
    """Settle what names leave open: which columns are meant, and whether ids or texts stand there."""
    sample = table.sample()
    rest = [name for name in table.columns if name not in (*roles.values(), *bad)]

    def mostly(column: str | None, there: Callable[[str], object]) -> bool:
        values = [each for cell in sample[column] for each in _each(cell)] if column is not None else []
        return bool(values) and sum(bool(there(value)) for value in values) > len(values) / 2

    own, text = roles.get("id"), roles.get("document")
    if not mostly(own, known.find):
        others = [text] if text is not None else rest
        found = next((name for name in others if mostly(name, known.find)), None)
        own = found if found is not None or text is not None else own
    rest = [name for name in rest if name != own and not mostly(name, _plain_value)]
    by_id = next(
        (name for name in (roles.get("query-id"), roles.get("query")) if mostly(name, queries.texts.get)), None
    )
    asked = by_id or roles.get("query") or (rest.pop(0) if rest else roles.get("query-id"))
    target = own or text or (rest.pop(0) if rest else None)
    if asked is None or target is None:
        what = "a query" if asked is None else "a document"
        raise UserError(f"{table.path}: no column looks like {what}, of {', '.join(table.columns)}; see --columns")
    clicks = "clicks" in roles and "grade" not in roles
    roles |= {"query": asked, "query-is": "id" if by_id else "text", "target": target}
    roles |= {"document-is": "id" if own else "text", "value-is": "clicks" if clicks else "grade"}
    if roles["value-is"] in roles:
        roles["value"] = roles[roles["value-is"]]


def _plain_value(value: str) -> bool:
    """Whether a cell is a number, a date or a time: what neither queries nor documents are."""
    return re.fullmatch(r"[\d\s.,:/+TZ-]+", value) is not None


def _said(table: Table, roles: Mapping[str, str], bad: Sequence[str]) -> str:
    parts = [f"queries {roles['query']!r} ({'ids' if roles['query-is'] == 'id' else 'texts'})"]
    parts.append(f"relevant documents {roles['target']!r} ({'ids' if roles['document-is'] == 'id' else 'texts'})")
    if "value" in roles:
        parts.append(f"{'clicks' if roles['value-is'] == 'clicks' else 'grades'} {roles['value']!r}")
    if bad:
        parts.append(f"not relevant {', '.join(map(repr, bad))}")
    return f"{table.path}: {', '.join(parts)}"


def _query(cell: str, how: str, queries: Queries) -> str | None:
    if how == "id":
        return cell.strip() if cell.strip() in queries.texts else None
    return queries.of_text(cell) if cell.strip() else None


def _each(cell: Any) -> list[str]:
    """The documents that a cell names: one, or those of a list."""
    cells = cell if isinstance(cell, list | tuple) else [cell]
    return [text for text in (named.as_text(each).strip() for each in cells) if text]


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return float(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _grade(own: Qrels, query: str, ids: Sequence[str], grade: int) -> None:
    """Of several grades of a document the highest counts."""
    grades = own.setdefault(query, {}) if ids else {}
    for id in ids:
        grades[id] = max(grade, grades.get(id, grade))


def _from_clicks(clicks: Mapping[str, Mapping[str, float]], own: Qrels, left: LeftOut) -> None:
    for query, counted in clicks.items():
        most = max(counted.values())
        for id, count in counted.items():
            grade = next((grade for share, grade in CLICKS if count > 0 and count >= share * most), None)
            if grade is None:
                left.note("documents with few or no clicks", f"{query}, {id}: {count:g} of {most:g}")
            else:
                _grade(own, query, [id], grade)


def _split(path: Path, *, alone: bool) -> str:
    """The split that a file's name says; one that is alone has to be called so and no more."""
    name = path.name.lower().split(".")[0]
    return next((SPLITS[part] for part in ([name] if alone else re.split(r"[\W_]+", name)) if part in SPLITS), "")


def _qrels(path: Path, left: LeftOut) -> Qrels | None:
    """The judgements of a file without a header, or with white space between: BEIR's and TREC's qrels."""
    if path.is_dir() or kind(path) not in (".tsv", ".txt", ".qrels", ".trec", ".tab", ""):
        return None
    if kind(path) in (".tsv", ".tab"):
        table = open_table(path, named.known, left)
        if table.header or len(table.columns) not in (3, 4):
            return None
    return parse_qrels(path)


def _topics(path: Path) -> list[tuple[str, str]] | None:
    """TREC's topics, with <num> and <title>, or as XML (number="1", <query>); None where a file has none."""
    if path.is_dir() or kind(path) not in (".txt", ".xml", ".topics", ".sgml", ".trec", ""):
        return None
    with open_text(path) as file:
        if not re.search(r"<top(ic)?\b", start := file.read(4000)):
            return None
        whole = start + file.read()
    found = []
    for topic in re.split(r"<top(?:ic)?(?=[\s>])", whole)[1:]:
        number = re.search(r"number=[\"']([^\"']+)|<num>\s*(?:Number:)?\s*([^\s<]+)", topic)
        text = re.search(r"<(?:title|query)>\s*(?:Topic:)?(.*?)(?=<|\Z)", topic, re.DOTALL)
        if number is None or text is None:
            raise UserError(f"{path}: a topic has no number or no title: {' '.join(topic.split())[:60]!r}")
        found.append((number[1] or number[2], " ".join(TAG.sub(" ", text[1]).split())))
    return found
