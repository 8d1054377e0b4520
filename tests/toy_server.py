"""A server over a tiny index, in a thread of the test's process, and a client that shows all of an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from typing import Any

import tiny
import torch

from retrieval_prompts import BiEncoder, HybridIndex, Index, load_corpus
from retrieval_prompts.prompts.feedback import Start
from retrieval_prompts.serving.application import Application
from retrieval_prompts.serving.limits import Limits
from retrieval_prompts.serving.served import open_shelf
from retrieval_prompts.serving.server import LOCAL, Server, listening
from retrieval_prompts.serving.web import Web

QUESTIONS = [
    "what does the evidence show about copper and river",
    "copper",
    "what about glacier willow quartz thunder maple",
    "does the violin show",
    "what does the evidence show about marble and ginger and comet and barley",
]
NAMES = ("short", "long", "prefix", "feedback", "half")


def write_home(home: Path) -> Path:
    """model; data; index, dense (without words), both (of documents with a prompt); prompts/NAME; pair (both sides)."""
    model = tiny.write_model(home)
    corpus = load_corpus(tiny.write_data(home / "data"))

    def fresh() -> BiEncoder:
        return BiEncoder.load(model, device="cpu")

    def indexed(biencoder: BiEncoder) -> Index:
        vectors = biencoder.encode_corpus(corpus)
        return Index.build(vectors, corpus, corpus.ids, encoder=biencoder.identity())

    index = indexed(fresh())
    HybridIndex.build(index, corpus).save(home / "index")
    index.save(home / "dense")
    fresh().attach("query", length=3, seed=1).save(home / "prompts" / "short")
    fresh().attach("query", length=7, seed=2).save(home / "prompts" / "long")
    fresh().attach("query", kind="prefix", length=2, seed=3).save(home / "prompts" / "prefix")
    start = Start(torch.eye(32) * 0.1, torch.zeros(32))
    fresh().attach("query", length=2, encoder="feedback", feedback=3, start=start).save(home / "prompts" / "feedback")
    half = fresh().attach("query", length=4, seed=4)
    half.strength, half.bm25_weight = 0.5, 0.25
    half.save(home / "prompts" / "half")
    pair = fresh().attach("both", length=3, seed=5)
    pair.save(home / "pair")
    indexed(pair).save(home / "both")
    return home


@dataclass(frozen=True)
class Said:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json["error"]["message"])


@dataclass(frozen=True)
class Running:
    web: Any
    port: int

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Said:
        """One request over a connection of its own; a body that is no bytes is sent as JSON."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if sent is not None:
            named = {"Content-Type": "application/json", **named}
        connection.request(method, path, sent, named)
        answer = connection.getresponse()
        said = Said(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        connection.close()
        return said

    def search(self, **body: Any) -> Any:
        said = self.call("POST", "/search", body)
        assert said.status == 200, said.body
        return said.json


@contextmanager
def running(web: Application, *, token: str | None = None) -> Iterator[Running]:
    """A server in a thread; at the end it ends as it does at a signal."""
    at = listening("127.0.0.1", 0)
    port, ready = at.getsockname()[1], Event()
    server = Server(web, web.app(hosts=LOCAL, token=token), ready.set)
    thread = Thread(target=lambda: asyncio.run(server.serve(sockets=[at])))
    thread.start()
    try:
        assert ready.wait(30)
        yield Running(web, port)
    finally:
        server.handle_exit(15, None)
        thread.join(30)
        assert not thread.is_alive()


def web_of(home: Path, *names: str, index: str = "index", limits: Limits | None = None, **given: Path) -> Web:
    """The application over an index of a home, with some of its prompts loaded, and others by name."""
    prompts = {name: home / "prompts" / name for name in names} | given
    shelf = open_shelf(home / index, prompts, home / "prompts", model=str(home / "model"), device="cpu")
    return Web(shelf, limits or Limits())
