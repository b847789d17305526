"""The scheduler: which request runs next. The tests need no engine."""

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


class Simulation:
    """A scheduler with simulated clients. `flags` has the values that the scheduler gave the abort flag, in order."""

    def __init__(self, names: str) -> None:
        self.flags: list[bool] = []
        self.scheduler = Scheduler(self.flags.append)
        self.clients = [Window(name) for name in names]
        for client in self.clients:
            self.scheduler.add(client)

    def take(self) -> str:
        request = self.scheduler.take(0)
        return f"{request.client.name}{request.id}" + "!" * request.cancelled if request else ""

    def all(self) -> list[str]:
        taken = []
        while name := self.take():
            taken.append(name)
            self.scheduler.finish()
        return taken


def test_clients_take_turns() -> None:
    simulation = Simulation("ab")
    a, b = simulation.clients
    for number in (1, 2, 3):
        simulation.scheduler.put(a, ask(number))
    simulation.scheduler.put(b, ask(1))
    assert simulation.all() == ["a1", "b1", "a2", "a3"]
    simulation.scheduler.put(b, ask(2))
    simulation.scheduler.put(a, ask(4))
    assert simulation.all() == ["b2", "a4"], "the client that was served last is served first"


def test_a_cancellation_ends_one_request_of_one_client() -> None:
    simulation = Simulation("ab")
    a, b = simulation.clients
    simulation.scheduler.put(a, ask(1))
    simulation.scheduler.put(b, ask(1))
    simulation.scheduler.put(b, ask(2))
    assert simulation.take() == "a1"
    simulation.scheduler.cancel(b, 1)
    assert simulation.flags == [], "a client cancels the running request of another client"
    simulation.scheduler.cancel(a, 1)
    assert simulation.flags == [True]
    simulation.scheduler.finish()
    assert simulation.flags == [True, False]
    assert simulation.all() == ["b1!", "b2"]
    simulation.scheduler.cancel(b, 2)
    simulation.scheduler.put(b, ask(3))
    assert simulation.all() == ["b3"], "the cancellation of a finished request affects a later one"


def test_a_client_that_disconnects_loses_its_requests() -> None:
    simulation = Simulation("ab")
    a, b = simulation.clients
    for number in (1, 2):
        simulation.scheduler.put(a, ask(number))
    simulation.scheduler.put(b, ask(1))
    assert simulation.take() == "a1"
    assert simulation.scheduler.remove(a, ask(0)) == 1
    assert simulation.flags == [True], "the running request of a disconnected client is not stopped"
    simulation.scheduler.put(a, ask(3))
    simulation.scheduler.finish()
    assert simulation.all() == ["b1", "a0"], "of client a, not only the message about its disconnection is left"
    assert simulation.scheduler.remove(b, ask(0)) == 0


def test_background_requests_are_interrupted() -> None:
    simulation = Simulation("ab")
    a, b = simulation.clients
    simulation.scheduler.put(a, ask(1, background=True))
    simulation.scheduler.put(a, ask(2))
    assert simulation.take() == "a2", "a background request runs before another request of the same client"
    simulation.scheduler.finish()
    assert simulation.take() == "a1"
    simulation.scheduler.put(b, ask(1, background=True))
    assert simulation.flags == [False], "a background request interrupts another one"
    simulation.scheduler.put(b, ask(2))
    assert simulation.flags == [False, True]
    simulation.scheduler.finish()
    assert simulation.all() == ["b2", "b1"]
