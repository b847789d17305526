"""When to begin: what holding requests back costs and saves, with engines that only wait.

    python -m benchmarks.debounce FOLDER [--places N] [--seed N]

The real completer, a recorded trace (`benchmarks.trace`), and an engine that reads and writes by sleeping, one thing at
a time: so a minute of typing is a minute whatever the machine does, and nothing is claimed of a model but its pace and
that `RIGHT` of its texts are what is typed next. Prints for each pace, and for how many keys an answer may take before
requests are delayed (`policy.completion.debounce.KEYS_PER_ANSWER`), the keys answered in time and the seconds that the
engine worked.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.machine import describe
from benchmarks.screen import Screen, replay, seen
from benchmarks.trace import Place, record
from indexer.model import Cursor
from policy.completion import debounce
from policy.completion.request import CompletionSettings, Request
from policy.completion.service import Completer
from policy.engine.messages import GenerationRequest, PromptStats, Reading

RIGHT = 0.4
WRONG = "other_name(first, second)\n"
KEYS_PER_ANSWER = (1.5, 3.0, 6.0, 100.0)
PACES = ((0.02, 0.008), (0.06, 0.02), (0.3, 0.03))  # seconds to read, and for a token (of four characters)
WIRE = 0.003  # seconds from the key to the completer


class Generation:
    """Writes a text it was given."""

    model = "none"
    model_ms = 0.0
    prompt = PromptStats(300, 3, 0, False, False, (), 0.0, 0.0)

    def __init__(self, engine: Engine, text: str) -> None:
        self._engine = engine
        self._text = text
        self.tokens = 0
        self.ended = False

    async def pieces(self) -> AsyncGenerator[tuple[int, str]]:
        """Four characters after the other."""
        async with self._engine.turn:
            for start in range(0, len(self._text), 4):
                await self._engine.work(self._engine.pace[1])
                self.tokens += 1
                yield 0, self._text[start : start + 4]
            self.ended = True


class Engine:
    """Knows the place, and is right now and then."""

    def __init__(self, pace: tuple[float, float]) -> None:
        self.pace = pace
        self.turn = asyncio.Lock()
        self.busy = 0.0
        self.place: Place | None = None
        self._dice = random.Random(0)

    async def work(self, seconds: float) -> None:
        """Do nothing for as long as it would take."""
        self.busy += seconds
        await asyncio.sleep(seconds)

    async def read(self, *_: object) -> Reading:
        """It never retrieves."""
        async with self.turn:
            await self.work(self.pace[0])
        return Reading(0.0, False, 0.5, 1.0, 300, 3, 0.0, 0.0)

    warm = read

    def generate(self, request: GenerationRequest, _urgency: object = None) -> Generation:
        """The rest of the line, or something that begins like it at best."""
        assert self.place is not None
        typed = request.cursor.prefix[len(self.place.prefix) :]
        line = self.place.typed[len(typed) :].partition("\n")[0] if self.place.typed.startswith(typed) else ""
        right = line and self._dice.random() < RIGHT
        return Generation(self, line + "\n" if right else line[: self._dice.choice((0, 0, 2, 5))] + WRONG)


class Typing:
    """Asks as editors do: the older request is cancelled for the newer one."""

    def __init__(self, engine: Engine, completer: Completer, screen: Screen) -> None:
        self._engine = engine
        self._completer = completer
        self._screen = screen
        self._asked: asyncio.Task[None] | None = None

    async def enter(self, place: Place) -> None:
        """Begin somewhere."""
        self._engine.place = place

    def key(self, place: Place, typed: str) -> None:
        """Ask anew."""
        if self._asked:
            self._asked.cancel()
        self._asked = asyncio.create_task(self._ask(place, typed))

    async def leave(self, place: Place) -> None:
        """Ask no more."""
        if self._asked:
            self._asked.cancel()

    async def _ask(self, place: Place, typed: str) -> None:
        await asyncio.sleep(WIRE)
        cursor = Cursor(str(place.path), place.prefix + typed, place.suffix, place.language)
        self._screen.show((await self._completer.complete(Request(cursor, str(place.path)))).text)


async def measure(places: Sequence[Place], pace: tuple[float, float]) -> str:
    engine, screen = Engine(pace), Screen()

    async def running() -> Engine:
        return engine

    supervisor: Any = SimpleNamespace(
        engine=running, info=SimpleNamespace(metadata={}, selective=True), close=running, state="ready"
    )
    completer = Completer(supervisor, lambda: None, CompletionSettings())
    await replay(places, Typing(engine, completer, screen), screen)
    await completer.close()
    result, (read, token) = seen(screen.strokes), pace
    wait = result["seen_after"]
    return (
        f"read {read * 1e3:3.0f} ms, token {token * 1e3:2.0f} ms, "
        f"delayed from {debounce.KEYS_PER_ANSWER:5.1f} keys an answer on: "
        f"in time {result['in_time']:.0%}, seen after p50 {wait['p50_ms']} ms, p95 {wait['p95_ms']} ms, "
        f"busy {engine.busy:.0f} s"
    )


async def measure_all(places: Sequence[Place]) -> None:
    for debounce.KEYS_PER_ANSWER in KEYS_PER_ANSWER:
        for line in await asyncio.gather(*(measure(places, pace) for pace in PACES)):
            print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.debounce", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--places", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print(describe())
    asyncio.run(measure_all(record(options.folder.resolve(), options.places, 45, options.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
