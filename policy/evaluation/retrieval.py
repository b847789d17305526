"""Search a task's repository with the index, and measure the time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal

from indexer.chunking import Chunking
from indexer.model import Hit
from indexer.retrieval import RetrieverName
from indexer.snapshot import Snapshot
from indexer.words import jaccard, last_lines, words

from .task import Repository, Task

Style = Literal["structure", "window"]


class Retrieval:
    """Searches the repositories of a data set. A repository is indexed before its first search.

    `chunks` is the maximum number of hits. `retriever` selects the ranking (the server uses "proximity", the paper
    "jaccard"). `style` selects how files are split into chunks: "structure" is the server's way, and "window" the
    paper's, overlapping windows of 20 lines (50 for functions). With "window", each hit is replaced by the chunk that
    follows it (fragment alignment, paper, section 3.3).
    """

    def __init__(
        self,
        repositories: Mapping[str, Repository],
        style: Style = "structure",
        chunks: int = 10,
        retriever: RetrieverName = "proximity",
    ) -> None:
        self._repositories = repositories
        self._retriever = retriever
        self._style = style
        self._chunks = chunks
        # The index of each repository, by the repository's name and the number of lines in a window.
        self._snapshots: dict[tuple[str, int], Snapshot] = {}

    def find(self, task: Task) -> tuple[tuple[Hit, ...], float]:
        """Return the hits for a task, best first, and the time of the search without indexing, in milliseconds.

        If the data set contains retrieved chunks for the task, these are the hits, scored by Jaccard similarity, and
        the time is 0.
        """
        if task.given is not None:
            lines = words(last_lines(task.cursor.prefix, self._lines(task)))
            return tuple(Hit(chunk, jaccard(words(chunk.text), lines)) for chunk in task.given[: self._chunks]), 0.0
        snapshot = self.snapshot(task)
        started = time.perf_counter()
        hits = snapshot.search(task.cursor, self._chunks)
        if self._style == "window":
            hits = tuple(Hit(snapshot.following(hit.chunk) or hit.chunk, hit.score) for hit in hits)
        return hits, (time.perf_counter() - started) * 1e3

    def snapshot(self, task: Task) -> Snapshot:
        """Return the index of a task's repository.

        The first call for a repository and a number of lines in a window makes the index.
        """
        lines = self._lines(task)
        key = (task.repository, lines)
        if key not in self._snapshots:
            repository = self._repositories[task.repository]
            self._snapshots[key] = Snapshot.of(
                repository.files.items(),
                Chunking(self._style, window_lines=lines, window_stride=lines // 2),
                root=repository.root,
                retriever=self._retriever,
                query_lines=lines,
            )
        return self._snapshots[key]

    def _lines(self, task: Task) -> int:
        """Return how many lines before the cursor form the query. A window has the same number of lines."""
        return 50 if self._style == "window" and task.kind == "function" else 20
