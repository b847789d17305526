"""Typing a recorded trace into an editor, and what whoever types gets to see of suggestions.

*In time* is the share of keys behind which a suggestion that is not empty was there before the next key was hit;
*nothing to say* that of the keys behind which the answer was there in time, and was that there is nothing to add.
*Seen after* is the time from a key until a suggestion stands on the screen, be it for that key or, where there was none
in time, for a later one: so a key that is never answered costs those who do not answer, and nobody is judged by his
quick answers alone. *ES* compares the first line of what is shown with what is typed next, up to the line's end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from benchmarks.trace import Place
from policy.evaluation.similarity import score

READING = 2.0  # seconds between opening a file and typing in it
STAYING = 2.0  # seconds for which the last suggestion of a place is waited for


@dataclass(slots=True)
class Stroke:
    """A key that was hit, when something was shown for it, and how similar that is to what is typed next.

    `blank`: when the answer was that there is nothing to show.
    """

    hit: float
    rest: str
    shown: float | None = None
    blank: float | None = None
    similarity: float = 0.0


@dataclass(slots=True)
class Screen:
    """What a person sees."""

    strokes: list[Stroke] = field(default_factory=list)

    def show(self, text: str) -> None:
        """A suggestion stands behind the last key, or is known to be an empty one."""
        stroke = self.strokes[-1]
        if not text.strip():
            stroke.blank = stroke.blank or time.perf_counter()
        elif stroke.shown is None:
            stroke.shown = time.perf_counter()
            stroke.similarity = score(text.split("\n")[0], stroke.rest.split("\n")[0]).es


class Editor(Protocol):
    """An editor with one of the systems in it."""

    async def enter(self, place: Place) -> None:
        """Open the file, with the cursor at the place."""

    def key(self, place: Place, typed: str) -> None:
        """A key was hit, and now this stands at the place."""

    async def leave(self, place: Place) -> None:
        """Close the file."""


async def replay(places: Sequence[Place], editor: Editor, screen: Screen) -> None:
    """Type everything."""
    for place in places:
        await editor.enter(place)
        await asyncio.sleep(READING)
        started = time.perf_counter()
        for moment, typed in zip(place.moments(), place.states(), strict=True):
            await asyncio.sleep(max(0.0, started + moment - time.perf_counter()))
            right = place.typed[len(typed) :] if place.typed.startswith(typed) else ""
            screen.strokes.append(Stroke(time.perf_counter(), right))
            editor.key(place, typed)
        await asyncio.sleep(STAYING)
        await editor.leave(place)


def seen(strokes: Sequence[Stroke]) -> dict[str, Any]:
    """What the person at the keyboard had of it."""
    judged = [stroke.similarity for stroke in strokes if stroke.shown is not None and stroke.rest]
    waits, next_shown = [], float("inf")
    for stroke in reversed(strokes):
        next_shown = stroke.shown if stroke.shown is not None else next_shown
        waits.append(next_shown - stroke.hit)
    following = [*[stroke.hit for stroke in strokes[1:]], float("inf")]
    in_time = [s for s, until in zip(strokes, following, strict=True) if s.shown is not None and s.shown < until]
    blank = [s for s, until in zip(strokes, following, strict=True) if s.blank is not None and s.blank < until]
    return {
        "keys": len(strokes),
        "in_time": round(len(in_time) / len(strokes), 3),
        "nothing_to_say": round(len(blank) / len(strokes), 3) or None,  # not everybody says so
        "seen_after": spread(waits),
        "es": round(float(np.mean(judged)), 1) if judged else None,
    }


def spread(seconds: Sequence[float]) -> dict[str, float] | None:
    """p50 and p95 in milliseconds, of values that may be infinite; None of none."""
    if not seconds:
        return None
    ranked = sorted(seconds)
    p50, p95 = (ranked[min(len(ranked) - 1, int(len(ranked) * share))] * 1e3 for share in (0.5, 0.95))
    return {"p50_ms": round(p50, 1), "p95_ms": round(p95, 1), "n": len(ranked)}
