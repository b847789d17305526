"""Relay messages between an editor and its server, and record them.

Usage: `python wiretap.py RECORD -- SERVER…`. A line of the file RECORD is `[time, "editor" | "server", message]`. With
these messages, a test can compare an editor's buffer with the server's copy of the text.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any


def relay(source: IO[bytes], target: IO[bytes], who: str, record: IO[str]) -> None:
    """Copy messages from `source` to `target` until `source` ends. Record each message before it is sent."""
    while header := read_header(source):
        length = next(int(line[15:]) for line in header if line.lower().startswith(b"content-length:"))
        body = source.read(length)
        record.write(json.dumps([time.time(), who, json.loads(body)]) + "\n")
        record.flush()
        target.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        target.flush()
    target.close()


def read_header(source: IO[bytes]) -> list[bytes]:
    """Return the header lines of the next message, or an empty list at the end of `source`."""
    lines: list[bytes] = []
    while line := source.readline():
        if line == b"\r\n":
            return lines
        lines.append(line)
    return []


def main(arguments: list[str]) -> Any:
    """Run the server and relay its messages. Return the server's exit status, which is negative after a signal."""
    path, command = Path(arguments[0]), arguments[arguments.index("--") + 1 :]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin and server.stdout
    path.with_suffix(".pid").write_text(str(server.pid))
    with path.open("a") as record:
        up = threading.Thread(target=relay, args=(sys.stdin.buffer, server.stdin, "editor", record), daemon=True)
        up.start()
        relay(server.stdout, sys.stdout.buffer, "server", record)
    status = server.wait()
    os._exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main(sys.argv[1:])
