"""What a server refuses, with which status, and that it goes on: bodies, limits, tokens, hosts, paths, overload."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from threads import at_once
from toy_server import Running, running, web_of

from retrieval_prompts.errors import UserError
from retrieval_prompts.serving.limits import Limits
from retrieval_prompts.serving.server import HEAD, LOCAL, allowed_hosts, listening

LIMITS = Limits(body=2000, text=50, queries=3, k=5)


@pytest.fixture(scope="module")
def narrow(home: Path) -> Iterator[Running]:
    """A server with low limits and the prompts `short`."""
    with running(web_of(home, "short", limits=LIMITS)) as found:
        yield found


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "expected a JSON object in UTF-8: Expecting property name"),
        (b"\xff\xfe", 400, "expected a JSON object in UTF-8: 'utf-8' codec can't decode"),
        (b"[1]", 400, "expected a JSON object, got a list"),
        (b"[" * 1900, 400, "expected a JSON object in UTF-8: it is nested too deeply"),
        ({}, 422, "expected either query, a text, or queries, a list of texts"),
        ({"query": "x", "queries": ["x"]}, 422, "expected either query"),
        ({"query": 3}, 422, "query: expected a text at position 0 (counted from 0), got the int 3; leave it out"),
        (b'{"query": "\\ud800"}', 422, "half a surrogate pair"),
        ({"query": " \n"}, 422, "query is empty; write what you look for"),
        ({"query": "x" * 51}, 422, "query has 51 characters; at most 50 are read"),
        ({"queries": ["x", "x" * 51]}, 422, "queries: the text at position 1 has 51 characters"),
        ({"queries": []}, 422, "expected from 1 to 3 texts in queries, got 0"),
        ({"queries": ["x"] * 4}, 422, "expected from 1 to 3 texts in queries, got 4"),
        ({"queries": "x"}, 422, "expected queries to be a list of texts, got a text"),
        ({"query": "x", "k": 0}, 422, "k must be from 1 to 5, got 0"),
        ({"query": "x", "k": 6}, 422, "k must be from 1 to 5, got 6"),
        ({"query": "x", "k": True}, 422, "expected k to be an integer, got a boolean"),
        ({"query": "x", "top": 3}, 422, "unknown field 'top'; the fields are query, queries, k,"),
        ({"query": "x", "prompt": "none"}, 404, "there are no prompts named 'none'; there are short, frozen"),
        ({"query": "x", "strength": 0.5}, 422, "strength applies to a prompt; name one as well"),
        ({"query": "x", "prompt": "short", "strength": 1.5}, 422, "strength must be a number from 0 to 1, got 1.5"),
        (b'{"query": "x", "prompt": "short", "strength": NaN}', 422, "strength must be a number from 0 to 1, got NaN"),
        ({"query": "x", "bm25_weight": "all"}, 422, 'bm25_weight must be a number from 0 to 1, got "all"'),
        ({"query": "x", "extra": "x" * 2000}, 413, "expected a body of at most 2,000 bytes"),
    ],
)
def test_a_search_that_cannot_be(narrow: Running, body: Any, status: int, said: str) -> None:
    answer = narrow.call("POST", "/search", body)
    assert answer.status == status
    assert said in answer.message
    assert narrow.search(query="copper", k=1)["hits"], "the server goes on"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"input": "x"}, "expected the name of a prompt, or 'frozen', as the model"),
        ({"model": "short", "input": [1, 2]}, "input has token numbers"),
        ({"model": "short", "input": "x", "encoding_format": "int8"}, "encoding_format must be float or base64"),
        ({"model": "short", "input": "x", "dimensions": 8}, "vectors of this model have 32 dimensions, got 8"),
        ({"model": "short"}, "expected input to be a list of texts, got null"),
    ],
)
def test_vectors_that_cannot_be(narrow: Running, body: Any, said: str) -> None:
    answer = narrow.call("POST", "/v1/embeddings", body)
    assert answer.status == 422
    assert said in answer.message


def test_what_is_no_json_nobody_reads(narrow: Running) -> None:
    answer = narrow.call("POST", "/search", b'{"query": "x"}', Content_Type="text/plain")
    assert answer.status == 415
    assert "access-control-allow-origin" not in answer.headers
    assert narrow.call("OPTIONS", "/search", Origin="http://other").status == 405
    assert narrow.call("GET", "/search").message == "this address takes other methods"
    assert narrow.call("GET", "/nothing").status == 404


def test_a_body_without_a_length_is_cut_where_it_is_too_long(narrow: Running) -> None:
    with socket.create_connection(("127.0.0.1", narrow.port)) as client:
        head = (
            "POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
        )
        client.sendall(f"{head}\r\n\r\n".encode() + b"3e9\r\n" + b" " * 1001 + b"\r\n3e9\r\n" + b" " * 1001 + b"\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_head_that_does_not_end_is_not_read_on(narrow: Running) -> None:
    for start in (b"GET /", b"GET /health HTTP/1.1\r\nHost: localhost\r\na: "):
        with socket.create_connection(("127.0.0.1", narrow.port), timeout=30) as client:
            client.sendall(start)
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                for _ in range(1000):
                    client.sendall(b"x" * HEAD)
    kept = HTTPConnection("127.0.0.1", narrow.port, timeout=30)
    for _ in range(2 * HEAD // LIMITS.body):  # of one connection, bodies are not counted
        kept.request("POST", "/search", b" " * LIMITS.body, {"Content-Type": "application/json"})
        answer = kept.getresponse()
        assert (answer.status, answer.will_close) == (400, False)
        answer.read()
    kept.close()


def test_prompts_come_and_go(narrow: Running, home: Path) -> None:
    def names() -> list[str]:
        return [each["name"] for each in narrow.call("GET", "/prompts").json["prompts"]]

    made = narrow.call("POST", "/prompts", {"name": "more", "folder": "half"})
    assert made.status == 201
    assert made.json == {
        "name": "more",
        "folder": "half",
        "kind": "input",
        "strength": 0.5,
        "bm25_weight": 0.25,
        "sides": ["query"],
    }
    assert narrow.search(query="copper", prompt="more", k=1)["strength"] == 0.5
    assert narrow.call("POST", "/prompts", {"name": "more", "folder": "half"}).status == 409
    assert names() == ["short", "more"]
    assert narrow.call("DELETE", "/prompts/more").status == 204
    assert narrow.call("DELETE", "/prompts/more").status == 404
    assert narrow.call("POST", "/search", {"query": "copper", "prompt": "more"}).status == 404
    assert narrow.call("DELETE", "/prompts/short").status == 204
    assert narrow.call("POST", "/prompts", {"name": "short"}).status == 201, "by the name that the start gave it"
    assert names() == ["short"]


@pytest.mark.parametrize(
    "folder", ["../pair", "..", ".", "", "/etc", "out", "short/../../pair", "\0", "x" * 1000, "short/prompt.json"]
)
def test_no_folder_outside_the_root_is_opened(narrow: Running, home: Path, folder: str) -> None:
    link = home / "prompts" / "out"
    if not link.is_symlink():
        link.symlink_to(home / "pair")
    assert narrow.call("POST", "/prompts", {"name": "bad", "folder": folder}).status == 404
    absolute = narrow.call("POST", "/prompts", {"name": "bad", "folder": str(home / "pair")})
    assert absolute.status == 404 and "(not below --prompts-root)" in absolute.message


def test_where_the_root_is_stays_unsaid(narrow: Running, home: Path) -> None:
    (home / "prompts" / "empty").mkdir()
    answer = narrow.call("POST", "/prompts", {"name": "empty"})
    assert answer.status == 422
    assert answer.message.startswith("empty is not a prompt folder: expected prompt.safetensors")


def test_others_are_answered_while_prompts_are_loaded(narrow: Running) -> None:
    shelf = narrow.web.shelf
    with ThreadPoolExecutor() as pool:
        with shelf._adding:
            waits = pool.submit(narrow.call, "DELETE", "/prompts/nothing")
            time.sleep(0.2)
            assert narrow.call("GET", "/health").status == 200
            assert not waits.done()
        assert waits.result().status == 404


def test_one_thread_at_a_time_uses_the_index(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be over a store, whose client is not made for several."""
    web = web_of(home)
    searcher, held = web.shelf.searcher, []
    real = searcher.index.vectors_at

    def vectors_at(positions: Any) -> Any:
        held.append(searcher.lock._is_owned())  # type: ignore[attr-defined]
        return real(positions)

    monkeypatch.setattr(searcher.index, "vectors_at", vectors_at)
    with running(web) as served:
        assert served.call("POST", "/prompts", {"name": "feedback"}).status == 201
        served.search(query="copper", prompt="feedback", k=1)
    assert len(held) >= 2 and all(held)


@pytest.mark.parametrize("name", ["frozen", "", "a/b", "-a", "x" * 65, "<b>"])
def test_names_are_plain(narrow: Running, name: str) -> None:
    answer = narrow.call("POST", "/prompts", {"name": name, "folder": "half"})
    assert answer.status == 422 and "expected a name of letters" in answer.message


def test_prompts_of_another_index_are_refused(narrow: Running, home: Path) -> None:
    if not (home / "prompts" / "inside").exists():
        shutil.copytree(home / "pair", home / "prompts" / "inside")
    answer = narrow.call("POST", "/prompts", {"name": "pair", "folder": "inside"})
    assert answer.status == 422
    assert "this index was made with no document prompt" in answer.message


def test_a_token(home: Path) -> None:
    with running(web_of(home), token="secret") as served:
        body = {"query": "copper"}
        assert served.call("POST", "/search", body).status == 401
        for wrong in ("secret", "Bearer", "Bearer secre", "Bearer secret2", "Basic secret", "Bearer s\xe9cret"):
            refused = served.call("POST", "/search", body, Authorization=wrong)
            assert refused.status == 401 and refused.headers["www-authenticate"] == "Bearer"
        assert served.call("POST", "/search", body, Authorization="Bearer secret").status == 200
        assert [served.call("GET", path).status for path in ("/prompts", "/metrics", "/v1/models")] == [401] * 3
        assert [served.call("GET", path).status for path in ("/", "/page.js", "/health", "/ready")] == [200] * 4


def test_another_name_for_this_machine_is_refused(narrow: Running) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::2]"):
        assert narrow.call("GET", "/", Host=host).status == 421
    for host in ("localhost", f"localhost:{narrow.port}", "127.0.0.1", "[::1]:80", "LOCALHOST"):
        assert narrow.call("GET", "/", Host=host).status == 200


def test_names_by_which_a_server_may_be_called() -> None:
    assert allowed_hosts("0.0.0.0") is None
    assert allowed_hosts("127.0.0.1") == LOCAL
    assert allowed_hosts("127.0.0.2") == LOCAL | {"127.0.0.2"}, "the address that it says it has"
    assert allowed_hosts("::1") == LOCAL
    assert allowed_hosts("0.0.0.0", ("Search.example.org",)) == LOCAL | {"0.0.0.0", "search.example.org"}
    for odd in ("search.example.org:8000", "https://search.example.org", "", "a b", "::1"):
        with pytest.raises(UserError, match="expected --allow-host with a name alone, such as"):
            allowed_hosts("127.0.0.1", (odd,))


def test_counts(narrow: Running) -> None:
    def count(line: str) -> float:
        lines = narrow.call("GET", "/metrics").body.decode().splitlines()
        return sum(float(each.split()[-1]) for each in lines if each.startswith(line))

    answered = 'retrieval_prompts_requests_total{method="POST",path="/search",status="200"}'
    queries, before = 'retrieval_prompts_queries_total{prompt="short"}', count(answered)
    asked = count(queries)
    narrow.search(queries=["copper", "river"], prompt="short", k=1)
    narrow.call("POST", "/search/<b>", {})
    assert count(answered) == before + 1
    assert count(queries) == asked + 2
    assert count("retrieval_prompts_prompts ") == 1
    assert count('retrieval_prompts_requests_total{method="POST",path="other",status="404"}') >= 1


class Stuck:
    """Work that does not come to its end before it may."""

    def __init__(self, real: Any) -> None:
        self.real, self.may, self.begun = real, Event(), Event()

    def __call__(self, rows: Sequence[Any]) -> Any:
        self.begun.set()
        self.may.wait(30)
        return self.real(rows)


def test_too_much_and_too_slow(home: Path) -> None:
    """One query is worked on, two may wait: the fourth is refused, the others get their answers."""
    web = web_of(home, limits=Limits(waiting=2))
    web.batcher._work = stuck = Stuck(web.batcher._work)
    with running(web) as served:

        def asked() -> int:
            return served.call("POST", "/search", {"query": "copper"}).status

        def watched() -> list[Any]:
            while len(web.batcher) < 2:
                time.sleep(0.01)
            refused = served.call("POST", "/search", {"query": "copper"})
            stuck.may.set()
            return [refused.status, refused.headers["retry-after"], served.call("GET", "/health").status]

        with ThreadPoolExecutor() as pool:
            first = pool.submit(asked)
            assert stuck.begun.wait(30)
            *others, (seen,) = at_once([asked, asked, watched])
            assert [first.result(), *(status for (status,) in others)] == [200, 200, 200]
        assert seen == [429, "1", 200]


def test_what_takes_too_long_is_given_up(home: Path) -> None:
    web = web_of(home, limits=Limits(timeout=0.2))
    web.batcher._work = stuck = Stuck(web.batcher._work)
    with running(web) as served:
        late = served.call("POST", "/search", {"query": "copper"})
        assert late.status == 503 and late.headers["retry-after"] == "1"
        assert late.message == "no answer within 0.2 seconds; ask again later"
        assert served.call("GET", "/ready").status == 503
        stuck.may.set()
        served.web.batcher._work = stuck.real
        with socket.create_connection(("127.0.0.1", served.port)) as slow:
            head = "POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9"
            slow.sendall(f"{head}\r\n\r\n{{".encode())
            assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="an option of Linux")
def test_answers_that_nobody_reads_are_not_kept() -> None:
    with listening("127.0.0.1", 0, 0.3) as at:
        at.listen()
        with socket.create_connection(at.getsockname()), at.accept()[0] as accepted:
            accepted.settimeout(30)
            with pytest.raises(OSError, match="timed out") as lost:
                while True:
                    accepted.sendall(b"x" * 1_000_000)
            assert lost.value.errno, "it is the connection that was lost"


def test_connections_send_at_once_what_is_written() -> None:
    with listening("127.0.0.1", 0) as at:
        at.listen()
        with socket.create_connection(at.getsockname()), at.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.proto == socket.IPPROTO_TCP
