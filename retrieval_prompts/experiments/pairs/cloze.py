"""Pairs made of documents alone: a title asks for its text, a sentence for the rest of its document.

The inverse cloze task (Lee, Chang and Toutanova 2019, section 4) and title-body pairs. What asks is taken out of the
document that it asks for, or words would give it away; so the documents of these pairs are encoded once more.
"""

from __future__ import annotations

import re

import numpy as np

from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.data.corpus import Document
from retrieval_prompts.evaluation.scripts import has_other_script, segments
from retrieval_prompts.experiments.pairs.made import Made, corpus_of, drawn, pairs

FEWEST_WORDS = 3  # of a title that asks for something
SENTENCE_WORDS = 5
SENTENCE_END = re.compile(r"(?<=[.!?।])\s+|(?<=[。！？])|\n+")


def titles(dataset: Dataset, seed: int) -> Made:
    """Each title as a query for the text under it, or the texts.

    Raises:
        TooFew: where not enough documents have both.
    """
    documents = drawn(dataset.corpus, seed)
    queries: dict[str, list[str]] = {}
    for document in documents:
        if _words(document.title) >= FEWEST_WORDS and document.text.strip():
            queries.setdefault(document.title, []).append(document.id)
    texts = (Document(document.id, "", document.text) for document in documents)
    return pairs("titles", dataset, corpus_of(texts, dataset.corpus.path), queries)


def crops(dataset: Dataset, seed: int) -> Made:
    """One sentence, or line, of each document as a query for the rest.

    Raises:
        TooFew: where not enough have two.
    """
    generator = np.random.default_rng(seed)
    queries: dict[str, list[str]] = {}
    rests: list[Document] = []
    for document in drawn(dataset.corpus, seed):
        sentences = [part.strip() for part in SENTENCE_END.split(document.text)]
        long = [part for part in sentences if _words(part) >= SENTENCE_WORDS]
        if len(long) < 2:
            rests.append(document)
            continue
        chosen = long[generator.integers(len(long))]
        queries.setdefault(chosen, []).append(document.id)
        rests.append(Document(document.id, document.title, document.text.replace(chosen, " ", 1)))
    return pairs("crops", dataset, corpus_of(rests, dataset.corpus.path), queries)


def _words(text: str) -> int:
    """How many words, or, of scripts without spaces, half as many as there are pairs and characters."""
    return len(segments(text)[0]) // 2 if has_other_script(text) else len(text.split())
