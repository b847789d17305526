"""The part of a file that decides whether a suggestion fits: the lines around the cursor, and what encloses them.

A file of thousands of lines takes too long to parse with every suggestion. What encloses the lines around the cursor is
known by its indentation: going up, each line with less indentation than all below it opens a scope that the cursor
is in; going down, each closing line with less indentation closes one. The lines in between are left out. Where a file
is not indented that way the region may not parse; since it is only compared with itself, that costs suggestions, not
correctness.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from policy.completion.shaping.lexical import syntax_of
from policy.completion.shaping.scan import scan

NEAR = 1_000  # characters on each side that are kept whole; up to twice as many, to a line border
_LONGEST_HEADER = 12  # lines of a wrapped header: `def f(` … `):`
_CONTINUES = re.compile(
    r"[)\]}#*]|//|/\*|--|(?:else|elif|elsif|elseif|except|finally|catch|rescue|ensure|case|default|when|then)\b"
)
_RAW = {"rust": (('r#"', '"#'),), "lua": (("[[", "]]"),), "cpp": (('R"(', ')"'),)}
_PLAIN_STRINGS = frozenset({"bash", "php", "ruby"})  # a string with plain quotes can have several lines
_LONGEST_SCAN = 60_000  # characters
_CLOSES = re.compile(r"^([ \t]*)([)\]}]+;?|(?:end|fi|done|esac)\b[)\]}]*|</[\w.-]*>)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Region:
    """What is looked at: `left` and `right` of the cursor, each ending or beginning there.

    `outer` characters of `left` are kept only for what they open. `near` characters of `right` are the text next to
    the cursor, the others close what encloses it; `beyond` is what follows the near text.
    """

    left: str
    right: str
    outer: int = 0
    near: int = 0
    beyond: str = ""


def region(prefix: str, suffix: str, language: str, near: int = NEAR) -> Region:
    """The region of a cursor between `prefix` and `suffix`: all of a short file, a part of a long one."""
    headers, kept = _left(prefix, language, near)
    end, closing = _right(suffix, near)
    return Region(headers + kept, suffix[:end] + closing, len(headers), end, suffix[end:])


def indent(line: str) -> int:
    """How many blanks and tabs a line begins with."""
    return len(line) - len(line.lstrip(" \t"))


def _left(prefix: str, language: str, near: int) -> tuple[str, str]:
    """The headers of what encloses the near lines, and those."""
    if len(prefix) <= 2 * near:
        return "", prefix
    start = _outside_literals(prefix, _border(prefix, len(prefix) - 2 * near, len(prefix) - near), language)
    if len(prefix) - start > 8 * near:  # a line, or a string, without an end
        start = len(prefix) - 2 * near
    headers = _headers(prefix[:start].split("\n")[:-1], _first_indent(prefix[start:]))
    if language == "php" and prefix.rfind("<?", 0, start) > prefix.rfind("?>", 0, start):
        headers.insert(0, "<?php")
    return "".join(line + "\n" for line in headers), prefix[start:]


def _headers(above: list[str], least: int) -> list[str]:
    """Those of the lines `above` that open something around a line that is indented by `least`."""
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
    """Where the near lines end in `suffix`, and what closes what encloses them."""
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
    """A line that is indented by less than `least`; lines of a preprocessor or a comment say nothing."""
    return re.compile(rf"^([ \t]{{0,{least - 1}}})(?![\s#]).*", re.MULTILINE)


def _border(text: str, start: int, end: int) -> int:
    """Where to cut `text` between two offsets: before the line with the least indentation that begins something.

    0 where no line begins there.
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


def _outside_literals(prefix: str, start: int, language: str) -> int:
    """`start`, or where the string or comment of several lines begins that `start` seems to lie in."""
    syntax = syntax_of(language)
    for opening, close in syntax.blocks.items():
        if (begin := prefix.rfind(opening, 0, start)) > prefix.rfind(close, 0, start):
            start = prefix.rfind("\n", 0, begin) + 1
    for opening, close in _RAW.get(language, ()):
        if (begin := prefix.rfind(opening, 0, start)) > prefix.rfind(close, 0, start):
            start = prefix.rfind("\n", 0, begin) + 1
    if language in _PLAIN_STRINGS and start <= _LONGEST_SCAN:
        read = scan(prefix[:start], language)
        if read.literal and read.since is not None:
            return prefix.rfind("\n", 0, read.since) + 1
        return start
    for opening, quote in syntax.quotes.items():
        plain = (
            opening == quote.close and quote.lines and (len(opening) == 3 or (opening == "`" and language != "bash"))
        )
        if plain and prefix.count(opening, 0, start) % 2:
            start = prefix.rfind("\n", 0, prefix.rfind(opening, 0, start)) + 1
    return start


def _first_indent(text: str) -> int:
    return next((indent(line) for line in text.split("\n") if line.strip()), 0)


def _open(lines: list[str]) -> bool:
    """Whether a header continues in the next line: a parenthesis is open."""
    text = "".join(lines)
    return text.count("(") > text.count(")") or text.count("[") > text.count("]")
