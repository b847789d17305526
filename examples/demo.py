"""The demonstration: run the real server over stdio, as an editor does, on the sample workspace in this folder.

At each cursor of `cursors.json`, the text to complete is removed from the document, and the server is asked for a
completion. The printed details are the server's answer to `repoformer/why`. The exit status is 1 if a completion is
empty, or if no completion retrieved.
"""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsp_server.client import Client
from lsp_server.text import Change, Document, Position

HERE = Path(__file__).resolve().parent
WORKSPACE = HERE / "workspace"
LANGUAGES = {".py": "python", ".ts": "typescript"}
LOADING_SECONDS = 300


@dataclass(frozen=True)
class Spot:
    """A cursor: a file, and the zero-based range of the text that is removed."""

    file: Path
    start: Position
    end: Position
    why: str

    @classmethod
    def read(cls, row: dict[str, str]) -> Spot:
        """Read a row of `cursors.json`. `at` is FILE:LINE:COLUMN and `until` is LINE:COLUMN, counted from 1."""
        name, line, column = row["at"].rsplit(":", 2)
        end_line, end_column = row["until"].split(":")
        return cls(
            WORKSPACE / name,
            (int(line) - 1, int(column) - 1),
            (int(end_line) - 1, int(end_column) - 1),
            row["why"],
        )


async def main() -> int:
    """Complete at every cursor and print the results. Return the exit status."""
    spots = [Spot.read(row) for row in json.loads((HERE / "cursors.json").read_text("utf-8"))]
    print(f"starting the server on {WORKSPACE}")
    client = await Client.spawn([sys.executable, "-m", "lsp_server.cli"])
    await client.initialize([WORKSPACE], encodings=["utf-32"])
    ready = client.seen("repoformer/status", lambda status: status["state"] in {"ready", "error"})
    status = await asyncio.wait_for(ready, LOADING_SECONDS)
    print(f"{status['state']}: {status['model']}")
    reports = [await complete(client, spot) for spot in spots]
    await client.close()
    empty = sum(not report["text"] for report in reports)
    retrieved = sum(report["decision"]["retrieve"] for report in reports)
    print(f"\n{len(reports) - empty} of {len(reports)} cursors completed, {retrieved} with code from other files")
    return 1 if empty or not retrieved else 0


async def complete(client: Client, spot: Spot) -> dict[str, Any]:
    """Open the file without the text at the cursor, complete there, and print and return the report."""
    uri = spot.file.as_uri()
    whole = Document.of(uri, spot.file.read_text("utf-8"))
    taken = whole.apply([Change("", spot.start, spot.end)], 1, "utf-32")
    client.open(uri, taken.text, LANGUAGES[spot.file.suffix])
    await client.complete(uri, spot.start)
    report = await client.why(uri)
    client.close_document(uri)
    before, after = taken.around(taken.locate(spot.start, "utf-32"))
    show(spot, before, after, report)
    return report


def show(spot: Spot, before: str, after: str, report: dict[str, Any]) -> None:
    """Print one completion and how it was made."""
    place = f"{spot.file.relative_to(WORKSPACE).as_posix()}:{spot.start[0] + 1}:{spot.start[1] + 1}"
    print(f"\n── {place}  ({spot.why})")
    text = report["text"] or f"(nothing: {report['reason']})"
    print(textwrap.indent(f"{before}‸{text}‸{after}", "   │ "))
    decision = report["decision"]
    sign, verdict = (">", "retrieved") if decision["retrieve"] else ("≤", "not retrieved")
    gate = "" if decision["source"] == "token" else f", decided by {decision['source']}"
    print(f"   P(retrieve) {decision['p_retrieve']:.3f} {sign} threshold {decision['threshold']:.3f}: {verdict}{gate}")
    for chunk in report["chunks"]:
        print(f"     {chunk['score']:.3f}  {chunk['path']}:{chunk['start_line']}-{chunk['end_line']}")
    print("   ms: " + ", ".join(f"{stage} {ms:.1f}" for stage, ms in report["timings_ms"].items()))
    print("   tokens: " + ", ".join(f"{name.removesuffix('_tokens')} {n}" for name, n in report["stats"].items()))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
