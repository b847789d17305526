"""Which request runs next, without a process or a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from policy.engine.protocol import Message
from policy.engine.worker.scheduler import Scheduler


@dataclass(eq=False)
class Window:
    name: str
    heard: list[Message] = field(default_factory=list)

    def send(self, message: Message) -> None:
        self.heard.append(message)


def ask(number: int, **more: object) -> Message:
    return {"id": number, "op": "read", **more}


class Room:
    """A scheduler, its clients, and what the abort flag was set to."""

    def __init__(self, names: str) -> None:
        self.flags: list[bool] = []
        self.scheduler = Scheduler(self.flags.append)
        self.windows = [Window(name) for name in names]
        for window in self.windows:
            self.scheduler.add(window)

    def take(self) -> str:
        request = self.scheduler.take(0)
        return f"{request.client.name}{request.id}" + "!" * request.cancelled if request else ""

    def all(self) -> list[str]:
        taken = []
        while name := self.take():
            taken.append(name)
            self.scheduler.finish()
        return taken


def test_windows_take_turns() -> None:
    room = Room("ab")
    a, b = room.windows
    for number in (1, 2, 3):
        room.scheduler.put(a, ask(number))
    room.scheduler.put(b, ask(1))
    assert room.all() == ["a1", "b1", "a2", "a3"]
    room.scheduler.put(b, ask(2))
    room.scheduler.put(a, ask(4))
    assert room.all() == ["b2", "a4"], "a was served last"


def test_a_cancellation_means_one_request_of_one_window() -> None:
    room = Room("ab")
    a, b = room.windows
    room.scheduler.put(a, ask(1))
    room.scheduler.put(b, ask(1))
    room.scheduler.put(b, ask(2))
    assert room.take() == "a1"
    room.scheduler.cancel(b, 1)
    assert room.flags == [], "what runs is another's"
    room.scheduler.cancel(a, 1)
    assert room.flags == [True]
    room.scheduler.finish()
    assert room.flags == [True, False]
    assert room.all() == ["b1!", "b2"]
    room.scheduler.cancel(b, 2)
    room.scheduler.put(b, ask(3))
    assert room.all() == ["b3"], "a cancellation of what has ended does not linger"


def test_whoever_leaves_takes_everything_along() -> None:
    room = Room("ab")
    a, b = room.windows
    for number in (1, 2):
        room.scheduler.put(a, ask(number))
    room.scheduler.put(b, ask(1))
    assert room.take() == "a1"
    assert room.scheduler.remove(a, ask(0)) == 1
    assert room.flags == [True], "what it had running is stopped"
    room.scheduler.put(a, ask(3))
    room.scheduler.finish()
    assert room.all() == ["b1", "a0"], "the farewell alone is left"
    assert room.scheduler.remove(b, ask(0)) == 0


def test_the_background_gives_way() -> None:
    room = Room("ab")
    a, b = room.windows
    room.scheduler.put(a, ask(1, background=True))
    room.scheduler.put(a, ask(2))
    assert room.take() == "a2", "even within a window"
    room.scheduler.finish()
    assert room.take() == "a1"
    room.scheduler.put(b, ask(1, background=True))
    assert room.flags == [False], "nothing gives way to another background request"
    room.scheduler.put(b, ask(2))
    assert room.flags == [False, True]
    room.scheduler.finish()
    assert room.all() == ["b2", "b1"]
