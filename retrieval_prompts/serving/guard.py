"""What holds for every request, whatever it asks: which host it names, its token, headers of the answer, counts."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from retrieval_prompts.serving.counters import Counters
from retrieval_prompts.serving.limits import Limits

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
KEPT = (b"cache-control", b"no-store")  # of an answer that does not say how long it may be kept


def failure(message: str, status: int, code: str | None = None) -> bytes:
    """The body of a refusal, in the form that OpenAI's clients read."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


class Guard:
    """An application behind what holds for every request.

    Args:
        hosts: names by which the server may be called, without ports; None: by any. A page of another site that makes
            its own name point here is refused by it.
        paths: the addresses that there are, with what differs in braces at the end, as counts name them.
        open: those that need no token: they tell nothing.
        token: what a request must bear; None: nothing.
        ending: whether the server is about to end: then each answer is the last of its connection.
    """

    def __init__(
        self,
        app: App,
        counters: Counters,
        limits: Limits,
        *,
        paths: Collection[str],
        open: Collection[str],
        hosts: frozenset[str] | None = None,
        token: str | None = None,
        ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self._app, self._counters, self._limits = app, counters, limits
        self._paths, self._open, self._hosts, self._ending = frozenset(paths), frozenset(open), hosts, ending
        self._token = None if token is None else _digest(token.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = list(message.get("headers", []))
                message["headers"] = [*own, *HEADERS, *([] if any(name == KEPT[0] for name, _ in own) else [KEPT])]
                if self._ending():
                    message["headers"].append((b"connection", b"close"))
            async with asyncio.timeout(self._limits.timeout):  # a client that reads slowly, or not at all
                await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is None:
                await self._app(scope, receive, sending)
            else:
                await _refuse(sending, *refusal)
        except TimeoutError:
            if not status:
                raise
            status = 499
        finally:
            path = self._known(scope["path"])
            self._counters.requests.labels(path, _method(scope["method"]), str(status)).inc()
            self._counters.seconds.labels(path).observe(time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = dict(reversed(scope["headers"]))  # of one that is there twice, the first
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self._hosts is not None and _name(host) not in self._hosts:
            return 421, "this server does not answer to that name; allow it with --allow-host"
        if self._token is None or scope["path"] in self._open:
            return None
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(_digest(given.strip()), self._token):
            return None
        return 401, "expected the server's token in the header Authorization: Bearer ..."

    def _known(self, path: str) -> str:
        """A path as counts name it: as few as there are, whatever is asked for."""
        if path in self._paths:
            return path
        differing = (each for each in self._paths if "{" in each)
        return next((each for each in differing if path.startswith(each.partition("{")[0])), "other")


async def _refuse(send: Send, status: int, message: str) -> None:
    headers = [(b"content-type", b"application/json")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    body = failure(message, status)
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _digest(token: bytes) -> bytes:
    """Of one length, so that a comparison does not tell how long the token is."""
    return hashlib.sha256(token).digest()


def _name(host: str) -> str:
    """A host without its port: "localhost" of "localhost:8000", "[::1]" of "[::1]:8000"."""
    head, _, port = host.rpartition(":")
    return head if head and port.isdecimal() and (not head.startswith("[") or head.endswith("]")) else host


def _method(method: str) -> str:
    return method if method in ("GET", "HEAD", "POST", "DELETE") else "other"
