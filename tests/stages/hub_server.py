"""A small Hugging Face Hub on localhost that speaks what the real client asks, and can misbehave on request."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LATER = "89abcdef0123456789abcdef0123456789abcdef"
LARGE = (".safetensors", ".bin")


class FakeHub:
    """One repository, ``owner/model``.

    Attributes:
        files: name → content, at every commit that has none of its own.
        commits: commit → name → content.
        branches: branch or tag → commit.
        token: what `head` and `get` must be asked with, when set; without it the repository is gated.
        failures: request kind (``info``, ``head`` or ``get``) → the statuses of its first answers.
        refuse: status and headers of every answer to `head` and `get`, when set.
        cut_after: the connection is closed after that many bytes of the next large file.
        pause: seconds to wait in the middle of large files.
        retry_after: the header of answers that fail, when set.
        lie: what large files' content is replaced with, hashes unchanged.
        requests: how often each ``METHOD path`` was asked for.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches = {"main": COMMIT}
        self.token: str | None = None
        self.failures: dict[str, list[int]] = {}
        self.refuse: tuple[int, dict[str, str]] | None = None
        self.cut_after: int | None = None
        self.pause = 0.0
        self.retry_after: str | None = None
        self.lie: bytes | None = None
        self.requests: Counter[str] = Counter()
        self.ranges: list[str] = []
        hub = self

        class Handler(_Handler):
            fake = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def downloads(self) -> set[str]:
        prefix = f"GET /owner/model/resolve/{COMMIT}/"
        return {request.removeprefix(prefix) for request in self.requests if request.startswith(prefix)}

    def at(self, commit: str) -> dict[str, bytes]:
        return self.commits.get(commit, self.files)


def sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        self.fake.requests[f"{self.command} {path}"] += 1
        if path.startswith("/api/models/"):
            self._info(path.removeprefix("/api/models/"))
        else:
            repository, _, rest = path[1:].partition("/resolve/")
            self._file(repository, *rest.split("/", 1), body=body)

    def _fails(self, kind: str) -> bool:
        statuses = self.fake.failures.get(kind, [])
        if statuses:
            wait = {"Retry-After": self.fake.retry_after} if self.fake.retry_after else {}
            self._send(statuses.pop(0), wait)
            return True
        return False

    def _info(self, path: str) -> None:
        if self._fails("info"):
            return None
        repository, _, revision = path.partition("/revision/")
        if repository != "owner/model":
            return self._send(401, {"X-Error-Code": "RepoNotFound"})
        commit = self.fake.branches.get(revision or "main", revision)
        if commit not in (COMMIT, *self.fake.commits):
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        siblings: list[dict[str, Any]] = []
        for name, content in self.fake.at(commit).items():
            item: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": sha1(content)}
            if name.endswith(LARGE):
                item["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            siblings.append(item)
        document = {"id": "owner/model", "modelId": "owner/model", "sha": commit, "siblings": siblings, "tags": []}
        return self._send(200, {"Content-Type": "application/json"}, json.dumps(document).encode())

    def _file(self, repository: str, revision: str, name: str, *, body: bool) -> None:
        if self._fails("get" if body else "head"):
            return None
        if self.fake.refuse:
            return self._send(*self.fake.refuse)
        if self.fake.token and self.headers.get("Authorization") != f"Bearer {self.fake.token}":
            return self._send(401, {"X-Error-Code": "GatedRepo"})
        if repository != "owner/model" or revision not in (COMMIT, *self.fake.commits):
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        files = self.fake.at(revision)
        if name not in files:
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": revision})
        content = files[name]
        large = name.endswith(LARGE)
        etag = hashlib.sha256(content).hexdigest() if large else sha1(content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": revision, "Accept-Ranges": "bytes"}
        if large:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
            content = self.fake.lie if self.fake.lie is not None else content
        status = 200
        if wanted := self.headers.get("Range"):
            self.fake.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            status, content = 206, content[start:]
        return self._send(status, headers, content, body=body, cut=large and body)

    def _send(
        self,
        status: int,
        headers: dict[str, str] | None = None,
        content: bytes = b"",
        *,
        body: bool = True,
        cut: bool = False,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not body:
            return
        if cut and self.fake.cut_after is not None:
            content, self.fake.cut_after, self.close_connection = content[: self.fake.cut_after], None, True
        half = len(content) // 2 if self.fake.pause and len(content) > 100_000 else 0
        self.wfile.write(content[:half])
        self.wfile.flush()
        threading.Event().wait(self.fake.pause if half else 0)
        self.wfile.write(content[half:])
        self.wfile.flush()
