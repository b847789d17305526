"""`repoformer-lsp serve`: serve an editor."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lsp_server import log as logs
from policy import tracing
from policy.errors import RepoformerError

if TYPE_CHECKING:
    from lsp_server.cli import Subparsers

log = logging.getLogger(__name__)


def register(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = subparsers.add_parser(
        "serve",
        help="serve an editor (the default)",
        description="Serve an editor over the Language Server Protocol: on stdin and stdout, or over TCP.",
    )
    parser.add_argument(
        "--tcp",
        metavar="HOST:PORT",
        type=_address,
        help="listen on this address instead, until the last editor disconnects. There is no encryption and no "
        "password, so listen on localhost only",
    )
    parser.add_argument("--stdio", action="store_true", help="use stdin and stdout (the default)")
    parser.add_argument("--model", default="", metavar="FILE", help="GGUF file to use if the editor sets no model")
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write to this file when the server handles each message and runs each stage of the work. "
        "https://ui.perfetto.dev shows it. It contains no code",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until the editor disconnects."""
    path = logs.open_file()
    log.info("log file: %s", path)
    # Imported only here, so that `--help` and errors on the command line appear immediately.
    from lsp_server.server import RepoformerServer
    from lsp_server.transport import serve_stdio, serve_tcp

    share_interpreter()
    if options.trace is not None:
        try:
            tracing.start(options.trace)
        except OSError as error:
            raise RepoformerError(f"The trace file cannot be written: {error}") from error

    def make_server() -> RepoformerServer:
        return RepoformerServer({"model": options.model or None})

    if options.tcp:
        return asyncio.run(serve_tcp(make_server, *options.tcp))
    return asyncio.run(serve_stdio(make_server))


def share_interpreter() -> None:
    """Let the event loop wait less for the threads of the index, which run in the same interpreter.

    Threads switch five times as often as by default. The garbage collector skips the objects that exist now, because
    they stay until the end of the process. Without this, the collector spent most of its longest runs on these objects,
    and stopped all threads for 80 to 130 ms while many files were indexed.
    """
    sys.setswitchinterval(0.001)  # seconds
    gc.collect()
    gc.freeze()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as localhost:9000")
    return host.strip("[]") or "localhost", int(port)
