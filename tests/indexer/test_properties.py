"""After any changes in any order, the index equals a new index of the current workspace."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.chunking import Chunking
from indexer.extract import extract
from indexer.folder import Folder, LoadedFile
from indexer.languages import language_of
from indexer.model import Chunk, Cursor
from indexer.retrieval import RetrieverName
from indexer.segment_list import SegmentList
from indexer.settings import IndexSettings
from indexer.snapshot import Snapshot
from indexer.workspace import WorkspaceIndex

NAMES = ("a.py", "b.py", "pkg/c.py", "pkg/deep/d.go", "ignored/e.py", "pkg/ignored/f.py")
TEXTS = (
    "",
    "def alpha(beta):\n    return gamma\n",
    "class Delta:\n    def alpha(self):\n        return self.beta\n\n    def gamma(self):\n        return 1\n",
    "beta = 1\ngamma = alpha(beta)\n",
    "func alpha() int {\n\treturn beta\n}\n",
    'key = "password"\npassword = "kX9#mQ2pLw"\n',
)
RETRIEVERS: tuple[RetrieverName, ...] = ("proximity", "jaccard", "bm25", "weighted_ngram")

change = st.tuples(
    st.sampled_from(("write", "delete", "open", "close")), st.sampled_from(NAMES), st.sampled_from(TEXTS)
)
folders = st.sampled_from(((".",), (".", "pkg"), ("pkg",), (".", "pkg", "pkg/deep"), ()))


def chunks_of(snapshot: Snapshot) -> list[Chunk]:
    return sorted(snapshot.all_chunks(), key=lambda chunk: (chunk.root, chunk.path, chunk.start_line))


def check_equal(snapshot: Snapshot, folders: Mapping[str, Mapping[str, str]]) -> None:
    """Compare a snapshot with a new one of the same files: the chunks, and the results of every retriever.

    `folders` has the text of each file, by folder and path.
    """
    segments = [
        each for root, files in folders.items() for each in Snapshot.of(sorted(files.items()), root=root).segments
    ]
    scratch = Snapshot(tuple(folders), tuple(segments))
    assert chunks_of(snapshot) == chunks_of(scratch)
    assert (snapshot.files, snapshot.chunks) == (scratch.files, scratch.chunks)
    cursor = Cursor("/elsewhere.py", "gamma = 1\nself.alpha(", ")\nreturn beta\n", "python")
    for retriever in RETRIEVERS:
        found = replace(snapshot, retriever=retriever).search(cursor, 5)
        assert found == replace(scratch, retriever=retriever).search(cursor, 5), retriever
    assert snapshot.query("alpha beta", 5) == scratch.query("alpha beta", 5)


@given(st.lists(st.lists(change, min_size=1, max_size=4), max_size=8), st.booleans())
def test_segments_after_any_changes_and_merges_equal_one_segment(
    batches: list[list[tuple[str, str, str]]], late: bool
) -> None:
    segments, files = SegmentList(), dict[str, str]()
    for batch in batches:
        merge = segments.next_merge(tidy=True)  # starts before the changes; its result is adopted after them
        fresh = {name: text for kind, name, text in batch if kind in ("write", "open")}
        gone = {name for kind, name, _ in batch if kind in ("delete", "close")} - fresh.keys()
        extracts = [extract(text, language_of(name), Chunking(), root="/ws", path=name) for name, text in fresh.items()]
        segment = merge.run() if merge and not late else None
        segments.apply(extracts, [("/ws", name) for name in gone])
        if merge:
            segments.adopt(merge, segment or merge.run())
        files = {name: text for name, text in {**files, **fresh}.items() if name not in gone}
    check_equal(Snapshot(("/ws",), segments.current), {"/ws": files})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("living")
    (root / ".git").mkdir()
    (root / ".gitignore").write_text("ignored/\n")
    return root


@pytest.fixture(scope="module")
def index(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkspaceIndex]:
    """An index that loads saved folders slowly, so that changes happen while it loads them."""
    load = Folder.load

    def slow_load(folder: Folder) -> list[LoadedFile]:
        loaded = load(folder)
        time.sleep(0.03)
        return loaded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "load", slow_load)
        settings = IndexSettings(watch=False, workers=1)
        index = WorkspaceIndex([root], settings, cache_dir=tmp_path_factory.mktemp("cache"))
        index.start()
        yield index
        index.close()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(change | folders, max_size=12), together=st.booleans())
def test_an_updated_index_equals_one_built_from_scratch(
    root: Path, index: WorkspaceIndex, changes: list[tuple[str, ...]], together: bool
) -> None:
    assert index.wait_idle(60)
    disk, buffers, roots = dict[str, str](), dict[str, str](), [root]
    for each in changes:
        if each[:1] in (("write",), ("delete",), ("open",), ("close",)):
            kind, name, text = each
            happen(kind, root / name, text, index)
            files = disk if kind in ("write", "delete") else buffers
            if kind in ("write", "open"):
                files[name] = text
            else:
                files.pop(name, None)
        else:
            roots = [root / at for at in each]
            index.set_roots(roots)
        if not together:
            assert index.wait_idle(60)
    assert index.wait_idle(60)
    try:
        expected = {str(at): dict[str, str]() for at in roots}
        for name, text in {**disk, **buffers}.items():
            file = root / name
            inside = [at for at in roots if file.is_relative_to(at)]
            if inside and "ignored" not in name:
                innermost = max(inside, key=lambda at: len(at.parts))
                expected[str(innermost)][file.relative_to(innermost).as_posix()] = text
        check_equal(index.snapshot, expected)
    finally:
        for name in buffers:
            index.set_buffer(root / name, None)
        for at in root.iterdir():
            if at.is_dir() and at.name != ".git":
                shutil.rmtree(at)
            elif at.name not in (".git", ".gitignore"):
                at.unlink()
        index.set_roots([root])
        index.rescan()


def happen(kind: str, file: Path, text: str, index: WorkspaceIndex) -> None:
    if kind == "write":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    elif kind == "delete":
        file.unlink(missing_ok=True)
    else:
        index.set_buffer(file, text if kind == "open" else None)
    index.touch([file])
