"""What a person may set about the index. Each default is the one that was measured (docs/retrieval.md)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from indexer.chunking import Chunking
from indexer.retrieval import RetrieverName


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Settings of a `WorkspaceIndex`; frozen, so that a worker process and the cache can be keyed by them.

    `include` and `exclude` are patterns as in `.gitignore`, relative to the workspace folder: `exclude` adds to what
    is left out, `include` brings back what an ignore file leaves out (never what may hold secrets). `max_file_bytes`
    is the largest file read. `watch` is False for one-shot use. `workers` is the number of parsing processes, 0 for
    as many as suit the machine. `poll_seconds` is how often the disk is compared where native events are missing.
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
        """Return how many processes parse: half of the cores, at most four, so that a person's typing stays first."""
        return self.workers or max(1, min(4, (os.cpu_count() or 2) // 2))
