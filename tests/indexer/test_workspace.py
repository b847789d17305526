"""The index of a workspace on disk, with real worker processes. Tests report changes, and then search."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexer import worker
from indexer.document import Extract
from indexer.folder import Folder, LoadedFile
from indexer.model import Cursor
from indexer.pool import Pool
from indexer.segment_list import Merge
from indexer.settings import IndexSettings
from indexer.workspace import WorkspaceIndex


@pytest.fixture
def index(tmp_path: Path) -> Iterator[WorkspaceIndex]:
    root = tmp_path / "ws"
    (root / "pkg").mkdir(parents=True)
    (root / "pkg" / "geo.py").write_text("def area(width, height):\n    return width * height\n")
    (root / "main.py").write_text("from pkg.geo import area\n")
    index = WorkspaceIndex([root], IndexSettings(watch=False, workers=1), cache_dir=tmp_path / "cache")
    index.start()
    assert index.wait_idle(60)
    yield index
    index.close()


def found(index: WorkspaceIndex, query: str) -> set[str]:
    assert index.wait_idle(60)
    return {hit.chunk.path for hit in index.snapshot.query(query, 10)}


def places(index: WorkspaceIndex) -> list[tuple[str, str]]:
    """Return the folder's name and the path of every chunk. In these tests, each file is one chunk."""
    assert index.wait_idle(60)
    return sorted((Path(chunk.root).name, chunk.path) for chunk in index.snapshot.all_chunks())


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


def test_files_on_disk_are_indexed(index: WorkspaceIndex, tmp_path: Path) -> None:
    root = tmp_path / "ws"
    assert index.snapshot.files == 2
    assert found(index, "width height") == {"pkg/geo.py"}
    (root / "pkg" / "geo.py").write_text("def volume(depth):\n    return depth\n")
    index.touch([root / "pkg" / "geo.py"])
    assert found(index, "width height") == set()
    assert found(index, "depth") == {"pkg/geo.py"}
    (root / "pkg").rename(root / "lib")
    index.touch([root / "pkg", root / "lib"])
    assert found(index, "depth") == {"lib/geo.py"}
    (root / "lib" / "geo.py").unlink()
    index.touch([root / "lib" / "geo.py"])
    assert found(index, "depth") == set()


def test_an_open_buffer_replaces_its_file(index: WorkspaceIndex, tmp_path: Path) -> None:
    file = tmp_path / "ws" / "pkg" / "geo.py"
    index.set_buffer(file, "def perimeter(side):\n    return 4 * side\n")
    assert found(index, "width height") == set()
    assert found(index, "perimeter") == {"pkg/geo.py"}
    index.touch([file])
    assert found(index, "perimeter") == {"pkg/geo.py"}
    index.set_buffer(file, None)
    assert found(index, "perimeter") == set()
    assert found(index, "width height") == {"pkg/geo.py"}


def test_a_changed_ignore_file_removes_and_adds_files(index: WorkspaceIndex, tmp_path: Path) -> None:
    ignore = tmp_path / "ws" / ".gitignore"
    ignore.write_text("pkg/\n")
    index.touch([ignore])
    assert found(index, "width height") == set()
    ignore.unlink()
    index.touch([ignore])
    assert found(index, "width height") == {"pkg/geo.py"}


def test_a_scan_reads_the_ignore_files_again(index: WorkspaceIndex, tmp_path: Path) -> None:
    root = tmp_path / "ws"
    (root / ".gitignore").write_text("main.py\n")  # no event reports this change
    index.rescan()
    assert places(index) == [("ws", "pkg/geo.py")]
    (root / ".gitignore").unlink()
    index.rescan()
    assert places(index) == [("ws", "main.py"), ("ws", "pkg/geo.py")]


@pytest.mark.parametrize("above", ["", "in/"])
def test_a_directory_becomes_a_linked_worktree(index: WorkspaceIndex, tmp_path: Path, above: str) -> None:
    root, copy = tmp_path / "ws", tmp_path / "ws" / f"{above}copy"
    copy.mkdir(parents=True)
    (copy / "main.py").write_text("x = 1\n")
    index.rescan()
    assert places(index) == [("ws", f"{above}copy/main.py"), ("ws", "main.py"), ("ws", "pkg/geo.py")]
    (copy / ".git").write_text(f"gitdir: {root}/.git/worktrees/copy\n")
    index.touch([copy / ".git"])
    assert places(index) == [("ws", "main.py"), ("ws", "pkg/geo.py")]
    (copy / ".git").unlink()
    index.touch([copy / ".git"])
    assert places(index) == [("ws", f"{above}copy/main.py"), ("ws", "main.py"), ("ws", "pkg/geo.py")]


def test_a_directory_becomes_a_repository(index: WorkspaceIndex, tmp_path: Path) -> None:
    root = tmp_path / "ws"
    (root / ".gitignore").write_text("geo.py\n")
    index.touch([root / ".gitignore"])
    assert places(index) == [("ws", "main.py")]
    (root / "pkg" / ".git").mkdir()
    index.touch([root / "pkg" / ".git"])
    assert places(index) == [("ws", "main.py"), ("ws", "pkg/geo.py")], "the ignore file of another repository applies"
    (folder,) = index._folders.values()
    rules = folder.rules
    index.touch([root / "pkg" / ".git"])
    assert index.wait_idle(60)
    assert folder.rules is rules, "an event for an unchanged `.git` directory causes a scan"
    (root / ".git" / "info").mkdir(parents=True)
    (root / ".git" / "info" / "exclude").write_text("main.py\n")
    index.touch([root / ".git"])
    assert places(index) == [("ws", "pkg/geo.py")]


def test_a_directory_that_is_replaced_brings_its_own_ignore_file(index: WorkspaceIndex, tmp_path: Path) -> None:
    root, new = tmp_path / "ws", tmp_path / "new"
    (new / "dist").mkdir(parents=True)
    (new / ".gitignore").write_text("dist/\n/gen.py\n")
    for name in ("geo.py", "gen.py", "dist/bundle.py"):
        (new / name).write_text("x = 1\n")
    (root / "pkg").rename(tmp_path / "old")
    new.rename(root / "pkg")
    index.touch([root / "pkg"])  # a rename causes no events for the files in the directory
    assert places(index) == [("ws", "main.py"), ("ws", "pkg/geo.py")]


def test_files_and_directories_replace_each_other(index: WorkspaceIndex, tmp_path: Path) -> None:
    root, script = tmp_path / "ws", "#!/usr/bin/env python3\ndef f(): pass\n"
    tool = root / "tool"
    for _ in range(2):
        tool.write_text(script)
        index.touch([tool])
        assert places(index) == [("ws", "main.py"), ("ws", "pkg/geo.py"), ("ws", "tool")]
        tool.unlink()
        (tool / "deep").mkdir(parents=True)
        (tool / "deep" / "a.py").write_text("x = 1\n")
        index.touch([tool])
        assert places(index) == [("ws", "main.py"), ("ws", "pkg/geo.py"), ("ws", "tool/deep/a.py")]
        shutil.rmtree(tool)
    for _ in range(2):
        (tool / "deep").mkdir(parents=True)
        (tool / "deep" / "a.py").write_text("x = 1\n")
        index.touch([tool])
        assert places(index) == [("ws", "main.py"), ("ws", "pkg/geo.py"), ("ws", "tool/deep/a.py")]
        shutil.rmtree(tool)
        tool.write_text("this text does not belong in the index\n")
        index.touch([tool])
        assert places(index) == [("ws", "main.py"), ("ws", "pkg/geo.py")]
        tool.unlink()


def test_folders_are_added_and_removed(index: WorkspaceIndex, tmp_path: Path) -> None:
    root, other = tmp_path / "ws", tmp_path / "other"
    other.mkdir()
    (other / "a.go").write_text("package a\n\nfunc Torus() int { return 1 }\n")
    index.set_roots([root, other])
    assert found(index, "Torus") == {"a.go"}
    assert found(index, "width height") == {"pkg/geo.py"}
    index.set_roots([other])
    assert found(index, "width height") == set()


@pytest.mark.parametrize("saved", [False, True])
def test_a_nested_folder_owns_its_files(index: WorkspaceIndex, tmp_path: Path, saved: bool) -> None:
    root = tmp_path / "ws"
    roots = [root, root / "pkg"]
    if saved:
        index.close()
        index = WorkspaceIndex(roots, IndexSettings(watch=False, workers=1), cache_dir=tmp_path / "cache")
        index.start()
    else:
        index.set_roots(roots)
    try:
        assert places(index) == [("pkg", "geo.py"), ("ws", "main.py")]
        (root / "pkg" / "geo.py").unlink()
        index.touch([root / "pkg" / "geo.py"])
        assert places(index) == [("ws", "main.py")]
        (root / "pkg" / "new.py").write_text("def new(): pass\n")
        index.rescan()
        assert places(index) == [("pkg", "new.py"), ("ws", "main.py")]
        index.set_roots([root])
        assert places(index) == [("ws", "main.py"), ("ws", "pkg/new.py")]
        index.set_roots([root / "pkg"])
        assert places(index) == [("pkg", "new.py")]
    finally:
        index.close()


@pytest.mark.parametrize("depth", [1, 2])
def test_a_nested_folder_is_scanned_when_a_directory_above_it_is_replaced(
    tmp_path: Path, open_index: Callable[..., WorkspaceIndex], depth: int
) -> None:
    outer, inner = tmp_path / "mono", tmp_path / "mono" / "packages" / "foo"

    def write() -> None:
        inner.mkdir(parents=True)
        (inner / "x.py").write_text("x = 1\n")

    write()
    index = open_index(outer, inner)
    assert places(index) == [("foo", "x.py")]
    replaced = (inner, inner.parent)[depth - 1]
    shutil.rmtree(replaced)
    index.touch([replaced])
    assert places(index) == []
    write()
    index.touch([replaced])
    assert places(index) == [("foo", "x.py")]


def test_a_nested_folder_is_scanned_when_events_were_lost(index: WorkspaceIndex, tmp_path: Path) -> None:
    root = tmp_path / "ws"
    index.set_roots([root, root / "pkg"])
    assert index.wait_idle(60)
    (root / "n.py").write_text("n = 1\n")
    (root / "pkg" / "z.py").write_text("z = 1\n")
    index.touch([root, root / "pkg"])  # these are the paths that the watcher reports
    assert places(index) == [("pkg", "geo.py"), ("pkg", "z.py"), ("ws", "main.py"), ("ws", "n.py")]


def test_a_document_stays_open_when_folders_change(index: WorkspaceIndex, tmp_path: Path) -> None:
    root, other = tmp_path / "ws", tmp_path / "other"
    other.mkdir()
    (other / "a.py").write_text("def torus(): pass\n")
    index.set_buffer(root / "pkg" / "geo.py", "def perimeter(side):\n    return 4 * side\n")
    index.set_buffer(other / "a.py", "def sphere(): pass\n")
    assert found(index, "perimeter sphere") == {"pkg/geo.py"}
    index.set_roots([root, root / "pkg", other])
    assert places(index) == [("other", "a.py"), ("pkg", "geo.py"), ("ws", "main.py")]
    assert found(index, "perimeter sphere") == {"geo.py", "a.py"}
    index.set_roots([root])
    assert found(index, "perimeter sphere") == {"pkg/geo.py"}
    index.set_roots([root / "pkg", root])
    index.set_buffer(root / "pkg" / "geo.py", None)
    assert places(index) == [("pkg", "geo.py"), ("ws", "main.py")]
    assert found(index, "width height") == {"geo.py"}


def test_changes_during_a_change_of_folders_are_indexed(index: WorkspaceIndex, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "ws" / "main.py").write_text("changed_meanwhile = 1\n")  # no event reports this change
    index.set_roots([tmp_path / "ws", tmp_path / "other"])
    assert found(index, "changed_meanwhile") == {"main.py"}


@pytest.mark.parametrize("gone", ["lib/late.py", "lib"])
def test_a_file_deleted_while_a_worker_reads_it(index: WorkspaceIndex, tmp_path: Path, gone: str) -> None:
    late = tmp_path / "ws" / "lib" / "late.py"
    late.parent.mkdir()
    late.write_text("def late(): pass\n")
    done, held = index._pool._on_done, list[list[worker.Outcome]]()
    index._pool._on_done = held.append
    index.touch([late])
    until(lambda: held)
    shutil.rmtree(late.parent)
    looked = threading.Event()
    index.touch([tmp_path / "ws" / gone])
    index._post(looked.set)
    until(lambda: looked.is_set() and not index._changed_paths)
    index._pool._on_done = done
    for outcomes in held:
        done(outcomes)
    assert places(index) == [("ws", "main.py"), ("ws", "pkg/geo.py")]


def test_a_document_opened_before_the_saved_index_is_loaded(
    index: WorkspaceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.close()
    opened, load = threading.Event(), Folder.load

    def slow_load(folder: Folder) -> list[LoadedFile]:
        loaded = load(folder)
        assert opened.wait(30)
        return loaded

    monkeypatch.setattr(Folder, "load", slow_load)
    root = tmp_path / "ws"
    again = WorkspaceIndex([root], IndexSettings(watch=False, workers=1), cache_dir=tmp_path / "cache")
    again.start()
    try:
        again.set_buffer(root / "main.py", "opened_early = 1\n")
        until(lambda: again.snapshot.files)
        opened.set()
        assert places(again) == [("ws", "main.py"), ("ws", "pkg/geo.py")]
        again.set_buffer(root / "main.py", "opened_late = 1\n")
        assert places(again) == [("ws", "main.py"), ("ws", "pkg/geo.py")]
        assert found(again, "opened_early") == set()
        (root / "main.py").unlink()
        again.set_buffer(root / "main.py", None)
        assert places(again) == [("ws", "pkg/geo.py")]
    finally:
        opened.set()
        again.close()


def test_segments_that_cannot_be_merged_are_kept(
    index: WorkspaceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(merge: Merge) -> None:
        raise MemoryError

    monkeypatch.setattr("indexer.workspace.SMALL", 0)  # every merge counts as large
    monkeypatch.setattr(Merge, "run", fail)
    names = [f"m{number}.py" for number in range(6)]
    for name in names:
        (tmp_path / "ws" / name).write_text(f"def {name[:-3]}(): pass\n")
        index.touch([tmp_path / "ws" / name])
        assert index.wait_idle(20)
    assert places(index) == [
        ("ws", name) for name in ("m0.py", "m1.py", "m2.py", "m3.py", "m4.py", "m5.py", "main.py", "pkg/geo.py")
    ]
    assert "cannot merge" in caplog.text


LINKED = "def area(width, height):\n    return width * height\n"


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """Return `link`, a symbolic link to the folder `real`, which contains the folder `pkg` and the link `out`."""
    (tmp_path / "real" / "pkg").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "real" / "geo.py").write_text(LINKED)
    (tmp_path / "real" / "pkg" / "use.py").write_text("def use(width, height):\n    return area(width) + height\n")
    try:
        (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
        (tmp_path / "real" / "same.py").symlink_to(tmp_path / "real" / "geo.py")
        (tmp_path / "real" / "out").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    except OSError:
        pytest.skip("links cannot be made here")
    return tmp_path / "link"


@pytest.fixture
def open_index() -> Iterator[Callable[..., WorkspaceIndex]]:
    """Return a function that indexes folders without watching them. The index is closed after the test."""
    opened: list[WorkspaceIndex] = []

    def start(*roots: Path) -> WorkspaceIndex:
        opened.append(WorkspaceIndex(roots, IndexSettings(watch=False, workers=1)))
        opened[-1].start()
        return opened[-1]

    yield start
    for index in opened:
        index.close()


@pytest.mark.parametrize("opened", ["link/geo.py", "real/geo.py", "real/same.py", "link/same.py"])
@pytest.mark.parametrize("root", ["link", "real"])
def test_a_file_opened_through_any_link_is_one_file(
    tmp_path: Path, linked: Path, open_index: Callable[..., WorkspaceIndex], root: str, opened: str
) -> None:
    index = open_index(tmp_path / root)
    document = tmp_path / opened

    def search(path: Path, prefix: str = LINKED) -> set[str]:
        assert index.wait_idle(60)
        return {hit.chunk.path for hit in index.snapshot.search(Cursor(str(path), prefix, "", "python"), 5)}

    assert search(document) == {"pkg/use.py"}, "the text of the completed file is retrieved"
    index.set_buffer(document, "def perimeter(width, height):\n    return 2 * (width + height)\n")
    assert found(index, "perimeter") == {"geo.py"}
    assert found(index, "area") == {"pkg/use.py"}
    assert search(document) == {"pkg/use.py"}
    assert "geo.py" in search(tmp_path / root / "new.py", "def perimeter(")
    (tmp_path / "real" / "geo.py").write_text("def disk(radius): pass\n")
    index.touch([document, tmp_path / "link" / "geo.py"])
    assert found(index, "radius") == set()
    index.set_buffer(document, None)
    assert found(index, "radius") == {"geo.py"}
    index.touch([tmp_path / "link" / "pkg", tmp_path / "real" / "pkg" / "use.py"])
    assert [path for _, path in places(index)] == ["geo.py", "pkg/use.py"]


def test_one_file_open_under_two_names(tmp_path: Path, linked: Path, open_index: Callable[..., WorkspaceIndex]) -> None:
    index = open_index(linked)
    index.set_buffer(tmp_path / "real" / "geo.py", "first = 1\n")
    index.set_buffer(linked / "geo.py", "second = 1\n")
    assert found(index, "second") == {"geo.py"}
    assert found(index, "first") == set()
    index.set_buffer(linked / "geo.py", None)
    assert found(index, "first") == {"geo.py"}
    index.set_buffer(tmp_path / "real" / "geo.py", None)
    assert found(index, "first second") == set()
    assert found(index, "area") == {"geo.py", "pkg/use.py"}


@pytest.mark.parametrize(
    ("roots", "expected"),
    [
        (["link", "real"], [("link", "geo.py"), ("link", "pkg/use.py")]),
        (["real", "link/pkg"], [("pkg", "use.py"), ("real", "geo.py")]),
        (["link", "real/pkg"], [("link", "geo.py"), ("pkg", "use.py")]),
        (["real", "real/out"], [("out", "x.py"), ("real", "geo.py"), ("real", "pkg/use.py")]),
    ],
)
def test_folders_that_are_equal_or_nested_through_links(
    tmp_path: Path,
    linked: Path,
    open_index: Callable[..., WorkspaceIndex],
    roots: list[str],
    expected: list[tuple[str, str]],
) -> None:
    (tmp_path / "elsewhere" / "x.py").write_text("x = 1\n")
    index = open_index(*(tmp_path / root for root in roots))
    assert places(index) == expected
    index.touch([tmp_path / "real" / "out" / "x.py", tmp_path / "elsewhere" / "x.py", linked / "pkg" / "use.py"])
    assert places(index) == expected


def test_a_file_or_folder_that_becomes_a_link_leaves_the_index(index: WorkspaceIndex, tmp_path: Path) -> None:
    root = tmp_path / "ws"
    (root / "pkg").rename(tmp_path / "moved")
    (root / "main.py").rename(tmp_path / "moved.py")
    try:
        (root / "pkg").symlink_to(tmp_path / "moved", target_is_directory=True)
        (root / "main.py").symlink_to(tmp_path / "moved.py")
    except OSError:
        pytest.skip("links cannot be made here")
    index.touch([root / "pkg", root / "main.py"])
    assert places(index) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes, whose reader waits")
def test_closing_does_not_wait_for_a_busy_worker(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "blocks.py")
    outcomes: list[list[worker.Outcome]] = []
    pool = Pool(1, outcomes.append)
    pool.start()
    pool.submit([worker.Task(str(tmp_path), "blocks.py", IndexSettings().chunking, 1_000)])
    until(lambda: pool._workers and pool._batches.empty())
    (busy,) = pool._workers
    pool.close()
    until(lambda: busy._process.poll() is not None and not pool._threads[0].is_alive())
    assert outcomes == []


@pytest.mark.parametrize("folder", [b"ws", b"w\xe9"])
def test_names_that_are_not_utf8(tmp_path: Path, folder: bytes, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / os.fsdecode(folder)
    names = ["a.py", os.fsdecode(b"caf\xe9.py")]
    try:
        root.mkdir()
        for name in names:
            (root / name).write_text(f"def f{len(name)}(): pass\n")
    except OSError:
        pytest.skip("this file system has no such names")
    for _ in range(2):
        index = WorkspaceIndex([root], IndexSettings(watch=False, workers=1), cache_dir=tmp_path / "cache")
        index.start()
        try:
            assert [path for _, path in places(index)] == names
        finally:
            index.close()
        (saved,) = (tmp_path / "cache").glob("*.sqlite3")
        with sqlite3.connect(saved) as connection:
            assert connection.execute("SELECT count(*) FROM file").fetchone() == (2,)
        connection.close()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_failure_to_save_is_logged(
    index: WorkspaceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(folder: Folder, outcomes: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(Folder, "save", fail)
    (tmp_path / "ws" / "main.py").write_text("changed = 1\n")
    index.rescan()
    assert found(index, "changed") == {"main.py"}
    index.close()
    assert "a bug" in caplog.text


def test_a_second_start_reads_only_what_changed(index: WorkspaceIndex, tmp_path: Path) -> None:
    root = tmp_path / "ws"
    index.close()
    (root / "main.py").write_text("changed_meanwhile = 1\n")
    again = WorkspaceIndex([root], IndexSettings(watch=False, workers=1), cache_dir=tmp_path / "cache")
    again.start()
    try:
        assert found(again, "changed_meanwhile") == {"main.py"}
        assert found(again, "width height") == {"pkg/geo.py"}
    finally:
        again.close()


def test_files_of_git_and_builds_make_no_new_snapshot(index: WorkspaceIndex, tmp_path: Path) -> None:
    root, version = tmp_path / "ws", index.snapshot.version
    for name in (".git/index", "node_modules/a/b.js", "__pycache__/x.py", "notes.bin", "gone.py"):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name != "gone.py":
            file.write_text("x = 1\n")
        index.touch([file])
    assert index.wait_idle(60)
    assert index.snapshot.version == version


def test_earlier_content_comes_from_the_saved_index(
    index: WorkspaceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.close()
    (saved,) = (tmp_path / "cache").glob("*.sqlite3")
    (tmp_path / "ws" / "copy.py").write_bytes((tmp_path / "ws" / "pkg" / "geo.py").read_bytes())
    monkeypatch.setattr(worker, "extract", None)  # so that the test fails if the worker parses the file
    task = worker.Task(str(tmp_path / "ws"), "copy.py", index.settings.chunking, 1_000_000, store=str(saved))
    outcome = worker.perform(task)
    assert outcome.record is not None
    document = Extract.from_bytes(task.root, task.path, outcome.record).document
    assert [chunk.symbols for chunk in document.chunks()] == [("area",)]
