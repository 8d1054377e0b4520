"""mteb 2.26 gives one result for the live model, the export and our index: that of our own evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from sentence_transformers import SentenceTransformer

import retrieval_prompts
from retrieval_prompts import BiEncoder, UserError
from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.evaluation.metrics import means, per_query
from retrieval_prompts.vectors.index import Index

pytest.importorskip("mteb", reason="mteb is not installed")

import datasets
import mteb
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import SearchProtocol

from retrieval_prompts.interop.mteb import IndexSearch

pytestmark = [  # mteb warns of itself
    pytest.mark.filterwarnings("ignore:The fill_missing parameter is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The `get_sentence_embedding_dimension` method has been renamed:FutureWarning"),
]
METRICS = {"ndcg@10": "ndcg_at_10", "map@100": "map_at_100", "recall@10": "recall_at_10", "mrr@10": "mrr_at_10"}


def metadata(name: str, type: Any) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        description="A retrieval task made in a test.",
        dataset={"path": "local/none", "revision": "1"},
        type=type,
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=("2026-01-01", "2026-01-02"),
        domains=["Written"],
        task_subtypes=[],
        license="cc-by-4.0",
        annotations_creators="derived",
        dialect=[],
        sample_creation="created",
        bibtex_citation="",
        reference=None,
    )


class LocalTask(AbsTaskRetrieval):
    """The test split of a BEIR folder."""

    metadata = metadata("LocalTask", "Retrieval")

    def __init__(self, data: Dataset, instruction: str | None = None, top_ranked: Any = None) -> None:
        super().__init__()
        queries, qrels = data.split("test")
        more = {"instruction": instruction} if instruction else {}
        rows = [{"id": each.id, "title": each.title, "text": each.text} for each in data.corpus]
        self.dataset = {
            "default": {
                "test": {
                    "corpus": datasets.Dataset.from_list(rows),
                    "queries": datasets.Dataset.from_list(
                        [{"id": id, "text": text, **more} for id, text in queries.items()]
                    ),
                    "relevant_docs": qrels,
                    "top_ranked": top_ranked,
                }
            }
        }
        self.data_loaded = True


class LocalReranking(LocalTask):
    metadata = metadata("LocalReranking", "Reranking")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return retrieval_prompts.load(tiny.write_data(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def biencoder(tmp_path_factory: pytest.TempPathFactory) -> BiEncoder:
    model = tiny.write_model(tmp_path_factory.mktemp("model"))
    made = BiEncoder.load(model, device="cpu").attach("both", length=4)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.neg_()  # far from the frozen model
    return made


@pytest.fixture(scope="module")
def exported(biencoder: BiEncoder, tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformer:
    folder = tmp_path_factory.mktemp("export") / "model"
    biencoder.export(folder)
    return SentenceTransformer(str(folder), device="cpu")


def evaluate(model: Any, task: LocalTask, cache: Any = None) -> dict[str, float]:
    results = mteb.evaluate(model, task, cache=cache, co2_tracker=False, show_progress_bar=False)
    scores = results.task_results[0].scores["test"][0]
    return {metric: round(scores[name], 5) for metric, name in METRICS.items()}  # as it keeps them


def our_scores(biencoder: BiEncoder, data: Dataset, cache: Path, suffix: str = "") -> dict[str, float]:
    queries, qrels = data.split("test")
    documents = biencoder.encode_corpus(data.corpus, cache)
    index = Index.build(documents, None, data.corpus.ids, encoder=biencoder.identity())
    run = index.run(list(queries), biencoder.encode_query([text + suffix for text in queries.values()]), k=1000)
    return means(per_query(qrels, run, list(METRICS)))


def test_all_three_ways_give_our_metrics(
    biencoder: BiEncoder, exported: SentenceTransformer, data: Dataset, tmp_path: Path
) -> None:
    ours = our_scores(biencoder, data, tmp_path)
    live = evaluate(biencoder.as_sentence_transformer(), LocalTask(data))
    assert live == {metric: round(value, 5) for metric, value in ours.items()}
    assert evaluate(exported, LocalTask(data)) == live
    assert evaluate(IndexSearch(biencoder, cache=tmp_path), LocalTask(data)) == live
    assert evaluate(biencoder.tower.sentence_transformer, LocalTask(data)) != live


def test_instructions_follow_the_query(
    biencoder: BiEncoder, exported: SentenceTransformer, data: Dataset, tmp_path: Path
) -> None:
    ours = our_scores(biencoder, data, tmp_path, suffix=" falcon copper")
    for model in (biencoder.as_sentence_transformer(), exported, IndexSearch(biencoder, cache=tmp_path)):
        assert evaluate(model, LocalTask(data, "falcon copper")) == {name: round(ours[name], 5) for name in ours}
    assert ours != our_scores(biencoder, data, tmp_path)


def test_reranking(biencoder: BiEncoder, data: Dataset, tmp_path: Path) -> None:
    queries, qrels = data.split("test")
    shown = {query: [*qrels[query], *(f"d{number}" for number in range(7))] for query in queries}
    live = evaluate(biencoder.as_sentence_transformer(), LocalReranking(data, top_ranked=shown))
    search = IndexSearch(biencoder, cache=tmp_path)
    assert evaluate(search, LocalReranking(data, top_ranked=shown)) == live
    found = search.search(LocalTask(data).dataset["default"]["test"]["queries"], top_k=3, top_ranked=shown)
    assert all(len(scores) == 3 and set(scores) <= set(shown[query]) for query, scores in found.items())


def test_another_factory(biencoder: BiEncoder, data: Dataset, tmp_path: Path) -> None:
    flat = evaluate(IndexSearch(biencoder, cache=tmp_path), LocalTask(data))
    search = IndexSearch(biencoder, "HNSW8", cache=tmp_path, ef_search=40)
    assert evaluate(search, LocalTask(data)) == flat
    assert search.vectors is not None and search.vectors.manifest["factory"] == "HNSW8"
    with pytest.raises(UserError, match="an index of type HNSW8 has no nprobe; leave it out"):
        evaluate(IndexSearch(biencoder, "HNSW8", cache=tmp_path, nprobe=2), LocalTask(data))


def test_documents_come_from_the_cache(biencoder: BiEncoder, data: Dataset, tmp_path: Path) -> None:
    encoded = []
    for _ in range(2):
        search = IndexSearch(biencoder, cache=tmp_path)
        evaluate(search, LocalTask(data))
        assert search.documents is not None
        encoded.append(search.documents.encoded)
    assert encoded == [40, 0]


def test_results_of_other_prompts_are_not_taken_from_the_cache(
    biencoder: BiEncoder, data: Dataset, tmp_path: Path
) -> None:
    cache = mteb.ResultCache(tmp_path / "results")
    live, search = biencoder.as_sentence_transformer(), IndexSearch(biencoder, cache=tmp_path)
    scores = []
    for strength in (1, 1, 0):
        biencoder.strength = strength
        expected = evaluate(live, LocalTask(data))
        for model in (live, search):
            assert evaluate(model, LocalTask(data), cache) == expected
        scores.append(expected)
    biencoder.strength = 1
    assert scores[0] == scores[1] != scores[2]
    assert len(list((tmp_path / "results").rglob("LocalTask.json"))) == 4, "two models, two strengths"


def test_what_mteb_is_told(biencoder: BiEncoder) -> None:
    search = IndexSearch(biencoder)
    assert isinstance(search, SearchProtocol)
    meta = search.mteb_model_meta
    assert (meta.name, meta.embed_dim, meta.max_tokens) == ("retrieval-prompts/model", 32, 40)
    others = [IndexSearch(biencoder, "HNSW8"), IndexSearch(BiEncoder(biencoder.tower))]
    assert len({meta.revision, *(other.mteb_model_meta.revision for other in others)}) == 3
    assert IndexSearch(biencoder).mteb_model_meta.revision == meta.revision


def test_texts_that_are_neither_are_encoded_by_the_frozen_model(biencoder: BiEncoder) -> None:
    """What mteb does for a classification task: no prompt type."""
    from mteb.models import SentenceTransformerEncoderWrapper
    from torch.utils.data import DataLoader

    model = SentenceTransformerEncoderWrapper(biencoder.as_sentence_transformer())
    rows = datasets.Dataset.from_list([{"text": "river copper"}, {"text": "lantern"}])
    task: dict[str, Any] = {"task_metadata": LocalTask.metadata, "hf_split": "test", "hf_subset": "default"}
    vectors = model.encode(DataLoader(rows), prompt_type=None, show_progress_bar=False, **task)
    assert np.allclose(vectors, biencoder.tower.sentence_transformer.encode(list(rows["text"])), atol=1e-6)


def test_mistakes(biencoder: BiEncoder, tmp_path: Path) -> None:
    search = IndexSearch(biencoder, cache=tmp_path)
    queries = datasets.Dataset.from_list([{"id": "q", "text": ["river", "copper"]}])
    with pytest.raises(UserError, match="there is no index yet; call index first"):
        search.search(queries, top_k=3)
    search.index([{"id": "d", "text": "river"}])
    with pytest.raises(
        UserError, match="query 'q' is a conversation; expected a text: evaluate the live model instead"
    ):
        search.search(queries, top_k=3)
