"""When a request is held back, by a clock of our own."""

from __future__ import annotations

from policy.completion.debounce import LONGEST_DELAY, Debounce


class Typist:
    """Somebody who types, by their own clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.debounce = Debounce(lambda: self.now)

    def keys(self, count: int, interval: float) -> None:
        for _ in range(count):
            self.now += interval
            self.debounce.key()


def test_nothing_is_held_back_before_anything_was_measured() -> None:
    typist = Typist()
    assert typist.debounce.delay() == 0
    typist.keys(10, 0.1)
    assert typist.debounce.delay() == 0


def test_an_answer_that_comes_before_the_next_key_is_not_held_back() -> None:
    typist = Typist()
    typist.keys(10, 0.12)
    typist.debounce.answered(0.1)
    assert typist.debounce.delay() == 0


def test_an_answer_that_would_come_too_late_waits_for_a_pause() -> None:
    typist = Typist()
    typist.keys(10, 0.08)
    typist.debounce.answered(0.3)
    assert typist.debounce.delay() == 0, "it is late, but some keys agree with what is being written"
    for _ in range(50):
        typist.debounce.answered(3)
    assert 0.07 < typist.debounce.delay() < 0.09
    typist.keys(50, 0.3)
    assert typist.debounce.delay() == LONGEST_DELAY


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
