"""What one request may ask of a server, and how much may wait."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Args:
        body: bytes of a request's body.
        text: characters of a query.
        queries: of one request.
        k: hits of a query.
        batch: queries that are encoded together; batches: so many of these at a time.
        waiting: queries that may wait; a request that would make them more is refused.
        timeout: seconds until a request is given up, and for each of reading its body and sending its answer.
        connections: open at a time.
        held: bytes of all bodies that are read or wait for their answer.
    """

    body: int = 1 << 20
    text: int = 8192
    queries: int = 256
    k: int = 100
    batch: int = 32
    batches: int = 1
    waiting: int = 1024
    timeout: float = 30.0
    connections: int = 1024
    held: int = 1 << 30
