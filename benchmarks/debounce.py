"""Measure what a delay of requests saves and costs, with simulated engines.

    python -m benchmarks.debounce FOLDER [--places N] [--seed N]

The completer delays requests if the user types more than `policy.completion.debounce.KEYS_PER_ANSWER` keys during an
answer. For several speeds of an engine and several values of this constant, the benchmark prints the share of keys that
are answered in time, and the seconds for which the engine worked. The keys come from a trace (`benchmarks.trace`).

The completer is the real one. The engine only sleeps for the time of a reading or a generation, and performs one
request at a time, so the result does not depend on the machine. `PACES` has its speeds, and `RIGHT` is the share of its
texts that are correct.
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
# The speeds of the engines: the seconds to read a prompt, and the seconds to generate a token of four characters.
PACES = (
    (0.02, 0.008),
    (0.06, 0.02),
    (0.3, 0.03),
)
WIRE = 0.003  # the seconds from a key until the completer receives the request


class Generation:
    """A simulated generation of a given text."""

    model = "none"
    model_ms = 0.0
    prompt = PromptStats(300, 3, 0, False, False, (), 0.0, 0.0)

    def __init__(self, engine: Engine, text: str) -> None:
        self._engine = engine
        self._text = text
        self.tokens = 0
        self.ended = False

    async def pieces(self) -> AsyncGenerator[tuple[int, str]]:
        """Yield (candidate, text) for each token. The only candidate is 0, and a token has four characters."""
        async with self._engine.turn:
            for start in range(0, len(self._text), 4):
                await self._engine.work(self._engine.pace[1])
                self.tokens += 1
                yield 0, self._text[start : start + 4]
            self.ended = True


class Engine:
    """A simulated engine that knows the text that the user types, and generates it with the probability `RIGHT`."""

    def __init__(self, pace: tuple[float, float]) -> None:
        self.pace = pace
        self.turn = asyncio.Lock()
        self.busy = 0.0
        self.place: Place | None = None
        self._dice = random.Random(0)

    async def work(self, seconds: float) -> None:
        """Sleep for the given seconds, and add them to `busy`."""
        self.busy += seconds
        await asyncio.sleep(seconds)

    async def read(self, *_: object, **__: object) -> Reading:
        """Return a reading whose decision is to abstain."""
        async with self.turn:
            await self.work(self.pace[0])
        return Reading(0.0, False, 0.5, 1.0, 300, 3, 0.0, 0.0)

    warm = read

    def generate(self, request: GenerationRequest, _urgency: object = None) -> Generation:
        """Generate the rest of the line that the user types, or a wrong text.

        The wrong text may begin with the first characters of the rest.
        """
        assert self.place is not None
        typed = request.cursor.prefix[len(self.place.prefix) :]
        line = self.place.typed[len(typed) :].partition("\n")[0] if self.place.typed.startswith(typed) else ""
        right = line and self._dice.random() < RIGHT
        return Generation(self, line + "\n" if right else line[: self._dice.choice((0, 0, 2, 5))] + WRONG)


class Typing:
    """An editor that sends a request to the completer for each key, and cancels the previous request."""

    def __init__(self, engine: Engine, completer: Completer, screen: Screen) -> None:
        self._engine = engine
        self._completer = completer
        self._screen = screen
        self._request: asyncio.Task[None] | None = None

    async def enter(self, place: Place) -> None:
        """Let the engine know the text that is typed at a place."""
        self._engine.place = place

    def key(self, place: Place, typed: str) -> None:
        """Cancel the previous request and send a new one."""
        if self._request:
            self._request.cancel()
        self._request = asyncio.create_task(self._send(place, typed))

    async def leave(self, place: Place) -> None:
        """Cancel the last request."""
        if self._request:
            self._request.cancel()

    async def _send(self, place: Place, typed: str) -> None:
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
        f"delayed from {debounce.KEYS_PER_ANSWER:5.1f} keys per answer: "
        f"in time {result['in_time']:.0%}, visible after p50 {wait['p50_ms']} ms, p95 {wait['p95_ms']} ms, "
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
