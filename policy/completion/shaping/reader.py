"""Read the brackets, strings and comments of a text in order, and what is open after each of them.

The state is the stack of what is open, innermost last; how the text continues depends on nothing else. An entry of the
stack is what opened it. For strings whose end depends on their beginning it is what closes them, such as `raw ")"` or
`heredoc EOF`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from policy.completion.shaping.lexical import LINE_COMMENT, OPENERS, Syntax, syntax_of

Stack = tuple[str, ...]

_RAW, _HEREDOC = "raw ", "heredoc "
_LETTERS = string.ascii_letters + string.digits + "_"
_FORMATTED = frozenset({"f", "fr", "rf", "t", "tr", "rt"})


@dataclass(frozen=True, slots=True)
class Token:
    """A bracket, a word or an operator in code, with its offsets in characters."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Scan:
    """The state after a text, and the errors found in it.

    `strays` are the offsets of brackets that close nothing. `unclosed` counts brackets and strings that something
    around them cut off: a string by the end of its line, a bracket by another kind of bracket. `cut_off` are those of
    them that were open before the text, as indexes in that stack; its outermost `kept` entries are open all the time.
    `closers` are the offsets of brackets that close something.
    """

    stack: Stack
    strays: tuple[int, ...] = ()
    unclosed: int = 0
    tokens: tuple[Token, ...] = ()
    cut_off: frozenset[int] = frozenset()
    kept: int = 0
    closers: frozenset[int] = frozenset()

    @property
    def extra(self) -> int:
        """The number of brackets that close nothing."""
        return len(self.strays)

    @property
    def missing(self) -> int:
        """The number of brackets and strings that are never closed, if the text ends here."""
        return self.unclosed + sum(entry != LINE_COMMENT for entry in self.stack)

    @property
    def literal(self) -> bool:
        """Whether the text ends inside a string or a comment."""
        return bool(self.stack) and self.stack[-1] not in OPENERS


class Reader:
    """Reads a text step by step. `begin` and `position` are the offsets of the last thing that was read."""

    def __init__(
        self, text: str, language: str, stack: Stack, offsets: Sequence[int] | None = None, start: int = 0
    ) -> None:
        self.syntax = syntax_of(language)
        self.text = text
        self.opened = list(stack)
        self._literals = sum(entry not in OPENERS for entry in stack)
        self.heredocs: list[tuple[str, int]] = []  # begun on this line, with the offsets of their beginnings
        self.offsets = [-1] * len(stack) if offsets is None else list(offsets)  # of what opens each entry of `opened`
        self.tokens: list[Token] = []
        self.strays: list[int] = []
        self._cut_off: list[int] = []
        self._closers: list[int] = []
        self._kept = len(stack)  # how many entries of `stack` are open all the time
        self._unclosed = 0
        self.begin = self.position = start

    def result(self) -> Scan:
        """Return the state after the text read so far."""
        return Scan(
            tuple(self.opened),
            tuple(self.strays),
            self._unclosed,
            tuple(self.tokens),
            frozenset(self._cut_off),
            self._kept,
            frozenset(self._closers),
        )

    def finish(self, *, words: bool = False) -> None:
        """Read to the end of the text."""
        while self.step(words=words):
            pass

    @property
    def missed(self) -> int:
        """The number of errors so far."""
        return self._unclosed + len(self.strays)

    def agrees(self, other: Reader) -> bool:
        """Return whether two readers of one text read the rest of it the same."""
        return self.position == other.position and self.opened == other.opened and self.heredocs == other.heredocs

    def step(self, *, words: bool = False) -> bool:
        """Read the next thing that changes the state. Return whether there was one."""
        if self.opened and self.opened[-1] not in OPENERS:
            return self._literal(self.opened[-1])
        return self._code(words=words)

    def _code(self, *, words: bool) -> bool:
        syntax, text = self.syntax, self.text
        if words:
            found = syntax.words.search(text, self.position)
        else:
            stops = syntax.line_stops if self._literals or self.heredocs else syntax.stops
            stop = stops.search(text, self.position)
            while stop and not (found := syntax.code.match(text, stop.start())):
                stop = stops.search(text, stop.end())
            if stop is None:
                found = None
        if found is None:
            return False
        self.begin, self.position = found.span()
        kind, value = found.lastgroup, found.group()
        if words and kind in ("open", "close", "word", "sign"):
            self.tokens.append(Token(self.begin, self.position, value))
        if kind == "open" or kind == "block":
            self._open(value)
        elif kind == "close":
            self._close(value)
        elif kind == "line":
            self._open(LINE_COMMENT)
        elif kind == "quote":
            self._open(_with_prefix(value, text[max(0, self.begin - 3) : self.begin], syntax))
        elif kind == "raw":
            self._open(_RAW + found.expand(syntax.raw))
        elif kind == "heredoc" and not _in_arithmetic(self.opened):
            self.heredocs.append((_HEREDOC + found.group("name"), self.begin))
        elif kind == "end":
            self._end_line()
        return True

    def _literal(self, top: str) -> bool:
        """Read the next thing inside a string or a comment."""
        text, syntax = self.text, self.syntax
        if top.startswith((_RAW, _HEREDOC)):
            last = _end_of(top).search(text, self.position)
            if last is None:
                return False
            self._drop(len(self.opened) - 1)
            self.begin, self.position = last.span()
            return True
        if top == LINE_COMMENT or top in syntax.blocks:
            close = syntax.blocks.get(top, "\n")
            end = text.find(close, self.position)
            inner = text.find(top, self.position, end if end >= 0 else len(text)) if syntax.nested else -1
            if inner >= 0:
                self.begin, self.position = inner, inner + len(top)
                self._open(top)
                return True
            if end < 0:
                return False
            self._drop(len(self.opened) - 1)
            self.begin = end
            self.position = end if top == LINE_COMMENT else end + len(close)  # the line end itself is code
            return True
        found = syntax.inside[top].search(text, self.position)
        if found is None:
            return False
        quote, value = syntax.quotes[top], found.group()
        self.begin, self.position = found.span()
        if value == quote.close:
            self._drop(len(self.opened) - 1)
        elif value == "\n":
            self._drop(len(self.opened) - 1, cut_off=1)
            self.position = self.begin
        elif value == quote.hole:
            self._open(value)
        elif value == "}":
            self.strays.append(self.begin)
        return True

    def _open(self, entry: str, begin: int | None = None) -> None:
        self.opened.append(entry)
        self.offsets.append(self.begin if begin is None else begin)
        self._literals += entry not in OPENERS

    def _close(self, closer: str) -> None:
        """Close the innermost bracket that `closer` fits; those inside of it are then never closed."""
        for depth, entry in enumerate(reversed(self.opened)):
            if entry not in OPENERS:
                break  # the rest is outside the string
            if OPENERS[entry] == closer:
                self._drop(len(self.opened) - depth - 1, cut_off=depth)
                self._closers.append(self.begin)
                return
        if closer not in self.syntax.loose:
            self.strays.append(self.begin)

    def _drop(self, size: int, *, cut_off: int = 0) -> None:
        """Keep the outermost `size` entries of what is open; the innermost `cut_off` of the others were cut off."""
        self._unclosed += cut_off
        self._cut_off.extend(range(len(self.opened) - cut_off, self._kept))
        if self._literals:
            self._literals -= sum(entry not in OPENERS for entry in self.opened[size:])
        del self.opened[size:], self.offsets[size:]
        self._kept = min(self._kept, size)

    def _end_line(self) -> None:
        """Drop a string of one line whose last line ends inside an expression, and begin the heredocs of the line."""
        for number, entry in enumerate(self.opened):
            if entry in self.syntax.quotes and not self.syntax.quotes[entry].lines:
                self._drop(number, cut_off=len(self.opened) - number)
                break
        for entry, begin in reversed(self.heredocs):
            self._open(entry, begin)
        self.heredocs.clear()


@lru_cache(256)
def _end_of(entry: str) -> re.Pattern[str]:
    """Return a pattern for what closes a string whose entry begins with `_RAW` or `_HEREDOC`."""
    if entry.startswith(_RAW):
        return re.compile(re.escape(entry.removeprefix(_RAW)))
    return re.compile(rf"^[ \t]*{entry.removeprefix(_HEREDOC)}(?!\w)", re.MULTILINE)


def _in_arithmetic(opened: list[str]) -> bool:
    """Return whether `<<` is an operator: inside two parentheses, as in the shell's `$((1 << n))`."""
    return len(opened) > 1 and all(OPENERS.get(entry) == ")" for entry in opened[-2:])


def _with_prefix(quote: str, before: str, syntax: Syntax) -> str:
    """Return the kind of string that `quote` opens: a prefix at the end of `before` can make it a formatted string."""
    if "f" + quote not in syntax.quotes:
        return quote
    prefix = before[len(before.rstrip(_LETTERS)) :].lower()
    return "f" + quote if prefix in _FORMATTED else quote
