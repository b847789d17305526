"""After a thousand requests, most of them cancelled at random times, the worker is idle and has not leaked memory."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import psutil

from indexer.model import Chunk, Cursor, Hit
from policy.completion.request import CompletionSettings, Request
from policy.completion.service import Completer
from policy.engine.settings import EngineSettings
from policy.engine.supervisor import Supervisor
from policy.gating.decision import Policy

REQUESTS = 1_000
SETTLED = 200  # the number of requests after which the worker's memory is measured
SLACK = 16 << 20  # the limit of the memory that the later requests may add, in bytes
BUDGETS = {"left": 128, "right": 32, "context": 64}
SOURCE = "".join(f"def area_{n}(width, height):\n    return width * height * {n}\n\n\n" for n in range(12))
HIT = Hit(Chunk("/w", "shapes.py", 1, 2, "def area(width, height):\n    return width * height\n", "function"), 0.5)
POLICIES: tuple[Policy, ...] = ("never", "always", "selective")


class Found:
    """A retriever that always finds the same chunk."""

    def search(self, _cursor: Cursor, _count: int) -> tuple[Hit, ...]:
        return (HIT,)


def at(end: int) -> Cursor:
    return Cursor("/w/areas.py", SOURCE[:end], SOURCE[end:], "python")


async def idle(process: psutil.Process) -> None:
    """Wait until a process uses less than 0.05 s of processor time in half a second."""
    while True:
        before = sum(process.cpu_times()[:2])
        await asyncio.sleep(0.5)
        if sum(process.cpu_times()[:2]) - before < 0.05:
            return


async def test_a_storm_of_requests_and_cancellations(model: Path) -> None:
    supervisor = Supervisor(model, EngineSettings(context_size=1024, threads=2), budgets=BUDGETS)
    completer = Completer(supervisor, Found, CompletionSettings(line_tokens=8, block_tokens=8, patience=60))
    last = Request(at(SOURCE.index("    return width * height * 9") + 10), "last", "invoked")
    expected = await completer.complete(last)
    await completer.forget("last")
    assert supervisor.pid is not None
    worker, dice = psutil.Process(supervisor.pid), random.Random(0)
    running: set[asyncio.Task[object]] = set()
    settled = 0
    for number in range(REQUESTS):
        request = Request(
            at(dice.randrange(40, len(SOURCE))),
            f"document {dice.randrange(6)}",
            dice.choice(("automatic", "automatic", "invoked")),
            dice.choice(POLICIES),
        )
        running.add(asyncio.create_task(completer.complete(request)))
        await asyncio.sleep(dice.choice((0, 0, 0.001, 0.01, 0.05)))
        for task in [task for task in running if dice.random() < 0.6]:
            task.cancel()
            running.discard(task)
        if number == SETTLED:
            settled = worker.memory_info().rss
    await asyncio.gather(*running, return_exceptions=True)
    await asyncio.wait_for(idle(worker), 60)
    assert worker.memory_info().rss < settled + SLACK
    again = await completer.complete(last)
    assert (again.text, again.decision, again.hits) == (expected.text, expected.decision, expected.hits)
    await completer.close()
