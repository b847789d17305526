"""Accept the text of a fake generator, and return the file that results."""

from __future__ import annotations

from dataclasses import dataclass

from indexer.model import Cursor
from policy.completion.shape import Shaper


@dataclass(frozen=True)
class Accepted:
    """The result: `text` is the whole file with the shown text, `shown` that text, and `reason` why it is empty."""

    text: str
    shown: str
    reason: str


def accept(source: str, written: str, language: str, *, complete: bool = True, bodies: bool = True) -> Accepted:
    """Accept what is shown at `‸` in `source` if a generator writes `written`, one character at a time.

    If the shaper decides early where the completion ends, the shown text must equal that of the whole text.
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
