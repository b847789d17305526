"""Find where a completion ends.

It ends with the line. It has more lines only if something is open: a block that begins at the cursor, or brackets,
strings and blocks that the completion's own first line opens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policy.completion.shaping.blocks import closes_block, closing_words, open_after, opens_block
from policy.completion.shaping.reader import Scan, Stack
from policy.completion.shaping.region import indent
from policy.completion.shaping.scan import scan


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a completion, as an offset in it.

    `certain`: more text cannot move it. `whole`: a complete statement ends there.
    """

    offset: int
    certain: bool
    whole: bool


@dataclass(frozen=True, slots=True)
class Line:
    """A line by its offsets, line end excluded, with its `scan`. `literal`: it begins in a string or a comment."""

    start: int
    end: int
    text: str
    scan: Scan
    literal: bool


def lines_of(text: str, language: str, stack: Stack) -> list[Line]:
    """Return the lines of `text`. `stack` is open before it."""
    found: list[Line] = []
    position = 0
    for content in text.split("\n"):
        literal = bool(stack) and Scan(stack).literal
        done = scan(content + "\n", language, stack, words=True)
        end = position + len(content)
        found.append(Line(position, end, content, done, literal))
        stack, position = done.stack, end + 1
    return found


def first_line(text: str) -> Ending:
    """Return the end of the first line."""
    end = text.find("\n")
    return Ending(len(text), False, False) if end < 0 else Ending(end, True, True)


@dataclass(frozen=True, slots=True)
class Start:
    """The text before a completion, as far as the completion's end depends on it.

    `head` begins at the line that may have opened what is open at the cursor, and ends at the cursor. `stack` is open
    before `head`, whose first line is indented by `indent`. `line` is the offset of the cursor's line in `head`.
    """

    head: str
    stack: Stack
    indent: int
    line: int
    language: str


def open_ending(start: Start, text: str, *, max_lines: int, bodies: bool, balanced: Callable[[str], bool]) -> Ending:
    """Return the end of the line, or of everything that was opened since the head's beginning.

    Without `bodies`, the body of a block is a separate completion if the line that opens it is `balanced` alone.
    """
    cursor, language = len(start.head), start.language
    lines = lines_of(start.head + text, language, start.stack)
    brackets = shown = last_end = 0
    indented = False  # in a block that ends by its indentation, not by a bracket
    for line in lines:
        tokens = line.scan.tokens
        finished = line is not lines[-1]
        if line.start > start.line and line.text.strip():
            if indented and not brackets and not line.literal and indent(line.text) <= start.indent:
                if closes_block(tokens, language):
                    return Ending(line.end - cursor, finished, True)
                return Ending(last_end, finished or not closing_words(language), True)
            shown += 1
            if shown > max_lines:
                return Ending(last_end, True, False)
        brackets = open_after(tokens, brackets)
        opens = opens_block(tokens, language)
        if opens and not bodies and finished and line.end >= cursor and balanced(text[: line.end - cursor]):
            return Ending(line.end - cursor, True, True)
        if not brackets:
            indented = indented or opens
        if line.end < cursor or not finished or not line.text.strip():
            continue
        last_end = line.end - cursor
        if not brackets and not indented and not line.scan.literal:
            return Ending(last_end, True, True)
    return Ending(len(text), False, False)


def whole_statements(text: str, read: Callable[[str], Scan]) -> str:
    """Return the leading lines of `text` that are complete: after them, nothing but blocks that they open is open.

    `read` returns the state after a text at the cursor.
    """
    while text.strip():
        done = read(text)
        if all(bracket == "{" for bracket in done.stack[done.kept :]):
            return text
        text = text[: max(0, text.rfind("\n"))]
    return ""
