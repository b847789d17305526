"""What a person wants to see of what a model says: where a completion ends, and what of it is shown.

A completion is the rest of the line, and goes on over lines only where the syntax says that something is open: a
block that the cursor stands in the beginning of, or brackets and blocks that the completion's own first line opens.
It never repeats what follows the cursor, or itself; it keeps the indentation; and rather than half a statement it
shows nothing. `Shaper.decided` answers while text streams in, so that the engine is freed as soon as the text is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from indexer.model import Cursor
from policy.completion.syntax import (
    CLOSERS,
    OPENERS,
    Token,
    closes_block,
    closing_words,
    depth,
    in_literal,
    opens_block,
    tokens,
    window,
)

Scope = Literal["line", "block"]

MAX_LINES = 12
_LOOK_AHEAD = 2_000
_QUOTES = "\"'`"
_REPEATED = re.compile(r"(\w.{4,40}?)\1{3,}")


@dataclass(frozen=True, slots=True)
class Ending:
    """Where a completion ends, as an offset in it.

    `certain`: more text cannot move it. `whole`: what ends there is a statement, not a part of one.
    """

    offset: int
    certain: bool
    whole: bool


class Shaper:
    """The shape of a completion at one cursor.

    `scope` says beforehand what there can be: a "block" where one is open at the cursor and has no body yet, else a
    "line" (which grows if it opens something itself). With `multiline` off everything ends at the line. With `bodies`
    off, a line that is begun already ends where it opens a block: the block is the next completion, which is there by
    the time the line is accepted, and the line need not wait for it.
    """

    def __init__(
        self, cursor: Cursor, *, multiline: bool = True, bodies: bool = True, max_lines: int = MAX_LINES
    ) -> None:
        self._language = cursor.language
        self._head = window(cursor.prefix)
        self._suffix = cursor.suffix
        self._max_lines = max_lines
        self._closing_words = bool(closing_words(cursor.language))
        self._rest = cursor.suffix.split("\n", 1)[0].rstrip("\r")
        self._line_start = self._head.rfind("\n") + 1
        self._line = self._head[self._line_start :]
        above = self._head[: self._line_start].rstrip()
        self._previous = above[above.rfind("\n") + 1 :]
        # What is open counts from the line that may have opened it: the cursor's, or the last one with text.
        self._base = self._line_start if self._line.strip() else max(0, len(above) - len(self._previous))
        self._base_indent = _indent(self._line if self._line.strip() else self._previous)
        # Whether this is the inside of a string shows only together with its end.
        around = tokens(self._head + cursor.suffix[:_LOOK_AHEAD], self._language, self._base)
        literal = in_literal(around, len(self._head))
        self._multiline = multiline and not self._rest.strip() and not literal
        self.scope: Scope = "line"
        opening = [token for token in around if token.end <= len(self._head)]
        if self._multiline and opens_block(opening, self._language):
            self.scope = "block"
        self._bodies = bodies or self.scope == "block" or not self._line.strip()
        self._known: tuple[str, Ending] | None = None  # what decides is then finished: parsed once for both

    @property
    def grows(self) -> bool:
        """Whether the completion can have several lines."""
        return self._multiline

    def decided(self, text: str) -> bool:
        """Whether `text`, the completion so far, fixes what will be shown."""
        if _REPEATED.search(text):
            return True
        following = self._suffix.lstrip()[:1]
        if "\n" not in text and not (following in CLOSERS and following in text):
            return False
        return self._ending(text).certain

    def finish(self, text: str, *, complete: bool) -> str:
        """What to show of `text`. `complete`: the model ended it, rather than a limit of tokens."""
        text, broken, _ = text.partition("\ufffd")  # bytes that are no character: the model has lost its way
        ending = self._ending(text)
        complete = complete and not broken
        shown = text[: ending.offset]
        if not ending.whole and not (complete and ending.offset == len(text)):
            shown = self._whole_statements(shown if ending.certain else shown[: max(0, shown.rfind("\n"))])
        shown = self._without_rest(self._indented(shown.rstrip()))
        return self._without_following(self._without_repetition(shown))

    # -- where it ends --------------------------------------------------------------------------------------------

    def _ending(self, text: str) -> Ending:
        if self._known is None or self._known[0] != text:
            self._known = text, self._find_ending(text)
        return self._known[1]

    def _find_ending(self, text: str) -> Ending:
        if text.startswith("\n") and (self.scope == "line" or not self._line.strip()):
            return Ending(0, True, True)  # nothing to add where the cursor is
        found = tokens(self._head + text, self._language, self._base)
        ending = self._open_ending(text, found) if self._multiline else _first_line(text)
        closer = self._closer_of_suffix(found)
        return Ending(closer, True, True) if closer is not None and closer < ending.offset else ending

    def _closer_of_suffix(self, found: Sequence[Token]) -> int | None:
        """Offset of the bracket that closes what was open at the cursor, where the suffix has that bracket already."""
        following = self._suffix.lstrip()[:1]
        if following not in CLOSERS:
            return None
        open_here = 0
        for token in found:
            if token.start < len(self._head) or token.literal:
                continue
            open_here += (token.text in OPENERS) - (token.text in CLOSERS)
            if open_here < 0:
                return token.start - len(self._head) if token.text == following else None
        return None

    def _open_ending(self, text: str, found: Sequence[Token]) -> Ending:
        """The end of the line, or of what was opened since the base line."""
        whole_text, cursor = self._head + text, len(self._head)
        lines = _lines(whole_text, self._base)
        brackets = shown = last_end = 0
        indented = False  # in a block that ends by its indentation, not by a bracket
        for (start, end), line in zip(lines, _by_line(found, lines), strict=True):
            content = whole_text[start:end]
            finished = end < len(whole_text)
            if start > self._line_start and content.strip():
                if indented and brackets <= 0 and _indent(content) <= self._base_indent:
                    if closes_block(line, self._language):
                        return Ending(end - cursor, finished, True)
                    return Ending(last_end, finished or not self._closing_words, True)
                shown += 1
                if shown > self._max_lines:
                    return Ending(last_end, True, False)
            brackets += depth(line)
            opens = opens_block(line, self._language)
            if opens and not self._bodies and finished and end >= cursor:
                return Ending(end - cursor, True, True)
            if brackets <= 0:
                indented = indented or opens
            if end < cursor or not finished or not content.strip():
                continue
            last_end = end - cursor
            if brackets <= 0 and not indented:
                return Ending(last_end, True, True)
        return Ending(len(text), False, False)

    def _whole_statements(self, text: str) -> str:
        """The leading lines of `text` that stand for themselves: no bracket is open behind them but a block's."""
        while text.strip():
            found = tokens(self._head + text, self._language, len(self._head))
            if all(bracket == "{" for bracket in _unclosed(found)):
                return text
            text = text[: max(0, text.rfind("\n"))]
        return ""

    # -- what of it is shown --------------------------------------------------------------------------------------

    def _indented(self, text: str) -> str:
        """No more blanks than belong at the cursor: the model may not have seen those that are there already."""
        if not text[:1].isspace() or text.startswith("\n"):
            return text
        if self._line.strip():
            return text.lstrip(" \t") if self._line[-1:].isspace() else text
        typed = len(self._line)
        # A blank line is indented as the line above, or deeper where a block was opened (by how much, who knows).
        wanted = max(typed, self._base_indent + (self.scope == "block"))
        head, *others = text.split("\n")
        surplus = min(typed + _indent(head) - wanted, _indent(head))
        if surplus <= 0 or (self.scope == "block" and typed <= self._base_indent):
            return text
        return "\n".join([head[surplus:], *(line[surplus:] if _indent(line) >= surplus else line for line in others)])

    def _without_rest(self, text: str) -> str:
        """`text` less what stands right of the cursor on the same line."""
        rest = self._rest.strip()
        if not rest or not text:
            return text
        if rest[0] in _QUOTES and rest[0] in text:
            text = text[: text.index(rest[0])]
        elif len(rest) >= 3 and rest in text:
            text = text[: text.index(rest)]
        elif not set(rest) <= CLOSERS and text.rstrip().endswith(rest):
            text = text.rstrip()[: -len(rest)]
        return text.rstrip() if self._rest[:1].isspace() else text

    def _without_following(self, text: str) -> str:
        """`text` up to the line with which it begins to say what the lines below the cursor say."""
        following = [line.strip() for line in self._suffix[len(self._rest) :].split("\n") if line.strip()][:2]
        if not following or not text:
            return text
        lines = text.split("\n")
        for number, line in enumerate(lines):
            whole = (self._line + line if number == 0 else line).strip()
            rest = [other.strip() for other in lines[number + 1 :] if other.strip()]
            if whole == following[0] and (_says_something(whole) or rest[:1] == following[1:2]):
                return "\n".join(lines[:number]).rstrip()
        return text

    def _without_repetition(self, text: str) -> str:
        """`text` up to where it starts to say again what it, or the line above the cursor, just said."""
        if match := _REPEATED.search(text):
            text = text[: match.start()]
            text = text[: text.rfind("\n")] if "\n" in text else ""
        lines = text.split("\n")
        above = [self._previous.strip()] if self._previous.strip() else []
        said = [*above, (self._line + lines[0]).strip(), *(line.strip() for line in lines[1:])]
        for number in range(len(above), len(said)):
            for period in (1, 2, 3):
                block = said[number : number + period]
                if number >= period and block == said[number - period : number] and _says_something("".join(block)):
                    return "\n".join(lines[: number - len(above)]).rstrip()
        return text


def _first_line(text: str) -> Ending:
    end = text.find("\n")
    return Ending(len(text), False, False) if end < 0 else Ending(end, True, True)


def _unclosed(found: Sequence[Token]) -> list[str]:
    stack: list[str] = []
    for token in found:
        if token.literal:
            continue
        if token.text in OPENERS:
            stack.append("{" if token.text.endswith("{") else token.text)
        elif token.text in CLOSERS and stack:
            stack.pop()
    return stack


def inside_word(cursor: Cursor) -> bool:
    """Whether a letter stands on either side: nothing is to be completed there."""
    left, right = cursor.prefix[-1:], cursor.suffix[:1]
    return bool(re.match(r"\w\w", left + right)) if left and right else False


def _lines(text: str, start: int) -> list[tuple[int, int]]:
    """Offsets (start, end) of the lines of `text` from offset `start` on, newlines excluded."""
    result, position = [], start
    for line in text[start:].split("\n"):
        result.append((position, position + len(line)))
        position += len(line) + 1
    return result


def _by_line(found: Sequence[Token], lines: Sequence[tuple[int, int]]) -> list[list[Token]]:
    """The tokens that begin on each line."""
    result: list[list[Token]] = [[] for _ in lines]
    number = 0
    for token in found:
        while number + 1 < len(lines) and token.start >= lines[number + 1][0]:
            number += 1
        result[number].append(token)
    return result


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def _says_something(line: str) -> bool:
    """Whether a line is more than brackets and filler, which may well come twice."""
    return len(re.findall(r"\w", line)) >= 4
