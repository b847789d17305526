"""Find which brackets, strings and comments are open at an offset in a text.

`scan` reads a text from any state, so a file is read in pieces: left of the cursor, the suggestion, right of the
cursor. Each of the other functions answers one question, and reads no further than necessary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policy.completion.shaping.lexical import CLOSERS, LINE_COMMENT
from policy.completion.shaping.reader import Reader, Scan, Stack

_DEEPEST = 64
_CONTEXT = 8  # characters left of a text that can tell how its first sign is read: `return /`, `f"`, `1'000`


@dataclass(frozen=True, slots=True)
class Opened:
    """The `stack` of what is open, and the `offsets` in the text of what opened each entry."""

    stack: Stack = ()
    offsets: tuple[int, ...] = ()

    def before(self, offset: int) -> Opened:
        """Return the part of it that was opened before an offset."""
        size = next((number for number, begin in enumerate(self.offsets) if begin >= offset), len(self.offsets))
        return Opened(self.stack[:size], self.offsets[:size])


def scan(text: str, language: str, stack: Stack = (), *, before: str = "", words: bool = False) -> Scan:
    """Return the state after `text`, read from the state `stack`. Only with `words` does the result have tokens.

    `before` is the text left of `text` on its line. The offsets in the result count from the part of it that is read.
    """
    before = before[-_CONTEXT:]
    reader = Reader(before + text, language, stack, start=len(before))
    reader.finish(words=words)
    return reader.result()


def opened_after(text: str, language: str, known: Opened = Opened(), start: int = 0) -> Opened:
    """Return what is open after `text`. `known` is what is open at the offset `start`, the beginning of a line."""
    reader = Reader(text, language, known.stack, known.offsets, start)
    reader.finish()
    return Opened(tuple(reader.opened), tuple(reader.offsets))


def as_balanced(text: str, language: str, stack: Stack, other: Stack) -> bool:
    """Return whether `text` has no more errors with `stack` open before it than with `other`.

    Both readings advance in parallel until they agree.
    """
    one, two = Reader(text, language, stack), Reader(text, language, other)
    while not one.agrees(two):
        behind, ahead = (one, two) if one.position <= two.position else (two, one)
        if not behind.step():
            ahead.finish()
            break
    with_stack, with_other = one.result(), two.result()
    return with_stack.extra <= with_other.extra and with_stack.missing <= with_other.missing


def reads_apart(left: str, right: str, language: str, stack: Stack) -> bool:
    """Return whether `left` and `right` are read separately as they are read together: no token crosses the boundary.

    `stack` is open before them. A heredoc that begins on the last line of `left` counts as crossing, since it is not
    in the stack.
    """
    apart, joined = Reader(left, language, stack), Reader(left + right, language, stack)
    apart.finish()
    if apart.heredocs:
        return False
    alone = Reader(right, language, tuple(apart.opened))
    found = alone.step()
    while (more := joined.step()) and joined.begin < len(left) and joined.position <= len(left):
        pass
    if more != found or joined.opened != alone.opened or joined.missed != apart.missed + alone.missed:
        return False
    return not found or (joined.begin, joined.position) == (len(left) + alone.begin, len(left) + alone.position)


def surplus(text: str, language: str, stack: Stack, allowed: int, *, before: str = "") -> int | None:
    """Return the offset at which `text` first closes more than `allowed` innermost entries of `stack`, or None.

    `before` is the text left of `text` on its line.
    """
    floor = sum(entry != LINE_COMMENT for entry in stack) - allowed
    before = before[-_CONTEXT:]
    reader = Reader(before + text, language, stack, start=len(before))
    while reader.step():
        if len(reader.opened) < floor or reader.strays:
            return reader.begin - len(before)
    return None


def states(text: str, language: str, stack: Stack, *, before: str = "") -> Iterator[tuple[int, int, Scan]]:
    """Yield the offsets of each thing in `text` that changes the state, with the state after it.

    `before` is the text left of `text` on its line. Stop at a bracket that closes nothing, which no later text can
    correct, or if more than `_DEEPEST` entries are open.
    """
    before = before[-_CONTEXT:]
    reader = Reader(before + text, language, stack, start=len(before))
    while not reader.strays and len(reader.opened) < len(stack) + _DEEPEST and reader.step():
        yield reader.begin - len(before), reader.position - len(before), reader.result()


def closers_in(text: str) -> bool:
    """Return whether a text contains a character that can close a bracket or a string."""
    return any(character in CLOSERS or character in "\"'`" for character in text)
