"""Ray, wrapped once: a pool of workers on one or many machines, to which items go and from which answers come.

An item whose worker or machine dies goes to another worker; an answer comes once. Knows no texts and no model.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from retrieval_prompts.errors import MissingPackage, UserError, first_line

STORE = 1 << 27  # bytes of Ray's own memory on this machine: what goes through it is small
Work = Callable[[str], str]


@dataclass(frozen=True)
class Wanted:
    """Which workers are asked for.

    Args:
        workers: None: one for each GPU, or each CPU where there is none.
        address: of a running cluster, as `ray.init` takes it: "auto", "host:6379", "ray://host:10001"; None: this
            machine.
        device: "cpu", where GPUs are not to be used; None: GPUs where there are some.
    """

    workers: int | None = None
    address: str | None = None
    device: str | None = None


ANY = Wanted()


@dataclass(frozen=True)
class Pool:
    """How many workers there may be, and whether each has a GPU (1) or none (0)."""

    workers: int
    gpus: int


class _Worker:
    def __init__(self, make: Callable[[], Work]) -> None:
        self.work = make()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"answer": [self.work(str(item)) for item in batch["item"]]}


def answers(items: Iterable[str], make: Callable[[], Work], pool: Pool) -> Generator[str, None, None]:
    """The answers to the items, as they come.

    Args:
        make: called by each worker, once: what it does with an item.
    """
    import ray

    given = [{"item": item} for item in items]
    if not given:
        return
    data = ray.data.from_items(given, override_num_blocks=len(given))
    # A few at a time, so that the last ones do not wait behind one worker
    strategy = ray.data.ActorPoolStrategy(
        min_size=1, max_size=pool.workers, initial_size=min(pool.workers, len(given)), max_tasks_in_flight_per_actor=2
    )
    done = data.map_batches(
        _Worker,
        fn_constructor_args=(make,),
        batch_size=1,
        batch_format="numpy",
        compute=strategy,
        num_cpus=0 if pool.gpus else 1,
        num_gpus=pool.gpus,
    )
    for row in done.iter_rows():
        yield str(row["answer"])


def check_installed() -> None:
    """Raises MissingPackage without Ray, which is not imported for that."""
    if importlib.util.find_spec("ray") is None:
        raise MissingPackage('--engine ray needs Ray: pip install "retrieval-prompts[ray]"')


@contextmanager
def started(wanted: Wanted) -> Iterator[Pool]:
    """A pool on a running cluster, or on this machine alone, where it ends with the block.

    Raises:
        MissingPackage: without Ray.
        UserError: where it cannot be started, or the cluster has no processor for a worker.
    """
    check_installed()
    import ray
    import ray.data

    own = not ray.is_initialized()
    if own:
        _start(ray, wanted.workers, wanted.address)
    try:
        with _quiet(ray):
            there = ray.cluster_resources()
            gpu = wanted.device is None or wanted.device.startswith("cuda")
            gpus = 1 if gpu and there.get("GPU", 0) >= 1 else 0
            most = int(there.get("GPU" if gpus else "CPU", 0))
            if most < 1:
                raise UserError("the cluster has no CPU for a worker; add machines to it, or leave out --address")
            yield Pool(min(wanted.workers or most, most), gpus)
    finally:
        if own:
            ray.shutdown()


def _start(ray: Any, workers: int | None, address: str | None) -> None:
    if address is not None:
        _check_reached(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {
            "address": "local",
            "num_cpus": workers
            or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
            "include_dashboard": False,
            "object_store_memory": STORE,
            "_node_ip_address": "127.0.0.1",
            "_system_config": {"worker_niceness": 0},  # else any other program on the machine goes first
        }
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        where = f"the Ray cluster at {address}" if address else "Ray on this machine"
        raise UserError(f"{where} cannot be reached or started: {first_line(error)}") from None
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray has one of its own


def _check_reached(address: str) -> None:
    """Raises UserError where nobody answers at an address with a port: Ray would ask again for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"nobody answers at {address} ({first_line(error)}); start the cluster, or name it") from None


@contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Without Ray Data's own progress and notes."""
    context, log = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, log.level
    context.enable_progress_bars, context.print_on_execution_start = False, False
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = before[0]
        log.setLevel(before[1])
