"""When changes are looked at: times are given, nothing waits."""

from __future__ import annotations

import pytest

from indexer.agenda import BATCH_FILES, Agenda
from indexer.changes import LATEST, MANY, MANY_LATEST, MANY_QUIET, QUIET, Burst, lost_with


@pytest.mark.parametrize(
    ("times", "due"),
    [
        ([0.0], QUIET),
        ([0.0, QUIET / 2], QUIET * 1.5),
        ([n * QUIET / 2 for n in range(30)], LATEST),
        ([0.0] * MANY, MANY_QUIET),
        ([n * MANY_QUIET / 2 for n in range(5_000)], MANY_LATEST),
    ],
    ids=["one save", "written in two steps", "a steady trickle", "many at once", "a branch switch"],
)
def test_a_burst_is_handled_as_one(times: list[float], due: float) -> None:
    burst = Burst()
    for number, time in enumerate(times):
        burst.add(str(number), time)
    assert burst.due() == pytest.approx(due)
    assert burst.take(due - 0.001) == []
    assert burst.take(due + 0.001) == [str(number) for number in range(len(times))]
    assert not burst
    assert burst.due() == float("inf")


def test_what_a_person_did_goes_before_what_a_scan_found() -> None:
    agenda = Agenda()
    places = [("/ws", f"{number}.py") for number in range(2 * BATCH_FILES)]
    agenda.add(places)
    assert agenda.take(lambda place: 1) == places[:BATCH_FILES]
    agenda.hurry([places[-1], places[0]])
    assert agenda.take(lambda place: 1) == [places[-1]]  # the first is in a worker's hands
    agenda.done(places[:BATCH_FILES])
    assert agenda.take(lambda place: 1) == [places[0]]
    assert agenda.take(lambda place: 1) == places[BATCH_FILES:-1]
    assert agenda.take(lambda place: 1) == []
    assert agenda


def test_a_batch_is_limited_by_bytes_too() -> None:
    agenda = Agenda()
    agenda.add([("/ws", "a"), ("/ws", "b"), ("/ws", "c")])
    assert agenda.take(lambda place: 400_000) == [("/ws", "a"), ("/ws", "b")]


@pytest.mark.parametrize(
    ("gone", "lost"),
    [
        ("/ws/pkg", {("/ws", "pkg/a.py"), ("/ws", "pkg/deep/b.py"), ("/ws/pkg/inner", "c.py")}),
        ("/ws/pkg/deep", {("/ws", "pkg/deep/b.py")}),
        ("/ws/pkg/inner", {("/ws/pkg/inner", "c.py")}),
        ("/ws", {("/ws", "d.py"), ("/ws", "pkg/a.py"), ("/ws", "pkg/deep/b.py"), ("/ws/pkg/inner", "c.py")}),
        ("/ws/p", set()),
        ("/ws/pkg/a.py.tmp", set()),
    ],
)
def test_what_a_folder_that_is_gone_takes_along(gone: str, lost: set[tuple[str, str]]) -> None:
    places = [("/ws", "d.py"), ("/ws", "pkg/a.py"), ("/ws", "pkg/deep/b.py"), ("/ws/pkg/inner", "c.py"), ("/", "e.py")]
    assert set(lost_with({gone, "/elsewhere"}, places)) == lost
