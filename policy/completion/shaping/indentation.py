"""Adapt the indentation of a generated text to the document.

A model can indent differently from the document: with spaces instead of tabs, with four spaces for a level instead of
two, with the indentation before the cursor once more, or from column 0. The first indented lines of the text show how
the model indents, and all lines are converted. No other lines count, so the result does not change while more text
streams in. If these lines fit no way to indent, only tabs and spaces are converted.

Widths are in columns. In a document that is indented with spaces, a tab has the width of one level, otherwise `_TAB`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from policy.completion.shaping.region import indent

_LINE = re.compile(r"^([ \t]*)([^\s*].*)", re.MULTILINE)  # a line with text, except the inner lines of `/*` comments
_TOP = re.compile(r"^[^\s})\]]", re.MULTILINE)  # a line that is not indented
_OPENER = re.compile(r"(?:[{\[:]|\b(?:do|then|else|begin)|=>|->)\s*$")  # the next line has one level more
_ANY = re.compile("")
_TAB = 4
_WIDEST = 8  # the maximum width of a level
_UNITS = (4, 2, 8)  # the widths of a level that a model can use, the most frequent first
_SEEN = 12  # the maximum number of lines with text that show how the model indents
_TABS_BY_CONVENTION = frozenset({"go", "makefile"})
_CLOSER = re.compile(r"\s*(?:[)\]}]|(?:end|fi|done|esac|until)\b)")
# Such a line can have the same indentation as the line that opens its block, and the next line can have one level more.
_LABEL = re.compile(r"(?:case|default|public|private|protected|signals|slots)\b|#|\w+:(?!:)")


def style_of(before: str, after: str, language: str) -> str:
    """Return the indentation of one level at the cursor: a tab, or 2 to 8 spaces, or "" if it is unknown.

    `before` and `after` are the texts before and after the cursor. Parts of a file can have different styles, so the
    lines that enclose the cursor take precedence.
    """
    if language == "makefile":
        return "\t"
    top = max((match.start() for match in _TOP.finditer(before)), default=0)
    near, whole = _LINE.findall(before[top:] + "."), _LINE.findall(before + after)
    indented = [blank for blank, _ in near if blank][-1:] or [blank for blank, _ in whole if blank]
    if not indented:
        return "\t" if language == "go" else ""
    if 2 * sum(blank[0] == "\t" for blank in indented) > len(indented):
        return "\t"
    steps = _steps(near, _OPENER)
    if len(steps) != 1:
        steps += _steps(whole, _OPENER) or _steps(whole, _ANY)
    return " " * (max(steps, key=lambda step: (steps[step], -step)) if steps else 4)


def _steps(lines: Sequence[tuple[str, str]], opener: re.Pattern[str]) -> Counter[int]:
    """Count how much more indentation the next line has than a line that matches `opener`.

    `lines` are the indentation and the text of each line.
    """
    return Counter(
        len(after) - len(before)
        for (before, text), (after, _) in pairwise(lines)
        if 1 < len(after) - len(before) <= _WIDEST and opener.search(text) and "\t" not in before + after
    )


@dataclass(frozen=True, slots=True)
class _Usage:
    """How a text is indented: `base` is the width of the outer level, and `unit` the width of one more level."""

    base: int
    unit: int

    def fits(self, first: int, less: int | None, *, opens: bool) -> bool:
        """Return whether the first line can have the width `first`, and a later line the smaller width `less`.

        `opens` says whether the line above the first line opens a block.
        """
        begins = first == self.base + self.unit if opens else self._ends_blocks(first)
        return begins and (less is None or self._ends_blocks(less))

    def _ends_blocks(self, width: int) -> bool:
        return width == 0 or (width <= self.base and (self.base - width) % self.unit == 0)


class Indentation:
    """Converts the indentation of the generated texts at one cursor.

    `style` is a result of `style_of`. `line` is the part of the cursor's line before the cursor. `above` is the
    indentation of the last line with text above the cursor's line, in characters. `block` says whether that line opens
    a block that has no body yet, or is None if it may continue on the cursor's line. `colons` says whether the
    language's blocks depend on the indentation, as in Python.

    `opens` takes the first line of a text. It returns whether that line opens a block, or None if the statement, the
    string or the comment continues on the next line.
    """

    def __init__(
        self,
        style: str,
        line: str,
        above: int,
        *,
        block: bool | None,
        colons: bool,
        opens: Callable[[str], bool | None],
    ) -> None:
        self._style = style
        self._tabs = style == "\t"
        self._unit = _TAB if self._tabs or not style else len(style)
        self._line = line
        self._column = self._width(line)
        self._above = above * _TAB if self._tabs else above
        self._block = block
        self._colons = colons
        self._opens = lru_cache(4)(opens)  # while a text streams in, its first line stays the same

    def apply(self, text: str) -> str:
        """Return `text` with the document's indentation, and without what repeats the indentation before the cursor.

        The first line of `text` continues the cursor's line.
        """
        head, *lines = text.split("\n")
        if self._line.strip():
            head = head.lstrip(" \t") if self._line[-1].isspace() else head
            return "\n".join([head, *self._converted(lines, self._column, head)])
        if not head.strip():
            return text
        if not self._style and self._colons and self._block and not self._line and head == head.lstrip():
            return "\n".join(" " * self._unit + line if line.strip() else line for line in (head, *lines))
        blanks, head = head[: indent(head)], head.lstrip(" \t")
        own = self._width(blanks)
        missing = self._block and self._column <= self._above and (own or self._colons)
        if self._line and not missing:
            begin = self._column
            if self._column % self._unit:  # the cursor is between two levels, so the text may continue to the next one
                begin = min(self._column + own, max(self._column, self._above))
            lines = self._converted(lines, begin, head, own)
        else:
            begin = max(self._column, self._width(self._below_line_above(self._line + blanks + head)))
            lines = self._converted(lines, begin, head, self._column + own)
        return "\n".join([self._blanks_to(begin) + head, *lines])

    def _opened_by(self, head: str) -> bool | None:
        """Return the result of `opens` for the first line `head`, but None if more indentation may follow a label."""
        opened = self._opens(head)
        return None if opened is False and _LABEL.match(self._line.lstrip() + head) else opened

    def _below_line_above(self, line: str) -> str:
        """Return `line`, which is the cursor's line with a text, with the indentation that it needs there."""
        if not self._style:
            return line
        block = False if self._block and _CLOSER.match(line) else self._block
        found = None if block is None else self._usage([line], self._above, block, 0)
        if found is None and block is False:  # there is no such level, so the line is at that of the line above
            found = _Usage(self._width(line), self._unit)
        return self._moved(line, found or self._guess(line, self._above), self._above)

    def _converted(self, lines: Sequence[str], base: int, head: str, own: int = 0) -> list[str]:
        """Return `lines`, which follow `head`, with the document's indentation.

        `head` is the first line of the text. It has the indentation `base`, and the indentation `own` in the text
        itself.
        """
        seen = [line for line in lines if line.strip()][:_SEEN]
        if not seen or not self._style:
            return list(lines)
        here = usage = _Usage(base, self._unit)
        known = True
        if own or self._colons or self._width(seen[0]) != base + self._unit:
            opened = self._opened_by(head)
            # Without a block, a line with more indentation continues the line above, except in a language like Python.
            plain = not opened and not own and not self._colons
            found = None if plain else self._usage(seen, base, opened, own)
            usage, known = found or self._guess(seen[0], base), found is not None
        every = known and usage != here
        return [self._moved(line, usage, base) if every or self._is_foreign(line) else line for line in lines]

    def _usage(self, lines: Sequence[str], base: int, opens: bool | None, own: int) -> _Usage | None:
        """Return how the text is indented whose first lines below the line with the indentation `base` are `lines`.

        Return None if it is unclear. The lines after the first one with less indentation do not count, because the
        completion may end there.
        """
        if opens is None:
            return None
        widths = [self._width(line) for line in lines]
        first = widths[0]
        end = next((number for number, width in enumerate(widths) if width < first), len(widths))
        less = widths[end] if end < len(widths) else None
        if opens and not self._colons and first == base and _LABEL.match(lines[0].lstrip()):
            return None
        units = [self._unit]
        if "\t" not in lines[0][: indent(lines[0])]:
            units += [unit for unit in _UNITS if unit != self._unit]
        levels = base // self._unit
        usual = own // levels if levels and own % levels == 0 else self._unit
        possible = [_Usage(base, self._unit)]
        if own not in (0, base):
            possible.insert(0, _Usage(own, usual))
        if opens:
            possible.append(_Usage(0, self._unit))
        if base % self._unit == 0:
            possible += [_Usage(levels * unit, unit) for unit in units]
        if own:
            possible += [_Usage(width, unit) for width in (own, self._column + own) for unit in units]
        possible += [_Usage(width, unit) for width in ((base, 2 * base) if self._tabs else (base,)) for unit in units]
        if opens:
            possible += [_Usage(0, unit) for unit in units]
        if opens and self._colons and first <= base:  # the text begins at the column of the block's body
            possible.append(_Usage(first - self._unit, self._unit))
        if not opens:  # a deeper line shows the width of a level
            step = next((width - first for width in widths[:end] if width > first), usual)
            possible[1:] = sorted(possible[1:], key=lambda usage: usage.unit != step)
        tried = ((usage, later) for later in (less, None) for usage in possible)
        return next((usage for usage, later in tried if usage.fits(first, later, opens=opens)), None)

    def _guess(self, line: str, base: int) -> _Usage:
        """Guess how a text is indented whose first indented line, `line`, has `base` or one level more."""
        if not self._tabs or not self._is_foreign(line):
            return _Usage(base, self._unit)
        width, level = self._width(line), base // self._unit
        units = [unit for unit in _UNITS if width % unit == 0] or [self._unit]
        unit = min(units, key=lambda unit: abs(width // unit - level - 0.5))
        return _Usage(level * unit, unit)

    def _is_foreign(self, line: str) -> bool:
        """Return whether `line` is indented with a character with which the document is not indented."""
        return bool(line.strip()) and (line[0] == " " if self._tabs else "\t" in line[: indent(line)])

    def _moved(self, line: str, usage: _Usage, base: int) -> str:
        if not line.strip():
            return line
        levels, rest = divmod(self._width(line) - usage.base, usage.unit)
        return self._blanks(max(0, base + levels * self._unit + rest)) + line.lstrip(" \t")

    def _width(self, line: str) -> int:
        """Return the width of the indentation of `line`."""
        size = indent(line)
        return size + line.count("\t", 0, size) * ((_TAB if self._tabs else self._unit) - 1)

    def _blanks(self, width: int) -> str:
        return "\t" * (width // _TAB) + " " * (width % _TAB) if self._tabs else " " * width

    def _blanks_to(self, width: int) -> str:
        """Return the text between the cursor, which is on a blank line, and the column `width`."""
        blanks = self._blanks(width)
        return blanks[len(self._line) :] if blanks.startswith(self._line) else " " * (width - self._column)
