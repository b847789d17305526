"""Simulate a completion with a given generated text, and accept what is shown of it."""

from __future__ import annotations

from dataclasses import dataclass

from indexer.model import Cursor
from policy.completion.shape import Shaper


@dataclass(frozen=True)
class Accepted:
    """The result of accepting a completion.

    `text` is the whole file after it, and `shown` the shown text. If `shown` is empty, `reason` says why.
    """

    text: str
    shown: str
    reason: str


def accept(source: str, written: str, language: str, *, complete: bool = True, bodies: bool = True) -> Accepted:
    """Generate `written` at the cursor `‸` in `source`, one character at a time, and accept what is shown of it.

    Fail if the shaper detects the end of the completion early and shows another text than for the whole `written`.
    """
    prefix, suffix = source.split("‸")
    shaper = Shaper(Cursor("/w/file", prefix, suffix, language), bodies=bodies)
    whole = shaper.finish(written, complete=complete)
    for end in range(1, len(written) + 1):
        if shaper.decided(written[:end]):
            early = shaper.finish(written[:end], complete=False)
            assert early.text == whole.text, f"decided too early, at {written[:end]!r}"
            break
    assert bool(whole.text) != bool(whole.reason), "there is neither a text nor a reason, or both"
    return Accepted(prefix + whole.text + suffix, whole.text, whole.reason)
