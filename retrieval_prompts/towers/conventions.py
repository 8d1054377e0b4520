"""What a model wants and its files do not always say: the words before its texts, and how its vectors are compared.

Where a model is loaded they are written into it, so that sentence-transformers, an export and a copy read the same.
Knows no weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from retrieval_prompts.errors import UserError, few

SIMILARITIES = ("cosine", "dot")
# Where encode_query and encode_document of sentence-transformers look, in this order
NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}
# What else models call the words of retrieval, the likelier first; compared in lower case, with _ for other signs
OTHER_NAMES = {
    "query": (
        *("search_query", "retrieval_query", "s2p_query", "web_search_query", "query_prompt", "query_instruction"),
        *("query_prefix", "queries", "question", "questions", "nq", "nq_query", "msmarco", "msmarco_query", "ms_marco"),
    ),
    "document": (
        *("search_document", "retrieval_document", "retrieval_passage", "search_passage", "s2p_document"),
        *("s2p_passage", "document_prompt", "passage_prompt", "document_instruction", "passage_instruction"),
        *("document_prefix", "passage_prefix", "documents", "passages", "doc", "docs", "retrieval_corpus"),
    ),
}
SIGNS = {
    "query": {"query", "queries", "question", "questions"},
    "document": {"document", "documents", "doc", "docs", "passage", "passages", "corpus"},
}
# Of tasks that are no search: models with words for these have others for retrieval
ELSEWHERE = {"sts", "s2s", "bitext", "bitextmining", "mining", "classification", "multilabel", "pair", "clustering"} | {
    *("summarization", "summarisation", "summary", "similarity", "symmetric", "reranking", "rerank", "matching"),
}


@dataclass(frozen=True)
class Conventions:
    """What was asked for, or recorded; None: as the model's files say.

    Args:
        query_words, document_words: put before each query or document, such as "query: "; "" for none at all.
        similarity: "cosine" or "dot".
    """

    query_words: str | None = None
    document_words: str | None = None
    similarity: str | None = None

    def __post_init__(self) -> None:
        if self.similarity not in (None, *SIMILARITIES):
            raise UserError(f"--similarity must be {' or '.join(SIMILARITIES)}, got {self.similarity!r}")
        for name in ("query_words", "document_words"):
            if not isinstance(getattr(self, name), str | None):
                raise UserError(f"--{name.replace('_', '-')} must be words, got {getattr(self, name)!r}")

    @classmethod
    def recorded(cls, saved: Mapping[str, Any]) -> Conventions:
        """Those that a prompt folder or an index holds; older ones hold none.

        Raises:
            UserError: for what is none.
        """
        return cls(**{each.name: saved.get(each.name) for each in fields(cls)})

    def words(self, side: str) -> str | None:
        return self.query_words if side == "query" else self.document_words

    def or_else(self, other: Conventions) -> Conventions:
        """With the other's where there is none here."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return Conventions(**{**asdict(other), **given})

    def differing(self, other: Conventions) -> str:
        """The other's conventions that are not these, for messages; "" where there are none."""
        theirs = other.options()
        return ", ".join(f"{name} {theirs[name]!r}" for name in theirs if theirs[name] != self.options().get(name))

    def said(self) -> str:
        """In words, for messages."""
        return ", ".join(f"{name} {value!r}" for name, value in self.options().items()) or "the model's own words"

    def options(self) -> dict[str, str]:
        """Option -> value, of those that are not None."""
        return {f"--{name.replace('_', '-')}": value for name, value in asdict(self).items() if value is not None}


def words_of(model: Any, side: str) -> str:
    """The words that a SentenceTransformer puts before the texts of a side; often none."""
    prompts = model.prompts or {}
    found = next((prompts[name] for name in NAMES[side] if prompts.get(name) is not None), None)
    if found is None and model.default_prompt_name:
        found = prompts.get(model.default_prompt_name)
    return found or ""


@dataclass(frozen=True)
class Adopted:
    """What was written into a model.

    Args:
        names: side -> the name under which the model's files have its words, where it is not the side's own.
        understood: of these, the sides whose words were taken from there, for `words_of` did not see them.
        kept: what the model's files do not say by themselves, to be kept by what is made with it.
        remarks: what was assumed, or left out, and should be said.
    """

    names: dict[str, str]
    understood: dict[str, str]
    kept: Conventions
    remarks: list[str]


def adopt(model: Any, given: Conventions) -> Adopted:
    """Write conventions into a SentenceTransformer: what is given, and words that it has under other names."""
    model.prompts = model.prompts or {}
    prompts = dict(model.prompts)
    names = {side: name for side in NAMES if (name := _other_name(prompts, side)) not in (None, side)}
    understood: dict[str, str] = {}
    for side in NAMES:
        if (words := given.words(side)) is not None:
            model.prompts[side] = words
        elif not words_of(model, side) and side in names:
            model.prompts[side], understood[side] = prompts[names[side]], names[side]
    remarks = [said] if (said := _unused(model, prompts, given, understood)) else []
    # The property of this name makes it the cosine where nothing is said
    silent, similarity = getattr(model, "_similarity_fn_name", None) is None, None
    if given.similarity is not None:
        model.similarity_fn_name = given.similarity
    elif silent and type(list(model)[-1]).__name__ != "Normalize":
        similarity = "cosine"
        remarks.append(
            "it does not say how its vectors are compared: the cosine is assumed; where it was trained with the dot "
            'product, pass --similarity dot (similarity="dot")'
        )
    found = {f"{side}_words": prompts[name] for side, name in understood.items()}
    return Adopted(names, understood, given.or_else(Conventions(**found, similarity=similarity)), remarks)


def _other_name(prompts: Mapping[str, str], side: str) -> str | None:
    """The name of a side's words, where it is one that can mean nothing else."""
    said = {name: _plain(name) for name, words in prompts.items() if words}
    for wanted in (*NAMES[side], *OTHER_NAMES[side]):
        for name, plain in said.items():
            if plain == wanted:
                return name
    signs = _signed(prompts, side)
    return signs[0] if len({prompts[name] for name in signs}) == 1 else None


def _signed(prompts: Mapping[str, str], side: str) -> list[str]:
    """Names that speak of a side, and of no task beside search."""
    found = []
    for name, words in prompts.items():
        parts = set(_plain(name).split("_"))
        other = SIGNS["document" if side == "query" else "query"]
        if words and parts & SIGNS[side] and not parts & (ELSEWHERE | other):
            found.append(name)
    return found


def _plain(name: str) -> str:
    """searchQuery, "retrieval.query", Retrieval-query -> search_query, retrieval_query, retrieval_query."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", apart.lower()).strip("_")


def _unused(model: Any, prompts: Mapping[str, str], given: Conventions, understood: Mapping[str, str]) -> str | None:
    """What to say of a model with words that are put nowhere, where a side seems to miss some."""
    used = {name for side in NAMES for name in NAMES[side]} | set(understood.values())
    # Plain `encode` uses the words of the default name; a query or document has them only where it has no name at all
    used |= {model.default_prompt_name} if set(prompts).isdisjoint(("query", "document")) else set()
    left = [name for name, words in prompts.items() if words and name not in used]
    without = [side for side in NAMES if not words_of(model, side) and given.words(side) is None]
    # Words for queries alone are what most models want; for documents alone they are odd
    missing = [side for side in without if side == "query" or len(without) == 2 or _signed(prompts, side)]
    if not left or not missing:
        return None
    sides = " or ".join({"query": "queries", "document": "documents"}[side] for side in missing)
    options = " and ".join(f"--{side}-words ({side}_words=)" for side in missing)
    return (
        f"it has words to put before texts ({few(left)}), and none of them is put before {sides}: where it wants some "
        f"there, pass {options}"
    )
