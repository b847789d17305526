"""Find which brackets, strings and comments are open at an offset in a text.

`scan` reads a text, given what is open before the text. So a file can be read in pieces: the text before the cursor,
the suggestion, and the text after the cursor. Each of the other functions answers one question, and reads only as much
as necessary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policy.completion.shaping.lexical import CLOSERS, LINE_COMMENT
from policy.completion.shaping.reader import Reader, Scan, Stack

_DEEPEST = 64  # `states` ends when the text has opened this number of entries that are still open
# The meaning of a text's first character can depend on this number of characters before the text: a regular expression
# begins in `return /`, a formatted string begins in `f"`, and `1'000` is a number.
_CONTEXT = 8


@dataclass(frozen=True, slots=True)
class Opened:
    """The `stack` of open brackets, strings and comments, and the `offsets` in the text at which they were opened."""

    stack: Stack = ()
    offsets: tuple[int, ...] = ()

    def before(self, offset: int) -> Opened:
        """Return the entries that were opened before `offset`."""
        size = next((number for number, begin in enumerate(self.offsets) if begin >= offset), len(self.offsets))
        return Opened(self.stack[:size], self.offsets[:size])


def scan(text: str, language: str, stack: Stack = (), *, before: str = "", words: bool = False) -> Scan:
    """Return what is open after `text`, and the errors in `text`.

    `stack` has the brackets, strings and comments that are open before `text`. `before` is the text before `text` on
    the same line. Its last `_CONTEXT` characters are joined to `text`, and the offsets in the result refer to the
    joined text. The result has tokens only if `words` is true.
    """
    before = before[-_CONTEXT:]
    reader = Reader(before + text, language, stack, start=len(before))
    reader.finish(words=words)
    return reader.result()


def opened_after(text: str, language: str, known: Opened = Opened(), start: int = 0) -> Opened:
    """Return what is open after `text`. `known` is what is open at `start`, the offset at which a line begins."""
    reader = Reader(text, language, known.stack, known.offsets, start)
    reader.finish()
    return Opened(tuple(reader.opened), tuple(reader.offsets))


def as_balanced(text: str, language: str, stack: Stack, other: Stack) -> bool:
    """Return whether `text` has at most as many errors after `stack` as after `other`.

    `stack` and `other` are two possibilities for what is open before `text`. The errors of each kind (`Scan.extra` and
    `Scan.missing`) are compared.

    Two readers read `text` in parallel. They stop when their states are the same, because the rest adds the same errors
    to both.
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
    """Return whether reading `left` and `right` separately has the same result as reading them together.

    This is false if a token crosses the boundary between them. It is also false if the mark of a heredoc is on the last
    line of `left`, because the heredoc is not yet in the stack after `left`. `stack` is what is open before `left`.
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
    """Return the offset of the first bracket or quote in `text` that must not be there, or None if there is none.

    `text` may close what it opens, and the `allowed` innermost entries of `stack`. A bracket must not close another
    entry, and must not close nothing. `stack` is what is open before `text`, and `before` is the text before `text` on
    the same line.
    """
    floor = sum(entry != LINE_COMMENT for entry in stack) - allowed
    before = before[-_CONTEXT:]
    reader = Reader(before + text, language, stack, start=len(before))
    while reader.step():
        if len(reader.opened) < floor or reader.strays:
            return reader.begin - len(before)
    return None


def states(text: str, language: str, stack: Stack, *, before: str = "") -> Iterator[tuple[int, int, Scan]]:
    """Yield the start and end of each bracket, quote and comment mark in `text`, and the result of reading up to it.

    `stack` is what is open before `text`, and `before` is the text before `text` on the same line. The iteration ends
    after a bracket that closes nothing, because no later text can correct this error. It also ends when `text` has
    opened `_DEEPEST` entries that are still open.
    """
    before = before[-_CONTEXT:]
    reader = Reader(before + text, language, stack, start=len(before))
    while not reader.strays and len(reader.opened) < len(stack) + _DEEPEST and reader.step():
        yield reader.begin - len(before), reader.position - len(before), reader.result()


def closers_in(text: str) -> bool:
    """Return whether `text` contains a character that can close a bracket or a string."""
    return any(character in CLOSERS or character in "\"'`" for character in text)
