"""The application of a server: bodies in, answers out, prompts that come and go, how it is, its page.

Knows not what is served: whoever serves something adds addresses, and what a prompt is (see `Application`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from retrieval_prompts.errors import UserError
from retrieval_prompts.serving.batching import Batcher, Full
from retrieval_prompts.serving.by_name import FROZEN, Shelf, Taken, Unknown
from retrieval_prompts.serving.counters import TYPE, Counters
from retrieval_prompts.serving.fields import Refused, parsed, value
from retrieval_prompts.serving.guard import App, Guard, failure
from retrieval_prompts.serving.limits import Limits

__all__ = ["Application", "Handler", "Request", "Response", "answer", "busy", "plain"]

Handler = Callable[[Request], Awaitable[Response]]
PAGE = Path(__file__).parent / "page"
SHARED = ("page.css", "shared.js")  # of all pages
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
AGAIN = "1"  # seconds, after which a request that found no room may come again


class Application(ABC):
    """The application of a shelf.

    Args:
        work: see `Batcher`; a row has `prompt`, what is on the shelf or None.
        page: the folder of page.html, which is at /, and of what it loads.

    `ending`, once true, makes it not ready, and each answer the last of its connection.
    """

    def __init__(
        self,
        shelf: Shelf[Any],
        limits: Limits,
        work: Callable[[Sequence[Any]], Sequence[Any]],
        page: Path = PAGE,
    ) -> None:
        self.shelf, self.limits, self.ending = shelf, limits, False
        self.counters = Counters(lambda: len(self.batcher), lambda: len(shelf.all()))
        self.batcher = Batcher(
            work, most=limits.batch, at_once=limits.batches, waiting=limits.waiting, done=self.counters.worked
        )
        self._held = 0  # bytes of bodies
        files = {
            each.name: each for each in (*(PAGE / name for name in SHARED), *page.iterdir()) if each.suffix in TYPES
        }
        self._files = {
            "/" if path.suffix == ".html" else f"/{name}": (path.read_bytes(), TYPES[path.suffix])
            for name, path in files.items()
        }

    @abstractmethod
    def addresses(self) -> list[tuple[str, str, Handler]]:
        """(method, path, handler) of what only this application has."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What is said of all that is served, beside its prompts."""

    @abstractmethod
    def about_prompt(self, prompt: Any) -> dict[str, Any]:
        """What is said of a prompt, beside its name, its folder and its strength."""

    def app(self, *, hosts: frozenset[str] | None = None, token: str | None = None) -> App:
        """See `Guard` for its arguments."""
        addresses = [
            *self.addresses(),
            ("GET", "/prompts", self._prompts),
            ("POST", "/prompts", self._load),
            ("DELETE", "/prompts/{name}", self._unload),
            ("GET", "/health", self._health),
            ("GET", "/ready", self._ready),
            ("GET", "/metrics", self._metrics),
            *(("GET", path, self._page) for path in self._files),
        ]
        routes = [Route(path, self._answered(handler), methods=[method]) for method, path, handler in addresses]
        handlers: Any = {HTTPException: _refused_by_route}
        app = Starlette(routes=routes, lifespan=self._running, exception_handlers=handlers)
        app.router.redirect_slashes = False
        return Guard(
            app,
            self.counters,
            self.limits,
            paths={path for _, path, _ in addresses},
            open={"/health", "/ready", *self._files},
            hosts=hosts,
            token=token,
            ending=lambda: self.ending,
        )

    @contextlib.asynccontextmanager
    async def _running(self, _: Starlette) -> AsyncIterator[None]:
        work = asyncio.create_task(self.batcher.run())
        yield
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work

    async def _prompts(self, _: Request) -> Response:
        return answer({**self.about(), "prompts": [self._about(each) for each in self.shelf.all()]})

    async def _load(self, request: Request) -> Response:
        given = parsed(await self.body(request), ("name", "folder"))
        name, folder = value(given, "name", str, None), value(given, "folder", str, None)
        if name is None:
            raise Refused(422, "expected a name for the prompts, and the folder that they are in")
        loaded = await asyncio.to_thread(self.shelf.add, name, folder)
        return answer(self._about(loaded), 201)

    async def _unload(self, request: Request) -> Response:
        await asyncio.to_thread(self.shelf.remove, request.path_params["name"])  # which waits while others are loaded
        return Response(status_code=204)

    async def _health(self, _: Request) -> Response:
        return answer({"status": "ok"})

    async def _ready(self, _: Request) -> Response:
        if self.ending:
            raise Refused(503, "the server is about to end")
        if self.batcher.busy > self.limits.timeout:
            raise Refused(503, f"a batch has been worked on for {self.batcher.busy:.0f} seconds")
        return answer({"status": "ready"})

    async def _metrics(self, _: Request) -> Response:
        return Response(self.counters.text(), headers={"content-type": TYPE})

    async def _page(self, request: Request) -> Response:
        content, kind = self._files[request.url.path]
        return Response(content, media_type=kind)

    def _about(self, prompt: Any) -> dict[str, Any]:
        own = self.about_prompt(prompt)
        return {"name": prompt.name, "folder": plain(prompt.folder), "strength": prompt.strength, **own}

    async def body(self, request: Request) -> bytes:
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
                    self._hold(request, len(part))
        except TimeoutError:
            raise Refused(408, "the body did not arrive in time", connection="close") from None
        return bytes(body)

    async def results(self, request: Request, rows: Sequence[Any]) -> list[Any]:
        """What comes of rows.

        Raises:
            Refused: where there is no room or time, ClientDisconnect where nobody waits.
        """
        try:
            future = self.batcher.submit(rows)
        except Full:
            raise busy(f"{len(self.batcher)} queries wait already") from None
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
            raise self.late()
        finally:
            future.cancel()
            gone.cancel()

    def late(self) -> Refused:
        """What is said where the time is over."""
        seconds = self.limits.timeout
        return Refused(503, f"no answer within {seconds:g} seconds; ask again later", **{"retry-after": AGAIN})

    def _hold(self, request: Request, count: int) -> None:
        """Count bytes as held until the request is answered. Raises Refused where they are too many."""
        if self._held + count > self.limits.held:
            raise busy(f"{self._held:,} bytes of bodies wait already", connection="close")
        self._held += count
        request.state.held = getattr(request.state, "held", 0) + count

    def _answered(self, handler: Handler) -> Handler:
        """A handler whose refusals and errors are answers."""

        async def answered(request: Request) -> Response:
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
            finally:
                self._held -= getattr(request.state, "held", 0)

        return answered


def answer(content: Any, status: int = 200) -> Response:
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, status, media_type="application/json")


def busy(why: str, **headers: str) -> Refused:
    """A request that finds no room."""
    return Refused(429, f"{why}; ask again later", **{"retry-after": AGAIN, **headers})


def plain(name: str) -> str:
    """Without the path of this machine that may be in it."""
    return Path(name).name if Path(name).is_absolute() else name


async def _refused_by_route(_: Request, error: Any) -> Response:
    words = {404: "there is nothing at this address", 405: "this address takes other methods"}
    return _failure(error.status_code, words.get(error.status_code, error.detail), **(error.headers or {}))


async def _gone(request: Request) -> None:
    """Comes back when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _failure(status: int, message: str, code: str | None = None, **headers: str) -> Response:
    return Response(failure(message, status, code), status, headers, media_type="application/json")
