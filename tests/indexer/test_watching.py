"""File system events: which changes they report, and how the index of a folder without events is kept current."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexer import watching
from indexer.scans import MISSING
from indexer.settings import IndexSettings
from indexer.watching import TreeEvents, Watcher
from indexer.workspace import WorkspaceIndex

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs inotify, which only Linux has")
Open = Callable[..., WorkspaceIndex]


@pytest.fixture
def open_index(tmp_path: Path) -> Iterator[Open]:
    """Return a function that indexes folders. The index is closed after the test."""
    opened: list[WorkspaceIndex] = []

    def start(*roots: Path, poll_seconds: float = 0.2) -> WorkspaceIndex:
        index = WorkspaceIndex(roots, IndexSettings(workers=1, poll_seconds=poll_seconds))
        opened.append(index)
        index.start()
        assert index.wait_idle(60)
        return index

    yield start
    for index in opened:
        index.close()


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def files(index: WorkspaceIndex) -> set[str]:
    index.wait_idle(30)
    return {chunk.path for chunk in index.snapshot.all_chunks()}


def write(file: Path, text: str = "x = 1\n") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def watched(index: WorkspaceIndex) -> set[str]:
    return set(index._watcher._events._directories.values())  # type: ignore[union-attr]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("whole_tree", [False, True])
def test_reading_gives_no_event_and_writing_gives_one(tmp_path: Path, whole_tree: bool) -> None:
    """If reading caused events, the scan after an overflow of the event queue would cause the next overflow."""
    for number in range(50):
        write(tmp_path / f"d{number}" / "f.py")
    seen: list[str] = []
    watcher = Watcher(seen.extend)
    if whole_tree:  # the implementation for macOS and Windows, which also works on Linux
        watcher._events = TreeEvents(seen.extend)
    watcher.set_roots([str(tmp_path)])
    for directory in (tmp_path, *tmp_path.iterdir()):
        watcher.watch(str(tmp_path), str(directory))
    assert watcher.problem(str(tmp_path)) == ""
    try:
        for _ in range(3):
            assert len([path.read_text() for path in sorted(tmp_path.rglob("*.py"))]) == 50
        (tmp_path / "d7" / "f.py").write_text("x = 2\n")
        until(lambda: seen)
        assert set(seen) <= {str(tmp_path / "d7" / "f.py"), str(tmp_path / "d7")}
    finally:
        watcher.stop()


def test_events_of_a_tree_that_moves_and_grows(tmp_path: Path, open_index: Open) -> None:
    root = tmp_path / "ws"
    write(root / "a.py")
    index = open_index(root, poll_seconds=3_600)
    write(root / "pkg" / "deep" / "b.py")
    until(lambda: files(index) == {"a.py", "pkg/deep/b.py"})
    (root / "pkg").rename(root / "lib")
    until(lambda: files(index) == {"a.py", "lib/deep/b.py"})
    write(root / "lib" / "deep" / "c.py")  # in a folder that had another name when the watch was added
    until(lambda: files(index) == {"a.py", "lib/deep/b.py", "lib/deep/c.py"})
    shutil.rmtree(root / "lib")
    until(lambda: files(index) == {"a.py"})
    write(root / "lib" / "d.py")
    until(lambda: files(index) == {"a.py", "lib/d.py"})
    write(root / ".gitignore", "lib/\n")
    until(lambda: files(index) == {"a.py"})
    (root / ".gitignore").unlink()
    until(lambda: files(index) == {"a.py", "lib/d.py"})


@linux_only
def test_only_directories_that_are_indexed_are_watched(tmp_path: Path, open_index: Open) -> None:
    root = tmp_path / "ws"
    for path in (
        "pkg/a.py",
        "node_modules/x/y/b.js",
        "build/c/d.py",
        ".git/objects/aa/bb",
        ".git/info/exclude",
        "docs/x.md",
    ):
        write(root / path)
    write(root / ".gitignore", "build/\n")
    index = open_index(root)
    assert watched(index) == {str(root / at) for at in ("", "pkg", "docs", ".git/info")}
    write(root / "node_modules" / "z" / "e.js")
    write(root / "new" / "f.py")
    until(lambda: files(index) == {"pkg/a.py", "new/f.py"})
    assert watched(index) == {str(root / at) for at in ("", "pkg", "docs", ".git/info", "new")}
    write(root / ".gitignore", "")
    until(lambda: str(root / "build" / "c") in watched(index))
    index.set_roots([root / "pkg"])
    assert index.wait_idle(30)
    assert watched(index) == {str(root / "pkg")}


@linux_only
def test_above_the_limit_of_watches_a_folder_is_scanned(
    tmp_path: Path, open_index: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from inotify_simple import INotify

    from indexer import inotify

    class Limited(INotify):  # type: ignore[misc]
        """A simulated inotify instance with a limit of 20 watches."""

        watches: set[int]

        def add_watch(self, path: str, mask: int) -> int:
            self.__dict__.setdefault("watches", set())
            wd: int = super().add_watch(path, mask)
            if wd not in self.watches and len(self.watches) >= 20:
                super().rm_watch(wd)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.watches.add(wd)
            return wd

        def rm_watch(self, wd: int) -> None:
            super().rm_watch(wd)
            self.watches.discard(wd)

    monkeypatch.setattr(inotify, "INotify", Limited)
    small, large = tmp_path / "small", tmp_path / "large"
    write(small / "a.py")
    for number in range(60):
        write(large / f"d{number}" / "old.py")
    index = open_index(small, large)
    assert watched(index) == {str(small)}
    for number in range(60):
        write(large / f"d{number}" / "new.py")
    write(small / "b.py")
    until(lambda: len(files(index)) == 122)
    (warning,) = warnings(caplog)
    assert "max_user_watches" in warning
    assert str(large) in warning


@linux_only
def test_a_directory_that_becomes_readable_is_indexed(
    tmp_path: Path, open_index: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory is unreadable only in this test, because the superuser can read every directory."""
    from inotify_simple import INotify

    from indexer import inotify

    closed = tmp_path / "ws" / "pkg" / "closed"
    write(closed / "deep" / "a.py")
    write(closed.parent / "b.py")
    closed.chmod(0)

    def check(path: str | Path) -> None:
        if Path(path) == closed and not closed.stat().st_mode & 0o777:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    class Checked(INotify):  # type: ignore[misc]
        def add_watch(self, path: str, mask: int) -> int:
            check(path)
            return super().add_watch(path, mask)  # type: ignore[no-any-return]

    def scandir(path: Path) -> Iterator[os.DirEntry[str]]:
        check(path)
        return os_scandir(path)

    os_scandir = os.scandir
    monkeypatch.setattr(inotify, "INotify", Checked)
    monkeypatch.setattr("indexer.rules.os.scandir", scandir)
    try:
        index = open_index(tmp_path / "ws", poll_seconds=3_600)
        assert files(index) == {"pkg/b.py"}
        closed.chmod(0o755)
        until(lambda: files(index) == {"pkg/b.py", "pkg/closed/deep/a.py"})
        (folder,) = index._folders.values()
        rules = folder.rules
        (closed.parent / "b.py").chmod(0o600)
        closed.chmod(0o700)
        write(closed.parent / "c.py")
        until(lambda: "pkg/c.py" in files(index))
        assert folder.rules is rules, "a change of permissions causes a scan although all directories can be read"
    finally:
        closed.chmod(0o755)


def test_a_missing_folder_does_not_affect_the_others(
    tmp_path: Path, open_index: Open, caplog: pytest.LogCaptureFixture
) -> None:
    there, missing = tmp_path / "there", tmp_path / "missing"
    write(there / "a.py")
    index = open_index(missing, there)
    assert index._watcher.problem(str(there)) == ""
    assert index._watcher.problem(str(missing)) == MISSING
    write(there / "b.py")
    until(lambda: files(index) == {"a.py", "b.py"})
    assert len(warnings(caplog)) == 1
    # After the missing folder is created, the index finds and watches it.
    write(missing / "c.py")
    until(lambda: files(index) == {"a.py", "b.py", "c.py"})
    assert index._watcher.problem(str(missing)) == ""
    # After the folder is deleted, its files leave the index, and the index checks again whether the folder exists.
    shutil.rmtree(missing)
    until(lambda: files(index) == {"a.py", "b.py"})
    write(missing / "d.py")
    until(lambda: files(index) == {"a.py", "b.py", "d.py"})
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("why", ["no instance", "a network file system"])
def test_without_events_the_disk_is_scanned_and_this_is_logged_once(
    tmp_path: Path, open_index: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    def refuse(on_change: object) -> watching.Events:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    if why == "no instance":
        monkeypatch.setattr(watching, "_events", refuse)
    else:
        monkeypatch.setattr(watching, "network_file_system", lambda root: "nfs4")
    write(tmp_path / "ws" / "a.py")
    index = open_index(tmp_path / "ws")
    write(tmp_path / "ws" / "b.py")
    until(lambda: files(index) == {"a.py", "b.py"})
    write(tmp_path / "ws" / "c.py")
    until(lambda: files(index) == {"a.py", "b.py", "c.py"})
    assert len(warnings(caplog)) == 1


def test_at_most_one_scan_waits_and_closing_ends_a_running_one(
    tmp_path: Path, open_index: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulated disk lists directories slowly, as a network file system does."""
    write(tmp_path / "ws" / "a.py")
    index = open_index(tmp_path / "ws")
    started, release, listed, answered = threading.Event(), threading.Event(), list[str](), list[str]()

    def scandir(path: Path) -> Iterator[os.DirEntry[str]]:
        started.set()
        listed.append(str(path))
        release.wait(60)
        answered.append(str(path))
        return os_scandir(path)

    os_scandir = os.scandir
    monkeypatch.setattr("indexer.rules.os.scandir", scandir)
    for _ in range(30):
        index.rescan()
    assert started.wait(20)
    time.sleep(0.1)  # in this time, the index's thread receives the requests to scan
    release.set()
    assert index.wait_idle(30)
    assert len(listed) == 2, "not one running scan and one scan for all requests during it"
    release.clear()
    index.rescan()
    until(lambda: len(listed) == 3)
    index.close()
    assert len(answered) == 2, "closing waits for a disk that does not respond"
    assert not index._writer.is_alive()
    release.set()
