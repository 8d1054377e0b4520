"""A Hugging Face Hub on 127.0.0.1: enough of its HTTP interface to make a repository, commit files and fetch them."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_the_tests"


@dataclass
class FakeHub:
    """Repositories ("user/name") with the files of their one branch, main; `private` ones want the token."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # the files of each one that was pushed
    private: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)  # "GET /path"
    broken: bool = False  # answers everything with status 500
    url: str = ""

    def sha(self, repository: str) -> str:
        """The name of the commit that main is at."""
        content = sorted(self.files[repository].items())
        return hashlib.sha1(repr(content).encode()).hexdigest()

    def __enter__(self) -> FakeHub:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body in one packet

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        self.hub.requested.append(f"{self.command} {path}")
        if self.hub.broken:
            return self._send(500, {"error": "out of order"})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        parts = path.removeprefix("/api/models").strip("/").split("/")
        repository, action, *rest = ["/".join(parts[:2]), *parts[2:], ""]
        hidden = repository in self.hub.private and not self._known()
        if repository not in self.hub.files or hidden:
            return self._send(404 if self._known() else 401, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})
        sha = self.hub.sha(repository)
        versions = {**self.hub.commits, sha: self.hub.files[repository]}
        sha = sha if rest[0] == "main" else rest[0]
        if sha not in versions:
            return self._send(404, {"error": "no such revision"}, {"X-Error-Code": "RevisionNotFound"})
        files = versions[sha]
        if self.command == "POST" and not self._known():
            self._send(403, {"error": "forbidden"})
        elif action == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            answers = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            self._send(200, {"files": answers})
        elif action == "commit":
            self._commit(repository, body)
        elif action == "revision":
            self._send(200, {"id": repository, "sha": sha, "siblings": [{"rfilename": name} for name in files]})
        elif action == "tree":
            rows = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            self._send(200, rows)
        elif action == "resolve":
            name = "/".join(rest[1:-1])
            tag = hashlib.sha1(files[name]).hexdigest()
            self._send(200, files[name], {"X-Repo-Commit": sha, "ETag": f'"{tag}"'})

        else:
            self._send(404, {"error": "not spoken here"})

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _create(self, wanted: dict[str, Any]) -> None:
        if not self._known():
            return self._send(401, {"error": "Invalid username or password."})
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.hub.files:
            return self._send(409, {"error": "exists", "url": f"{self.hub.url}/{name}"})
        self.hub.files[name] = {}
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.hub.private.add(name)
        return self._send(200, {"url": f"{self.hub.url}/{name}"})

    def _commit(self, repository: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "header":
                self.hub.messages.append(line["value"]["summary"])
            elif line["key"] == "deletedFile":
                del self.hub.files[repository][line["value"]["path"]]
            else:
                value = line["value"]
                self.hub.files[repository][value["path"]] = base64.b64decode(value["content"])
        sha = self.hub.sha(repository)
        self.hub.commits[sha] = dict(self.hub.files[repository])
        url = f"{self.hub.url}/{repository}/commit/{sha}"
        self._send(200, {"success": True, "commitOid": sha, "commitUrl": url})

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
