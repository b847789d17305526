"""Unusual files and failures of the machine do not affect the rest of the index."""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from indexer import worker
from indexer.chunking import Chunking
from indexer.document import DamagedRecord, Extract
from indexer.extract import extract
from indexer.folder import Folder, LoadedFile
from indexer.rules import Entry, Reason, Rules
from indexer.settings import IndexSettings
from indexer.store import MAX_AGE_DAYS, Store, delete_old_indexes
from indexer.workspace import Progress, WorkspaceIndex

# The number of times that a test kills the indexing process. For a long run:
# KILLS=200 python -m pytest tests/indexer/test_bad_input.py -k kill --timeout 0
KILLS = int(os.environ.get("KILLS", "5"))
Open = Callable[..., WorkspaceIndex]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "ws"
    root.mkdir()
    (root / "good.py").write_text("def good(thing):\n    return thing\n")
    return root


@pytest.fixture
def open_index(root: Path, tmp_path: Path) -> Iterator[Open]:
    """Return a function that opens an index of the workspace and waits until it is complete.

    The index is closed after the test.
    """
    opened: list[WorkspaceIndex] = []

    def start(
        watch: bool = False, on_progress: Callable[[Progress], None] | None = None, **kwargs: object
    ) -> WorkspaceIndex:
        settings = IndexSettings(watch=watch, workers=1, **kwargs)  # type: ignore[arg-type]
        index = WorkspaceIndex([root], settings, cache_dir=tmp_path / "cache", on_progress=on_progress)
        opened.append(index)
        index.start()
        assert index.wait_idle(120)
        return index

    yield start
    for index in opened:
        index.close()


def paths(index: WorkspaceIndex) -> set[str]:
    assert index.wait_idle(120)
    return {chunk.path for chunk in index.snapshot.all_chunks()}


def test_files_without_source(root: Path, open_index: Open) -> None:
    (root / "nul.py").write_bytes(b"x = 1\0\n")
    (root / "latin.py").write_bytes("név = 'érték'\n".encode("latin-1"))
    (root / "undecodable.py").write_bytes(b"x = '" + bytes([0xFF, 0xFE, 0x80]) * 20 + b"'\n")
    (root / "line.py").write_bytes(b"x = '" + b"y" * 900_000 + b"'\n")
    with (root / "huge.py").open("wb") as file:
        file.truncate(200_000_000)
    (root / "long.py").write_text("x = 1\n" * 150_000)
    (root / "deep.py").write_text("(" * 100_000 + ")" * 100_000 + "\n")
    (root / "nested.py").write_text("\n".join("[" for _ in range(20_000)) + "\n")
    (root / "Case.py").write_text("upper = 1\n")
    (root / "case.py").write_text("lower = 1\n")
    assert paths(open_index()) == {
        "good.py", "latin.py", "undecodable.py", "long.py", "nested.py", "Case.py", "case.py"
    }  # fmt: skip


@pytest.mark.parametrize("ending", ["\r", "\r\n"])
def test_files_with_each_line_end_have_the_same_chunks(root: Path, open_index: Open, ending: str) -> None:
    lines = [f"def f{number}(width):\n    return width * {number}\n" for number in range(100)]
    (root / "lf.py").write_bytes("\n".join(lines).encode())
    (root / "other.py").write_bytes("\n".join(lines).replace("\n", ending).encode())
    index = open_index()
    assert paths(index) == {"good.py", "lf.py", "other.py"}
    chunks = [replace(chunk, path="") for chunk in index.snapshot.all_chunks() if chunk.path == "lf.py"]
    assert [replace(chunk, path="") for chunk in index.snapshot.all_chunks() if chunk.path == "other.py"] == chunks


def test_a_file_of_a_million_lines(root: Path, open_index: Open) -> None:
    (root / "million.py").write_text("value = 1\n" * 1_000_000)
    index = open_index(max_file_bytes=20_000_000)
    assert max(chunk.end_line for chunk in index.snapshot.all_chunks()) == 1_000_000


def test_a_folder_without_permission(
    root: Path, open_index: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    closed = root / "closed"
    closed.mkdir(mode=0)

    def scandir(path: Path) -> object:
        if path == closed:  # simulated, because root can read every folder
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return os_scandir(path)

    os_scandir = os.scandir
    monkeypatch.setattr("indexer.rules.os.scandir", scandir)
    try:
        index = open_index()
        index.rescan()
        assert paths(index) == {"good.py"}
        assert sum("closed" in record.message for record in caplog.records) == 1
    finally:
        closed.chmod(0o700)


def test_a_path_that_cannot_be_checked_does_not_stop_the_others(
    root: Path, open_index: Open, caplog: pytest.LogCaptureFixture
) -> None:
    index = open_index()
    long = root / ("d" * 300) / "x.py"
    (root / "later.py").write_text("def later(): pass\n")
    index.set_buffer(long, "def in_a_buffer(): pass\n", "python")
    index.touch([long, root / "later.py"])
    assert paths(index) == {"good.py", "later.py", f"{'d' * 300}/x.py"}
    index.set_buffer(long, None)
    assert paths(index) == {"good.py", "later.py"}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_error_for_one_file_does_not_stop_the_others(
    root: Path, open_index: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def why_not(rules: Rules, path: str, **kwargs: str) -> Reason | None:
        if path == "bad.py":
            raise RuntimeError("a bug")
        return checked(rules, path, **kwargs)

    checked = Rules.why_not
    monkeypatch.setattr(Rules, "why_not", why_not)
    (root / "bad.py").write_text("def bad(): pass\n")
    (root / "later.py").write_text("def later(): pass\n")
    index = open_index()
    assert paths(index) == {"good.py", "later.py"}
    assert "a bug" in caplog.text
    monkeypatch.undo()
    index.rescan()
    assert paths(index) == {"good.py", "later.py", "bad.py"}


def test_a_missing_workspace(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index = WorkspaceIndex([tmp_path / "gone"], IndexSettings(workers=1))
    index.start()
    try:
        assert index.wait_idle(60)
        assert index.snapshot.files == 0
        assert any("gone" in record.message for record in caplog.records)
    finally:
        index.close()


def test_a_file_deleted_before_it_is_read(root: Path) -> None:
    outcome = worker.perform(worker.Task(str(root), "vanished.py", IndexSettings().chunking, 1_000))
    assert outcome.reason is not None
    assert outcome.reason.rule == "missing"


def test_a_worker_that_dies_is_replaced(root: Path, open_index: Open) -> None:
    index = open_index()
    workers = [child for child in psutil.Process().children() if "indexer.worker" in " ".join(child.cmdline())]
    assert workers
    for child in workers:
        child.kill()
    (root / "later.py").write_text("def later(): pass\n")
    index.touch([root / "later.py"])
    assert paths(index) == {"good.py", "later.py"}


@pytest.mark.parametrize("damage", [b"", b"not a database at all" * 100, None])
def test_a_damaged_or_newer_saved_index_is_rebuilt(
    root: Path, tmp_path: Path, open_index: Open, damage: bytes | None
) -> None:
    open_index().close()
    (saved,) = (tmp_path / "cache").glob("*.sqlite3")
    if damage is None:
        with sqlite3.connect(saved) as connection:
            connection.execute("PRAGMA user_version = 999")
        connection.close()
    else:
        saved.write_bytes(damage)
    assert paths(open_index()) == {"good.py"}


@pytest.mark.parametrize("seconds", [0, -1, 10**10])  # 10**10 is in the year 2286
def test_files_with_unusual_dates_are_saved(
    root: Path, tmp_path: Path, open_index: Open, caplog: pytest.LogCaptureFixture, seconds: int
) -> None:
    os.utime(root / "good.py", (seconds, seconds))
    if (root / "good.py").stat().st_mtime != seconds:
        pytest.skip("this file system has no such dates")
    (root / "other.py").write_text("def other(): pass\n")
    open_index().close()
    (saved,) = (tmp_path / "cache").glob("*.sqlite3")
    with sqlite3.connect(saved) as connection:
        rows = connection.execute("SELECT path, mtime_ns, size FROM file").fetchall()
    connection.close()
    found = [Entry(os.fsdecode(path), mtime_ns, size) for path, mtime_ns, size in rows]
    assert {*found} == {*Rules(root, IndexSettings()).walk()}, "not saved, or read again at the next start"
    assert paths(open_index()) == {"good.py", "other.py"}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_file_that_is_deleted_before_it_is_read_leaves_the_saved_index(
    root: Path, tmp_path: Path, open_index: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = open_index()
    monkeypatch.setattr(Rules, "why_not", lambda *args, **kwargs: None)  # so that only the worker looks at the file
    (root / "good.py").unlink()
    index.touch([root / "good.py"])
    assert paths(index) == set()
    index.close()
    (saved,) = (tmp_path / "cache").glob("*.sqlite3")
    with sqlite3.connect(saved) as connection:
        assert connection.execute("SELECT count(*) FROM file").fetchone() == (0,)
    connection.close()


def test_a_damaged_record_is_read_again(root: Path, tmp_path: Path, open_index: Open) -> None:
    open_index().close()
    (saved,) = (tmp_path / "cache").glob("*.sqlite3")
    with sqlite3.connect(saved) as connection:
        connection.execute("UPDATE content SET record = x'00112233'")
    connection.close()
    assert paths(open_index()) == {"good.py"}


def test_a_record_with_any_changed_bit_is_damaged() -> None:
    record = extract("def f(width): pass\n", None, Chunking(), root="/ws", path="a.py").to_bytes()
    assert Extract.from_bytes("/ws", "a.py", record).to_bytes() == record
    for at in range(len(record)):
        for bit in range(8):
            damaged = bytearray(record)
            damaged[at] ^= 1 << bit
            with pytest.raises(DamagedRecord):
                Extract.from_bytes("/ws", "a.py", bytes(damaged))
    for length in range(len(record)):
        with pytest.raises(DamagedRecord):
            Extract.from_bytes("/ws", "a.py", record[:length])


@pytest.mark.parametrize("byte", [-6, -2, 40])
def test_a_record_with_a_changed_bit_is_read_again(root: Path, tmp_path: Path, open_index: Open, byte: int) -> None:
    open_index().close()
    (saved,) = (tmp_path / "cache").glob("*.sqlite3")
    with sqlite3.connect(saved) as connection:
        damaged = bytearray(connection.execute("SELECT record FROM content").fetchone()[0])
        damaged[byte] ^= 0x10
        connection.execute("UPDATE content SET record = ?", (bytes(damaged),))
    connection.close()
    index = open_index()
    assert paths(index) == {"good.py"}
    assert [hit.chunk.text for hit in index.snapshot.query("good thing", 5)] == ["def good(thing):\n    return thing"]


def test_files_are_read_if_the_saved_index_cannot_be_loaded(
    root: Path, open_index: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def load(folder: Folder) -> list[LoadedFile]:
        raise ValueError("a bug")

    monkeypatch.setattr(Folder, "load", load)
    assert paths(open_index()) == {"good.py"}
    assert "a bug" in caplog.text


def test_a_cache_folder_that_cannot_be_made(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    index = WorkspaceIndex([root], IndexSettings(watch=False, workers=1), cache_dir=tmp_path / "cache")
    index.start()
    try:
        assert paths(index) == {"good.py"}
        assert sum("cannot save the index" in record.message for record in caplog.records) == 1
    finally:
        index.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full file system")
def test_a_full_disk(root: Path, tmp_path: Path, open_index: Open, caplog: pytest.LogCaptureFixture) -> None:
    index = open_index()
    (folder,) = index._folders.values()
    store = folder._store
    assert store is not None
    assert store._connection is not None
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")  # from now on, SQLite fails as on a full disk
    for number in range(50):
        (root / f"more{number}.py").write_text(f"def more{number}(): pass\n" * 300)
    index.rescan()
    assert len(paths(index)) == 51
    index.close()
    assert sum("cannot save the index" in record.message for record in caplog.records) == 1


def test_killing_at_any_moment_leaves_a_usable_index(root: Path, tmp_path: Path, open_index: Open) -> None:
    for number in range(150):
        (root / f"m{number}.py").write_text(f"def m{number}(argument):\n    return argument + {number}\n" * 40)
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from pathlib import Path; from indexer.workspace import WorkspaceIndex\n"
        "from indexer.settings import IndexSettings\n"
        f"index = WorkspaceIndex([Path({str(root)!r})], IndexSettings(workers=1, watch=False), "
        f"cache_dir=Path({str(tmp_path / 'cache')!r}))\n"
        "index.start(); print('started', flush=True); index.wait_idle(); index.close()\n"
    )
    draw = random.Random(0)
    for _ in range(KILLS):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(draw.uniform(0.0, 1.2))
        process.kill()
        process.wait()
        process.stdout.close()
        if KILLS > 10:  # a long run checks the index after every kill, and deletes the cache after half of them
            index = open_index()
            assert len(paths(index)) == 151
            index.close()
            if draw.random() < 0.5:
                shutil.rmtree(tmp_path / "cache")
    assert len(paths(open_index())) == 151


def test_two_servers_on_one_workspace(root: Path, open_index: Open, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first, second = open_index(), open_index()
    for number in range(20):
        file = root / f"f{number}.py"
        file.write_text(f"def f{number}(): pass\n")
        first.touch([file])
        second.touch([file])
    assert paths(first) == paths(second)
    assert len(paths(first)) == 21
    first.close()
    second.close()
    assert paths(open_index()) == {"good.py", *(f"f{number}.py" for number in range(20))}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_old_and_too_large_saved_indexes_are_deleted(tmp_path: Path) -> None:
    now = 1_000 * 86_400.0
    for name, age, size in (("a", 1, 10), ("b", MAX_AGE_DAYS + 1, 10), ("c", 2, 10), ("d", 3, 100)):
        file = tmp_path / f"{name}.sqlite3"
        file.write_bytes(b"x" * size)
        os.utime(file, (now - age * 86_400, now - age * 86_400))
    assert [file.name for file in delete_old_indexes(tmp_path, now=now, max_bytes=50)] == ["d.sqlite3", "b.sqlite3"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.sqlite3", "c.sqlite3"]


def test_content_expires_by_its_last_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The age of stored content counts from the day on which a file last had this content."""
    now = [1_000 * 86_400]
    monkeypatch.setattr("indexer.store.time.time", lambda: now[0])
    record = extract("x = 1\n", None, Chunking(), root="/ws", path="a.py").to_bytes()
    old, new = (worker.Outcome("/ws", "a.py", digest, 1, 1, record) for digest in (b"old", b"new"))

    def kept(store: Store) -> set[bytes]:
        assert store._connection is not None
        return {digest for (digest,) in store._connection.execute("SELECT digest FROM content")}

    store = Store(tmp_path, "/ws", Chunking())
    store.save([old, replace(old, path="b.py", digest=b"gone"), replace(old, path="c.py", digest=b"forgotten")])
    now[0] += 30 * 86_400
    store.save([new, worker.Outcome("/ws", "b.py", reason=Reason("missing", ""))])
    store.forget(["c.py"])
    now[0] += 86_400
    store.compact()
    assert kept(store) == {b"old", b"new", b"gone", b"forgotten"}
    now[0] += 20 * 86_400
    store.compact()
    assert kept(store) == {b"new"}
    store.close()


def test_a_saved_index_in_use_is_kept_even_above_the_limit(tmp_path: Path) -> None:
    now = 1_000 * 86_400.0
    for name, age in (("used", 0), ("left", 2)):
        file = tmp_path / f"{name}.sqlite3"
        file.write_bytes(b"x" * 100)
        os.utime(file, (now - age * 86_400, now - age * 86_400))
    assert [file.name for file in delete_old_indexes(tmp_path, now=now, max_bytes=50)] == ["left.sqlite3"]


def test_a_later_scan_shows_no_progress_bar(root: Path, open_index: Open) -> None:
    progress: list[Progress] = []
    index = open_index(on_progress=progress.append)
    for _ in range(3):
        index.rescan()
        assert paths(index) == {"good.py"}
    assert [step.stage for step in progress].count("scan") == 1
