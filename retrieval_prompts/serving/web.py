"""The routes of a server: what each takes, and what it gives back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from retrieval_prompts.errors import UserError
from retrieval_prompts.interop.frameworks.searcher import Hit
from retrieval_prompts.serving.answering import Answer, Answering, Query
from retrieval_prompts.serving.asked import Refused, parsed, search_of, value
from retrieval_prompts.serving.batching import Batcher, Full
from retrieval_prompts.serving.counters import TYPE, Counters
from retrieval_prompts.serving.embeddings import embedded, embeddings_of
from retrieval_prompts.serving.guard import App, Guard, failure
from retrieval_prompts.serving.limits import Limits
from retrieval_prompts.serving.served import FROZEN, Loaded, Shelf, Taken, Unknown

PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
AGAIN = "1"  # seconds, after which a request that found no room may come again


class Web:
    """The application of a shelf.

    `ending`, once true, makes it not ready, and each answer the last of its connection.
    """

    def __init__(self, shelf: Shelf, limits: Limits) -> None:
        self.shelf, self.limits, self.ending = shelf, limits, False
        self.counters = Counters(lambda: len(self.batcher), lambda: len(shelf.all()))
        self.batcher = Batcher(
            Answering(shelf.searcher), most=limits.batch, waiting=limits.waiting, done=self.counters.worked
        )
        self._files = {path: _page_file(name) for path, (name, _) in PAGE.items()}

    def app(self, *, hosts: frozenset[str] | None = None, token: str | None = None) -> App:
        """See `Guard` for its arguments."""
        routes = [
            Route("/search", _answered(self._search), methods=["POST"]),
            Route("/v1/embeddings", _answered(self._embeddings), methods=["POST"]),
            Route("/v1/models", _answered(self._models), methods=["GET"]),
            Route("/prompts", _answered(self._prompts), methods=["GET"]),
            Route("/prompts", _answered(self._load), methods=["POST"]),
            Route("/prompts/{name}", _answered(self._unload), methods=["DELETE"]),
            Route("/health", _answered(self._health), methods=["GET"]),
            Route("/ready", _answered(self._ready), methods=["GET"]),
            Route("/metrics", _answered(self._metrics), methods=["GET"]),
            *(Route(path, _answered(self._page), methods=["GET"]) for path in PAGE),
        ]
        handlers: Any = {HTTPException: _refused_by_route}
        app = Starlette(routes=routes, lifespan=self._running, exception_handlers=handlers)
        app.router.redirect_slashes = False
        return Guard(app, self.counters, self.limits, hosts=hosts, token=token, ending=lambda: self.ending)

    @contextlib.asynccontextmanager
    async def _running(self, _: Starlette) -> AsyncIterator[None]:
        work = asyncio.create_task(self.batcher.run())
        yield
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work

    async def _search(self, request: Request) -> Response:
        asked = search_of(await self._body(request), self.shelf, self.limits)
        answers = await self._results(request, asked.rows)
        results = [_shown(answer, asked.text) for answer in answers]
        first = asked.rows[0]
        strength = first.strength
        if asked.prompt is not None and strength is None:
            strength = asked.prompt.biencoder.strength
        about = {
            "prompt": FROZEN if asked.prompt is None else asked.prompt.name,
            "strength": strength,
            "bm25_weight": first.weight,
        }
        return _json({**about, **results[0]} if asked.single else {**about, "results": results})

    async def _embeddings(self, request: Request) -> Response:
        model, packed, rows = embeddings_of(await self._body(request), self.shelf, self.limits)
        return _json(embedded(model, packed, await self._results(request, rows)))

    async def _models(self, _: Request) -> Response:
        names = [loaded.name for loaded in self.shelf.all()]
        every = [FROZEN, *names] if self.shelf.frozen else names
        return _json({"object": "list", "data": [_model(name) for name in every]})

    async def _prompts(self, _: Request) -> Response:
        searcher = self.shelf.searcher
        about = {
            "model": _plain(searcher.biencoder.tower.name),
            "documents": len(searcher.index),
            "words": searcher.hybrid is not None,
            "frozen": self.shelf.frozen,
        }
        return _json({**about, "prompts": [self._about(each) for each in self.shelf.all()]})

    async def _load(self, request: Request) -> Response:
        given = parsed(await self._body(request), ("name", "folder"))
        name, folder = value(given, "name", str, None), value(given, "folder", str, None)
        if name is None:
            raise Refused(422, "expected a name for the prompts, and the folder that they are in")
        loaded = await asyncio.to_thread(self.shelf.add, name, folder)
        return _json(self._about(loaded), 201)

    async def _unload(self, request: Request) -> Response:
        await asyncio.to_thread(self.shelf.remove, request.path_params["name"])  # which waits while others are loaded
        return Response(status_code=204)

    async def _health(self, _: Request) -> Response:
        return _json({"status": "ok"})

    async def _ready(self, _: Request) -> Response:
        if self.ending:
            raise Refused(503, "the server is about to end")
        if self.batcher.busy > self.limits.timeout:
            raise Refused(503, f"a batch has been worked on for {self.batcher.busy:.0f} seconds")
        return _json({"status": "ready"})

    async def _metrics(self, _: Request) -> Response:
        return Response(self.counters.text(), headers={"content-type": TYPE})

    async def _page(self, request: Request) -> Response:
        return Response(self._files[request.url.path], media_type=PAGE[request.url.path][1])

    def _about(self, loaded: Loaded) -> dict[str, Any]:
        made = loaded.biencoder
        return {
            "name": loaded.name,
            "folder": _plain(loaded.folder),
            "kind": made.kind,
            "strength": made.strength,
            "bm25_weight": self.shelf.weight(loaded),
            "sides": list(made.prompts),
        }

    async def _body(self, request: Request) -> bytes:
        """The body of a request, read within the limits. Raises Refused."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # which a page of another site cannot send without asking first
            raise Refused(415, "expected a body in JSON, with the header Content-Type: application/json")
        most = self.limits.body
        too_large = Refused(413, f"expected a body of at most {most:,} bytes", connection="close")
        if (length := request.headers.get("content-length", "")).isdecimal() and int(length) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.timeout):
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise Refused(408, "the body did not arrive in time", connection="close") from None
        return bytes(body)

    async def _results(self, request: Request, rows: list[Query]) -> list[Answer]:
        """What comes of rows.

        Raises:
            Refused: where there is no room or time, ClientDisconnect where nobody waits.
        """
        try:
            future = self.batcher.submit(rows)
        except Full:
            raise Refused(
                429, f"{len(self.batcher)} queries wait already; ask again later", **{"retry-after": AGAIN}
            ) from None
        gone = asyncio.create_task(_gone(request))
        try:
            both: set[asyncio.Future[Any]] = {future, gone}
            await asyncio.wait(both, timeout=self.limits.timeout, return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                answers = future.result()
                counts = Counter(FROZEN if row.prompt is None else row.prompt.name for row in rows)
                for name, count in counts.items():
                    self.counters.queries.labels(name).inc(count)
                return answers
            if gone.done():
                self.counters.gone.inc()
                raise ClientDisconnect
            seconds = self.limits.timeout
            raise Refused(503, f"no answer within {seconds:g} seconds; ask again later", **{"retry-after": AGAIN})
        finally:
            future.cancel()
            gone.cancel()


def _answered(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """A handler whose refusals and errors are answers."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        except Refused as error:
            return _failure(error.status, error.message, error.code, **error.headers)
        except Unknown as error:
            return _failure(404, str(error), "model_not_found")
        except Taken as error:
            return _failure(409, str(error))
        except UserError as error:
            return _failure(422, str(error))
        except Exception:
            traceback.print_exc(file=sys.stderr)
            return _failure(500, "the server failed at this request; its log says more")

    return answer


async def _refused_by_route(_: Request, error: Any) -> Response:
    words = {404: "there is nothing at this address", 405: "this address takes other methods"}
    return _failure(error.status_code, words.get(error.status_code, error.detail), **(error.headers or {}))


async def _gone(request: Request) -> None:
    """Comes back when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _shown(answer: Answer, text: bool) -> dict[str, Any]:
    hits = {"hits": [_hit(hit, text) for hit in answer.hits]}
    return hits if answer.frozen is None else {**hits, "frozen": [_hit(hit, text) for hit in answer.frozen]}


def _hit(hit: Hit, text: bool) -> dict[str, Any]:
    found = {"id": hit.id, "score": hit.score, "title": hit.title, **hit.about()}
    return {**found, "text": hit.text} if text else found


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "retrieval-prompts"}


def _plain(name: str) -> str:
    """Without the path of this machine that may be in it."""
    return Path(name).name if Path(name).is_absolute() else name


def _json(content: Any, status: int = 200) -> Response:
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, status, media_type="application/json")


def _failure(status: int, message: str, code: str | None = None, **headers: str) -> Response:
    return Response(failure(message, status, code), status, headers, media_type="application/json")


def _page_file(name: str) -> bytes:
    return (Path(__file__).parent / "page" / name).read_bytes()
