"""What is open at a place in a text: brackets, strings, comments.

`scan` goes from one state to the next, so a text is read in pieces: left of the cursor, the suggestion, right of the
cursor. The other functions answer one question each, and read no further than that takes.
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
    """What is open: `stack`, and by their `offsets` in the text what opened its entries."""

    stack: Stack = ()
    offsets: tuple[int, ...] = ()

    def before(self, offset: int) -> Opened:
        """That part of it that was opened before an offset."""
        size = next((number for number, begin in enumerate(self.offsets) if begin >= offset), len(self.offsets))
        return Opened(self.stack[:size], self.offsets[:size])


def scan(text: str, language: str, stack: Stack = (), *, before: str = "", words: bool = False) -> Scan:
    """Read `text` from the state `stack` on. With `words` the tokens contain words and signs, else there are none.

    `before` is what is left of it on its line. The offsets in the result are those in what was read of both.
    """
    before = before[-_CONTEXT:]
    reader = Reader(before + text, language, stack, start=len(before))
    reader.finish(words=words)
    return reader.result()


def opened_after(text: str, language: str, known: Opened = Opened(), start: int = 0) -> Opened:
    """What is open behind `text`, if that is `known` at the offset `start`, the beginning of a line."""
    reader = Reader(text, language, known.stack, known.offsets, start)
    reader.finish()
    return Opened(tuple(reader.opened), tuple(reader.offsets))


def as_balanced(text: str, language: str, stack: Stack, other: Stack) -> bool:
    """Whether `text` has no more errors where `stack` is open before it than where `other` is.

    Both are read in parallel, until nothing tells them apart.
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
    """Whether `left` and `right` are read the same as one text: no sign lies across the border between them.

    `stack` is open before them. A heredoc that `left` begins on its last line is no part of a stack, so it does.
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
    """Offset of the first thing in `text` that closes more than the innermost `allowed` entries of `stack`, if any.

    `before` is what is left of `text` on its line.
    """
    floor = sum(entry != LINE_COMMENT for entry in stack) - allowed
    before = before[-_CONTEXT:]
    reader = Reader(before + text, language, stack, start=len(before))
    while reader.step():
        if len(reader.opened) < floor or reader.strays:
            return reader.begin - len(before)
    return None


def states(text: str, language: str, stack: Stack, *, before: str = "") -> Iterator[tuple[int, int, Scan]]:
    """The offsets of each thing in `text` that changes the state, with the state behind it.

    `before` is what is left of `text` on its line. Ends where something closes nothing, which no later text mends, or
    where too much is open to be meant.
    """
    before = before[-_CONTEXT:]
    reader = Reader(before + text, language, stack, start=len(before))
    while not reader.strays and len(reader.opened) < len(stack) + _DEEPEST and reader.step():
        yield reader.begin - len(before), reader.position - len(before), reader.result()


def closers_in(text: str) -> bool:
    """Whether a text contains anything that could close a bracket or a string."""
    return any(character in CLOSERS or character in "\"'`" for character in text)
