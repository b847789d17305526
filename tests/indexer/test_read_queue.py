"""The order in which changed files are read. The tests pass the time as an argument, so they do not wait."""

from __future__ import annotations

import pytest

from indexer.debouncer import LATEST, MANY, MANY_LATEST, MANY_QUIET, QUIET, Debouncer, files_in_deleted
from indexer.read_queue import BATCH_FILES, ReadQueue


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
def test_many_changes_are_handled_as_one(times: list[float], due: float) -> None:
    debouncer = Debouncer()
    for number, time in enumerate(times):
        debouncer.add(str(number), time)
    assert debouncer.due() == pytest.approx(due)
    assert debouncer.take(due - 0.001) == []
    assert debouncer.take(due + 0.001) == [str(number) for number in range(len(times))]
    assert not debouncer
    assert debouncer.due() == float("inf")


def test_changes_of_the_user_come_before_files_of_a_scan() -> None:
    waiting = ReadQueue()
    files = [("/ws", f"{number}.py") for number in range(2 * BATCH_FILES)]
    waiting.add(files)
    assert waiting.take_batch(lambda file: 1) == files[:BATCH_FILES]
    waiting.add_first([files[-1], files[0]])
    assert waiting.take_batch(lambda file: 1) == [files[-1]]  # the first file is left out, because a worker reads it
    waiting.finish(files[:BATCH_FILES])
    assert waiting.take_batch(lambda file: 1) == [files[0]]
    assert waiting.take_batch(lambda file: 1) == files[BATCH_FILES:-1]
    assert waiting.take_batch(lambda file: 1) == []
    assert waiting


def test_a_batch_is_limited_by_bytes_too() -> None:
    waiting = ReadQueue()
    waiting.add([("/ws", "a"), ("/ws", "b"), ("/ws", "c")])
    assert waiting.take_batch(lambda file: 400_000) == [("/ws", "a"), ("/ws", "b")]


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
def test_a_deleted_folder_deletes_its_files(gone: str, lost: set[tuple[str, str]]) -> None:
    files = [("/ws", "d.py"), ("/ws", "pkg/a.py"), ("/ws", "pkg/deep/b.py"), ("/ws/pkg/inner", "c.py"), ("/", "e.py")]
    assert set(files_in_deleted({gone, "/elsewhere"}, files)) == lost
