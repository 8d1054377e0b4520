"""Which column of a table is what: by its name, else by what stands in it; and that in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retrieval_prompts.data.sources.rows import Table
from retrieval_prompts.errors import UserError

# Role -> what people call its column, the likeliest first; compared without case, spaces and signs
DOCUMENTS: dict[str, tuple[str, ...]] = {
    "id": (
        *("id", "docid", "documentid", "docno", "corpusid", "pid", "passageid", "productid", "articleid", "itemid"),
        *("uuid", "uid", "guid", "sku", "asin", "key"),
    ),
    "title": ("title", "name", "headline", "heading", "subject", "producttitle", "productname"),
    "text": (
        *("text", "content", "contents", "body", "passage", "document", "pagecontent", "fulltext", "article"),
        *("abstract", "description", "productdescription", "summary", "chunk", "paragraph", "answer", "message"),
    ),
}
QUERIES: dict[str, tuple[str, ...]] = {
    "query-id": ("queryid", "qid", "id", "topicid", "topic", "questionid", "querynumber"),
    "query": (
        *("text", "query", "question", "searchquery", "searchterm", "anchor", "q", "title", "utterance", "keywords"),
        *("querytext", "questiontext", "prompt"),
    ),
}
JUDGEMENTS: dict[str, tuple[str, ...]] = {
    "query-id": ("queryid", "qid", "topicid", "topic", "questionid", "querynumber"),
    "query": (
        *("query", "question", "searchquery", "searchterm", "anchor", "q", "utterance", "keywords", "querytext"),
        *("questiontext", "prompt", "sentence1", "sentencea", "claim"),
    ),
    "id": (
        *("corpusid", "docid", "documentid", "docno", "did", "pid", "passageid", "productid", "itemid", "articleid"),
        *("relevantid", "positiveid", "clickedid", "targetid", "answerid", "id", "sku", "asin", "url", "relevant"),
        "clicked",
    ),
    "document": (
        *("positive", "document", "doc", "passage", "answer", "context", "text", "content", "response", "pos"),
        *("target", "positives", "documenttext", "sentence2", "sentenceb"),
    ),
    "grade": ("score", "relevance", "rel", "label", "grade", "judgement", "judgment", "rating"),
    "clicks": ("clicks", "click", "nclicks", "clickcount", "clickthroughs", "count"),
}
NEGATIVE = re.compile(r"(hard)?neg(ative)?s?\d*")
ROLES = {name for roles in (DOCUMENTS, QUERIES, JUDGEMENTS) for names in roles.values() for name in names}


def known(name: str) -> bool:
    """Whether a column may be called so."""
    return _plain(name) in ROLES or NEGATIVE.fullmatch(_plain(name)) is not None


def by_name(columns: Sequence[str], roles: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Role -> the column that is called so; a column has one role."""
    left = {_plain(name): name for name in reversed(columns)}
    found: dict[str, str] = {}
    for role, names in roles.items():
        if (name := next((each for each in names if each in left), None)) is not None:
            found[role] = left.pop(name)
    return found


def negatives(columns: Sequence[str]) -> list[str]:
    """The columns of documents that are not relevant."""
    return [name for name in columns if NEGATIVE.fullmatch(_plain(name))]


def check(table: Table, given: Iterable[str], option: str) -> None:
    """Raises UserError for a name that no column has."""
    for name in given:
        if name not in table.columns:
            raise UserError(f"{table.path} has no column {name!r} ({option}); it has {', '.join(table.columns)}")


def longest_text(table: Table, besides: Iterable[str]) -> str | None:
    """The column whose values are, in the mean of the first rows, the longest texts."""
    lengths = {}
    for name, values in table.sample().items():
        if name not in besides and (length := sum(map(_characters, values))):
            lengths[name] = length / len(values)
    return max(lengths, key=lengths.__getitem__, default=None)


def _characters(value: Any) -> int:
    """How much text a cell holds, also in lists and objects; numbers, which may be vectors, are none."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list | tuple) else 0


def as_text(value: Any) -> str:
    """A cell as a text; "" for none. Several texts are joined by line breaks.

    >>> as_text(12.0), as_text(None), as_text(["a", "b"])
    ('12', '', 'a\\nb')
    """
    if type(value) is str:
        return value if value.isprintable() else characters_of(value)
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, bytes):  # of Parquet that does not say which of its columns are text
        return characters_of(value.decode("utf-8", "replace"))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | tuple):
        return "\n".join(filter(None, map(as_text, value)))
    if isinstance(value, Mapping):
        return "\n".join(filter(None, map(as_text, value.values())))
    return str(value)


def characters_of(text: str) -> str:
    """A text without what is not a character (halves of surrogate pairs, which JSON's escapes can spell) and NUL."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode()


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()
