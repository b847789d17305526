"""Adapt the indentation of a generated text to the document.

The indentation of the text is converted to the document's indentation character. If the text repeats the indentation of
the cursor's line, the repetition is removed.
"""

from __future__ import annotations

import re

from policy.completion.shaping.region import indent

_INDENTED = re.compile(r"^([ \t]+)\S", re.MULTILINE)


def style_of(text: str) -> str:
    """Return the indentation of one level in `text`: a tab, or 2 to 8 spaces, or "" if no line is indented."""
    found = [match.group(1) for match in _INDENTED.finditer(text)]
    if not found:
        return ""
    tabs = sum(blanks[0] == "\t" for blanks in found)
    if 2 * tabs > len(found):
        return "\t"
    widths = {len(blanks) for blanks in found if blanks[0] == " "}
    steps = sorted({abs(a - b) for a in widths | {0} for b in widths if abs(a - b) > 1})
    return " " * (steps[0] if steps and steps[0] in (2, 3, 4, 8) else 4)


def in_style(text: str, style: str, level: int) -> str:
    """Return `text` with its indentation converted to `style`: spaces to tabs, or tabs to spaces.

    `style` is a result of `style_of`. `level` is the number of levels by which the cursor's line is indented, or, if
    that line is blank, the last line with text above it. The first line of `text` does not change, because it continues
    the cursor's line.
    """
    head, *lines = text.split("\n")
    blanks = [line[: indent(line)] for line in lines if line.strip()]
    if style == "\t" and any(" " in blank for blank in blanks):
        unit = _unit(next((len(blank) for blank in blanks if " " in blank and "\t" not in blank), 0), level)
        lines = [_with_tabs(line, unit) for line in lines]
    elif style.startswith(" ") and any("\t" in blank for blank in blanks):
        lines = [line[: indent(line)].replace("\t", style) + line[indent(line) :] for line in lines]
    return "\n".join([head, *lines])


def _unit(width: int, level: int) -> int:
    """Guess how many spaces the generated text uses for one level.

    `width` is the number of spaces by which its first indented line is indented, which are probably `level` + 1 levels.
    """
    fitting = [unit for unit in (4, 2, 8, 3) if width and width % unit == 0] or [4]
    return min(fitting, key=lambda unit: abs(width // unit - level - 1))


def _with_tabs(line: str, unit: int) -> str:
    blanks, rest = line[: indent(line)], line[indent(line) :]
    width = sum(unit if character == "\t" else 1 for character in blanks)
    return "\t" * (width // unit) + " " * (width % unit) + rest


def at_cursor(text: str, line: str, wanted: int, *, deeper: bool) -> str:
    """Return `text` without the indentation that repeats the indentation of the cursor's line.

    `line` is the part of the cursor's line before the cursor. `wanted` is the minimum indentation, in characters, of a
    line at the cursor. `deeper` says whether `text` begins the body of a block, and `line` is indented less than this
    body. In that case, a blank `line` needs the indentation of `text`, so `text` does not change.
    """
    if not text[:1].isspace() or text.startswith("\n"):
        return text
    if line.strip():
        return text.lstrip(" \t") if line[-1:].isspace() else text
    head, *others = text.split("\n")
    surplus = min(len(line) + indent(head) - wanted, indent(head))
    if surplus <= 0 or deeper:
        return text
    return "\n".join([head[surplus:], *(other[surplus:] if indent(other) >= surplus else other for other in others)])
