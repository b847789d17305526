"""Convert a completion to JSON values, for the command line and for `repoformer/why`."""

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
    """Return fields of `completion` as JSON values. See `policy.completion.request.Completion` for their meaning.

    The field `hits` is called `chunks`. `estimate` has the estimated probability `p` that the user keeps the text, the
    showing `threshold`, whether the text is `shown` automatically, and the setting `suggest`. `estimate` is null for a
    model without estimates, whose texts are all shown.
    """
    decision = completion.decision
    return {
        "text": completion.text,
        "decision": asdict(decision) if decision else None,
        "chunks": [hit_report(hit) for hit in completion.hits],
        "timings_ms": {stage: round(ms, 2) for stage, ms in completion.timings_ms.items()},
        "stats": dict(completion.stats),
        "trimmed": list(completion.trimmed),
        "short_prompt": completion.short_prompt,
        "model": completion.model,
        "reason": completion.reason,
        "parsed": completion.parsed,
        "estimate": _estimate(completion.estimate),
        "withheld": completion.withheld,
    }


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {
        "p": round(estimate.p, 4),
        "threshold": round(estimate.threshold, 4),
        "shown": estimate.shown,
        "suggest": estimate.suggest,
    }


def hit_report(hit: Hit) -> dict[str, Any]:
    """Return the path of a chunk, its first and last line (counted from 1), and its score."""
    chunk = hit.chunk
    return {
        "path": shown_path(chunk.path),
        "start_line": chunk.start_line,
        "end_line": chunk.end_line,
        "score": round(hit.score, 4),
    }


def to_json(value: object) -> str:
    """Return `value` as JSON text for standard output. If its encoding is not UTF-8, the text is ASCII only."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(value, indent=2, ensure_ascii=not unicode)
