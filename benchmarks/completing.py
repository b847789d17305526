"""`python -m benchmarks.completing WORKSPACE…`: measure the times of completions in the real server.

The cursors are within statements. The *first* request at a place evaluates the whole prompt. The request after each
*keystroke* evaluates only new tokens, or none if the typed text is the beginning of the last suggestion. For both kinds
of requests, the benchmark prints the median, the 95th percentile and the maximum of the times that the server reports.
It also prints the number of requests that retrieved, and the median number of evaluated tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from lsp_server.client import Client

KEYSTROKES = 3  # the number of keystrokes at each place
LOADING_SECONDS = 600  # the time limit for loading the model and indexing the workspace


def cursors(root: Path, count: int, seed: int = 0) -> list[tuple[Path, int, int]]:
    """Return up to `count` places (file, line, column), at most one per file.

    Lines and columns are zero-based. A place is after the first eight characters of an indented line of code.
    """
    chosen = random.Random(seed)
    files = sorted(path for path in root.rglob("*.py") if 4_000 < path.stat().st_size < 200_000)
    places = []
    for path in chosen.sample(files, min(count, len(files))):
        lines = path.read_text("utf-8", "replace").split("\n")
        code = [n for n, line in enumerate(lines) if line.startswith("        ") and len(line.strip()) > 24]
        if code:
            line = chosen.choice(code)
            places.append((path, line, len(lines[line]) - len(lines[line].lstrip()) + 8))
    return places


async def measure(root: Path, count: int, model: str) -> dict[str, list[dict[str, Any]]]:
    """Return the answers to `repoformer/why` after each request, by the kind of the request.

    The kinds are "first" and "keystroke".
    """
    command = [sys.executable, "-m", "lsp_server.cli", *(["--model", model] if model else [])]
    client = await Client.spawn(command)
    await client.initialize([root], encodings=["utf-32"])
    ready = client.seen("repoformer/status", lambda status: status["state"] in {"ready", "error"})
    await asyncio.wait_for(ready, LOADING_SECONDS)
    reports: dict[str, list[dict[str, Any]]] = {"first": [], "keystroke": []}
    for path, line, column in cursors(root, count):
        uri, lines = path.as_uri(), path.read_text("utf-8", "replace").split("\n")
        rest = lines[line][column:]
        client.open(uri, "\n".join([*lines[:line], lines[line][:column], *lines[line + 1 :]]))
        await client.complete(uri, (line, column), invoked=False)
        reports["first"].append(await client.why(uri))
        for typed in range(min(KEYSTROKES, len(rest))):
            at = (line, column + typed)
            client.edit(uri, typed + 2, at, at, rest[typed])
            await client.complete(uri, (line, column + typed + 1), invoked=False)
            reports["keystroke"].append(await client.why(uri))
        client.close_document(uri)
    await client.close()
    return reports


def summary(reports: list[dict[str, Any]]) -> str:
    """Return the figures of some requests in one line."""
    times = sorted(report["timings_ms"]["total"] for report in reports)
    tokens = sorted(report["stats"].get("evaluated_tokens", 0) for report in reports)
    retrieved = sum(bool(report["decision"] and report["decision"]["retrieve"]) for report in reports)
    return (
        f"{len(times):4} requests  p50 {times[len(times) // 2]:6.0f} ms  p95 {times[int(len(times) * 0.95)]:6.0f} ms  "
        f"max {times[-1]:6.0f} ms  retrieved {retrieved}  tokens evaluated p50 {tokens[len(tokens) // 2]}"
    )


def main() -> None:
    """Measure each workspace, one after another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.completing", description=__doc__)
    parser.add_argument("workspaces", nargs="+", type=Path, metavar="WORKSPACE")
    parser.add_argument("--cursors", type=int, default=12)
    parser.add_argument("--model", default="", metavar="FILE")
    options = parser.parse_args()
    print(describe())
    for root in options.workspaces:
        reports = asyncio.run(measure(root.resolve(), options.cursors, options.model))
        for kind, those in reports.items():
            print(f"{root.name:16} {kind:10} {summary(those)}", flush=True)


if __name__ == "__main__":
    main()
