"""Find where a completion ends.

A completion ends with the cursor's line, unless something is open there: a block, a bracket or a string that the code
before the cursor or the completion itself opens. In that case, the completion continues until it is closed.
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
    """The end of a completion, as an offset in the generated text.

    `certain` says whether the offset stays the same if more text follows. `whole` says whether a complete statement
    ends at the offset.
    """

    offset: int
    certain: bool
    whole: bool


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a text. `start` and `end` are its offsets, without the line end.

    `scan` is the state after the line, with the line's tokens. `literal` says whether the line begins in a string or a
    comment.
    """

    start: int
    end: int
    text: str
    scan: Scan
    literal: bool


def lines_of(text: str, language: str, stack: Stack) -> list[Line]:
    """Return the lines of `text`. `stack` is what is open before `text`."""
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
    """Return the end of the first line of `text`. It is not certain while `text` has only one line."""
    end = text.find("\n")
    return Ending(len(text), False, False) if end < 0 else Ending(end, True, True)


@dataclass(frozen=True, slots=True)
class Start:
    """The part of the text before the cursor on which the end of a completion depends.

    `head` is that part. It begins with the last line that has text, which may be the cursor's line, and ends at the
    cursor. `stack` is what is open before `head`. `indent` is the indentation of the first line of `head`, in
    characters. `line` is the offset of the cursor's line in `head`.
    """

    head: str
    stack: Stack
    indent: int
    line: int
    language: str


def open_ending(start: Start, text: str, *, max_lines: int, bodies: bool, balanced: Callable[[str], bool]) -> Ending:
    """Return the end of the cursor's line, or of everything that `start.head` and `text` open.

    A completion has at most `max_lines` nonblank lines below the cursor's line. If `bodies` is false, it ends with a
    line that opens a block, because the block is a separate completion. This requires that `balanced` returns true for
    the text up to the end of that line.
    """
    cursor, language = len(start.head), start.language
    lines = lines_of(start.head + text, language, start.stack)
    brackets = shown = last_end = 0
    indented = False  # whether a block is open that ends with its indentation or a keyword, not with a bracket
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
    """Return the longest beginning of `text`, in whole lines, that ends with a complete statement.

    It may leave braces open that it opens, but no other bracket and no string. `read` returns the state after a text at
    the cursor.
    """
    while text.strip():
        done = read(text)
        if all(bracket == "{" for bracket in done.stack[done.kept :]):
            return text
        text = text[: max(0, text.rfind("\n"))]
    return ""
