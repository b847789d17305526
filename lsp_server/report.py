"""A completion and how it came about as plain JSON values: one shape for the command line and for `repoformer/why`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from indexer.model import shown_path

if TYPE_CHECKING:
    from indexer.model import Hit
    from policy.completion.request import Completion
    from policy.gating.keep import Estimate


def completion_report(completion: Completion) -> dict[str, Any]:
    """Fields `text`, `reason` (why it is empty), `decision`, `chunks`, `timings_ms`, `stats`, `trimmed`, `model`,
    `withheld` (why the text was not sent to the server that was to write), `parsed`.

    `parsed` is false where the language has no grammar: only brackets and quotes of the text were checked. `estimate`
    says how likely the text is kept, and from which probability on it is shown; null where the model has no such
    estimate, and shows every text.
    """
    decision = completion.decision
    return {
        "text": completion.text,
        "decision": asdict(decision) if decision else None,
        "chunks": [hit_report(hit) for hit in completion.hits],
        "timings_ms": {stage: round(ms, 2) for stage, ms in completion.timings_ms.items()},
        "stats": dict(completion.stats),
        "trimmed": list(completion.trimmed),
        "model": completion.model,
        "reason": completion.reason,
        "parsed": completion.parsed,
        "estimate": _estimate(completion.estimate),
        "withheld": completion.withheld,
    }


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {"p": round(estimate.p, 4), "threshold": round(estimate.threshold, 4), "shown": estimate.shown}


def hit_report(hit: Hit) -> dict[str, Any]:
    """Where a chunk stands (lines are one-based and inclusive) and how well it fits."""
    chunk = hit.chunk
    return {
        "path": shown_path(chunk.path),
        "start_line": chunk.start_line,
        "end_line": chunk.end_line,
        "score": round(hit.score, 4),
    }


def to_json(value: object) -> str:
    """JSON for standard output: characters as they are where its encoding has them all, escaped elsewhere."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(value, indent=2, ensure_ascii=not unicode)
