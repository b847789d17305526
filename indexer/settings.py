"""The settings of the index. docs/retrieval.md has the measurements behind the defaults."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from indexer.chunking import Chunking
from indexer.retrieval import RetrieverName


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Settings of a `WorkspaceIndex`. Immutable, so that they can be a key for worker processes and the cache.

    `include` and `exclude` are patterns as in `.gitignore`, relative to the workspace folder: `exclude` leaves more
    files out, `include` adds files that an ignore file leaves out (but none that may contain secrets). `max_file_bytes`
    is the size of the largest file that is read. `watch` is False for a single run. `workers` is the number of parsing
    processes, or 0 to choose it by the machine. `poll_seconds` is the least interval between scans of a folder without
    native events.
    """

    chunking: Chunking = field(default_factory=Chunking)
    retriever: RetrieverName = "proximity"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_file_bytes: int = 1_000_000
    query_lines: int = 20
    watch: bool = True
    workers: int = 0
    poll_seconds: float = 5.0
    cache_bytes: int = 2_000_000_000

    def worker_count(self) -> int:
        """Return the number of parsing processes.

        The default is half of the cores, at most four, so that typing stays responsive.
        """
        return self.workers or max(1, min(4, (os.cpu_count() or 2) // 2))
