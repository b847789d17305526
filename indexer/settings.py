"""The settings of the index. docs/retrieval.md has the measurements behind the defaults."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from indexer.chunking import Chunking
from indexer.retrieval import RetrieverName


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Settings of a `WorkspaceIndex`. They are immutable, because several threads read them.

    `include` and `exclude` are patterns as in `.gitignore`, relative to the workspace folder: `exclude` leaves more
    files out, `include` adds files that an ignore file leaves out (but none that may contain secrets). `max_file_bytes`
    is the size of the largest file that is read. `query_lines` is the number of lines before the cursor that a search
    uses. `watch` is False for a command that indexes a folder once. `workers` is the number of parsing processes, or 0
    for the default (see `worker_count`). `poll_seconds` is the shortest interval between scans of a folder for which
    the system reports no events. `cache_bytes` is the maximum size of all saved indexes together.
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
