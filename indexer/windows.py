"""The paper's chunks: windows of a fixed number of lines that overlap by half (Repoformer, section 3; RepoCoder).

Windows ignore syntax, so they cut functions in two, and every line is in two windows. Their advantage is that they work
on any text. They are used for text without a grammar, and as the baseline for `indexer.chunking`.
"""

from __future__ import annotations

from dataclasses import dataclass

from indexer.model import ChunkKind


@dataclass(frozen=True, slots=True)
class Span:
    """The lines of a file that form one chunk (one-based, both ends inclusive), without their text."""

    start_line: int
    end_line: int
    kind: ChunkKind
    header: str = ""
    symbols: tuple[str, ...] = ()


def windows(lines: int, size: int, stride: int) -> list[Span]:
    """Cover `lines` lines with windows of `size` lines that start every `stride` lines. The last window may be shorter.

    Raises ValueError unless 0 < stride <= size, because a larger stride would leave lines out.
    """
    if not 0 < stride <= size:
        raise ValueError(f"a window's stride must be from 1 to its size, but stride={stride} and size={size}")
    last = max(lines - size + stride, 1)  # a window that started here would have no line that the previous one lacks
    return [Span(at + 1, min(at + size, lines), "window") for at in range(0, last, stride)] if lines else []
