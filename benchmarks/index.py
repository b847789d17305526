"""Measure the index: the first and the warm start, the time until a saved change is found, and the time of queries.

    python -m benchmarks.index PATH… [--json] [--windows] [--queries N] [--workers N]

A *first* start indexes all files. A *warm* start, which runs in a new process, loads the saved index and verifies it.

The benchmark's process has the load of a server: it imports the same modules, and an event loop runs in its main thread
while the index works, so that the loop's delays are measured too (`benchmarks.event_loop`). The results of queries are
compared with a brute-force search of all chunks. With `--windows`, the benchmark also indexes the workspace with the
fixed windows of the paper. If ripgrep (`rg`) is installed, the benchmark prints how long ripgrep takes to count the
words of the same files, as a reference for the speed of the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.event_loop import with_beat
from benchmarks.machine import describe
from indexer.chunking import Chunking
from indexer.model import Cursor
from indexer.settings import IndexSettings
from indexer.snapshot import Snapshot
from indexer.words import last_lines, words
from indexer.workspace import WorkspaceIndex
from lsp_server.commands.serve import share_interpreter

SAVES = 60  # the number of saves of a file after which the benchmark searches for the change
QUERIES = 1_000  # the default number of queries


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    p50, p95 = np.percentile(np.array(seconds) * 1e3, (50, 95))
    return {"p50_ms": round(float(p50), 2), "p95_ms": round(float(p95), 2), "n": len(seconds)}


def timed(calls: Iterable[Callable[[], object]]) -> dict[str, float]:
    """Return percentiles of the clock time and of the processor time of `calls`.

    On a busy machine, the clock time is longer, because it includes the time of other processes.
    """
    clock, processor = [], []
    for call in calls:
        started, used = time.perf_counter(), time.thread_time()
        call()
        clock.append(time.perf_counter() - started)
        processor.append(time.thread_time() - used)
    cpu = percentiles(processor)
    return percentiles(clock) | {"cpu_p50_ms": cpu["p50_ms"], "cpu_p95_ms": cpu["p95_ms"]}


def lines_of(snapshot: Snapshot) -> int:
    """Return the number of lines in the index."""
    return sum(
        document.text.count(b"\n")
        for masked in snapshot.segments
        for document, alive in zip(masked.segment.documents, masked.documents.tolist(), strict=True)
        if alive
    )


def start_and_wait(paths: Sequence[Path], settings: IndexSettings, cache: Path | None) -> tuple[WorkspaceIndex, float]:
    index = WorkspaceIndex(paths, settings, cache_dir=cache)
    started = time.perf_counter()
    index.start()
    if not index.wait_idle(3_600):
        raise SystemExit("indexing took more than an hour")
    return index, time.perf_counter() - started


class Memory:
    """Measures the memory of this process in MB. `before` is the memory when the object is created."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.before = self._now()

    def _now(self) -> float:
        return float(self._process.memory_info().rss) / 1e6

    def peak(self) -> float:
        """Return the maximum since the process started, or the current value if the system does not report it."""
        status = Path("/proc/self/status")
        if status.exists():
            line = next(at for at in status.read_text().splitlines() if at.startswith("VmHWM"))
            return float(line.split()[1]) / 1e3
        return self._now()


async def measure_first(
    paths: Sequence[Path], settings: IndexSettings, cache: Path
) -> tuple[WorkspaceIndex, dict[str, Any]]:
    memory = Memory()
    result: list[tuple[WorkspaceIndex, float]] = []

    async def work() -> None:
        result.append(await asyncio.to_thread(start_and_wait, paths, settings, cache))

    beat = await with_beat(work())
    index, seconds = result[0]
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    used = [sum(process.cpu_times()[:2]) for process in processes]
    return index, {
        "seconds": round(seconds, 1),
        "server_cpu_s": round(used[0], 1),
        "workers_cpu_s": round(sum(used[1:]), 1),
        "load_average": psutil.getloadavg()[0],
        "files": index.snapshot.files,
        "lines": lines_of(index.snapshot),
        "chunks": index.snapshot.chunks,
        "server_peak_mb": round(memory.peak()),
        "server_before_mb": round(memory.before),
        "event_loop": beat,
    }


def measure_warm(paths: Sequence[Path], settings: IndexSettings, cache: Path) -> dict[str, float]:
    """Load a saved index in a new process.

    Return the seconds until queries have results, and until all files are verified.
    """
    code = f"""
import sys, time
started = time.perf_counter()
sys.path[:] = {sys.path!r}
from pathlib import Path
from indexer.chunking import Chunking
from indexer.settings import IndexSettings
from indexer.workspace import WorkspaceIndex
from lsp_server.commands.serve import share_interpreter
roots = [Path(path) for path in {[str(path) for path in paths]!r}]
index = WorkspaceIndex(roots, {settings!r}, cache_dir=Path({str(cache)!r}))
index.start()
while not index.snapshot.files:
    time.sleep(0.001)
ready = time.perf_counter() - started
index.wait_idle(600)
print(ready, time.perf_counter() - started)
index.close()
"""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    ready, verified = map(float, out.split())
    return {"first_query_s": round(ready, 2), "verified_s": round(verified, 2)}


def measure_saves(index: WorkspaceIndex, root: Path) -> dict[str, float]:
    """Change and save a file of about 100 lines repeatedly.

    Return percentiles of the time from a save until a query finds the change.
    """
    file = root / "benchmark_saved_file.py"
    times = []
    try:
        for number in range(SAVES + 3):
            mark = f"benchmark_mark_{number}"
            body = "\n".join(f"def {mark}_{n}(value):\n    return value + {n}\n" for n in range(33))
            time.sleep(0.2)
            file.write_text(body)
            saved = time.perf_counter()
            while not any(hit.chunk.path == file.name for hit in index.snapshot.query(f"{mark}_1 {mark}_2", 3)):
                if time.perf_counter() - saved > 30:
                    raise SystemExit("a saved file was not found within 30 s")
                time.sleep(0.001)
            times.append(time.perf_counter() - saved)
    finally:
        file.unlink(missing_ok=True)
    return percentiles(times[3:])


def cursors_from(snapshot: Snapshot, count: int, lines: int = 20) -> list[Cursor]:
    """Return `count` random cursors in the indexed files, each with at least `lines` lines before it.

    The cursors are the same in each run.
    """
    rng = random.Random(0)
    documents = [d for masked in snapshot.segments for d in masked.segment.documents if d.text.count(b"\n") > lines]
    documents.sort(key=lambda document: (document.root, document.path))
    result = []
    for _ in range(count):
        document = rng.choice(documents)
        text = document.text.decode("utf-8", "replace").split("\n")
        at = rng.randrange(lines, len(text))
        path = str(Path(document.root, document.path))
        result.append(Cursor(path, "\n".join(text[:at]), "\n" + "\n".join(text[at:]), ""))
    return result


def measure_queries(snapshot: Snapshot, cursors: Sequence[Cursor]) -> dict[str, float]:
    """Return the times to find the ten chunks with the best Jaccard similarity to the 20 lines before each cursor."""
    return timed(partial(snapshot.query, last_lines(c.prefix, 20), 10, exclude=c.path) for c in cursors)


def measure_searches(snapshot: Snapshot, cursors: Sequence[Cursor]) -> dict[str, float]:
    """Return the times of the search that a completion request performs, one for each cursor."""
    return timed(partial(snapshot.search, cursor, 10) for cursor in cursors)


def compare_with_brute_force(snapshot: Snapshot, cursors: Sequence[Cursor]) -> dict[str, int]:
    """Compare the ten best scores of each query with those of a brute-force search.

    Return the number of queries, and the number of them whose scores differ.
    """
    vocabulary: dict[str, int] = {}
    numbers: list[int] = []
    starts, sizes, paths = [], [], []
    for masked in snapshot.segments:
        for at in np.flatnonzero(masked.live).tolist():
            chunk = masked.segment.chunk(at)
            found = words(chunk.text)
            if found:
                starts.append(len(numbers))
                numbers.extend(vocabulary.setdefault(word, len(vocabulary)) for word in found)
                sizes.append(len(found))
                paths.append(str(chunk.file))
    ids, begin = np.array(numbers), np.array(starts)
    lengths, path_names = np.array(sizes), np.array(paths)
    different = 0
    for cursor in cursors:
        text = last_lines(cursor.prefix, 20)
        query = words(text)
        flags = np.zeros(len(vocabulary), np.int64)
        flags[[vocabulary[word] for word in query if word in vocabulary]] = 1
        shared = np.add.reduceat(flags[ids], begin)
        scores = shared / (lengths + len(query) - shared)
        scores[path_names == cursor.path] = 0.0
        expected = np.sort(scores)[::-1][:10]
        got = [hit.score for hit in snapshot.query(text, 10, exclude=cursor.path)]
        different += got != expected[expected > 0].tolist()
    return {"queries": len(cursors), "different": different}


def size_mb(folder: Path) -> int:
    return round(sum(file.stat().st_size for file in folder.iterdir()) / 1e6)


def ripgrep_seconds(paths: Sequence[Path]) -> float | None:
    """Return the seconds that ripgrep takes to count the words of the files, or None if it is not installed."""
    program = shutil.which("rg")
    if program is None:
        return None
    started = time.perf_counter()
    subprocess.run([program, "--count-matches", r"\w+", *map(str, paths)], capture_output=True, check=False)
    return round(time.perf_counter() - started, 2)


async def measure(paths: Sequence[Path], options: argparse.Namespace) -> dict[str, Any]:
    settings = IndexSettings(workers=options.workers)
    result: dict[str, Any] = {"machine": describe(), "workers": settings.worker_count()}
    with tempfile.TemporaryDirectory() as cache:
        index, result["first"] = await measure_first(paths, settings, Path(cache))
        cursors = cursors_from(index.snapshot, options.queries)
        result["query"] = measure_queries(index.snapshot, cursors)
        result["search"] = measure_searches(index.snapshot, cursors)
        if not options.no_brute_force:
            result["brute_force"] = compare_with_brute_force(index.snapshot, cursors)
        result["saved_file"] = measure_saves(index, paths[0])
        index.close()
        result["warm"] = measure_warm(paths, settings, Path(cache))
        result["cache_mb"] = size_mb(Path(cache))
    if options.windows:
        plain = IndexSettings(chunking=Chunking(style="window"), workers=options.workers, watch=False)
        windows, seconds = await asyncio.to_thread(start_and_wait, paths, plain, None)
        result["windows"] = {
            "seconds": round(seconds, 1),
            "chunks": windows.snapshot.chunks,
            "query": measure_queries(windows.snapshot, cursors),
        }
        windows.close()
    result["ripgrep_words_s"] = ripgrep_seconds(paths)
    return result


def spread(times: dict[str, float]) -> str:
    clock, cpu = (f"p50 {times[k + 'p50_ms']} ms, p95 {times[k + 'p95_ms']} ms" for k in ("", "cpu_"))
    return f"{clock} (CPU: {cpu})"


def loop_row(loop: dict[str, Any]) -> str:
    return (
        f"{loop['own_longest_ms']} ms, {loop['own_over_10_ms']} over 10 ms (with waiting for a core: "
        f"{loop['longest_ms']} ms, {loop['over_10_ms']} over, p99 {loop['p99_ms']} ms; "
        f"an idle process: {loop['idle_longest_ms']} ms, {loop['idle_over_10_ms']} over)"
    )


def table(result: dict[str, Any]) -> str:
    """Return the figures as a text of several lines."""
    first, saved, query = result["first"], result["saved_file"], result["query"]
    rows = [
        ("machine", f"{result['machine']}; {result['workers']} worker(s)"),
        ("workspace", f"{first['lines']:,} lines, {first['files']:,} files, {first['chunks']:,} chunks"),
        ("load of the machine", f"{first['load_average']:.1f}"),
        (
            "first index",
            f"{first['seconds']} s (CPU: server {first['server_cpu_s']}, workers {first['workers_cpu_s']})",
        ),
        ("  memory of the server's process", f"{first['server_peak_mb']} MB ({first['server_before_mb']} before)"),
        ("  longest delay of the event loop", loop_row(first["event_loop"])),
        ("warm start, until the first query", f"{result['warm']['first_query_s']} s"),
        ("warm start, until all verified", f"{result['warm']['verified_s']} s; {result['cache_mb']} MB on the disk"),
        ("saved change found by a query", f"p50 {saved['p50_ms']} ms, p95 {saved['p95_ms']} ms"),
        ("query, exact top 10", spread(query)),
        ("search at a cursor", spread(result["search"])),
    ]
    if brute := result.get("brute_force"):
        rows.append(("differs from brute force", f"{brute['different']} of {brute['queries']} queries"))
    if windows := result.get("windows"):
        rows.append(("windows: first index", f"{windows['seconds']} s, {windows['chunks']:,} chunks"))
        rows.append(("windows: query", spread(windows["query"])))
    if result["ripgrep_words_s"] is not None:
        rows.append(("ripgrep counting words", f"{result['ripgrep_words_s']} s"))
    return "\n".join(f"{name:36}{value}" for name, value in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--workers", type=int, default=0, help="parsing processes (default: as many as the server has)")
    parser.add_argument("--windows", action="store_true", help="also index with the paper's fixed windows")
    parser.add_argument("--no-brute-force", action="store_true")
    options = parser.parse_args(arguments)
    importlib.import_module("lsp_server.server")  # so that the memory includes the modules that a server loads
    share_interpreter()
    result = asyncio.run(measure([path.absolute() for path in options.paths], options))
    print(json.dumps(result) if options.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
