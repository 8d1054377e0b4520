"""A data set from what a program holds: lists and dictionaries of texts, queries, and pairs of them. Reads no file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.data.corpus import Corpus, Document, frame
from retrieval_prompts.data.ids import by_id, id_texts
from retrieval_prompts.data.judgements import Qrels
from retrieval_prompts.data.plain_texts import as_texts
from retrieval_prompts.data.sources.division import Shares, divide
from retrieval_prompts.data.sources.duplicates import digest, folded
from retrieval_prompts.errors import UserError

Documents = Mapping[Any, Any] | Iterable[Any]
IN_MEMORY = Path("<documents in memory>")


def from_texts(
    documents: Documents,
    pairs: Iterable[Sequence[str]] = (),
    *,
    queries: Mapping[Any, str] | None = None,
    judgements: Mapping[Any, Any] | None = None,
    name: str = "texts",
    shares: Shares = Shares(),  # noqa: B008 - frozen
) -> Dataset:
    """A data set for `tune`, `evaluate` and `Workbench`, without files.

    >>> data = from_texts({"a": "Boil the kettle.", "b": ("Lamp", "Gives light.")}, [("how to make tea", "a")])
    >>> data.queries, data.qrels
    ({'q1': 'how to make tea'}, {'train': {'q1': {'a': 1}}})

    Args:
        documents: id -> text or (title, text); or a list of texts, whose ids are "0", "1" ...; texts that only `pairs`
            name are added.
        pairs: (query, relevant document), by its id or its text.
        queries: id -> text, which `judgements` are about.
        judgements: query id -> the id of a relevant document, a list of them, or id -> grade. Or split -> all that:
            "train", "dev", "test".
        shares: how judgements without splits are divided (see `division.divide`); fewer than 50 queries are all train.

    Ids may be numbers or what else can be written as text.

    Raises:
        UserError: for ids that are missing, not there, or the same as text (1 and "1"), and for what is no text.
    """
    held = _documents(documents)
    by_text: dict[int, str] = {}
    for id, document in held.items():
        for text in (document.text, document.content):
            by_text.setdefault(digest(text), id)
    asked = by_id(queries or {}, "queries")
    texts = dict(zip(asked, as_texts(asked.values()), strict=True))
    known = {folded(text): id for id, text in texts.items()}
    own: Qrels = {}
    for query, wanted in map(_pair, pairs):
        if (key := folded(query)) not in known:
            number = next(number for number in range(len(texts) + 1, 10**12) if f"q{number}" not in texts)
            texts[f"q{number}"], known[key] = query, f"q{number}"
        if wanted not in held:
            if (key_of := digest(wanted)) not in by_text:
                number = next(number for number in range(len(held) + 1, 10**12) if f"text{number}" not in held)
                by_text[key_of] = f"text{number}"
                held[by_text[key_of]] = Document(by_text[key_of], "", wanted)
            wanted = by_text[key_of]
        own.setdefault(known[key], {})[wanted] = 1
    splits = _splits(judgements or {}, texts, held)
    if own:
        splits.setdefault("", {}).update(own)
    divided = divide(texts, splits.pop(""), shares) if "" in splits else {}
    return Dataset(name, IN_MEMORY, _corpus(held), texts, {**splits, **divided})


def corpus_of(documents: Documents) -> Corpus:
    """A corpus of texts in memory; see `from_texts`.

    Raises:
        UserError: for what is no text.
    """
    return _corpus(_documents(documents))


def _corpus(held: Mapping[str, Document]) -> Corpus:
    if not held:
        raise UserError("there are no documents; pass at least one text")
    fingerprint = hashlib.sha256()
    for document in held.values():
        fingerprint.update(frame(document))
    return Corpus(IN_MEMORY, list(held), fingerprint.hexdigest(), list(held.values()))


def _documents(given: Documents) -> dict[str, Document]:
    if isinstance(given, Mapping):
        pairs = list(by_id(given, "documents").items())
    else:
        several = given if isinstance(given, list | tuple) else as_texts(given)
        pairs = [(str(number), text) for number, text in enumerate(several)]
    titled = [("", text) if isinstance(text, str) or not _is_pair(text) else tuple(text) for _, text in pairs]
    titles, texts = as_texts(title for title, _ in titled), as_texts(text for _, text in titled)
    return {id: Document(id, *both) for (id, _), both in zip(pairs, zip(titles, texts, strict=True), strict=True)}


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _pair(pair: Any) -> tuple[str, str]:
    if not _is_pair(pair):
        raise UserError(f"expected pairs (query, relevant document), got {json.dumps(pair, default=str)[:60]}")
    query, document = as_texts(pair)
    return query, document


def _splits(
    judgements: Mapping[Any, Any], queries: Mapping[str, str], held: Mapping[str, Document]
) -> dict[str, Qrels]:
    """Split -> judgements, checked; "" where there are none."""
    judgements = by_id(judgements, "judgements")
    if judgements and set(judgements) <= {"train", "dev", "test"} and not set(judgements) <= queries.keys():
        each = {name: _splits(own, queries, held) for name, own in judgements.items()}
        return {name: found[""] for name, found in each.items() if found}
    found: Qrels = {}
    for query, own in judgements.items():
        what = f"judgements of query {query!r}"
        several = [own] if isinstance(own, str) or not isinstance(own, Iterable) else own
        grades = by_id(own, what) if isinstance(own, Mapping) else dict.fromkeys(id_texts(several, what), 1)
        if query not in queries:
            raise UserError(f"judgements name the query {query!r}, which is not among the {len(queries)} queries")
        if unknown := [id for id in grades if id not in held]:
            raise UserError(f"{what} name the document {unknown[0]!r}, which is not there")
        if odd := [grade for grade in grades.values() if not isinstance(grade, Real)]:
            raise UserError(f"{what} have the grade {odd[0]!r}; expected a number")
        found[query] = grades
    return {"": found} if found else {}
