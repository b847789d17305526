"""Select the part of a file that decides whether a suggestion fits: the lines around the cursor and their scopes.

A file of thousands of lines takes too long to parse with every suggestion. Indentation shows which scopes enclose the
cursor: upward, each line with less indentation than all lines below it opens a scope; downward, each closing line with
less indentation closes one. The lines in between are left out.

The brackets, strings and comments that are open above the region are known exactly. If the indentation of a file does
not agree with them, the region begins with the lines that open them instead. Such a region may not parse. It is only
compared with itself, so this can suppress suggestions, but shows no wrong ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial

from policy.completion.shaping.lexical import OPENERS
from policy.completion.shaping.scan import Opened, opened_after, scan

NEAR = 1_000  # characters on each side that are kept; up to twice as many, to end at a line boundary
_LONGEST_HEADER = 12  # lines of a wrapped header: `def f(` … `):`
_CONTINUES = re.compile(
    r"[)\]}#*]|//|/\*|--|(?:else|elif|elsif|elseif|except|finally|catch|rescue|ensure|case|default|when|then)\b"
)
_LONGEST = 200_000  # characters above the region that are searched for open strings and comments
_LONGEST_LITERAL = 6_000  # characters of a string or a comment above the region that are kept
_PREFIX = re.compile(r"\w*\Z")  # of a string: `r`, `f`
_CLOSES = re.compile(r"^([ \t]*)([)\]}]+;?|(?:end|fi|done|esac)\b[)\]}]*|</[\w.-]*>)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Region:
    """The text `left` and `right` of the cursor.

    The first `outer` characters of `left` are kept only for the scopes that they open. The first `near` characters of
    `right` are the text next to the cursor, the others close its scopes. `beyond` is the file after the near text.
    """

    left: str
    right: str
    outer: int = 0
    near: int = 0
    beyond: str = ""


def region(
    prefix: str, suffix: str, language: str, near: int = NEAR, opened: Callable[[str], Opened] | None = None
) -> Region:
    """Return the region of a cursor between `prefix` and `suffix`: all of a short file, a part of a long one.

    `opened` returns what is open after a part of the prefix.
    """
    headers, kept = _left(prefix, language, near, opened or partial(opened_after, language=language))
    end, closing = _right(suffix, near)
    return Region(headers + kept, suffix[:end] + closing, len(headers), end, suffix[end:])


def indent(line: str) -> int:
    """Return how many spaces and tabs a line begins with."""
    return len(line) - len(line.lstrip(" \t"))


def _left(prefix: str, language: str, near: int, opened: Callable[[str], Opened]) -> tuple[str, str]:
    """Return the headers of the scopes that enclose the near lines, and the near lines."""
    if len(prefix) <= 2 * near:
        return "", prefix
    start = _border(prefix, len(prefix) - 2 * near, len(prefix) - near)
    if len(prefix) - start > 8 * near:  # a line without an end
        start = len(prefix) - 2 * near
    first, kept, outside = start, prefix[start:], None
    if start <= _LONGEST:
        around = opened(prefix[:start])
        first, kept = _with_literals(prefix, start, around, language)
        outside = around.before(first)
    headers = _enclosing(prefix, first, outside, language)
    if language == "php" and prefix.rfind("<?", 0, first) > prefix.rfind("?>", 0, first):
        headers = "<?php\n" + headers
    return headers, kept


def _enclosing(prefix: str, first: int, brackets: Opened | None, language: str) -> str:
    """Return the headers of the scopes around the line at `first`. They open `brackets`, if these are known."""
    lines = _headers(prefix[:first].split("\n")[:-1], _first_indent(prefix[first:]))
    headers = "".join(line + "\n" for line in lines)
    if brackets is None or scan(headers, language).stack == brackets.stack:
        return headers
    headers = _lines_at(prefix, brackets.offsets)
    if scan(headers, language).stack == brackets.stack:
        return headers
    return "".join(bracket + "\n" for bracket in brackets.stack)


def _with_literals(prefix: str, start: int, opened: Opened, language: str) -> tuple[int, str]:
    """Return the text from `start`, after the lines that open the strings and comments around it, and its offset.

    A long part of these strings and comments above `start` is left out.
    """
    outermost = next((number for number, entry in enumerate(opened.stack) if entry not in OPENERS), None)
    if outermost is None:
        return start, prefix[start:]
    offset = opened.offsets[outermost]
    first = prefix.rfind("\n", 0, offset) + 1
    in_code = scan(prefix[first:offset], language, opened.before(first).stack).stack == opened.stack[:outermost]
    if not in_code:  # the line begins in another string, which ends there
        first = offset - len(_PREFIX.findall(prefix[max(0, offset - 3) : offset])[0])
    if start - first <= _LONGEST_LITERAL:
        return first, prefix[first:]
    line_end = prefix.find("\n", offset) + 1
    return first, prefix[first:line_end] + _lines_at(prefix, opened.offsets[outermost:], line_end) + prefix[start:]


def _lines_at(text: str, offsets: Iterable[int], line_end: int = 0) -> str:
    """Return the lines at these offsets, in order and each once, if they begin after `line_end`."""
    lines: list[str] = []
    for offset in offsets:
        if offset >= line_end:
            line_start, line_end = text.rfind("\n", 0, offset) + 1, text.find("\n", offset) + 1
            lines.append(text[line_start:line_end])
    return "".join(lines)


def _headers(above: list[str], least: int) -> list[str]:
    """Return the lines of `above` that open a scope around a line that is indented by `least`."""
    headers: list[str] = []
    number = len(above)
    while number and least:
        number -= 1
        line = above[number]
        if not line.strip() or indent(line) >= least:
            continue
        first = number
        while first and _CONTINUES.match(above[first].lstrip(" \t")):  # `) -> int:`, `else:`: of what?
            first -= 1
            while first and (not above[first].strip() or indent(above[first]) > indent(line)):
                first -= 1
        last = number
        while last + 1 < len(above) and last - number < _LONGEST_HEADER and _open(above[number : last + 1]):
            last += 1
        headers[:0] = above[first : last + 1]
        number, least = first, indent(above[first])
    return headers


def _right(suffix: str, near: int) -> tuple[int, str]:
    """Return the offset where the near lines end in `suffix`, and the lines that close their scopes."""
    if len(suffix) <= 2 * near:
        return len(suffix), ""
    border = end = _border(suffix, near, 2 * near) or 2 * near
    kept = suffix[:end]
    last = next((line for line in reversed(kept.split("\n")) if line.strip()), "")
    least = indent(last) + (not _CLOSES.match(last))
    closing: list[str] = []
    while least and (line := _indented_less(least).search(suffix, end)):
        least, end = len(line.group(1)), line.end()
        if closer := _CLOSES.match(line.group()):
            closing.append(closer.group() + "\n")
    return border, "".join(closing)


@cache
def _indented_less(least: int) -> re.Pattern[str]:
    """Return a pattern for a line that is indented by less than `least`, except preprocessor and comment lines."""
    return re.compile(rf"^([ \t]{{0,{least - 1}}})(?![\s#]).*", re.MULTILINE)


def _border(text: str, start: int, end: int) -> int:
    """Return where to cut `text` between two offsets: before the line with the least indentation that begins something.

    Return 0 if no line begins there.
    """
    best, least = text.find("\n", start) + 1, 1 << 30
    position = best
    for line in text[best:end].split("\n")[:-1]:
        content = line.lstrip(" \t")
        begins = content and not _CONTINUES.match(content) and not _CLOSES.match(line)
        if begins and indent(line) <= least:
            best, least = position, indent(line)
        position += len(line) + 1
    return best


def _first_indent(text: str) -> int:
    return next((indent(line) for line in text.split("\n") if line.strip()), 0)


def _open(lines: list[str]) -> bool:
    """Return whether a header continues in the next line: a parenthesis is open."""
    text = "".join(lines)
    return text.count("(") > text.count(")") or text.count("[") > text.count("]")
