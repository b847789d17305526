"""Whatever happens in whatever order, the index is that of the workspace as it is now."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.chunking import Chunking
from indexer.extract import extract
from indexer.languages import language_of
from indexer.model import Chunk, Cursor
from indexer.parts import Parts
from indexer.retrieval import RetrieverName
from indexer.settings import IndexSettings
from indexer.snapshot import Snapshot
from indexer.workspace import WorkspaceIndex

NAMES = ("a.py", "b.py", "pkg/c.py", "pkg/d.go", "ignored/e.py", "pkg/ignored/f.py")
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


def chunks_of(snapshot: Snapshot) -> list[Chunk]:
    return sorted(snapshot.all_chunks(), key=lambda chunk: (chunk.path, chunk.start_line))


def check_equal(snapshot: Snapshot, files: dict[str, str], root: str) -> None:
    """Compare with an index of the same files made from scratch: the chunks, and every retriever's answers."""
    scratch = Snapshot.of(sorted(files.items()), root=root)
    assert chunks_of(snapshot) == chunks_of(scratch)
    assert (snapshot.files, snapshot.chunks) == (scratch.files, scratch.chunks)
    cursor = Cursor(f"{root}/elsewhere.py", "gamma = 1\nself.alpha(", ")\nreturn beta\n", "python")
    for retriever in RETRIEVERS:
        found = replace(snapshot, retriever=retriever).search(cursor, 5)
        assert found == replace(scratch, retriever=retriever).search(cursor, 5), retriever
    assert snapshot.query("alpha beta", 5) == scratch.query("alpha beta", 5)


@given(st.lists(st.lists(change, min_size=1, max_size=4), max_size=8), st.booleans())
def test_parts_after_any_changes_and_merges_equal_one_segment(
    batches: list[list[tuple[str, str, str]]], late: bool
) -> None:
    parts, files = Parts(), dict[str, str]()
    for batch in batches:
        merge = parts.next_merge(tidy=True)  # begun before the changes, adopted after them
        fresh = {name: text for kind, name, text in batch if kind in ("write", "open")}
        gone = {name for kind, name, _ in batch if kind in ("delete", "close")} - fresh.keys()
        extracts = [extract(text, language_of(name), Chunking(), root="/ws", path=name) for name, text in fresh.items()]
        segment = merge.run() if merge and not late else None
        parts.apply(extracts, [("/ws", name) for name in gone])
        if merge:
            parts.adopt(merge, segment or merge.run())
        files = {name: text for name, text in {**files, **fresh}.items() if name not in gone}
    check_equal(Snapshot(("/ws",), parts.current), files, "/ws")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkspaceIndex]:
    root = tmp_path_factory.mktemp("living")
    (root / ".gitignore").write_text("ignored/\n")
    index = WorkspaceIndex([root], IndexSettings(watch=False, workers=1))
    index.start()
    yield index
    index.close()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(change, max_size=10), together=st.booleans())
def test_a_living_workspace_equals_one_indexed_from_scratch(
    index: WorkspaceIndex, changes: list[tuple[str, str, str]], together: bool
) -> None:
    assert index.wait_idle(60)
    root = Path(index.snapshot.roots[0])
    disk, buffers = dict[str, str](), dict[str, str]()
    for kind, name, text in changes:
        file = root / name
        if kind == "write":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            disk[name] = text
        elif kind == "delete":
            file.unlink(missing_ok=True)
            disk.pop(name, None)
        elif kind == "open":
            index.set_buffer(file, text)
            buffers[name] = text
        else:
            index.set_buffer(file, None)
            buffers.pop(name, None)
        index.touch([file])
        if not together:
            assert index.wait_idle(60)
    assert index.wait_idle(60)
    try:
        files = {name: text for name, text in {**disk, **buffers}.items() if "ignored" not in name}
        check_equal(index.snapshot, files, str(root))
    finally:
        for name in buffers:
            index.set_buffer(root / name, None)
        for at in root.iterdir():
            if at.is_dir():
                shutil.rmtree(at)
            elif at.name != ".gitignore":
                at.unlink()
        index.rescan()
