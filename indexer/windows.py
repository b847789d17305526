"""The paper's chunks: windows of a fixed number of lines that overlap by half (Repoformer, section 3; RepoCoder).

They know nothing of syntax, so they cut functions in two and every line stands in two windows; what they buy is that
they work on any text. They remain for text without a grammar and to measure `indexer.chunking` against.
"""

from __future__ import annotations

from dataclasses import dataclass

from indexer.model import ChunkKind


@dataclass(frozen=True, slots=True)
class Span:
    """Lines of a file that form one chunk: one-based, both ends inclusive, not yet joined with their text."""

    start_line: int
    end_line: int
    kind: ChunkKind
    header: str = ""
    symbols: tuple[str, ...] = ()


def windows(lines: int, size: int, stride: int) -> list[Span]:
    """Cover `lines` lines with windows of `size`, one each `stride` lines; the last one may be shorter.

    Raises ValueError unless 0 < stride <= size, since a larger stride would leave lines out.
    """
    if not 0 < stride <= size:
        raise ValueError(f"a window's stride must lie in 1..size, not stride={stride} with size={size}")
    last = max(lines - size + stride, 1)  # the start after which a window would only repeat the one before
    return [Span(at + 1, min(at + size, lines), "window") for at in range(0, last, stride)] if lines else []
