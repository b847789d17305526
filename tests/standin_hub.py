"""A stand-in for the Hugging Face hub on 127.0.0.1. It serves files and ranges of them, and can simulate faults."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c" * 40


@dataclass
class Hub:
    """The state of a stand-in: the repositories that it serves, the ranges requested from it, and its faults."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    corrupt: bool = False
    stall_at: int = 0  # the number of bytes after which a download hangs until `resume` is set
    resume: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)
    ranges: list[str] = field(default_factory=list)
    claimed_size: int = 0
    address: str = ""


@contextmanager
def hub() -> Iterator[Hub]:
    """Serve a hub without repositories until the end of the `with` block."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if found := re.fullmatch(r"/api/models/(.+)", path):
                self._listing(found[1])
            elif found := re.fullmatch(rf"/(.+)/resolve/{COMMIT}/(.+)", path):
                self._file(found[1], found[2])
            else:
                self._answer(404, b"{}")

        def _listing(self, name: str) -> None:
            if name not in state.repositories:
                self._answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
                return
            siblings = []
            for file, content in state.repositories[name].items():
                size = state.claimed_size or len(content)
                entry: dict[str, object] = {"rfilename": file, "size": size}
                entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                if not file.endswith(".json"):
                    entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 130}
                siblings.append(entry)
            told = {"id": name, "sha": COMMIT, "siblings": siblings, "cardData": {"license": "mit"}, "private": False}
            self._answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

        def _file(self, name: str, file: str) -> None:
            if name in state.gated:
                self._answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
                return
            content = state.repositories[name][file]
            if state.corrupt:
                content = bytes(len(content))
            asked = self.headers.get("Range", "")
            state.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if state.stall_at and start < state.stall_at:
                self.wfile.write(content[start : state.stall_at])
                self.wfile.flush()
                state.stalled.set()
                state.resume.wait(60)
                self.close_connection = True
                return
            self.wfile.write(content[start:])

        def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.resume.set()
        server.shutdown()
        server.server_close()
        thread.join()
