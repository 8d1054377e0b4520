"""A report's section from what an experiment leaves behind: a data set, its runs, the steps of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.data.judgements import Qrels, Run
from retrieval_prompts.evaluation.metrics import METRICS, best_first, drop_identical, means, per_query
from retrieval_prompts.evaluation.significance import compare
from retrieval_prompts.report.content import Curve, Item, Query, Section
from retrieval_prompts.report.embed import HITS, RANKED, by_change, cut

if TYPE_CHECKING:
    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.vectors.index import Index

DEEP = 100  # hits of a ranking whose ids are kept, to say where a relevant document stands
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def section_of(
    dataset: Dataset,
    split: str,
    runs: Mapping[str, Run],
    *,
    metric: str = "ndcg@10",
    systems: Mapping[str, Mapping[str, float]] | None = None,
    tests: Mapping[str, Mapping[str, Any]] | None = None,
    baseline: str = "frozen",
    system: str = "tuned",
) -> Section:
    """A section about one split; texts are read only of documents that the page shows.

    Args:
        runs: system -> run, with the document of a query's own id dropped or not: BEIR leaves it out, so here too.
        metric: computed for each query.
        systems: the means of each system; None: `evaluate.METRICS` of the runs. May name systems without a run.
        tests: see `Section`; None: a paired test of `system` against `baseline` where both have a run.

    Raises:
        UserError: when there is no such split or metric.
    """
    queries, qrels = dataset.split(split)
    runs = {name: drop_identical(run) for name, run in runs.items()}
    wanted = [metric] if systems is not None else list(dict.fromkeys([metric, *METRICS]))
    values = {name: per_query(qrels, run, wanted) for name, run in runs.items()}
    if systems is None:
        systems = {name: means(each) for name, each in values.items()}
    if tests is None:
        both = baseline in values and system in values
        found = compare(values[baseline][metric], values[system][metric], metric).as_dict() if both else None
        tests = {f"{system}_vs_{baseline}": found} if found is not None else {}
    section = Section(
        name=dataset.name,
        split=split,
        metric=metric,
        systems=systems,
        tests=tests,
        queries=[
            Query(
                id=id,
                text=text,
                relevant={document: grade for document, grade in qrels[id].items() if grade > 0},
                rankings={name: best_first(run.get(id, {}))[:DEEP] for name, run in runs.items()},
                scores={name: each[metric][id] for name, each in values.items()},
            )
            for id, text in queries.items()
        ],
        documents={},
        facts=[f"{len(dataset.corpus):,} documents", f"{len(queries):,} queries"],
        baseline=baseline,
        system=system,
    )
    return _with_documents(section, dataset)


def strength_curve(
    biencoder: BiEncoder,
    index: Index,
    queries: Mapping[str, str],
    qrels: Qrels,
    metric: str = "ndcg@10",
    at: Sequence[float] = STRENGTHS,
) -> Curve | None:
    """The metric on the way from the frozen queries to the prompted ones, over one index of frozen documents.

    Queries are encoded once without and once with the prompt; a search for each strength. None without a query prompt,
    and with a document prompt: each strength would then need its own vectors of all documents.

    Raises:
        UserError: when the index was made by another model.
    """
    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.experiments.workbench import TOP
    from retrieval_prompts.prompts.strength import between

    if "query" not in biencoder.prompts or "document" in biencoder.prompts:
        return None
    tower = biencoder.tower
    index.check_encoder(BiEncoder(tower).identity())
    texts = list(queries.values())
    frozen = BiEncoder(tower).encode_query(texts)
    prompted = biencoder.whole().encode_query(texts)
    points = []
    for strength in at:
        vectors = tower.comparable(between(frozen, prompted, strength, unit=tower.unit_length))
        run = index.rank(list(queries), vectors, TOP)
        points.append((float(strength), means(per_query(qrels, run, [metric]))[metric]))
    return Curve(metric, points)


def _with_documents(section: Section, dataset: Dataset) -> Section:
    shown: dict[str, None] = {}
    for query in by_change(section)[:RANKED]:
        shown |= dict.fromkeys(query.relevant)
        for hits in query.rankings.values():
            shown |= dict.fromkeys(id for id, _ in hits[:HITS])
    documents = {}
    for position in sorted(dataset.corpus.position(id) for id in shown):
        document = dataset.corpus[position]
        documents[document.id] = Item(document.title, cut(document.text))
    return replace(section, documents=documents)
