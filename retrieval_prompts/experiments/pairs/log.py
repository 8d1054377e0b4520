"""Queries without judgements: training follows a ranking instead, that of the frozen model and BM25 or of a teacher."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tqdm import tqdm

from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.data.judgements import Qrels, Run
from retrieval_prompts.evaluation.hybrid import UNLABELLED
from retrieval_prompts.experiments.pairs.made import BM25, JUDGED, LEAST, TEACHER, Made, TooFew, split
from retrieval_prompts.experiments.pairs.teachers import Teacher
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.training.teacher import probabilities

TAUGHT = 50  # documents of a query's ranking that training follows


def queries(bench: Workbench, log: Mapping[str, str], judged: Qrels, teacher: Teacher | None = None) -> Made:
    """The queries of a log, each with the ranking that training follows.

    Args:
        log: id -> text.
        judged: of other queries of the data, where people have judged some: these choose. Else a part of the log is
            set aside, and asks for the first document of its ranking.
        teacher: scores the first documents of the frozen model beside BM25; None: that ranking itself.

    Raises TooFew.
    """
    dataset = bench.dataset
    if len(log) < LEAST:
        raise TooFew(f"a log of only {len(log):,} queries, and {LEAST} are needed")
    ranked = _ranked(bench, log)
    if teacher is not None:
        ranked = rescored(ranked, log, dataset, teacher)
    taught = {query: probabilities(scores) for query, scores in ranked.items() if scores}
    pairs = {query: dict.fromkeys(shares, 1) for query, shares in taught.items()}
    train, dev = (pairs, judged) if judged else split(pairs)
    if not judged:
        dev = {query: {max(taught[query], key=lambda document: taught[query][document]): 1} for query in dev}
    texts = {**log, **{query: dataset.queries[query] for query in judged}}
    made = Dataset(dataset.name, dataset.folder, dataset.corpus, texts, {"train": train, "dev": dev})
    ranking = "the frozen model with BM25" if teacher is None else "the teacher"
    what = f"{len(taught):,} queries without judgements, and what {ranking} finds for them"
    by = JUDGED if judged else BM25 if teacher is None else TEACHER
    return Made("queries", what, made, by, taught)


def rescored(ranked: Run, texts: Mapping[str, str], dataset: Dataset, teacher: Teacher) -> Run:
    """The scores of a teacher for the documents of a ranking, from 0 to 1 for each query."""
    found: Run = {}
    for query, documents in tqdm(ranked.items(), desc="ask the teacher", unit="query", delay=1):
        contents = [dataset.corpus[dataset.corpus.position(document)].content for document in documents]
        scores = np.asarray(teacher.scores(texts[query], contents), dtype=np.float64)
        spread = float(np.ptp(scores)) or 1.0
        found[query] = dict(zip(documents, ((scores - scores.min()) / spread).tolist(), strict=True))
    return found


def _ranked(bench: Workbench, log: Mapping[str, str]) -> Run:
    """The first documents of the frozen model beside BM25; of the frozen model alone where documents have no words."""
    vectors = bench.query_vectors(bench.frozen, log.values())
    if (hybrid := bench.hybrid_of(bench.index)) is None:
        return bench.index.rank(list(log), vectors, TAUGHT)
    (ranked,) = hybrid.rank(dict(log), vectors, TAUGHT, [UNLABELLED])
    return ranked
