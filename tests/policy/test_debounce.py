"""How long a request is delayed while the user types, with a simulated clock."""

from __future__ import annotations

from policy.completion.debounce import MAX_DELAY, Debounce


class Typist:
    """A simulated user, who types by a simulated clock, and the debounce that observes the user."""

    def __init__(self) -> None:
        self.now = 100.0
        self.debounce = Debounce(lambda: self.now)

    def keys(self, count: int, interval: float) -> None:
        for _ in range(count):
            self.now += interval
            self.debounce.key()


def test_no_request_is_delayed_before_the_first_measurement() -> None:
    typist = Typist()
    assert typist.debounce.delay() == 0
    typist.keys(10, 0.1)
    assert typist.debounce.delay() == 0


def test_requests_are_not_delayed_if_answers_are_fast() -> None:
    typist = Typist()
    typist.keys(10, 0.12)
    typist.debounce.answered(0.1)
    assert typist.debounce.delay() == 0


def test_requests_are_delayed_if_answers_are_slow() -> None:
    typist = Typist()
    typist.keys(10, 0.08)
    typist.debounce.answered(0.3)
    assert typist.debounce.delay() == 0, "an answer within the time of a few keys delays requests"
    for _ in range(50):
        typist.debounce.answered(3)
    assert 0.07 < typist.debounce.delay() < 0.09
    typist.keys(50, 0.3)
    assert typist.debounce.delay() == MAX_DELAY


def test_pauses_are_not_counted() -> None:
    typist = Typist()
    typist.keys(10, 0.1)
    typist.keys(10, 5)
    typist.debounce.answered(1)
    assert 0.09 < typist.debounce.delay() < 0.11


def test_an_engine_that_has_become_fast_is_noticed() -> None:
    typist = Typist()
    typist.keys(10, 0.1)
    typist.debounce.answered(1.0)
    assert typist.debounce.delay() > 0
    for _ in range(20):
        typist.debounce.answered(0.05)
    assert typist.debounce.delay() == 0
