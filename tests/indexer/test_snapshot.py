"""The hits of a search at a cursor. In a test's string, a line `#- path` begins each file, and `‸` is the cursor."""

from __future__ import annotations

from indexer.chunking import Chunking
from indexer.model import Cursor
from indexer.snapshot import Snapshot
from indexer.words import jaccard, words


def files_of(fixture: str) -> dict[str, str]:
    files: dict[str, list[str]] = {}
    for line in fixture.strip("\n").split("\n"):
        if line.startswith("#- "):
            files[line[3:].strip()] = []
        else:
            files[list(files)[-1]].append(line)
    return {path: "\n".join(lines) for path, lines in files.items()}


def search(fixture: str, k: int = 10, chunking: Chunking | None = None) -> list[str]:
    """Return `path:line` of the `k` best hits at the cursor in `fixture`."""
    files = files_of(fixture)
    (at,) = [path for path, text in files.items() if "‸" in text]
    prefix, _, suffix = files[at].partition("‸")
    snapshot = Snapshot.of({**files, at: prefix + suffix}.items(), chunking, root="/ws")
    hits = snapshot.search(Cursor(f"/ws/{at}", prefix, suffix, ""), k)
    return [f"{hit.chunk.path}:{hit.chunk.start_line}" for hit in hits]


def test_a_call_finds_the_definition() -> None:
    assert search("""
#- geo.py
def area(w, h):
    return w * h
#- main.py
from geo import area
area(‸)
""") == ["geo.py:1"]


def test_chunks_of_the_cursors_own_file_are_left_out() -> None:
    assert (
        search("""
#- main.py
def area(w, h):
    return w * h

area(w‸)
""")
        == []
    )


def test_a_near_copy_of_the_text_around_the_cursor_is_dropped() -> None:
    assert search("""
#- copy.py
def area(w, h):
    return w * h
#- more.py
def area_of_ring(w, h, inner):
    return w * h - inner
#- main.py
def area(w, h):
    return w * h

‸
""") == ["more.py:1"]


def test_a_chunk_with_a_secret_is_left_out() -> None:
    assert (
        search("""
#- config.py
def connect(host):
    return open_connection(host, password="kX9#mQ2pLw")
#- main.py
connect(host‸)
""")
        == []
    )


def test_a_query_ranks_by_jaccard_exactly() -> None:
    files = [(f"f{n}.py", "\n".join(f"a{n * i % 7} b{i} c{n}" for i in range(4))) for n in range(40)]
    snapshot = Snapshot.of(files, root="/ws")
    query = "a0 a1 a2 b1 b2 c5 c9"
    scores = sorted((jaccard(words(query), words(text)) for _, text in files), reverse=True)
    assert [hit.score for hit in snapshot.query(query, 10)] == scores[:10]
    assert "f5.py" not in {hit.chunk.path for hit in snapshot.query(query, 40, exclude="f5.py")}
