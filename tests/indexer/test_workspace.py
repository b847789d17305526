"""A workspace on the disk, with real workers: what is said to the index is what a search then finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer import worker
from indexer.document import Extract
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


def test_files_of_the_disk(index: WorkspaceIndex, tmp_path: Path) -> None:
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


def test_an_open_buffer_shadows_the_disk(index: WorkspaceIndex, tmp_path: Path) -> None:
    file = tmp_path / "ws" / "pkg" / "geo.py"
    index.set_buffer(file, "def perimeter(side):\n    return 4 * side\n")
    assert found(index, "width height") == set()
    assert found(index, "perimeter") == {"pkg/geo.py"}
    index.touch([file])
    assert found(index, "perimeter") == {"pkg/geo.py"}
    index.set_buffer(file, None)
    assert found(index, "perimeter") == set()
    assert found(index, "width height") == {"pkg/geo.py"}


def test_a_changed_ignore_file_takes_files_out_and_brings_them_back(index: WorkspaceIndex, tmp_path: Path) -> None:
    ignore = tmp_path / "ws" / ".gitignore"
    ignore.write_text("pkg/\n")
    index.touch([ignore])
    assert found(index, "width height") == set()
    ignore.unlink()
    index.touch([ignore])
    assert found(index, "width height") == {"pkg/geo.py"}


def test_folders_come_and_go(index: WorkspaceIndex, tmp_path: Path) -> None:
    root, other = tmp_path / "ws", tmp_path / "other"
    other.mkdir()
    (other / "a.go").write_text("package a\n\nfunc Torus() int { return 1 }\n")
    index.set_roots([root, other])
    assert found(index, "Torus") == {"a.go"}
    assert found(index, "width height") == {"pkg/geo.py"}
    index.set_roots([other])
    assert found(index, "width height") == set()


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


def test_what_git_and_builds_write_does_not_even_make_a_new_snapshot(index: WorkspaceIndex, tmp_path: Path) -> None:
    root, version = tmp_path / "ws", index.snapshot.version
    for name in (".git/index", "node_modules/a/b.js", "__pycache__/x.py", "notes.bin", "gone.py"):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name != "gone.py":
            file.write_text("x = 1\n")
        index.touch([file])
    assert index.wait_idle(60)
    assert index.snapshot.version == version


def test_content_seen_before_is_taken_from_the_saved_index(
    index: WorkspaceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.close()
    (saved,) = (tmp_path / "cache").glob("*.sqlite3")
    (tmp_path / "ws" / "copy.py").write_bytes((tmp_path / "ws" / "pkg" / "geo.py").read_bytes())
    monkeypatch.setattr(worker, "extract", None)  # it must not be parsed
    task = worker.Task(str(tmp_path / "ws"), "copy.py", index.settings.chunking, 1_000_000, store=str(saved))
    outcome = worker.perform(task)
    assert outcome.record is not None
    document = Extract.from_bytes(task.root, task.path, outcome.record).document
    assert [chunk.symbols for chunk in document.chunks()] == [("area",)]
