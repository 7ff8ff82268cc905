"""A Hugging Face hub over HTTP: what huggingface_hub asks of it, and faults to order."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, quote, urlsplit

REPOSITORY = "someone/finbert"
REVISION = "0123456789abcdef0123456789abcdef01234567"
# Files from this size on are in large file storage: listed with their SHA-256, served by another host.
LARGE = 10_000
API = re.compile(r"/api/models/(?P<repository>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)")
RESOLVE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Request:
    """What was asked: by which server, with which headers."""

    server: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Hub:
    """One repository at one commit, as a hub and the host of its large files serve it.

    ``cuts``: lengths, bytes, after which answers with a large file break off, one answer after the other.
    ``stall``: an answer that would be cut waits for ever instead. ``broken``: every answer with a large file is a
    refused one. ``swapped``: sent in the place of a file, which is listed as it was.
    """

    folder: Path
    licence: str | None = "mit"
    cuts: list[int] = field(default_factory=list)
    stall: bool = False
    broken: bool = False
    swapped: dict[str, bytes] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)
    _servers: dict[str, ThreadingHTTPServer] = field(default_factory=dict)

    def __enter__(self) -> Hub:
        for name in ("hub", "storage"):
            server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, name))
            server.daemon_threads = True
            self._servers[name] = server
            threading.Thread(target=server.serve_forever, args=(0.05,), name=name).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    @property
    def endpoint(self) -> str:
        return self._address("hub", "127.0.0.1")

    def ranges(self) -> list[str | None]:
        """The Range of each request for a large file, in order."""
        return [request.headers.get("range") for request in self.requests if request.server == "storage"]

    def content(self, file: str) -> bytes:
        return (self.folder / file).read_bytes()

    def listing(self) -> dict[str, object]:
        siblings: list[dict[str, object]] = []
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
                entry = {"rfilename": str(path.relative_to(self.folder)), "size": len(content), "blobId": blob}
                if len(content) >= LARGE:
                    lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
                    entry |= {"lfs": lfs, "blobId": "f" * 40}
                siblings.append(entry)
        card = {"license": self.licence} if self.licence else {}
        return {"id": REPOSITORY, "sha": REVISION, "private": False, "siblings": siblings, "cardData": card}

    def _address(self, server: str, host: str) -> str:
        return f"http://{host}:{self._servers[server].server_address[1]}"

    def answer(self, server: str, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(Request(server, request.path, {k.lower(): v for k, v in request.headers.items()}))
        url = urlsplit(request.path)
        if server == "storage":
            self._send(request, parse_qs(url.query)["file"][0])
        elif found := API.fullmatch(url.path):
            if self._known(request, found):
                _whole(request, json.dumps(self.listing()).encode(), "application/json")
        elif found := RESOLVE.fullmatch(url.path):
            if self._known(request, found):
                self._resolve(request, found["file"])
        else:
            _refuse(request, 404, "RepoNotFound")

    def _known(self, request: BaseHTTPRequestHandler, found: re.Match[str]) -> bool:
        if found["repository"] != REPOSITORY:
            _refuse(request, 404, "RepoNotFound")
        elif found["revision"] != REVISION:
            _refuse(request, 404, "RevisionNotFound")
        else:
            return True
        return False

    def _resolve(self, request: BaseHTTPRequestHandler, file: str) -> None:
        if not (self.folder / file).is_file():
            _refuse(request, 404, "EntryNotFound")
        elif len(self.content(file)) >= LARGE:
            request.send_response(302)
            # Another name than the hub's, as a content network has.
            request.send_header("Location", f"{self._address('storage', 'localhost')}/?file={quote(file)}")
            request.send_header("X-Repo-Commit", REVISION)
            request.send_header("Content-Length", "0")
            request.end_headers()
        else:
            _whole(request, self.swapped.get(file, self.content(file)), "text/plain")

    def _send(self, request: BaseHTTPRequestHandler, file: str) -> None:
        if self.broken:
            _refuse(request, 503, None)
            return
        content = self.swapped.get(file, self.content(file))
        start = 0
        if asked := re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", "")):
            start = int(asked[1])
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            request.send_response(200)
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        end = start + self.cuts.pop(0) if self.cuts else len(content)
        request.wfile.write(content[start:end])
        if end < len(content):
            request.wfile.flush()
            if self.stall:
                self.stalled.set()
                self._stop.wait()
            request.close_connection = True


def _handler(hub: Hub, name: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            try:
                hub.answer(name, self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing: what was asked is in the hub's list."""

    return Handler


def _whole(request: BaseHTTPRequestHandler, content: bytes, kind: str) -> None:
    request.send_response(200)
    request.send_header("Content-Type", kind)
    request.send_header("X-Repo-Commit", REVISION)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)


def _refuse(request: BaseHTTPRequestHandler, status: int, code: str | None) -> None:
    request.send_response(status)
    if code:
        request.send_header("X-Error-Code", code)
    request.send_header("Content-Length", "0")
    request.end_headers()
