"""The end of a server: what is under way is answered, what comes over open connections too, and nothing after it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from command_line import Command
from container import command_of
from toy_server import running, web_of

from retrieval_prompts.errors import UserError
from retrieval_prompts.serving.server import listening, serve


def test_requests_under_way_are_answered(home: Path) -> None:
    web, begun, may = web_of(home, "short"), Event(), Event()
    real = web.batcher._work

    def slow(rows: Any) -> Any:
        begun.set()
        may.wait(30)
        return real(rows)

    web.batcher._work = slow
    answers: list[Any] = []
    with running(web) as served:
        idle = HTTPConnection("127.0.0.1", served.port, timeout=30)
        idle.request("GET", "/ready")
        assert idle.getresponse().read() == b'{"status":"ready"}'
        asked = Thread(target=lambda: answers.append(served.call("POST", "/search", {"query": "x", "prompt": "short"})))
        asked.start()
        assert begun.wait(30)
        assert served.call("DELETE", "/prompts/short").status == 204, "unloaded while they are used"
        web.ending = True  # as at a signal
        idle.request("GET", "/ready")
        answer = idle.getresponse()
        assert (answer.status, answer.getheader("connection")) == (503, "close")
        idle.close()
        Thread(target=lambda: (Event().wait(0.8), may.set())).start()  # type: ignore[func-returns-value]
    asked.join()
    assert answers[0].status == 200 and answers[0].json["hits"]
    with pytest.raises(ConnectionRefusedError):
        served.call("GET", "/health")


def test_the_command_of_the_container_serves_until_sigterm(home: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    places = {"/index": home / "index", "/prompts": home / "prompts", "/run/secrets/token": tmp_path / "token"}
    program, *words = command_of("compose.yaml", places)
    assert program == "retrieval-prompts"
    command = [sys.executable, "-m", "retrieval_prompts.cli.app", *words, "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    port = re.fullmatch(r"http://0\.0\.0\.0:(\d+)  \(40 documents, 0 prompts\)\n", line)
    assert port, line + process.communicate()[1]
    connection = HTTPConnection("127.0.0.1", int(port[1]), timeout=30)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer secret"}
    connection.request("POST", "/prompts", json.dumps({"name": "a", "folder": "short"}), headers)
    assert connection.getresponse().read()
    connection.request("POST", "/search", json.dumps({"query": "copper", "prompt": "a", "k": 2}), headers)
    assert len(json.loads(connection.getresponse().read())["hits"]) == 2
    connection.close()
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


def test_mistakes_of_a_start_are_one_line(command: Command, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, short = home / "index", home / "prompts" / "short"
    for given, said in (
        ([home], "manifest.json"),
        ([index, "--prompts", short], "expected --prompts NAME=FOLDER"),
        ([index, "--prompts", f"a={short}", "--prompts", f"a={short}"], "two prompts are named 'a'"),
        ([index, "--prompts", f"frozen={short}"], "expected a name of letters"),
        ([index, "--prompts", f"a={home / 'pair'}"], "this index was made with no document prompt"),
        ([home / "both"], "holds documents encoded with a prompt; give that prompt"),
        ([index, "--prompts-root", home / "nowhere"], "is not a folder"),
        ([index, "--token-file", home / "nowhere"], "cannot be read"),
        ([index, "--host", "256.0.0.1"], "cannot listen at 256.0.0.1"),
        ([index, "--host", "a..b"], "cannot listen at a..b"),
        ([index, "--allow-host", "localhost:80"], "expected --allow-host with a name alone"),
        ([index, "--model", home / "nowhere"], "there is no model folder"),
    ):
        done = command("serve", *given, "--port", 0)
        assert done.code == 2
        assert said in done.err.splitlines()[-1]
        assert "Traceback" not in done.err
    monkeypatch.setenv("RETRIEVAL_PROMPTS_TOKEN", "")
    assert "expected a token of printable ASCII" in command("serve", index).err


def test_no_time_without_end(command: Command, home: Path) -> None:
    for timeout in ("inf", "nan"):
        done = command("serve", home / "index", "--timeout", timeout)
        assert done.code == 2 and "Invalid value for '--timeout'" in done.err


def test_two_that_start_at_once(home: Path) -> None:
    web = web_of(home)
    with listening("127.0.0.1", 0) as first, listening(*first.getsockname()) as second:
        first.listen()
        with pytest.raises(UserError, match=r"^cannot listen at .*Address already in use.*; choose another --host or"):
            serve(web, second)
