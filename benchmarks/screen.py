"""Type a recorded trace into an editor, and measure which suggestions the user sees.

The figures are:

- *In time*: the share of keys after which a suggestion that is not empty was visible before the next key.
- *Nothing to say*: the share of keys after which an empty answer arrived before the next key.
- *Visible after*: the time from a key until a suggestion is visible, for this key or a later one. Keys without an
  answer count too, so that a system that answers only a few keys does not seem fast.
- *Pauses*: the share of pauses (`trace.PAUSE` seconds or more between two keys) that end with a visible suggestion, and
  the time from the key before the pause until the suggestion is visible. A pause without a suggestion has an infinite
  time. *Answered pauses* also count pauses that end with an empty answer.
- *Kept*: the share of the typed characters that a visible suggestion showed correctly before they were typed.
- *ES*: the edit similarity, from 0 to 100, of the suggestion's first line to the text that is still to type on the
  line.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from benchmarks.trace import PAUSE, Place
from policy.evaluation.similarity import score

READING = 2.0  # the seconds from opening a file to the first key
STAYING = 2.0  # the seconds from the last key at a place to closing the file


@dataclass(slots=True)
class Stroke:
    """A typed key, and the first answer to it.

    `place` is the number of the place, and `pauses` says whether the user pauses after this key. `hit`, `shown` and
    `blank` are times in seconds: of the key, of a suggestion, and of an empty answer. `rest` is the text that is still
    to type; after a wrong key, it is empty. `similarity` is the ES of the suggestion, and `correct` is the number of
    its first characters that agree with `rest`.
    """

    place: int
    pauses: bool
    hit: float
    rest: str
    shown: float | None = None
    blank: float | None = None
    similarity: float = 0.0
    correct: int = 0


@dataclass(slots=True)
class Screen:
    """Records what the user sees after each key."""

    strokes: list[Stroke] = field(default_factory=list)

    def show(self, text: str) -> None:
        """Record that the answer `text` to the last key is visible. An empty text is an answer without a suggestion."""
        stroke = self.strokes[-1]
        if not text.strip():
            stroke.blank = stroke.blank or time.perf_counter()
        elif stroke.shown is None:
            stroke.shown = time.perf_counter()
            stroke.similarity = score(text.split("\n")[0], stroke.rest.split("\n")[0]).es
            stroke.correct = _agreeing(text, stroke.rest)


class Editor(Protocol):
    """An editor that uses one of the measured systems, such as this project's server."""

    async def enter(self, place: Place) -> None:
        """Open the file of a place, with the cursor at the place."""

    def key(self, place: Place, typed: str) -> None:
        """Handle a key. `typed` is all the text typed at the place so far, this key included."""

    async def leave(self, place: Place) -> None:
        """Close the file of a place."""


async def replay(places: Sequence[Place], editor: Editor, screen: Screen) -> None:
    """Type the keys of all places into `editor`, at the times that the trace has for them."""
    for number, place in enumerate(places):
        await editor.enter(place)
        await asyncio.sleep(READING)
        started = time.perf_counter()
        later = [key.after >= PAUSE for key in place.keys[1:]]
        for moment, typed, pauses in zip(place.moments(), place.states(), [*later, False], strict=True):
            await asyncio.sleep(max(0.0, started + moment - time.perf_counter()))
            right = place.typed[len(typed) :] if place.typed.startswith(typed) else ""
            screen.strokes.append(Stroke(number, pauses, time.perf_counter(), right))
            editor.key(place, typed)
        await asyncio.sleep(STAYING)
        await editor.leave(place)


def seen(strokes: Sequence[Stroke]) -> dict[str, Any]:
    """Return the figures that the module's docstring defines, for all keys of a trace."""
    similarities = [stroke.similarity for stroke in strokes if stroke.shown is not None and stroke.rest]
    waits, next_shown = [], float("inf")
    for stroke in reversed(strokes):
        next_shown = stroke.shown if stroke.shown is not None else next_shown
        waits.append(next_shown - stroke.hit)
    following = [*[stroke.hit for stroke in strokes[1:]], float("inf")]
    in_time = [s for s, until in zip(strokes, following, strict=True) if s.shown is not None and s.shown < until]
    pauses = [(stroke, until) for stroke, until in zip(strokes, following, strict=True) if stroke.pauses]
    pause_times = [
        (stroke.shown or end) - stroke.hit if _until(stroke.shown, end) else float("inf") for stroke, end in pauses
    ]
    blank = [s for s, until in zip(strokes, following, strict=True) if s.blank is not None and s.blank < until]
    return {
        "keys": len(strokes),
        "in_time": round(len(in_time) / len(strokes), 3),
        "pauses": len(pauses),
        "pauses_shown": _share(sum(_until(stroke.shown, end) for stroke, end in pauses), len(pauses)),
        "pauses_answered": _share(
            sum(_until(stroke.shown, end) or _until(stroke.blank, end) for stroke, end in pauses), len(pauses)
        ),
        "pause_shown_after": spread(pause_times),
        "kept": kept(in_time, strokes),
        "nothing_to_say": round(len(blank) / len(strokes), 3) or None,  # llama.vim reports no empty answers
        "seen_after": spread(waits),
        "es": round(float(np.mean(similarities)), 1) if similarities else None,
    }


def kept(in_time: Sequence[Stroke], strokes: Sequence[Stroke]) -> float:
    """Return the share of the typed characters that a suggestion `in_time` showed correctly before they were typed."""
    # A character is identified by its distance from the end of the text of its place.
    typed = {(stroke.place, len(stroke.rest)) for stroke in strokes if stroke.rest}
    shown = {(stroke.place, len(stroke.rest) - number) for stroke in in_time for number in range(stroke.correct)}
    return _share(len(shown & typed), len(typed))


def _agreeing(text: str, other: str) -> int:
    """Return the number of leading characters that the two texts share."""
    return next((at for at, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))


def _until(moment: float | None, end: float) -> bool:
    return moment is not None and moment < end


def _share(part: int, whole: int) -> float:
    return round(part / max(1, whole), 3)


def spread(seconds: Sequence[float]) -> dict[str, float] | None:
    """Return the median and the 95th percentile in milliseconds, or None for an empty sequence.

    The result can be infinite, because a key without an answer has an infinite time.
    """
    if not seconds:
        return None
    ranked = sorted(seconds)
    p50, p95 = (ranked[min(len(ranked) - 1, int(len(ranked) * share))] * 1e3 for share in (0.5, 0.95))
    return {"p50_ms": round(p50, 1), "p95_ms": round(p95, 1), "n": len(ranked)}
