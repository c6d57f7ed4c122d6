"""A hub on this machine: the part of the protocol that huggingface_hub speaks, over HTTP, with faults on request."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass(kw_only=True)
class Repo:
    """One repository with one commit."""

    commit: str
    files: dict[str, bytes]
    branches: tuple[str, ...] = ("main",)
    token: str | None = None  # needed to see it
    gated: bool = False


@dataclass(kw_only=True)
class Hub:
    """What the server holds, the faults it makes, and what it was asked."""

    repos: dict[str, Repo] = field(default_factory=dict)  # models by name, datasets as `datasets/NAME`
    cut_once: dict[str, int] = field(default_factory=dict)  # file -> bytes after which its next GET breaks off
    ignore_ranges: bool = False
    delay_s: float = 0.0
    status: int | None = None  # answer everything with it
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range
    url: str = ""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve ``hub`` on a free port of the loopback device; ``hub.url`` is its address."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Keep the test's output clean."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        time.sleep(self.hub.delay_s)
        if self.hub.status is not None:
            return self._error(self.hub.status, "")
        if path.startswith(("api/models/", "api/datasets/")):
            name, _, revision = path.removeprefix("api/").removeprefix("models/").partition("/revision/")
            return self._info(name, revision or "main")
        name, _, rest = path.partition("/resolve/")
        revision, _, file = rest.partition("/")
        return self._file(name, revision, file, body=body)

    def _repo(self, name: str, revision: str) -> Repo | None:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.token and self.headers.get("Authorization") != f"Bearer {repo.token}"):
            self._error(401 if "Authorization" not in self.headers else 404, "RepoNotFound")
        elif revision not in {repo.commit, *repo.branches}:
            self._error(404, "RevisionNotFound")
        else:
            return repo
        return None

    def _info(self, name: str, revision: str) -> None:
        if repo := self._repo(name, revision):
            siblings = [
                {"rfilename": path, "size": len(data), "blobId": _etag(data)} for path, data in repo.files.items()
            ]
            data = json.dumps(
                {"_id": "1", "id": name, "modelId": name, "sha": repo.commit, "siblings": siblings}
            ).encode()
            self._send(200, data, {"Content-Type": "application/json"}, body=True)

    def _file(self, name: str, revision: str, file: str, *, body: bool) -> None:
        repo = self._repo(name, revision)
        if repo is None:
            return None
        if repo.gated:
            return self._error(403, "GatedRepo")
        if file not in repo.files:
            return self._error(404, "EntryNotFound")
        data = repo.files[file]
        headers = {"ETag": f'"{_etag(data)}"', "X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if not wanted or self.hub.ignore_ranges:
            return self._send(200, data, headers, body=body, cut=self.hub.cut_once.pop(file, None) if body else None)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        end = min(int(last) + 1, len(data)) if last else len(data)
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
        return self._send(206, data[int(first) : end], headers, body=body)

    def _error(self, status: int, code: str) -> None:
        self._send(
            status, b"{}", {"X-Error-Code": code, "Content-Type": "application/json"}, body=self.command == "GET"
        )

    def _send(self, status: int, data: bytes, headers: dict[str, str], *, body: bool, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data[:cut])
        if cut is not None:
            self.close_connection = True


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
