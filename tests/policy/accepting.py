"""Accept what a fake generator writes, and look at the file that comes of it."""

from __future__ import annotations

from dataclasses import dataclass

from indexer.model import Cursor
from policy.completion.shape import Shaper


@dataclass(frozen=True)
class Accepted:
    """`text` is the whole file with what was shown, `shown` that alone, `reason` why it is empty."""

    text: str
    shown: str
    reason: str


def accept(source: str, written: str, language: str, *, complete: bool = True, bodies: bool = True) -> Accepted:
    """Accept at `‸` in `source` what is shown when a generator writes `written` a character at a time.

    Where the shaper says early that the outcome is decided, that must be the outcome of the whole text.
    """
    prefix, suffix = source.split("‸")
    shaper = Shaper(Cursor("/w/file", prefix, suffix, language), bodies=bodies)
    whole = shaper.finish(written, complete=complete)
    for end in range(1, len(written) + 1):
        if shaper.decided(written[:end]):
            early = shaper.finish(written[:end], complete=False)
            assert early.text == whole.text, f"decided too early, at {written[:end]!r}"
            break
    assert bool(whole.text) != bool(whole.reason), "there is a text or a reason"
    return Accepted(prefix + whole.text + suffix, whole.text, whole.reason)
