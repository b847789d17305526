"""`repoformer-lsp index`: index a folder, as the server does when an editor opens it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.reading import why_not
from indexer.settings import IndexSettings
from lsp_server.report import to_json
from policy.errors import RepoformerError

if TYPE_CHECKING:
    from indexer.workspace import Progress, WorkspaceIndex
    from lsp_server.cli import Subparsers


class NoWorkspaceError(RepoformerError):
    """The workspace is not an existing folder."""


def register(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = subparsers.add_parser(
        "index",
        help="index a folder and print figures about it",
        description="Index a folder, as the server does when an editor opens it, and print the number of files and "
        "chunks. Unchanged files are not read again.",
    )
    parser.add_argument("path", metavar="PATH", type=Path, help="the folder")
    parser.add_argument("--why-not", metavar="FILE", type=Path, help="only print why this file is not in the index")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print figures about the index, or why a file is not in it."""
    if options.why_not is not None:
        return _why_not(options)
    started = time.perf_counter()
    with indexed(options.path) as index:
        seconds = time.perf_counter() - started
        snapshot = index.snapshot
        figures = {
            "path": str(options.path.resolve()),
            "files": snapshot.files,
            "chunks": snapshot.chunks,
            "seconds": round(seconds, 3),
        }
    if options.json:
        print(to_json(figures))
    else:
        print(f"{snapshot.files:,} files, {snapshot.chunks:,} chunks in {seconds:.1f} s")
    return 0


def _why_not(options: argparse.Namespace) -> int:
    """Print which rule excludes a file. This needs no index."""
    file: Path = options.why_not
    root = _folder(options.path)
    reason = why_not(file.absolute() if file.is_absolute() else root / file, [root], IndexSettings())
    if options.json:
        answer = {
            "path": str(file),
            "indexed": reason is None,
            "rule": reason.rule if reason else None,
            "detail": reason.detail if reason else None,
        }
        print(to_json(answer))
    else:
        print(f"{file} is indexed" if reason is None else f"{file} is not indexed: {reason}")
    return 0


@contextmanager
def indexed(path: Path) -> Iterator[WorkspaceIndex]:
    """Index the folder `path`, and yield the index, which is closed at the end of the `with` block.

    Raises `NoWorkspaceError` if `path` is not a folder.
    """
    from indexer.workspace import WorkspaceIndex
    from lsp_server.core import cache_dir

    root = _folder(path)
    shown = _progress_line if sys.stderr.isatty() else None
    index = WorkspaceIndex([root], IndexSettings(watch=False), cache_dir=cache_dir() / "index", on_progress=shown)
    try:
        index.start()
        index.wait_idle()
        yield index
    finally:
        index.close()


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise NoWorkspaceError(f"{path} is not a folder")
    return path.resolve()


def _progress_line(progress: Progress) -> None:
    line = f"{progress.done:,} of {progress.total:,} files" if progress.stage == "read" else ""
    print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
