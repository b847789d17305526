"""Measure the times of completions in the real server.

    python -m benchmarks.completing WORKSPACE… [--model FILE] [--policy POLICY…] [--context N] [--cursors N] [--keys N]

The cursors are within statements. The *first* request at a place follows immediately after the file is opened, and
evaluates the whole prompt. The request after each *keystroke* evaluates only new tokens, or none if the typed text is
the beginning of the last suggestion. For both kinds of requests, the benchmark prints the median, the mean, the 95th
percentile and the maximum of the times that the server reports. It also prints the number of requests that retrieved,
and the median number of evaluated tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.machine import describe
from benchmarks.our_server import our_server

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


async def measure(
    root: Path, count: int, keys: int, model: str, settings: Mapping[str, object]
) -> dict[str, list[dict[str, Any]]]:
    """Return the answers to `repoformer/why` after each request, by the kind of the request.

    The kinds are "first" and "keystroke". At each of `count` places, up to `keys` keys are typed.
    """
    reports: dict[str, list[dict[str, Any]]] = {"first": [], "keystroke": []}
    async with our_server(root, model, settings, LOADING_SECONDS) as client:
        for path, line, column in cursors(root, count):
            uri, lines = path.as_uri(), path.read_text("utf-8", "replace").split("\n")
            rest = lines[line][column:]
            client.open(uri, "\n".join([*lines[:line], lines[line][:column], *lines[line + 1 :]]))
            await client.complete(uri, (line, column), invoked=False)
            reports["first"].append(await client.why(uri))
            for typed in range(min(keys, len(rest))):
                at = (line, column + typed)
                client.edit(uri, typed + 2, at, at, rest[typed])
                await client.complete(uri, (line, column + typed + 1), invoked=False)
                reports["keystroke"].append(await client.why(uri))
            client.close_document(uri)
    return reports


def summary(reports: list[dict[str, Any]]) -> str:
    """Return the figures of some requests in one line."""
    times = sorted(report["timings_ms"]["total"] for report in reports)
    tokens = sorted(report["stats"].get("evaluated_tokens", 0) for report in reports)
    retrieved = sum(bool(report["decision"] and report["decision"]["retrieve"]) for report in reports)
    return (
        f"{len(times):4} requests  p50 {times[len(times) // 2]:6.0f} ms  mean {fmean(times):6.0f} ms  "
        f"p95 {times[int(len(times) * 0.95)]:6.0f} ms  max {times[-1]:6.0f} ms  "
        f"retrieved {retrieved}  tokens evaluated p50 {tokens[len(tokens) // 2]}"
    )


def main() -> None:
    """Measure each workspace, one after another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.completing", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("workspaces", nargs="+", type=Path, metavar="WORKSPACE")
    parser.add_argument("--cursors", type=int, default=12)
    parser.add_argument("--keys", type=int, default=3, help="keystrokes at each place")
    parser.add_argument("--model", default="", metavar="FILE")
    parser.add_argument("--policy", nargs="+", default=["selective"], choices=("never", "selective", "always"))
    parser.add_argument("--context", type=int, metavar="N", help="the setting contextTokens")
    parser.add_argument("--json", action="store_true", help="print the report of each request")
    options = parser.parse_args()
    print(describe())
    for root in options.workspaces:
        for policy in options.policy:
            # With saved prompts, a second run would not evaluate the prompts of the first requests.
            settings: dict[str, object] = {"policy": policy, "savedPromptsMegabytes": 0}
            if options.context is not None:
                settings["contextTokens"] = options.context
            reports = asyncio.run(measure(root.resolve(), options.cursors, options.keys, options.model, settings))
            for kind, those in reports.items():
                if those and options.json:
                    print(json.dumps({"workspace": root.name, "policy": policy, "kind": kind, "reports": those}))
                elif those:
                    print(f"{root.name:16} {policy:9} {kind:10} {summary(those)}", flush=True)


if __name__ == "__main__":
    main()
