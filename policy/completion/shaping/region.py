"""Select the part of a file that decides whether a suggestion fits: the lines around the cursor and their scopes.

A file of thousands of lines takes too long to parse with every suggestion. The indentation shows which scopes enclose
the cursor. Above the cursor, a line opens a scope if it has less indentation than all lines between it and the cursor.
Below the cursor, a line with less indentation and a closing bracket or keyword closes a scope. The other lines that are
far from the cursor are left out.

`scan.py` finds exactly which brackets, strings and comments are open where the lines around the cursor begin. If the
lines selected by indentation do not open exactly these, the region begins with the lines that do.

The lines that are left out can cause syntax errors in the region. The region with a suggestion is only compared with
the region without it. So these errors can suppress a suggestion, but they cannot make a wrong one appear.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial

from policy.completion.shaping.elements import is_element, opening_tag
from policy.completion.shaping.lexical import is_literal
from policy.completion.shaping.scan import Opened, opened_after, scan

NEAR = 1_000  # the minimum number of characters kept on each side of the cursor; whole lines may need twice as many
_LONGEST_HEADER = 12  # a header such as `def f(` … `):` may continue on at most this number of lines
_CONTINUES = re.compile(
    r"[)\]}#*]|//|/\*|--|(?:else|elif|elsif|elseif|except|finally|catch|rescue|ensure|case|default|when|then)\b"
)
_LONGEST = 200_000  # characters; a longer text above the region is not read to find what is open after it
_LONGEST_LITERAL = 6_000  # characters; if an open string begins farther above the region, only its first line is kept
_PREFIX = re.compile(r"\w*\Z")  # the letters before a quote, such as `r` or `f`
_CLOSES = re.compile(r"^([ \t]*)([)\]}]+;?|(?:end|fi|done|esac)\b[)\]}]*|</[\w.-]*>)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a file: `left` is the text before the cursor, and `right` the text after it.

    The first `outer` characters of `left` are lines that open the enclosing scopes, and the other characters are the
    text just before the cursor. The first `near` characters of `right` are the text just after the cursor, and the
    other characters are lines that close the enclosing scopes. `beyond` is the text of the file that follows the `near`
    characters, with nothing left out.
    """

    left: str
    right: str
    outer: int = 0
    near: int = 0
    beyond: str = ""


def region(
    prefix: str, suffix: str, language: str, near: int = NEAR, opened: Callable[[str], Opened] | None = None
) -> Region:
    """Return the region of a cursor between `prefix` and `suffix`. The region of a short file is the whole file.

    `near` is the minimum number of characters on each side of the cursor. `opened` takes a part of `prefix` from its
    beginning, and returns the brackets, strings and comments that are open after this part.
    """
    headers, kept = _left(prefix, language, near, opened or partial(opened_after, language=language))
    end, closing = _right(suffix, near)
    return Region(headers + kept, suffix[:end] + closing, len(headers), end, suffix[end:])


def indent(line: str) -> int:
    """Return the number of spaces and tabs at the beginning of `line`."""
    return len(line) - len(line.lstrip(" \t"))


def _left(prefix: str, language: str, near: int, opened: Callable[[str], Opened]) -> tuple[str, str]:
    """Return the headers, which are the lines that open the enclosing scopes, and the lines just before the cursor."""
    if len(prefix) <= 2 * near:
        return "", prefix
    start = _border(prefix, len(prefix) - 2 * near, len(prefix) - near)
    if len(prefix) - start > 8 * near:  # the first line is very long, so the region begins inside it
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
    """Return the lines that open the scopes around the line at the offset `first`.

    `brackets` has the brackets that are open at `first`, or is None if they are unknown. If they are known, the result
    opens the same brackets.
    """
    lines = _headers(prefix[:first].split("\n")[:-1], _first_indent(prefix[first:]))
    headers = "".join(line + "\n" for line in lines)
    if brackets is None or scan(headers, language).stack == brackets.stack:
        return headers
    headers = _lines_at(prefix, brackets.offsets)
    if scan(headers, language).stack == brackets.stack:
        return headers
    return "".join((opening_tag(entry) if is_element(entry) else entry) + "\n" for entry in brackets.stack)


def _with_literals(prefix: str, start: int, opened: Opened, language: str) -> tuple[int, str]:
    """Return an offset at which no string or comment is open, and the text from this offset to the cursor.

    The offset is `start` if no string or comment is open at `start`. Otherwise, it is the offset of the line in which
    the outermost open string or comment begins. If the line itself begins in another string, it is the offset of the
    open string. If the offset is far above `start`, the text has only some of the lines in between: those that open
    something. `opened` has the brackets, strings and comments that are open at `start`.
    """
    outermost = next((number for number, entry in enumerate(opened.stack) if is_literal(entry)), None)
    if outermost is None:
        return start, prefix[start:]
    offset = opened.offsets[outermost]
    first = prefix.rfind("\n", 0, offset) + 1
    in_code = scan(prefix[first:offset], language, opened.before(first).stack).stack == opened.stack[:outermost]
    if not in_code:  # the line begins in another string, so the text begins with the open string and its prefix
        first = offset - len(_PREFIX.findall(prefix[max(0, offset - 3) : offset])[0])
    if start - first <= _LONGEST_LITERAL:
        return first, prefix[first:]
    line_end = prefix.find("\n", offset) + 1
    return first, prefix[first:line_end] + _lines_at(prefix, opened.offsets[outermost:], line_end) + prefix[start:]


def _lines_at(text: str, offsets: Iterable[int], line_end: int = 0) -> str:
    """Return the lines of `text` that contain the ascending `offsets`, each line once.

    Offsets before `line_end` are ignored.
    """
    lines: list[str] = []
    for offset in offsets:
        if offset >= line_end:
            line_start, line_end = text.rfind("\n", 0, offset) + 1, text.find("\n", offset) + 1
            lines.append(text[line_start:line_end])
    return "".join(lines)


def _headers(above: list[str], least: int) -> list[str]:
    """Return the lines of `above` that open the scopes around the line that follows them.

    `least` is the indentation of that line in characters.
    """
    headers: list[str] = []
    number = len(above)
    while number and least:
        number -= 1
        line = above[number]
        if not line.strip() or indent(line) >= least:
            continue
        first = number
        # A line such as `) -> int:` or `else:` continues an earlier line, which is also needed.
        while first and _CONTINUES.match(above[first].lstrip(" \t")):
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
    """Return the offset where the lines just after the cursor end, and the lines that close the enclosing scopes."""
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
    """Return a pattern for a line that has text and less indentation than `least`, and does not begin with `#`."""
    return re.compile(rf"^([ \t]{{0,{least - 1}}})(?![\s#]).*", re.MULTILINE)


def _border(text: str, start: int, end: int) -> int:
    """Return the offset of a line at which to cut `text`, or 0 if no line begins after `start`.

    Of the lines between `start` and `end` that neither continue nor close something, this is the last one with the
    least indentation. If there are none, this is the first line that begins after `start`.
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
    """Return whether the lines of a header leave a bracket open, so that the next line also belongs to the header."""
    text = "".join(lines)
    return text.count("(") > text.count(")") or text.count("[") > text.count("]")
