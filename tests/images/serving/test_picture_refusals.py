"""What a server of pictures refuses, with which status, and that it goes on."""

from __future__ import annotations

import re
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Command, command_line
from container import command_of
from PIL import Image
from toy_picture_server import Home, sent
from toy_pictures import encoded, noise
from toy_server import Running, running

from multimodal.cli import app as cli
from multimodal.data import pictures
from multimodal.serving import answering
from multimodal.serving.asked import PictureLimits
from multimodal.serving.served import PictureShelf
from multimodal.vectors.image_index import ImageIndex
from retrieval_prompts.errors import UserError

LIMITS = PictureLimits(body=20_000, text=50, queries=3, k=5, pixels=10_000, classes=4, held=60_000)
SMALL = sent(encoded(noise(1)))


@pytest.fixture(scope="module")
def narrow(home: Home) -> Iterator[Running]:
    with running(home.web("coop", "cocoop", "specific", "captions", limits=LIMITS)) as found:
        yield found


def bomb(width: int, height: int) -> str:
    """A PNG of a few bytes that says it is large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return sent(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/search", {}, 422, "expected one of query, a text, queries, a list of texts, and image, a picture in base64"),
        ("/search", {"query": "x", "image": SMALL}, 422, "expected one of query"),
        ("/search", {"query": " "}, 422, "query is empty"),
        ("/search", {"query": "x", "k": 6}, 422, "k must be from 1 to 5, got 6"),
        ("/search", {"query": "x", "prompt": "none"}, 404, "there are no prompts named 'none'; there are coop, cocoop"),
        ("/search", {"query": "x", "prompt": "cocoop"}, 422, "cocoop: these prompts cannot serve a search: they d"),
        ("/search", {"query": "x", "prompt": "specific"}, 422, "specific: these prompts cannot serve a search: eac"),
        ("/search", {"query": "x", "strength": 0.5}, 422, "strength applies to a prompt"),
        ("/search", {"query": "x", "bm25_weight": 0.5}, 422, "unknown field 'bm25_weight'"),
        ("/search", {"image": SMALL, "prompt": "coop"}, 422, "prompts apply to words; a search by a picture takes"),
        ("/search", {"image": 3}, 422, "expected image to be the bytes of a picture file in base64, got an integer"),
        ("/search", {"image": "café"}, 422, "expected image to be the bytes of a picture file in base64 ("),
        ("/search", {"image": "data:image/png;base64,AAAA"}, 422, "expected image to be the bytes of a picture file i"),
        ("/search", {"image": ""}, 422, "image cannot be read as a picture (it is empty)"),
        ("/search", {"image": sent(b"%!PS-Adobe-3.0 EPSF-3.0\n")}, 422, "image cannot be read as a picture (it is not"),
        ("/search", {"image": sent(b"<svg xmlns='http://www.w3.org/2000/svg'/>")}, 422, "it is not one of AVIF, BMP"),
        ("/search", {"image": sent(encoded(noise(1))[:-300])}, 422, "image cannot be read as a picture ("),
        ("/search", {"image": bomb(101, 100)}, 413, "image cannot be read as a picture (101 x 100 pixels, more than 1"),
        ("/search", {"image": bomb(60_000, 60_000)}, 413, "image cannot be read as a picture (Image size (3600000000 "),
        ("/search", {"image": bomb(8000, 1)}, 422, "more than 200 times as long as wide"),
        ("/search", {"image": "A" * 20_000}, 413, "expected a body of at most 20,000 bytes"),
        ("/classify", {"classes": ["a"]}, 422, "expected either image, a picture in base64, or images, a list of them"),
        ("/classify", {"image": SMALL}, 422, 'expected classes, a list of names, such as ["cat", "dog"]'),
        ("/classify", {"image": SMALL, "prompt": "captions"}, 422, "expected classes, a list of names"),
        ("/classify", {"image": SMALL, "classes": "a,b"}, 422, "expected classes to be a list of names, got a text"),
        ("/classify", {"image": SMALL, "classes": []}, 422, "expected from 1 to 4 classes, got 0"),
        ("/classify", {"image": SMALL, "classes": list("abcde")}, 422, "expected from 1 to 4 classes, got 5"),
        ("/classify", {"image": SMALL, "classes": ["a", "a"]}, 422, "class names must differ, got 'a' and 'a'"),
        ("/classify", {"image": SMALL, "classes": ["a", ""]}, 422, "class name 2 of 2 is empty"),
        ("/classify", {"image": SMALL, "classes": ["x " * 25]}, 422, "tokens; "),
        ("/classify", {"image": SMALL, "classes": ["x" * 51]}, 422, "expected a name of at most 50 characters"),
        ("/classify", {"image": SMALL, "classes": ["a", "b"], "k": 0}, 422, "k must be at least 1, got 0"),
        ("/classify", {"image": SMALL, "classes": ["a"], "prompt": "specific"}, 422, "these prompts are class-specifi"),
        ("/classify", {"images": [SMALL] * 4, "classes": ["a"]}, 422, "a list of 1 to 3 pictures, got a list of 4"),
        ("/classify", {"images": [SMALL, ""], "classes": ["a"]}, 422, "images: the picture at position 1 cannot be re"),
        ("/v1/embeddings", {"input": "x"}, 404, "there is nothing at this address"),
    ],
)  # fmt: skip
def test_what_cannot_be(narrow: Running, path: str, body: Any, status: int, message: str) -> None:
    answer = narrow.call("POST", path, body)
    assert answer.status == status
    assert message in answer.message and "\n" not in answer.message
    assert narrow.search(query="blue", k=1)["hits"], "the server goes on"


def test_bodies_that_wait_are_counted(home: Home) -> None:
    web = home.web(limits=LIMITS)
    begun, may, real = threading.Event(), threading.Event(), web.batcher._work

    def stuck(rows: Any) -> Any:
        begun.set()
        may.wait(30)
        return real(rows)

    web.batcher._work = stuck
    large = b'{"query": "x"' + b" " * 19_000 + b"}"
    with running(web) as served:
        said: list[int] = []

        def ask() -> None:
            said.append(served.call("POST", "/search", large).status)

        waiting = [threading.Thread(target=ask) for _ in range(3)]
        for thread in waiting:
            thread.start()
        while web._held < 57_000:
            threading.Event().wait(0.01)
        refused = served.call("POST", "/search", large)
        may.set()
        for thread in waiting:
            thread.join()
        assert (refused.status, said) == (429, [200] * 3)
        assert "bytes of bodies wait already" in refused.message and refused.headers["retry-after"] == "1"
        assert served.call("POST", "/search", large).status == 200 and web._held == 0


def test_pictures_are_decoded_in_the_thread_of_the_batches(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, real = [], pictures.decode

    def decode(*given: Any) -> Image.Image:
        threads.append(threading.current_thread().name)
        return real(*given)

    monkeypatch.setattr(answering, "decode", decode)
    with running(home.web()) as served:
        served.search(image=SMALL, k=1)
    assert [name.partition("_")[0] for name in threads] == ["batches"]


def test_prompts_come_and_go(narrow: Running, home: Home) -> None:
    made = narrow.call("POST", "/prompts", {"name": "half"})
    assert (made.status, made.json) == (
        201,
        {
            "name": "half",
            "folder": "half",
            "strength": 0.5,
            "method": "deep",
            "classes": ["blue", "dark_green", "orange", "white"],
            "search": True,
        },
    )
    assert narrow.search(query="x", prompt="half", k=1)["strength"] == 0.5
    assert narrow.call("DELETE", "/prompts/half").status == 204
    assert narrow.call("POST", "/search", {"query": "x", "prompt": "half"}).status == 404
    assert narrow.call("POST", "/prompts", {"name": "bad", "folder": "../index"}).status == 404
    about = narrow.call("GET", "/prompts").json
    assert (about["model"], about["pictures"], about["frozen"]) == ("tiny", 24, True)
    assert {each["name"]: each["search"] for each in about["prompts"]} == {
        "coop": True,
        "cocoop": False,
        "specific": False,
        "captions": True,
    }


def test_the_token_keeps_pictures_too(home: Home) -> None:
    with running(home.web(), token="secret") as served:
        assert [served.call("GET", path).status for path in ("/pictures/0", "/prompts", "/metrics")] == [401] * 3
        assert served.call("GET", "/pictures/0", Authorization="Bearer secret").status == 200
        for path in ("/", "/page.css", "/pictures.css", "/shared.js", "/page.js", "/health", "/ready"):
            assert served.call("GET", path).status == 200
        counts = served.call("GET", "/metrics", Authorization="Bearer secret").body.decode()
        assert 'retrieval_prompts_requests_total{method="GET",path="/pictures/{number}",status="200"} 1.0' in counts


def test_the_command_starts(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from retrieval_prompts.serving import server

    seen: list[Any] = []

    def serve(web: Any, at: Any, *, hosts: Any, token: Any, started: Any) -> None:
        seen.append((web, hosts, token))
        started()

    monkeypatch.setattr(server, "serve", serve)
    command: Command = command_line("multimodal-prompts", cli.main, monkeypatch, capsys)
    options = ["--prompts", f"a={home.folder / 'prompts' / 'coop'}", "--port", 0, "--device", "cpu", "--max-pixels", 9]
    done = command("serve", home.folder / "index", *options)
    assert done.code == 0 and done.out.endswith("  (24 pictures, 1 prompt)\n") and not done.err
    ((web, hosts, token),) = seen
    assert "localhost" in hosts and token is None
    assert (web.limits.body, web.limits.pixels, web.limits.held) == (16 << 20, 9, 256 << 20)
    moved = command("serve", home.folder / "index", "--images", tmp_path, "--port", 0, "--device", "cpu")
    assert moved.code == 0 and moved.err.startswith("warning: pictures of hits may not be shown: ")
    (tmp_path / "token").write_text("secret\n")
    places = {f"/{name}": home.folder / name for name in ("index", "prompts")} | {"/images": home.folder / "pictures"}
    program, *words = command_of("pictures.yaml", places | {"/run/secrets/token": tmp_path / "token"})
    contained = command(*words, "--port", 0, "--device", "cpu")
    assert (program, contained.code, contained.err) == ("multimodal-prompts", 0, "")
    assert re.fullmatch(r"http://0\.0\.0\.0:\d+  \(24 pictures, 0 prompts\)\n", contained.out)
    assert seen[-1][1:] == (None, "secret")
    for given, said in (
        ([home.folder], "manifest.json"),
        ([home.folder / "index", "--images", tmp_path / "nowhere"], "is not a folder"),
        ([home.folder / "index", "--prompts", f"frozen={tmp_path}"], "expected a name of letters"),
        ([home.folder / "index", "--prompts", f"a={tmp_path}"], "is not a prompt folder"),
    ):
        done = command("serve", *given, "--port", 0, "--device", "cpu")
        assert done.code == 2 and said in done.err.splitlines()[-1] and "Traceback" not in done.err


def test_pictures_under_prompts_are_not_served(home: Home) -> None:
    index = ImageIndex.open(home.folder / "index")
    index.manifest["encoder"]["prompts"] = "f" * 64
    with pytest.raises(UserError, match="have prompts in the image tower: multimodal-prompts search --prompts finds"):
        PictureShelf(index, home.clip)
