"""What a server answers is what the library finds: hits, vectors, mixed batches, the frozen ranking beside."""

from __future__ import annotations

import base64
import shutil
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threads import at_once
from toy_server import NAMES, QUESTIONS, Running, running, web_of

from retrieval_prompts import BiEncoder
from retrieval_prompts.interop.frameworks.searcher import Hit, Searcher
from retrieval_prompts.serving.limits import Limits
from retrieval_prompts.serving.web import _hit


@cache
def searcher(home: Path, prompt: str | None, **options: Any) -> Searcher:
    folder = None if prompt is None else home / "prompts" / prompt
    return Searcher.open(home / "index", folder, model=str(home / "model"), device="cpu", **options)


def found(home: Path, query: str, prompt: str | None, k: int, **options: float) -> Any:
    """What `retrieval-prompts search` finds, as (id, title) and scores."""
    (hits,) = searcher(home, prompt, **options).search([query], k)
    return [(hit.id, hit.title) for hit in hits], [hit.score for hit in hits]


def same(hits: list[dict[str, Any]], expected: Any) -> None:
    names, scores = expected
    assert [(hit["id"], hit["title"]) for hit in hits] == names
    assert [hit["score"] for hit in hits] == pytest.approx(scores, abs=1e-6)


@pytest.mark.parametrize("prompt", [None, *NAMES])
def test_a_search_finds_what_the_command_finds(server: Running, home: Path, prompt: str | None) -> None:
    answer = server.search(query=QUESTIONS[0], k=4, prompt=prompt)
    same(answer["hits"], found(home, QUESTIONS[0], prompt, 4))
    assert answer["prompt"] == (prompt or "frozen")
    assert answer["bm25_weight"] == (0.25 if prompt == "half" else 0.75)
    assert "text" not in answer["hits"][0] and "frozen" not in answer


def test_strength_and_weight_of_one_request(server: Running, home: Path) -> None:
    answer = server.search(query=QUESTIONS[0], k=3, prompt="short", strength=0.3, bm25_weight=0, text=True)
    same(answer["hits"], found(home, QUESTIONS[0], "short", 3, strength=0.3, bm25_weight=0.0))
    assert answer["hits"][0]["text"]
    same(server.search(query=QUESTIONS[0], k=3, prompt="short")["hits"], found(home, QUESTIONS[0], "short", 3))


def test_the_frozen_ranking_beside(server: Running, home: Path) -> None:
    answer = server.search(query=QUESTIONS[1], k=5, prompt="long", bm25_weight=0, frozen=True)
    same(answer["hits"], found(home, QUESTIONS[1], "long", 5, bm25_weight=0.0))
    same(answer["frozen"], found(home, QUESTIONS[1], None, 5, bm25_weight=0.0))


def test_several_queries_are_answered_in_their_order(server: Running, home: Path) -> None:
    results = server.search(queries=QUESTIONS, prompt="prefix", k=2)["results"]
    for query, result in zip(QUESTIONS, results, strict=True):
        same(result["hits"], found(home, query, "prefix", 2))


def test_a_mixed_batch_gives_each_what_it_gets_alone(server: Running, home: Path) -> None:
    asked = [(query, prompt, k) for query in QUESTIONS[:2] for prompt in (None, *NAMES) for k in (1, 3)]

    def call(query: str, prompt: str | None, k: int) -> Any:
        return lambda: server.search(query=query, prompt=prompt, k=k, frozen=True)

    answers = at_once([call(*each) for each in asked])
    for (query, prompt, k), (answer,) in zip(asked, answers, strict=True):
        same(answer["hits"], found(home, query, prompt, k))
    assert server.web.counters.rows._sum.get() > server.web.counters.rows._buckets[0].get(), "no two were in one batch"


def test_batches_at_a_time_give_each_what_it_gets_alone(home: Path) -> None:
    asked = [(query, prompt) for query in QUESTIONS for prompt in (None, *NAMES)]
    with running(web_of(home, *NAMES, limits=Limits(batch=3, batches=3))) as served:
        answers = at_once([partial(served.search, query=query, prompt=prompt, k=3) for query, prompt in asked])
    for (query, prompt), (answer,) in zip(asked, answers, strict=True):
        same(answer["hits"], found(home, query, prompt, 3))


def test_a_passage_says_what_it_is_of() -> None:
    whole, passage = Hit("d", 1.0, "", "words"), Hit("d#2", 1.0, "", "words", "d", "a.pdf", "page 2")
    assert _hit(whole, False) == {"id": "d", "score": 1.0, "title": ""}
    assert _hit(passage, False) == {
        **_hit(whole, False),
        "id": "d#2",
        "document": "d",
        "source": "a.pdf",
        "place": "page 2",
    }


@pytest.mark.parametrize("form", ["float", "base64", None])
@pytest.mark.parametrize("model", ["frozen", "long", "half"])
def test_vectors_through_openai(server: Running, home: Path, model: str, form: Any) -> None:
    openai = pytest.importorskip("openai", reason="the client of OpenAI is not installed")
    options = {} if form is None else {"encoding_format": form}
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0) as client:
        answer = client.embeddings.create(model=model, input=QUESTIONS, **options)
        names = [each.id for each in client.models.list()]
        with pytest.raises(openai.NotFoundError, match="no prompts named 'other'"):
            client.embeddings.create(model="other", input="x")
    assert names == ["frozen", *NAMES]
    folder = None if model == "frozen" else home / "prompts" / model
    biencoder = BiEncoder.load(home / "model", folder, device="cpu")
    vectors = [each.embedding for each in answer.data]
    if form == "base64":  # asked for by name, it comes as it is
        vectors = [np.frombuffer(base64.b64decode(each), "<f4") for each in vectors]
    assert np.allclose(vectors, biencoder.encode_query(QUESTIONS), atol=1e-6)
    tokens = sum(map(len, biencoder.tokenize(QUESTIONS, "query")))
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == tokens
    assert answer.model == model


def test_an_index_of_documents_with_a_prompt(home: Path) -> None:
    with running(web_of(home, index="both", pair=home / "pair")) as served:
        answer = served.search(query=QUESTIONS[0], k=3, prompt="pair")
        alone = Searcher.open(home / "both", home / "pair", model=str(home / "model"), device="cpu")
        (hits,) = alone.search([QUESTIONS[0]], 3)
        assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in hits]
        for body, said in (
            ({"query": "x"}, "this index holds documents encoded with a prompt; name pair as the prompt"),
            ({"query": "x", "prompt": "pair", "frozen": True}, "name pair as the prompt"),
            ({"query": "x", "prompt": "pair", "strength": 0.5}, "at strength 1; leave strength out"),
            ({"query": "x", "prompt": "pair", "bm25_weight": 0.5}, "the index holds no words"),
        ):
            refused = served.call("POST", "/search", body)
            assert refused.status == 422 and said in refused.message


def test_an_index_that_is_replaced_on_disk_stays_as_it_was_opened(home: Path, tmp_path: Path) -> None:
    place = tmp_path / "index"
    shutil.copytree(home / "index", place)
    with running(web_of(home, index=str(place))) as served:
        place.rename(tmp_path / "old")
        shutil.copytree(home / "dense", place)
        shutil.rmtree(tmp_path / "old")
        answer = served.search(query=QUESTIONS[0], k=4, text=True)
        same(answer["hits"], found(home, QUESTIONS[0], None, 4))
        assert answer["hits"][0]["text"]
