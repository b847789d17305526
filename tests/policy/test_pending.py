"""Several requests wait for one pending completion."""

from __future__ import annotations

import asyncio

import pytest

from indexer.model import Cursor
from policy.completion import pending
from policy.completion.pending import PendingCompletion
from policy.errors import EngineDied

BEFORE, AFTER = "x = ", "\n"


def at(typed: str, suffix: str = AFTER) -> Cursor:
    return Cursor("/w/main.py", BEFORE + typed, suffix, "python")


class Engine:
    """A stand-in for an engine. The pending completion gets each text when the test calls `say`."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[str] = asyncio.Queue()
        self.pending: PendingCompletion[str] = PendingCompletion(at(""), "settings", self.make)

    async def make(self, pending: PendingCompletion[str]) -> str:
        text = ""
        while piece := await self._pieces.get():
            text += piece
            pending.report(text)
        return text

    async def say(self, *pieces: str) -> None:
        for piece in pieces:
            self._pieces.put_nowait(piece)
        for _ in range(5):
            await asyncio.sleep(0)


async def test_a_request_that_typed_the_beginning_joins() -> None:
    engine = Engine()
    first = asyncio.create_task(engine.pending.wait())
    await engine.say("fo")
    assert engine.pending.typed(at("foo"), "settings") == "foo"
    second = asyncio.create_task(engine.pending.wait("foo"))
    first.cancel()
    await engine.say("o(", ")", "")
    assert await second == "foo()"


@pytest.mark.parametrize(
    ("cursor", "key"), [(at("fa"), "settings"), (at("foo", "\n\n"), "settings"), (at("foo"), "others")]
)
async def test_requests_that_cannot_join(cursor: Cursor, key: str) -> None:
    engine = Engine()
    await engine.say("fo")
    assert engine.pending.typed(cursor, key) is None
    await engine.pending.cancel_and_wait()


async def test_no_request_joins_before_the_start_or_after_the_end() -> None:
    engine = Engine()
    assert engine.pending.typed(Cursor("/w/main.py", "x =", AFTER, "python"), "settings") is None
    # No text is generated yet, so any typed text may be the beginning of it.
    assert engine.pending.typed(at("anything"), "settings") == "anything"
    await engine.say("1", "")
    assert engine.pending.finished
    assert engine.pending.typed(at(""), "settings") is None


async def test_a_wait_ends_when_the_text_differs() -> None:
    engine = Engine()
    waiting = asyncio.create_task(engine.pending.wait("foo"))
    await engine.say("f")
    assert not waiting.done()
    await engine.say("ar")
    assert await waiting is None
    await engine.pending.cancel_and_wait()


async def test_a_completion_without_requests_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "LINGER", 0.01)
    engine = Engine()
    for _ in range(2):  # the second request arrives before the completion is cancelled, and joins it
        waiting = asyncio.create_task(engine.pending.wait())
        await asyncio.sleep(0)
        assert not engine.pending.urgency.background
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert (engine.pending.urgency.background, engine.pending.finished) == (True, False)
    await asyncio.sleep(0.1)
    assert engine.pending.finished


async def test_a_failure_reaches_every_waiting_request() -> None:
    async def fail(_pending: PendingCompletion[str]) -> str:
        raise ValueError

    with pytest.raises(ValueError):
        await PendingCompletion(at(""), "settings", fail).wait()


async def test_a_background_bug_is_logged_and_an_expected_failure_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(error: Exception) -> str:
        raise error

    for error in (EngineDied("it died"), ValueError("a bug")):
        pending = PendingCompletion[str](at(""), "settings", lambda _, error=error: fail(error))  # type: ignore[misc]
        for _ in range(3):
            await asyncio.sleep(0)
        assert pending.finished
    [record] = caplog.records
    assert record.exc_info is not None and isinstance(record.exc_info[1], ValueError)
