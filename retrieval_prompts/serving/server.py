"""The process of a server: its address, its signals, and an end that loses nothing.

At SIGTERM or Ctrl-C it takes no new connections, answers what has come and what still comes over open ones, each answer
being the last of its connection, and closes those over which nothing comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from retrieval_prompts.errors import UserError
from retrieval_prompts.serving.application import Application
from retrieval_prompts.serving.limits import Limits

LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
NAME = re.compile(r"[^\s/:\[\]]+|\[[0-9a-f:.]+\]")
HEAD = 1 << 16  # bytes of a request that are not its body
IDLE = 0.5  # seconds, at the end, in which an open connection may still bring a request


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listening(host: str, port: int, unread: float = 30.0) -> socket.socket:
    """A socket at an address, whose connections send at once what is written: an answer's head and body are two writes,
    and a second one that waits for the first to be confirmed costs a client that keeps its connection 40 milliseconds.

    Args:
        unread: seconds after which a connection is lost whose client reads nothing of what is written; on Linux.

    Raises:
        UserError: where it cannot be had.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * unread))
        opened.bind(address)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(f"cannot listen at {host}, port {port} ({error}); choose another --host or --port") from None
    return opened


def allowed_hosts(host: str, more: tuple[str, ...] = ()) -> frozenset[str] | None:
    """The names by which a server may be called: where it is local or some are given, those, its address and local
    ones; else any.

    Raises:
        UserError: for what is not a name alone.
    """
    names = [name.lower() for name in more]
    if odd := [name for name in names if not NAME.fullmatch(name)]:
        raise UserError(f"expected --allow-host with a name alone, such as search.example.org, got {odd[0]!r}")
    if not names and not is_local(host):
        return None
    return LOCAL | {*names, f"[{host}]" if ":" in host else host.lower()}


def serve(
    web: Application,
    at: socket.socket,
    *,
    hosts: frozenset[str] | None = None,
    token: str | None = None,
    started: Callable[[], object] = lambda: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; a second Ctrl-C ends it at once.

    Raises:
        UserError: where another server has begun to listen at the address meanwhile.
    """
    try:
        at.listen()
    except OSError as error:
        raise UserError(f"cannot listen at {at.getsockname()[:2]} ({error}); choose another --host or --port") from None
    asyncio.run(Server(web, web.app(hosts=hosts, token=token), started).serve(sockets=[at]))


class Bounded(HttpToolsProtocol):
    """uvicorn's connection, which would read on, and keep, a request's line and headers that do not end."""

    head = 0  # bytes so far

    def data_received(self, data: bytes) -> None:
        self.head += len(data)
        super().data_received(data)
        if self.head > HEAD:
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        self.head -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.head = 0
        super().on_message_complete()


class Server(uvicorn.Server):
    """uvicorn's, which ends as the first lines of this file say."""

    def __init__(self, web: Application, app: Any, started: Callable[[], object] = lambda: None) -> None:
        self._web, self._started = web, started
        super().__init__(_config(app, web.limits))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._web.ending = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._web.ending = True
        for server in self.servers:
            server.close()
        await asyncio.sleep(IDLE)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but that a signal is not raised again at the end: it was obeyed."""
        try:
            before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread
            yield
            return
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def _config(app: Any, limits: Limits) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Bounded,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        ws="none",
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=round(limits.timeout) + 5,
    )
