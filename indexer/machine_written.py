"""Detect text that a tool wrote, by its header comment and by the lines of its code.

Of the comments, only the header counts: the source of a code generator contains "do not edit" in its strings and in
later comments. Of a long line, only the code in it counts: a table or an encoded image on one line says nothing about
the rest of the module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_HEADER_LINES, _HEADER_CHARACTERS = 150, 10_000
_LINE_COMMENTS = ("#", "//", "--", ";", "%", "!", "*", "@rem ", "rem ", "' ")
_BLOCK_COMMENTS = (("/*", "*/"), ("<!--", "-->"), ("{-", "-}"), ("(*", "*)"), ("--[[", "]]"), ("<#", "#>"),
                   ("=begin", "=end"), ('"""', '"""'), ("'''", "'''"), ('r"""', '"""'))  # fmt: skip
_SKIPPED_LINE = re.compile(r"<\?(?:php|xml\b[^>]*\?>)?$|['\"]use \w+['\"];?$|@(?:echo off|file:.*)$", re.IGNORECASE)

_EDIT = r"do(?:\s+not|n't)\s+(?:edit|modify|change|alter)"
_ITSELF = r"(?:\s+(?:this|the|it|file|class|code|manually|by|hand|directly))*"
_AUTO = r"(?:auto(?:matically)?|machine)[\s-]*"
_SAYS_GENERATED = re.compile(
    rf"""
    ^<{_AUTO}generated
    | ^code\s+generated\b.{{0,200}}?{_EDIT}
    | ^(?:\w+:\s*)?(?:this|the)\s+(?:\w+\s+){{1,3}}(?:is|was|has\s+been)\s+{_AUTO}(?:re)?(?:generated|created|produced)
    | ^(?:\w+:\s*)?(?:this\s+(?:\w+\s+){{1,3}}(?:is|was|has\s+been)\s+)?(?:{_AUTO})?generated\b.{{0,300}}?{_EDIT}
    | ^(?:please\s+)?{_EDIT}{_ITSELF}\s*[^\s\w].{{0,200}}?\bgenerated\b
    | ^(?:please\s+)?{_EDIT}{_ITSELF}\n.{{0,200}}?\bgenerated\b
    | (?<![`'"\w])@generated(?![`'"\w-])
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE | re.DOTALL,
)

_SMALL = 2_000  # characters
_LONG_LINE, _LONGEST_LINE = 250, 20_000  # characters of code; lines written by hand have 30 to 40 on average
_CODE_LINES = 3  # a file with fewer lines of code is data
# A literal without a closing quote extends to the end of the line. Otherwise the search would scan to there again for
# each of many quotes.
_LITERAL = re.compile(
    r""""(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|`(?:[^`\\]|\\.)*`?|\b(?:0x)?\d[\w.]*|[\s,:\[\]{}()+-]+"""
)
_STATEMENT = re.compile(
    r";|=>|&&|\|\||\b(?:function|return|var|let|const|typeof|this|if|for|while|def|end|class)\b|[)}]\.|\}[.#@\w*]"
)
_DATA = 400  # characters per statement; a line with fewer statements is data


def says_generated(text: str) -> str:
    """Return the part of a text's header comment that says that a tool generated the text, or ""."""
    match = _SAYS_GENERATED.search("\n".join(_header(text)))
    return " ".join(match[0].split())[:60] if match else ""


def is_minified(text: str) -> str:
    """Return why a text is minified code or contains nothing but data, or "" if it is neither."""
    if len(text) <= _SMALL:
        return ""
    count = total = 0
    for line in text.split("\n"):
        length = len(line)
        if length > _LONG_LINE:
            code = _LITERAL.sub(" ", line)
            if len(code) > _LONGEST_LINE:
                return f"a line has more than {_LONGEST_LINE} characters"
            if len(_STATEMENT.findall(code)) * _DATA < length:
                continue
        if line and not line.isspace():
            count += 1
            total += length
    if count < _CODE_LINES and (count == 0 or len(text) > 2 * total):
        return "it contains only data in long lines, and no code"
    if total > _LONG_LINE * count:
        return f"its lines are {total // count} characters long on average"
    return ""


def _header(text: str) -> Iterator[str]:
    """Yield the lines of the comments at the beginning of a text, without comment characters."""
    closing = ""
    for number, line in enumerate(text[:_HEADER_CHARACTERS].split("\n")):
        if number >= _HEADER_LINES:
            return
        content = line.strip()
        if closing:
            content, end, rest = content.partition(closing)
            yield _bare(content)
            if end:
                closing = ""
                if rest.strip() and not rest.strip().startswith(("#", "//", ";")):
                    return
            continue
        if not content or (number == 0 and content.startswith("#!")) or _SKIPPED_LINE.match(content):
            yield ""
            continue
        opened = next((pair for pair in _BLOCK_COMMENTS if content.startswith(pair[0])), None)
        if opened is not None:
            content, end, rest = content[len(opened[0]) :].partition(opened[1])
            yield _bare(content)
            if not end:
                closing = opened[1]
            elif rest.strip() and not rest.strip().startswith(("#", "//", ";", "/*")):
                return
        elif content.lower().startswith(_LINE_COMMENTS):
            yield _bare(content)
        else:
            return


def _bare(line: str) -> str:
    """Strip comment characters and decoration from a line of a comment."""
    return re.sub(r"^(?:@?rem\b)?[\s#/*;%!'=|~-]+|[\s#/*=|~-]+$", "", line, flags=re.IGNORECASE)
