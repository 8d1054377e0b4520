"""BEIR folders, read strictly and lazily: corpus.jsonl, queries.jsonl, qrels/<split>.tsv. Knows no model and no metric.

Each file may be gzipped (.gz); the plain one is preferred. Documents keep the order of the file. A file is read once
from end to end and every line is checked; whatever cannot be trusted raises UserError with `file:line`. What is odd
but clear is read: an id that is a number, or called "id", a title or text that is null, the same line twice. Lines may
be chunks of documents: "metadata": {"document": "the id of the document"}. Format: Thakur et al. 2021, "BEIR".
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from retrieval_prompts.data.corpus import Corpus, id_of, text_of
from retrieval_prompts.data.judgements import Qrels, parse_qrels
from retrieval_prompts.data.lines import json_rows, string
from retrieval_prompts.errors import DataWarning, UserError, few


@dataclass(frozen=True)
class Dataset:
    """Corpus, queries and judgements.

    Args:
        queries: id -> text, of those that have one.
        qrels: split -> its judgements, without unknown queries and documents.
        blank: id -> file and line of the queries without a text, which matter only where they are judged.
        dropped: split -> why none of its judgements could be kept.
    """

    name: str
    folder: Path
    corpus: Corpus
    queries: dict[str, str]
    qrels: dict[str, Qrels]
    blank: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    def split(self, name: str) -> tuple[dict[str, str], Qrels]:
        """The queries of a split that have a relevant document (grade > 0), in the order of its qrels file, and their
        judgements, grade 0 included.

        Raises:
            UserError: if there is no such split or no such query, and for a judged query without a text.
        """
        if name not in self.qrels:
            there = f"it has {', '.join(self.qrels)}" if self.qrels else f"there is no {self.folder}/qrels/<split>.tsv"
            raise UserError(f"{self.folder} has no split {name!r}; {there}")
        if name in self.dropped:
            raise UserError(self.dropped[name])
        if blank := next((query for query in self.qrels[name] if query not in self.queries), None):
            raise UserError(
                f"{self.blank[blank]}: the text of query {blank!r} is empty, and the split {name!r} judges it; write it"
                " or remove its judgements"
            )
        qrels = {query: grades for query, grades in self.qrels[name].items() if max(grades.values()) > 0}
        if not qrels:
            raise UserError(f"split {name!r} of {self.folder} has no query with a relevant document")
        return {query: self.queries[query] for query in qrels}, qrels


def load(folder: Path | str, *, judged: bool = True) -> Dataset:
    """Read a BEIR folder. A qrels folder without files gives no splits: enough to index, not to train on judgements.

    Args:
        judged: queries and judgements must be there; else what is there is read.

    Judgements of unknown queries or documents are dropped, and counted in one DataWarning for each split.

    Raises:
        UserError: for what is missing or malformed, and where no judgement is about a query and a document of the
            folder.
    """
    folder = _existing_folder(folder)
    corpus = load_corpus(folder)
    queries: dict[str, str] = {}
    blank: dict[str, str] = {}
    if judged or any((folder / f"queries.jsonl{end}").is_file() for end in ("", ".gz")):
        queries, blank = _read_queries(_find(folder, "queries.jsonl"))
    if judged and not (folder / "qrels").is_dir():
        raise UserError(f"{folder} has no folder qrels; expected qrels/<split>.tsv, for example qrels/test.tsv")
    splits: dict[str, Path] = {}
    for suffix in (".csv.gz", ".csv", ".tsv.gz", ".tsv"):  # the last one wins: the plain file, BEIR's own ending
        for path in sorted((folder / "qrels").glob(f"[!.]*{suffix}")):
            splits[path.name.removesuffix(suffix)] = path
    qrels: dict[str, Qrels] = {}
    dropped: dict[str, str] = {}
    for name in sorted(splits):
        qrels[name], why = _read_qrels(splits[name], queries.keys() | blank.keys(), corpus)
        if why is not None and qrels[name]:
            warnings.warn(why, DataWarning, stacklevel=2)
        elif why is not None:
            ids = f"query {next(iter(queries), '')!r} and document {corpus.ids[0]!r}"
            dropped[name] = f"{why}; none is left. Expected ids of this folder, such as {ids}"
    if dropped and not any(qrels.values()):
        raise UserError(next(iter(dropped.values())))
    return Dataset(folder.resolve().name, folder, corpus, queries, qrels, blank, dropped)


def load_corpus(folder: Path | str) -> Corpus:
    """Read only the corpus of a BEIR folder; queries and qrels may be absent. Raises UserError."""
    return Corpus.open(_find(_existing_folder(folder), "corpus.jsonl"))


def hold_out(qrels: Qrels, fraction: float, seed: int) -> tuple[Qrels, Qrels]:
    """Split judgements by query into (train, dev), both in the order of `qrels`.

    dev gets round(fraction * n) of the n queries, but at least one and at most n - 1, so neither side is empty. Who
    goes is decided by a hash of seed and query id: the same on every machine, whatever the order of the file, and a
    larger fraction only adds queries.

    Raises:
        UserError: if fraction is not within (0, 1) or there are under two queries.
    """
    if not 0 < fraction < 1:
        raise UserError(f"the held-out fraction must lie between 0 and 1, got {fraction}")
    if len(qrels) < 2:
        raise UserError(f"holding out queries needs at least 2 of them, got {len(qrels)}")
    count = min(max(round(fraction * len(qrels)), 1), len(qrels) - 1)
    shuffled = sorted(qrels, key=lambda query: hashlib.sha256(f"{seed}:{query}".encode()).digest())
    held_out = set(shuffled[:count])
    train = {query: grades for query, grades in qrels.items() if query not in held_out}
    dev = {query: grades for query, grades in qrels.items() if query in held_out}
    return train, dev


def with_test(dataset: Dataset, fraction: float = 0.2, least: int = 25) -> tuple[Dataset, bool]:
    """The data set, and whether a part of its training queries was made its test split, for it has none.

    Who goes does not depend on the order of the file. Fewer training queries than `least` stay together.
    """
    train = dataset.qrels.get("train", {})
    if "test" in dataset.qrels or len(train) < least:
        return dataset, False
    kept, test = hold_out(train, fraction, seed=1)
    return replace(dataset, qrels={**dataset.qrels, "train": kept, "test": test}), True


def _read_queries(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """(id -> text, id -> file and line of those whose text is empty)"""
    queries: dict[str, str] = {}
    lines: dict[str, int] = {}
    again: list[str] = []
    for number, row in json_rows(path):
        where = f"{path}:{number}"
        if "text" not in row:
            string(row, "text", where)  # raises
        id, text = id_of(row, where), text_of(row, "text", where)
        if queries.get(id, text) != text:
            raise UserError(f"{where}: query id {id!r} was used on line {lines[id]} already, for another text")
        again += [id] * (id in queries)
        queries[id] = text
        lines.setdefault(id, number)
    if again:
        message = f"{path}: lines left out, as they say the same as an earlier one: {len(again)} ({few(again)})"
        warnings.warn(message, DataWarning, stacklevel=3)
    blank = {id: f"{path}:{lines[id]}" for id, text in queries.items() if not text.strip()}
    return {id: text for id, text in queries.items() if id not in blank}, blank


def _read_qrels(path: Path, queries: Set[str], corpus: Corpus) -> tuple[Qrels, str | None]:
    """The judgements of known queries and documents, and what is to be said of others."""
    no_query: list[str] = []
    no_document: list[str] = []

    def known(query: str, document: str) -> bool:
        if query not in queries:
            no_query.append(query)
        elif corpus.stands_for(document) is None:
            no_document.append(document)
        else:
            return True
        return False

    qrels = parse_qrels(path, keep=known)
    if corpus.groups is not None:
        qrels = {query: _of_documents(grades, corpus) for query, grades in qrels.items()}
    dropped = [
        f"{len(names)} with an unknown {kind} ({few(names)})"
        for kind, names in (("query", no_query), ("document", no_document))
        if names
    ]
    return qrels, f"{path}: dropped judgements: {', '.join(dropped)}" if dropped else None


def _of_documents(grades: dict[str, int], corpus: Corpus) -> dict[str, int]:
    """The grades of documents, where chunks of them may be judged: of several the highest."""
    found: dict[str, int] = {}
    for id, grade in grades.items():
        first = corpus.stands_for(id) or id
        found[first] = max(grade, found.get(first, grade))
    return found


def _existing_folder(folder: Path | str) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        came = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {came}; expected a BEIR folder (corpus.jsonl, queries.jsonl, qrels/<split>.tsv)")
    return folder


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"{folder} has neither {name} nor {name}.gz")
