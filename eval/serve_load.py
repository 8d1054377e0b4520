"""Load and faults for `retrieval-prompts serve`, beside one query at a time with sentence-transformers and FAISS.

    retrieval-prompts index eval/data/scifact --out INDEX
    python eval/serve_load.py INDEX eval/data/scifact --json eval/results/serve.json

Both servers run at once and are asked in turns, over loopback, by clients of this process that send their next request
when they have the answer to the last. The other server is the same framework (Starlette, uvicorn) around
`SentenceTransformer.encode` of one query and `faiss.IndexFlatIP.search`, behind a lock. `cpu_ms` is the processor time
that a server took for a request, which tells more than the clock where other work shares the machine. Every answer is
compared with the one that the query gets when nobody else asks. The prompts are untrained: the time is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrieval_prompts import BiEncoder, UserError, load
from retrieval_prompts.experiments.records.result_file import made_on
from retrieval_prompts.files import check_output, read_json, write_json

LENGTHS = {"a": 8, "b": 8, "c": 8, "d": 8}
PACKAGES = ("torch", "sentence-transformers", "transformers", "faiss-cpu", "starlette", "uvicorn")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Counted:
    """What came of the requests of some clients."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: int = 0


@dataclass(frozen=True)
class Served:
    """A server process."""

    process: subprocess.Popen[str]
    port: int

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def serving(*command: str) -> Iterator[Served]:
    """A server that prints its address once it serves."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        yield Served(process, int(line.split()[0].rpartition(":")[2]))
    finally:
        process.kill()
        process.wait()


def ours(index: Path, prompts: Path, *options: str) -> Any:
    named = [f"--prompts={name}={prompts / name}" for name in LENGTHS]
    return serving("-m", "retrieval_prompts.cli.app", "serve", str(index), "--port=0", "--device=cpu", *named, *options)


async def ask(port: int, body: Any, streams: Any = None, path: str = "/search") -> tuple[int, Any, Any]:
    """Status, answer, and the connection for the next request; None where this was the last."""
    reader, writer = streams or await asyncio.open_connection("127.0.0.1", port)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    writer.write(f"{head}\r\n\r\n".encode() + data)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(answer.partition("content-length: ")[2].partition("\r\n")[0] or 0)
    found = await reader.readexactly(length)
    status = int(answer.split()[1])
    if "\r\nconnection: close" in answer:
        writer.close()
        return status, found, None
    return status, found, (reader, writer)


async def clients(
    port: int,
    count: int,
    bodies: Sequence[dict[str, Any]],
    until: Any,
    expected: dict[str, Any] | None = None,
    *,
    path: str = "/search",
    alike: Callable[[Any, Any], bool] | None = None,
) -> Counted:
    """So many clients at once, each until `until()` holds; `expected`: body -> what must be found, which is as `alike`
    says (`same`)."""
    counted, compared = Counted(), alike or same

    async def client(number: int) -> None:
        order, streams = random.Random(number), None
        while not until():
            body, started = order.choice(bodies), time.perf_counter()
            try:
                status, found, streams = await ask(port, body, streams, path)
            except ConnectionRefusedError:
                counted.statuses["refused"] += 1
                return
            except (OSError, asyncio.IncompleteReadError):
                counted.statuses["lost"] += 1
                return
            counted.statuses[str(status)] += 1
            if status in (429, 503):
                await asyncio.sleep(1)  # as Retry-After says
            if status == 200:
                counted.seconds.append(time.perf_counter() - started)
                counted.wrong += expected is not None and not compared(json.loads(found), expected[json.dumps(body)])
        if streams:
            streams[1].close()

    await asyncio.gather(*map(client, range(count)))
    return counted


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether two answers have the same hits; those whose scores differ by 1e-5 or less may change places."""
    scores = [[hit["score"] for hit in each["hits"]] for each in (found, expected)]
    ids = [{hit["id"] for hit in each["hits"][:-1]} for each in (found, expected)]
    close = all(abs(one - other) <= 1e-5 for one, other in zip(*scores, strict=True))
    return close and len(ids[0] ^ ids[1]) <= 2 * (scores[0][-1] + 1e-5 >= scores[0][-2])


async def alone(port: int, bodies: Sequence[dict[str, Any]], path: str = "/search") -> dict[str, Any]:
    """What each request gets when nobody else asks."""
    found, streams = {}, None
    for body in bodies:
        status, answer, streams = await ask(port, body, streams, path)
        while status == 503:  # a machine that is busy with other work
            status, answer, streams = await ask(port, body, streams, path)
        assert status == 200, answer
        found[json.dumps(body)] = json.loads(answer)
    return found


def after(seconds: float) -> Any:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def summary(turns: list[tuple[Counted, float, float]]) -> dict[str, Any]:
    """Of turns (counted, seconds, processor seconds): the median a turn, quantiles of all."""
    every = sorted(second for counted, _, _ in turns for second in counted.seconds)
    statuses = sum((counted.statuses for counted, _, _ in turns), Counter())
    return {
        "requests_a_second": round(statistics.median(len(c.seconds) / wall for c, wall, _ in turns), 1),
        "cpu_ms": round(1000 * sum(cpu for _, _, cpu in turns) / max(1, len(every)), 2),
        "p50_ms": round(1000 * every[len(every) // 2], 1),
        "p99_ms": round(1000 * every[int(len(every) * 0.99)], 1),
        "statuses": dict(statuses),
        "wrong": sum(counted.wrong for counted, _, _ in turns),
    }


def speed(index: Path, prompts: Path, queries: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Requests a second of both servers, in turns, and of ours with one prompt and with several."""
    plain = [{"query": query, "k": 10, "bm25_weight": 0} for query in queries]
    asked = {
        "one query at a time": plain,
        "serve, frozen": plain,
        "serve, one prompt": [{**body, "prompt": "a"} for body in plain],
        "serve, four prompts": [{**body, "prompt": "abcd"[at % 4]} for at, body in enumerate(plain)],
        "serve, one prompt, BM25": [{**body, "prompt": "a", "bm25_weight": 0.75} for body in plain],
    }
    turns: dict[str, list[Any]] = {}
    with serving(__file__, str(index), "--other") as other, ours(index, prompts) as our:
        servers = {name: our if name.startswith("serve") else other for name in asked}
        expected = {name: asyncio.run(alone(our.port, bodies)) for name, bodies in asked.items() if "serve" in name}
        asyncio.run(alone(other.port, plain[:20]))
        for turn in range(options.turns):
            for count in options.clients:
                for name in asked if turn % 2 == 0 else reversed(asked):
                    server, started = servers[name], time.perf_counter()
                    before = server.cpu()
                    work = clients(server.port, count, asked[name], after(options.seconds), expected.get(name))
                    counted = asyncio.run(work)
                    took = time.perf_counter() - started, server.cpu() - before
                    turns.setdefault(f"{name}, {count} clients", []).append((counted, *took))
    return {name: summary(each) for name, each in turns.items()}


def overload(index: Path, prompts: Path, queries: list[str], seconds: float) -> dict[str, Any]:
    """Far more clients than there is room for."""
    bodies = [{"query": query, "prompt": "a", "bm25_weight": 0} for query in queries]
    with ours(index, prompts, "--queue=16", "--batch=8", "--timeout=5") as our:
        expected = asyncio.run(alone(our.port, bodies))
        counted = asyncio.run(clients(our.port, 200, bodies, after(seconds), expected))
    return {"clients": 200, "queue": 16, "statuses": dict(counted.statuses), "wrong": counted.wrong}


def faults(index: Path, prompts: Path, queries: list[str], seconds: float) -> dict[str, Any]:
    """Odd clients and changes beside 16 good clients, whose answers are counted; at the end SIGTERM."""
    bodies = [{"query": query, "prompt": "abc"[at % 3], "bm25_weight": 0} for at, query in enumerate(queries)]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=index.parent) as folder:
        place = Path(folder) / "index"
        subprocess.run(["cp", "-r", str(index), str(place)], check=True)
        with ours(place, prompts, "--prompts-root", str(prompts)) as our:
            expected = asyncio.run(alone(our.port, bodies))
            for odd in (gone, malformed, slow_readers, unloaded, replaced):

                async def both(odd: Any = odd, port: int = our.port) -> Any:
                    good = clients(port, 16, bodies, after(seconds), expected)
                    return await asyncio.gather(good, odd(port, queries, seconds, place))

                counted, said = asyncio.run(both())
                found[odd.__name__] = {"good": dict(counted.statuses), "wrong": counted.wrong, "odd": dict(said)}

            async def ended(our: Served = our) -> Counted:
                good = asyncio.create_task(clients(our.port, 16, bodies, lambda: False, expected))
                await asyncio.sleep(seconds / 2)
                our.process.send_signal(signal.SIGTERM)
                return await good

            counted = asyncio.run(ended())
            found["sigterm"] = {"good": dict(counted.statuses), "wrong": counted.wrong, "exit": our.process.wait(120)}
    return found


async def gone(port: int, queries: list[str], seconds: float, _: Path) -> Counter[str]:
    """Clients that go away before the answer."""
    counts, until = Counter[str](), after(seconds)
    while not until():
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        data = json.dumps({"query": queries[counts["gone"] % len(queries)]}).encode()
        head = (
            f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
        )
        writer.write(f"{head}\r\n\r\n".encode() + data)
        await asyncio.sleep(random.random() * 0.02)
        writer.transport.abort()
        counts["gone"] += 1
    return counts


async def malformed(port: int, queries: list[str], seconds: float, _: Path) -> Counter[str]:
    """Bodies that are no requests."""
    odd = random.Random(0)
    made = [b"", b"{", b"[]", b"null", b'{"query": 1}', b'{"query": ""}', b'{"query": "x", "k": 0}', b"\xff" * 9]
    made += [b"[" * 9999, b'{"query": "\\ud800"}', b'{"query": "' + b"x" * 9000 + b'"}', b" " * (1 << 20) + b"{}"]
    counts, until = Counter[str](), after(seconds)
    while not until():
        body = odd.choice([*made, odd.randbytes(100)])
        status, *_rest = await ask(port, body)
        counts[str(status)] += 1
        await asyncio.sleep(0.01)
    return counts


async def slow_readers(port: int, queries: list[str], seconds: float, _: Path) -> Counter[str]:
    """Clients that ask for long answers and do not read them."""
    counts, until = Counter[str](), after(seconds)
    body = json.dumps({"queries": queries[:50], "k": 100, "text": True, "bm25_weight": 0}).encode()
    head = f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    held: list[Any] = []
    while not until():
        if len(held) < 4:
            _reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64)
            writer.write(f"{head}\r\n\r\n".encode() + body)
            held.append(writer)
            counts["held"] += 1
        await asyncio.sleep(0.05)
    for writer in held:
        writer.transport.abort()
    return counts


async def unloaded(port: int, queries: list[str], seconds: float, _: Path) -> Counter[str]:
    """Prompts that are unloaded and loaded while eight clients ask with them."""
    bodies = [{"query": query, "prompt": "d", "bm25_weight": 0} for query in queries[:8]]
    expected = await alone(port, bodies)
    counts, until = Counter[str](), after(seconds)

    async def change() -> None:
        while not until():
            counts[f"unloaded {await plain(port, 'DELETE', '/prompts/d')}"] += 1
            await asyncio.sleep(0.02)
            counts[f"loaded {await plain(port, 'POST', '/prompts', {'name': 'd'})}"] += 1
            await asyncio.sleep(0.1)

    counted, _nothing = await asyncio.gather(clients(port, 8, bodies, until, expected), change())
    return counts + counted.statuses + Counter({"wrong": counted.wrong})


async def replaced(port: int, queries: list[str], seconds: float, place: Path) -> Counter[str]:
    """The index folder is moved away, and what is no index takes its place."""
    place.rename(place.with_name("old"))
    place.mkdir()
    (place / "manifest.json").write_text("{}")
    return Counter({"replaced": 1})


async def plain(port: int, method: str, path: str, body: Any = None) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json"
    writer.write(f"{head}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    status = int((await reader.read()).split()[1])
    writer.close()
    return status


def other_server(index: Path) -> None:
    """One query at a time: sentence-transformers and FAISS in the same framework."""
    import threading

    import faiss
    import uvicorn
    from sentence_transformers import SentenceTransformer
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    from retrieval_prompts.serving.server import listening
    from retrieval_prompts.towers.text import DEFAULT_MODEL, locate

    model = SentenceTransformer(locate(DEFAULT_MODEL), device="cpu")
    vectors, ids = faiss.read_index(str(index / "index.faiss")), json.loads((index / "ids.json").read_text())
    titles = [json.loads(line)["title"] for line in (index / "documents.jsonl").open(encoding="utf-8")]
    lock = threading.Lock()

    def found(query: str, k: int) -> list[dict[str, Any]]:
        with lock:
            scores, places = vectors.search(model.encode([query]), k)
        hits = zip(places[0].tolist(), scores[0].tolist(), strict=True)
        return [{"id": ids[place], "score": score, "title": titles[place]} for place, score in hits]

    async def search(request: Request) -> Response:
        asked = await request.json()
        return JSONResponse({"hits": await run_in_threadpool(found, asked["query"], asked["k"])})

    at = listening("127.0.0.1", 0)
    print(f"http://127.0.0.1:{at.getsockname()[1]}", flush=True)
    app = Starlette(routes=[Route("/search", search, methods=["POST"])])
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    asyncio.run(uvicorn.Server(config).serve(sockets=[at]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, help="an index folder of documents as the frozen all-MiniLM encodes them")
    parser.add_argument("data", type=Path, nargs="?", help="the BEIR folder that it was made of, for queries")
    parser.add_argument("--json", type=Path, help="the result file")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of a turn")
    parser.add_argument("--queries", type=int, default=200, help="different ones")
    parser.add_argument("--parts", nargs="+", default=["speed", "overload", "faults"], help="others stay as they were")
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--other", action="store_true", help="be the server that is compared with")
    options = parser.parse_args()
    if options.other:
        other_server(options.index)
        return
    try:
        check_output(options.json, overwrite=options.overwrite)
        queries = list(load(options.data).queries.values())[: options.queries]
        with tempfile.TemporaryDirectory() as folder:
            biencoder = BiEncoder.load(device="cpu")
            for seed, (name, length) in enumerate(LENGTHS.items()):
                biencoder.attach("query", length=length, seed=seed).save(Path(folder) / name)
            rest = options.index.resolve(), Path(folder), queries
            settings = {name: getattr(options, name) for name in ("clients", "turns", "seconds", "queries")}
            before = read_json(options.json) if options.json.exists() else {}
            result: dict[str, Any] = {**before, **made_on(PACKAGES)}
            parts: Any = ((speed, options), (overload, options.seconds), (faults, options.seconds))
            for part, arguments in parts:
                if part.__name__ in options.parts:
                    load_average = [round(each, 1) for each in os.getloadavg()]
                    result[part.__name__] = part(*rest, arguments)
                    result[f"{part.__name__}_made"] = {"settings": settings, "load_average": load_average}
                    write_json(options.json, result)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
