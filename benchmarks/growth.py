"""Measure the index of a workspace of a given size: its memory, its size on disk, and the time of a query.

    python -m benchmarks.growth PATH… --lines MILLIONS --in FOLDER [--json]

The benchmark creates the workspace in FOLDER. It contains the files of each PATH, and then copies of these files until
the size is reached. In the copies, half of the longer words are renamed, because in real code the number of different
words also grows with the size. The workspace and its saved index stay in FOLDER, so a second run measures a start from
the saved index.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from zlib import crc32

from benchmarks.event_loop import with_beat
from benchmarks.index import (
    QUERIES,
    Memory,
    cursors_from,
    lines_of,
    loop_row,
    measure_queries,
    measure_searches,
    size_mb,
    spread,
    start_and_wait,
)
from benchmarks.machine import describe
from indexer.rules import Rules
from indexer.settings import IndexSettings
from lsp_server.commands.serve import share_interpreter

_WORD = re.compile(r"\b[A-Za-z_]\w{5,}\b")


def copied(text: str, copy: int) -> str:
    """Return the text of a copy: `text` with about half of its longer words renamed. Copy 0 is `text` itself."""

    def other(match: re.Match[str]) -> str:
        word = match[0]
        return f"{word}_{copy}" if crc32(word.encode()) % 2 else word

    return _WORD.sub(other, text) if copy else text


def sources(paths: Sequence[Path]) -> list[Path]:
    """Return the files that the index would read, in an order that is random but the same in each run."""
    settings = IndexSettings()
    found = sorted(path / entry.path for path in paths for entry in Rules(path, settings).walk())
    random.Random(0).shuffle(found)
    return found


def texts(files: Sequence[Path]) -> Iterator[tuple[int, Path, str]]:
    for copy in count():
        for file in files:
            yield copy, file, copied(file.read_text("utf-8", "replace"), copy)


def make_workspace(paths: Sequence[Path], lines: int, folder: Path) -> None:
    """Write files into `folder` until they have `lines` lines in total."""
    written = 0
    for number, (copy, file, text) in enumerate(texts(sources(paths))):
        if written >= lines:
            break
        target = folder / f"copy{copy}" / f"{number // 100}" / f"{number}_{file.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")
        written += text.count("\n")


async def measure(paths: Sequence[Path], millions: float, folder: Path) -> dict[str, Any]:
    workspace, cache = folder / "workspace", folder / "cache"
    if not workspace.exists():
        make_workspace(paths, int(millions * 1e6), workspace)
    warm, memory = cache.exists(), Memory()
    result: list[Any] = []

    async def work() -> None:
        result.extend(await asyncio.to_thread(start_and_wait, [workspace], IndexSettings(watch=False), cache))

    loop = await with_beat(work())
    index, seconds = result
    snapshot = index.snapshot
    cursors = cursors_from(snapshot, QUERIES)
    figures = {
        "machine": describe(),
        "files": snapshot.files,
        "lines": lines_of(snapshot),
        "chunks": snapshot.chunks,
        "start": "warm" if warm else "first",
        "seconds": round(seconds, 1),
        "event_loop": loop,
        "query": measure_queries(snapshot, cursors),
        "search": measure_searches(snapshot, cursors),
        "server_peak_mb": round(memory.peak()),
    }
    started = time.perf_counter()
    await asyncio.to_thread(index.close)
    return figures | {"close_s": round(time.perf_counter() - started, 1), "cache_mb": size_mb(cache)}


def table(result: dict[str, Any]) -> str:
    """Return the figures as a text of several lines."""
    rows = [
        ("machine", result["machine"]),
        ("workspace", f"{result['lines']:,} lines, {result['files']:,} files, {result['chunks']:,} chunks"),
        (
            f"{result['start']} start, until all files are verified",
            f"{result['seconds']} s; {result['cache_mb']} MB on the disk",
        ),
        ("  memory of the server's process", f"{result['server_peak_mb']} MB"),
        ("  longest delay of the event loop", loop_row(result["event_loop"])),
        ("query, exact top 10", spread(result["query"])),
        ("search at a cursor", spread(result["search"])),
    ]
    return "\n".join(f"{name:36}{value}" for name, value in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--lines", type=float, required=True, metavar="MILLIONS")
    parser.add_argument("--in", dest="folder", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    importlib.import_module("lsp_server.server")  # so that the memory includes the modules that a server loads
    share_interpreter()
    paths = [path.absolute() for path in options.paths]
    result = asyncio.run(measure(paths, options.lines, options.folder.absolute()))
    print(json.dumps(result) if options.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
