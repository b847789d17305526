"""Find where a completion ends.

A completion ends at the end of the cursor's line, unless a block, a bracket or a string is open there. In that case,
the completion continues until the block, the bracket or the string is closed. An element, such as `<a>`, counts as a
bracket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policy.completion.shaping.blocks import closes_block, closing_words, needs_next, open_after, opens_block
from policy.completion.shaping.reader import Scan, Stack
from policy.completion.shaping.region import indent
from policy.completion.shaping.scan import scan


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a completion, as an offset in the generated text.

    `certain` says whether the offset stays the same when the model generates more text. `whole` says whether a complete
    statement ends at the offset.
    """

    offset: int
    certain: bool
    whole: bool


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a text. `start` and `end` are its offsets in the text, without the line end.

    `scan` has the line's tokens, and what is open after the line. `literal` says whether the line begins in a string or
    a comment.
    """

    start: int
    end: int
    text: str
    scan: Scan
    literal: bool


def lines_of(text: str, language: str, stack: Stack) -> list[Line]:
    """Return the lines of `text`. `stack` has the brackets, strings and comments that are open before `text`."""
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
    """Return the end of the first line of `text`. The end is certain only if `text` contains a line end."""
    end = text.find("\n")
    return Ending(len(text), False, False) if end < 0 else Ending(end, True, True)


@dataclass(frozen=True, slots=True)
class Start:
    """The part of the text before the cursor on which the end of a completion depends.

    `head` is that part. It begins with the last line that has text, which may be the cursor's line, and ends at the
    cursor. `stack` has the brackets, strings and comments that are open before `head`. `indent` is the indentation of
    the statement at the beginning of `head`, in characters. `brackets` is the number of brackets in `stack` in which
    this statement continues. `line` is the offset of the cursor's line in `head`.
    """

    head: str
    stack: Stack
    indent: int
    brackets: int
    line: int
    language: str


def open_ending(start: Start, text: str, *, max_lines: int, bodies: bool, balanced: Callable[[str], bool]) -> Ending:
    """Return the end, in `text`, of a completion that may have several lines.

    If no block, bracket or string is open at the end of the cursor's line, the completion ends there. Otherwise, it
    ends with the line at which the last of these ends. It has at most `max_lines` nonblank lines below the cursor's
    line.

    If `bodies` is false, the completion also ends with a line that opens a block, because the body of the block is a
    separate completion. It ends there only if `balanced` returns true for the text up to the end of that line.
    """
    cursor, language = len(start.head), start.language
    lines = lines_of(start.head + text, language, start.stack)
    brackets = shown = last_end = 0
    # Whether a block is open that ends without a closing bracket: at a keyword, or at a line with less indentation than
    # its body. The indentation of its first line is `outer`.
    indented, outer = False, start.indent
    statement = start.indent  # the indentation of the line in which the statement begins
    inside = start.brackets  # the number of brackets in which the statement continues
    for line in lines:
        tokens = line.scan.tokens
        finished = line is not lines[-1]
        if line.start and line.start >= start.line and line.text.strip() and not inside and not line.literal:
            statement = indent(line.text)
        if line.start > start.line and line.text.strip():
            if indented and not brackets and not line.literal and indent(line.text) <= outer:
                if closes_block(tokens, language):
                    return Ending(line.end - cursor, finished, True)
                return Ending(last_end, finished or not closing_words(language), True)
            shown += 1
            if shown > max_lines:
                return Ending(last_end, True, False)
        brackets, inside = open_after(tokens, brackets), open_after(tokens, inside)
        opens = opens_block(tokens, language)
        if opens and not bodies and finished and line.end >= cursor and balanced(text[: line.end - cursor]):
            return Ending(line.end - cursor, True, True)
        if not brackets and opens and not indented:
            indented, outer = True, statement
        if line.end < cursor or not finished or not line.text.strip():
            continue
        last_end = line.end - cursor
        if not brackets and not indented and not line.scan.literal and not needs_next(tokens, language):
            return Ending(last_end, True, True)
    return Ending(len(text), False, False)


def well_indented(start: Start, text: str) -> str:
    """Return the longest beginning of `text`, in whole lines, whose blocks are indented consistently.

    This is for languages with blocks that depend on indentation, because their grammars ignore such errors. The first
    line of `text`, which continues the cursor's line, is always in the result.
    """
    if "\n" not in text:
        return text
    cursor, levels = len(start.head), [start.indent]
    brackets = start.brackets
    opened = continued = False  # whether the previous line opens a block, and whether it ends with a backslash
    last_end = text.index("\n")
    for line in lines_of(start.head + text, start.language, start.stack):
        tokens = line.scan.tokens
        if tokens and not brackets and not line.literal and not continued:
            width = indent(line.text)
            deeper = width > levels[-1]
            while levels and width < levels[-1]:
                levels.pop()
            if line.start > start.line and (deeper != opened or (not deeper and levels and width > levels[-1])):
                return text[:last_end]
            if not levels or width > levels[-1]:
                levels.append(width)
        if tokens:
            brackets = open_after(tokens, brackets)
            opened = not brackets and opens_block(tokens, start.language)
        continued = line.text.endswith("\\")
        if line.text.strip():
            last_end = max(last_end, line.end - cursor)
    return text


def whole_statements(text: str, read: Callable[[str], Scan]) -> str:
    """Return the longest beginning of `text`, in whole lines, that ends with a complete statement.

    The result may leave braces open, but no other bracket, no string and no comment. `read` returns what is open after
    a text at the cursor.
    """
    while text.strip():
        done = read(text)
        if all(bracket == "{" for bracket in done.stack[done.kept :]):
            return text
        text = text[: max(0, text.rfind("\n"))]
    return ""
