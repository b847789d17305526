"""Indent a generated text like the document: with the same character, and without indentation that is already there."""

from __future__ import annotations

import re

from policy.completion.shaping.region import indent

_INDENTED = re.compile(r"^([ \t]+)\S", re.MULTILINE)


def style_of(text: str) -> str:
    """Return the indentation of one level in `text`: a tab, some spaces, or "" if no line shows it."""
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
    """Return `text` with the lines after its first indented in `style`, if they are indented with another character.

    `level` is the number of levels of the cursor's line. The first line of the text never changes.
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
    """Return the spaces per level if a line indented by `width` is about one level below `level`."""
    fitting = [unit for unit in (4, 2, 8, 3) if width and width % unit == 0] or [4]
    return min(fitting, key=lambda unit: abs(width // unit - level - 1))


def _with_tabs(line: str, unit: int) -> str:
    blanks, rest = line[: indent(line)], line[indent(line) :]
    width = sum(unit if character == "\t" else 1 for character in blanks)
    return "\t" * (width // unit) + " " * (width % unit) + rest


def at_cursor(text: str, line: str, wanted: int, *, deeper: bool) -> str:
    """Return `text` without the indentation that the line already has, which the model may not have seen.

    `line` is the part of the line left of the cursor, `wanted` the least indentation of a line here. `deeper`: a block
    begins here, and the cursor's line may not be indented yet.
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
