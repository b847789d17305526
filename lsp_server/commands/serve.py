"""`repoformer-lsp serve`: the language server, for an editor."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
from typing import TYPE_CHECKING

from lsp_server import log as logs

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
        help="listen there instead; ends when the last editor has gone. There is no encryption and no "
        "password: listen on localhost only",
    )
    parser.add_argument("--stdio", action="store_true", help="stdin and stdout, as without it; some editors pass this")
    parser.add_argument("--model", default="", metavar="FILE", help="GGUF file to use where the editor sets no model")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until the editor is gone."""
    path = logs.open_file()
    log.info("log file: %s", path)
    # Imported late so that `--help` and errors on the command line come at once.
    from lsp_server.server import RepoformerServer
    from lsp_server.transport import serve_stdio, serve_tcp

    share_interpreter()

    def make_server() -> RepoformerServer:
        return RepoformerServer({"model": options.model or None})

    if options.tcp:
        return asyncio.run(serve_tcp(make_server, *options.tcp))
    return asyncio.run(serve_stdio(make_server))


def share_interpreter() -> None:
    """Keep short what the event loop has to wait for: the index's threads run in the same interpreter.

    They give way five times as often as is usual. And what is loaded by now stays for good, so a collection of garbage
    need not look at it again: those objects were most of the 80 to 130 ms for which the largest collections, which come
    when many files are indexed, held everything up.
    """
    sys.setswitchinterval(0.001)  # seconds
    gc.collect()
    gc.freeze()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as localhost:9000")
    return host.strip("[]") or "localhost", int(port)
