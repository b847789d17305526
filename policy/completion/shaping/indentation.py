"""Indent what a generator writes as the document is indented: with its character, and no more than belongs there."""

from __future__ import annotations

import re

from policy.completion.shaping.region import indent

_INDENTED = re.compile(r"^([ \t]+)\S", re.MULTILINE)


def style_of(text: str) -> str:
    """What one level is indented by in `text`: a tab, some blanks, or "" where nothing shows it."""
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
    """`text` with the lines behind its first indented in `style`, where they are indented in another character.

    `level` is how many levels the cursor's line is indented by; the first line of the text is never changed.
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
    """How many blanks a level has in a text whose first indented line has `width`, at most one level below `level`."""
    fitting = [unit for unit in (4, 2, 8, 3) if width and width % unit == 0] or [4]
    return min(fitting, key=lambda unit: abs(width // unit - level - 1))


def _with_tabs(line: str, unit: int) -> str:
    blanks, rest = line[: indent(line)], line[indent(line) :]
    width = sum(unit if character == "\t" else 1 for character in blanks)
    return "\t" * (width // unit) + " " * (width % unit) + rest


def at_cursor(text: str, line: str, wanted: int, *, deeper: bool) -> str:
    """Return `text` without the blanks that the line already has, which the model may not have seen.

    `line` is what is left of the cursor, `wanted` the indentation of a line here at the least. `deeper`: a block
    begins here, and the cursor may not have been indented yet.
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
