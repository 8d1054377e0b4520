"""What Prometheus reads of a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Counters:
    """Counts of one server.

    Args:
        waiting, prompts: what says how many queries wait, and how many prompts are loaded.
    """

    def __init__(self, waiting: Callable[[], int], prompts: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        options: dict[str, Any] = {"namespace": "retrieval_prompts", "registry": self.registry}
        about = ("path", "method", "status")
        self.requests = Counter("requests", "Requests that were answered", about, **options)
        self.seconds = Histogram("request_seconds", "Until the answer was sent", ("path",), buckets=SECONDS, **options)
        self.queries = Counter("queries", "Queries that were answered, by prompt", ("prompt",), **options)
        self.gone = Counter("gone", "Requests whose client went away before the answer", **options)
        self.rows = Histogram("batch_queries", "Queries of a batch", buckets=ROWS, **options)
        self.batch = Histogram("batch_seconds", "Seconds of a batch", buckets=SECONDS, **options)
        Gauge("waiting_queries", "Queries that wait", **options).set_function(waiting)
        Gauge("prompts", "Prompts that are loaded", **options).set_function(prompts)

    def worked(self, rows: int, seconds: float) -> None:
        """A batch was done."""
        self.rows.observe(rows)
        self.batch.observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
