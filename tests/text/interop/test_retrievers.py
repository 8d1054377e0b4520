"""The retrievers for LangChain, LlamaIndex and Haystack, each in the real library: they find what our own search finds,
with prompts, with BM25 beside them, with feedback prompts, over a folder and over a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from toy_stores import need

from retrieval_prompts import BiEncoder, HybridIndex, Index, UserError, load_corpus
from retrieval_prompts.interop.frameworks.searcher import Searcher
from retrieval_prompts.interop.stores.filling import write
from retrieval_prompts.prompts.feedback import Start

QUESTION = "show about copper and river"
Asked = Callable[..., list[tuple[str, float, str, str]]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data, index (with words), dense (without), store (a folder whose vectors are in LanceDB); prompts, feedback."""
    home = tmp_path_factory.mktemp("home")
    corpus = load_corpus(tiny.write_data(home / "data"))
    biencoder = BiEncoder.load(model, device="cpu")
    index = Index.build(biencoder.encode_corpus(corpus), corpus, corpus.ids, encoder=biencoder.identity())
    HybridIndex.build(index, corpus).save(home / "index")
    index.save(home / "dense")
    biencoder.attach("query", length=3).save(home / "prompts")
    start = Start(torch.eye(32) * 0.1, torch.zeros(32))
    biencoder.attach("query", length=2, encoder="feedback", feedback=3, start=start).save(home / "feedback")
    return home


@pytest.fixture(scope="module")
def stored(folder: Path, model: Path) -> Path:
    """An index folder whose vectors are in a store."""
    need("lancedb")
    corpus = load_corpus(folder / "data")
    written = write(BiEncoder.load(model, device="cpu"), corpus, f"lancedb:{folder / 'db'}#docs")
    HybridIndex.build(written.index, corpus).save(folder / "stored")
    return folder / "stored"


def langchain(place: Path, prompts: Path | None, k: int, **options: Any) -> list[tuple[str, float, str, str]]:
    pytest.importorskip("langchain_core", reason="langchain-core is not installed")
    from retrieval_prompts.interop.frameworks.langchain import PromptRetriever

    found = PromptRetriever.over(place, prompts, k=k, **options).invoke(QUESTION)
    return [(str(d.id), d.metadata["score"], d.metadata["title"], d.page_content) for d in found]


def llama_index(place: Path, prompts: Path | None, k: int, **options: Any) -> list[tuple[str, float, str, str]]:
    pytest.importorskip("llama_index.core", reason="llama-index-core is not installed")
    from retrieval_prompts.interop.frameworks.llama_index import PromptRetriever

    found = PromptRetriever.over(place, prompts, k=k, **options).retrieve(QUESTION)
    return [(each.node_id, each.score or 0.0, each.metadata["title"], each.text) for each in found]


def haystack(place: Path, prompts: Path | None, k: int, **options: Any) -> list[tuple[str, float, str, str]]:
    pytest.importorskip("haystack", reason="haystack-ai is not installed")
    from haystack import Pipeline

    from retrieval_prompts.interop.frameworks.haystack import PromptRetriever

    pipeline = Pipeline()
    name = None if prompts is None else str(prompts)
    passages = options.pop("passages", True)
    pipeline.add_component("retriever", PromptRetriever(str(place), name, k, options, passages))
    modules = ["retrieval_prompts.interop.frameworks.*"]
    again = Pipeline.from_dict(pipeline.to_dict(), allowed_modules=modules)
    found = again.run({"retriever": {"query": QUESTION}})["retriever"]["documents"]
    return [(each.id, each.score, each.meta["title"], each.content) for each in found]


@pytest.fixture(params=[langchain, llama_index, haystack])
def asked(request: pytest.FixtureRequest) -> Asked:
    return request.param


def ours(folder: Path, prompts: Path | None) -> list[tuple[str, float, str, str]]:
    index = Index.open(folder / "index")
    hybrid = HybridIndex.of(index, folder / "index")
    assert hybrid is not None
    biencoder = BiEncoder.load(index.manifest["encoder"]["model"], prompts, device="cpu").bind(hybrid)
    scores, ids = hybrid.search([QUESTION], biencoder.query_vectors([QUESTION]), 4, weight=0.75)
    documents = [index.document(id) for id in ids[0]]
    return [(each.id, score, each.title, each.text) for each, score in zip(documents, scores[0], strict=True)]


@pytest.mark.parametrize("prompts", ["prompts", "feedback"])
def test_a_retriever_finds_what_our_search_finds(asked: Asked, folder: Path, prompts: str) -> None:
    assert asked(folder / "index", folder / prompts, 4, device="cpu") == ours(folder, folder / prompts)


def test_a_document_in_chunks_is_found_by_all_of_them_or_once(asked: Asked, folder: Path, model: Path) -> None:
    corpus = load_corpus(tiny.cut_in_two(tiny.write_data(folder / asked.__name__ / "data")))
    biencoder = BiEncoder.load(model, device="cpu")
    index = Index.build(biencoder.encode_corpus(corpus), corpus, corpus.ids, encoder=biencoder.identity())
    index.save(folder / asked.__name__ / "index")
    place = folder / asked.__name__ / "index"
    passages = [id for id, *_ in asked(place, None, 80, device="cpu")]
    documents = [id for id, *_ in asked(place, None, 80, device="cpu", passages=False)]
    assert (len(passages), len(documents)) == (80, 40)
    assert documents == [id for at, id in enumerate(passages) if id[:-2] not in {each[:-2] for each in passages[:at]}]


def test_over_a_store_it_is_the_same(asked: Asked, folder: Path, stored: Path) -> None:
    found, expected = asked(stored, folder / "feedback", 4, device="cpu"), ours(folder, folder / "feedback")
    assert [hit[0] for hit in found] == [hit[0] for hit in expected]
    assert [hit[1] for hit in found] == pytest.approx([hit[1] for hit in expected], abs=1e-5)
    assert [hit[2:] for hit in found] == [hit[2:] for hit in expected]


def test_k_of_one_question(folder: Path) -> None:
    pytest.importorskip("langchain_core", reason="langchain-core is not installed")
    from retrieval_prompts.interop.frameworks.langchain import PromptRetriever

    retriever = PromptRetriever.over(folder / "dense", device="cpu")
    assert len(retriever.invoke(QUESTION)) == 10
    assert len(retriever.invoke(QUESTION, k=2)) == 2
    one, other = retriever.batch([QUESTION, "lantern and quartz"])  # in threads
    assert one == retriever.invoke(QUESTION)
    assert other == retriever.invoke("lantern and quartz")


def test_a_store_by_its_address(folder: Path, stored: Path, model: Path) -> None:
    whole = Searcher.open(f"lancedb:{folder / 'db'}#docs", model=str(model), device="cpu")
    dense = Searcher.open(folder / "dense", device="cpu")
    one, other = (each.search([QUESTION], 5)[0] for each in (dense, whole))
    assert [(hit.id, hit.title, hit.text) for hit in other] == [(hit.id, hit.title, hit.text) for hit in one]
    with pytest.raises(UserError, match=r"holds no words for --bm25-weight 0\.5"):
        Searcher.open(folder / "dense", bm25_weight=0.5, device="cpu")
