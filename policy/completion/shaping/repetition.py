"""Find where a text repeats itself, the lines above, the rest of the cursor's line or the lines below.

A user who accepts a line that the file already has must delete it. Rows of a table of literals may repeat.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from policy.completion.shaping.lexical import OPENERS
from policy.completion.shaping.reader import Scan, Stack
from policy.completion.shaping.region import indent

BELOW = 3  # lines with text below the cursor that must not be repeated
_LOOP = re.compile(r"(\w.{4,40}?)\1{3,}")
_QUOTES_IN_A_ROW = re.compile(r"([\"'`])\1{7,}")  # an empty string has six at most
_MANY = 4  # a short line that comes as often in a row counts as a loop
_CLOSING_WORD = r"(?:end|fi|done|esac|od|end(?:if|for|while|function|macro|foreach|ef|switch|case)|END)\b[\s;,)\]}.]*"
_CLOSING = re.compile(r"[)\]}>,;\s]*(?:" + _CLOSING_WORD + r"|</[\w.-]*>)?[)\]};,\s]*")
_LITERAL = r"\"[^\"]*\"|'[^']*'|0[xXbBoO]\w+|[\d.]+\w?|true|false|null|nil|None|True|False|NULL"
_DATA = re.compile(rf"(?:{_LITERAL}|[\s,;:(){{}}\[\]+-])*")
_APOSTROPHE = re.compile(r"(?<=\w)'(?=\w)")
_BRACKETS = {")": "(", "]": "[", "}": "{"}
_QUOTES, _OPENING_SIGNS = frozenset("\"'`"), frozenset("([{")
_CLOSING_SIGNS = _BRACKETS.keys() | _QUOTES


def is_data(line: str) -> bool:
    """Return whether a line has only literals and punctuation, like a row of a table."""
    return bool(_DATA.fullmatch(line)) and "," in line


def is_closing(line: str) -> bool:
    """Return whether a line only closes something: brackets, `end`, `fi`, `</div>`."""
    return bool(line.strip()) and bool(_CLOSING.fullmatch(line.strip()))


def _is_statement(line: str) -> bool:
    return bool(re.search(r"[^\W\d]", line)) and not is_closing(line) and not _DATA.fullmatch(line)


def says_something(line: str) -> bool:
    """Return whether a line has at least four word characters. Shorter lines may repeat."""
    return len(re.findall(r"\w", line)) >= 4


def loop_in(text: str, stack: Stack) -> int | None:
    """Return the offset where `text` begins to repeat the same characters on one line, except in a list, or None.

    `stack` is what is open at the cursor.
    """
    for found in _LOOP.finditer(text):
        if "," in found.group(1) and (stack or re.search(r"[(\[{]", text[: found.start()])):
            continue
        return found.start()
    in_code = not stack or stack[-1] in OPENERS
    quotes = _QUOTES_IN_A_ROW.search(text) if in_code else None
    return quotes.start() if quotes else None


def lines_before_repeating(lines: Sequence[str], line: str, above: str) -> int:
    """Return how many of `lines`, a text after `line`, precede the first line that repeats those just before it.

    `above` is the last line with text above the cursor's line.
    """
    previous = [above.strip()] if above.strip() else []
    said = [*previous, (line + lines[0]).strip(), *(other.strip() for other in lines[1:])]
    for number in range(len(previous), len(said)):
        for period in (1, 2, 3):
            block = said[number : number + period]
            if number < period or block != said[number - period : number]:
                continue
            if says_something("".join(block)) and not all(map(is_data, block)):
                return number - len(previous)
            if period == 1 and said[number : number + _MANY - 1] == block * (_MANY - 1) and _is_statement(block[0]):
                return number - len(previous)
    return len(lines)


def _has_partner_left(closer: str, text: str) -> bool:
    """Return whether a bracket or quote after `text`, in a string, closes one left of `text`."""
    if closer in _BRACKETS:
        return text.count(_BRACKETS[closer]) == text.count(closer)
    return _APOSTROPHE.sub("", text).count(closer) % 2 == 0


class Right:
    """The text right of the cursor: the `rest` of its line, and the lines below.

    `read` returns the state after a text at the cursor. `parsed`: a grammar finds what closes too much.
    """

    def __init__(self, line: str, right: str, read: Callable[[str], Scan], *, parsed: bool) -> None:
        self.rest, _, below = right.partition("\n")
        self._line = line
        self._below = [other for other in below[:2_000].split("\n") if other.strip()][:BELOW]
        self._read = read
        self._parsed = parsed

    def repeated_at(self, text: str) -> int | None:
        """Return the offset where `text` begins to repeat the rest of the line or a line below, or None."""
        found = [self._rest_repeated_at(text), self._below_repeated_at(text)]
        return min((offset for offset in found if offset is not None), default=None)

    def _rest_repeated_at(self, text: str) -> int | None:
        rest, text = self.rest.strip(), text.rstrip()
        if not rest or not text:
            return None
        if len(rest) >= 6 and re.search(r"\w", rest) and rest in text:
            return text.index(rest)
        for size in range(min(len(rest), len(text)), 0, -1):
            if text.endswith(rest[:size]) and self._overlaps(text[: len(text) - size], rest, size):
                return len(text) - size
        return None

    def _overlaps(self, before: str, rest: str, size: int) -> bool:
        """Return whether a text that is `before` and the first `size` characters of `rest` repeats those characters."""
        overlap = rest[:size]
        one_word = re.fullmatch(r"\w+", overlap) and re.match(r"\w", rest[size:])
        if re.match(r"\w\w", before[-1:] + overlap) or one_word:
            return False  # a part of a word
        if overlap in ("?", "!") and self.rest[0].isspace() and re.search(r"\w\Z", before):
            return False  # the end of a name, as in `nil?`, and an operator
        if overlap[0] == ">" and before.count("<") > before.count(">"):
            return False  # it closes a list of type arguments that the text opens
        if set(overlap) <= _CLOSING_SIGNS:
            return not self._counted(before, overlap) and all(_has_partner_left(closer, before) for closer in overlap)
        if set(overlap) <= _OPENING_SIGNS and overlap != rest:
            return False  # brackets are counted
        return (size > 2 and bool(re.search(r"\w", overlap))) or self._whole(before)

    def _counted(self, before: str, closers: str) -> bool:
        """Return whether brackets or quotes after `before` are code, which closes something or is an error."""
        state, closed = self._read(before), self._read(before + closers)
        return before.endswith("\\") or (state.stack, state.missing, state.extra) != (
            closed.stack,
            closed.missing,
            closed.extra,
        )

    def _whole(self, text: str) -> bool:
        """Return whether `text` closes everything that it opens."""
        state, at_once = self._read(text), self._read("")
        return len(state.stack) <= len(at_once.stack) and not state.unclosed

    def _below_repeated_at(self, text: str) -> int | None:
        if not self._below:
            return None
        lines = text.split("\n")
        below = [line.strip() for line in self._below]
        position = 0
        for number, line in enumerate(lines):
            whole = (self._line if number == 0 else "") + line + (self.rest if number == len(lines) - 1 else "")
            if line.strip() and self._is_below(whole, below, last=number == len(lines) - 1):
                return position
            position += len(line) + 1
        return None

    def _is_below(self, line: str, below: Sequence[str], *, last: bool) -> bool:
        said = line.strip()
        if is_closing(said):
            # Brackets are counted, and a grammar finds whether `end` is needed. Otherwise, the indentation decides.
            told = self._parsed or not re.search(r"\w", said)
            return said == below[0] and not told and indent(line) <= indent(self._below[0])
        if said == below[0] or (said in below and says_something(said)):
            return True
        return last and len(said) >= 8 and below[0].startswith(said)
