"""What is open at a place in a text: brackets, strings, comments.

`scan` goes from one state to the next, so a text is read in pieces: left of the cursor, the suggestion, right of the
cursor. A state is the stack of what is open, innermost last; the right side's result depends on nothing else.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass

from policy.completion.shaping.lexical import CLOSERS, LINE_COMMENT, OPENERS, Syntax, syntax_of

Stack = tuple[str, ...]

_DEEPEST = 64
_LETTERS = string.ascii_letters + string.digits + "_"
_FORMATTED = frozenset({"f", "fr", "rf", "t", "tr", "rt"})


@dataclass(frozen=True, slots=True)
class Token:
    """A bracket, a word or a sign that is code, with its offsets in characters."""

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
    `since` is the offset of what opens the innermost entry of `stack`, where the text contains it.
    """

    stack: Stack
    strays: tuple[int, ...] = ()
    unclosed: int = 0
    tokens: tuple[Token, ...] = ()
    cut_off: frozenset[int] = frozenset()
    kept: int = 0
    since: int | None = None
    closers: frozenset[int] = frozenset()

    @property
    def extra(self) -> int:
        """How many brackets close nothing."""
        return len(self.strays)

    @property
    def missing(self) -> int:
        """How many brackets and strings are never closed, if the text ends here."""
        return self.unclosed + sum(entry != LINE_COMMENT for entry in self.stack)

    @property
    def literal(self) -> bool:
        """Whether the text ends inside a string or a comment."""
        return bool(self.stack) and self.stack[-1] not in OPENERS


def scan(text: str, language: str, stack: Stack = (), *, words: bool = False) -> Scan:
    """Read `text` from the state `stack` on. With `words` the tokens contain words and signs, else there are none."""
    reader = _Reader(text, language, stack)
    while reader.step(words=words):
        pass
    return reader.result()


def surplus(text: str, language: str, stack: Stack, allowed: int) -> int | None:
    """Offset of the first thing in `text` that closes more than the innermost `allowed` entries of `stack`, if any."""
    floor = sum(entry != LINE_COMMENT for entry in stack) - allowed
    reader = _Reader(text, language, stack)
    while reader.step():
        if len(reader.opened) < floor or reader.strays:
            return reader.begin
    return None


def states(text: str, language: str, stack: Stack) -> Iterator[tuple[int, int, Scan]]:
    """The offsets of each thing in `text` that changes the state, with the state behind it.

    Ends where something closes nothing, which no later text mends, or where too much is open to be meant.
    """
    reader = _Reader(text, language, stack)
    while not reader.strays and len(reader.opened) < len(stack) + _DEEPEST and reader.step():
        yield reader.begin, reader.position, reader.result()


class _Reader:
    """Reads a text step by step. `begin` and `position` are the offsets of the last thing that was read."""

    def __init__(self, text: str, language: str, stack: Stack) -> None:
        self.syntax = syntax_of(language)
        self.text = text
        self.opened = list(stack)
        self._offsets: list[int | None] = [None] * len(stack)  # of what opens each entry of `opened`
        self.tokens: list[Token] = []
        self.strays: list[int] = []
        self._cut_off: list[int] = []
        self._closers: list[int] = []
        self._kept = len(stack)  # how many entries of `stack` are open all the time
        self._unclosed = self.begin = self.position = 0

    def result(self) -> Scan:
        """The state behind what was read."""
        return Scan(
            tuple(self.opened),
            tuple(self.strays),
            self._unclosed,
            tuple(self.tokens),
            frozenset(self._cut_off),
            self._kept,
            self._offsets[-1] if self._offsets else None,
            frozenset(self._closers),
        )

    def step(self, *, words: bool = False) -> bool:
        """Read the next thing that changes the state; whether there was one."""
        if self.opened and self.opened[-1] not in OPENERS:
            return self._literal(self.opened[-1])
        return self._code(words=words)

    def _code(self, *, words: bool) -> bool:
        syntax, text = self.syntax, self.text
        if words:
            found = syntax.words.search(text, self.position)
        else:
            stop = syntax.stops.search(text, self.position)
            while stop and not (found := syntax.code.match(text, stop.start())):
                stop = syntax.stops.search(text, stop.end())
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
        elif kind == "end" and len(self.opened) > 1:
            self._end_line()
        return True

    def _literal(self, top: str) -> bool:
        """Read on in a string or a comment."""
        text, syntax = self.text, self.syntax
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

    def _open(self, entry: str) -> None:
        self.opened.append(entry)
        self._offsets.append(self.begin)

    def _close(self, closer: str) -> None:
        """Close the innermost bracket that `closer` fits; those inside of it are then never closed."""
        for depth, entry in enumerate(reversed(self.opened)):
            if entry not in OPENERS:
                break  # what is outside of the string around this
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
        del self.opened[size:], self._offsets[size:]
        self._kept = min(self._kept, size)

    def _end_line(self) -> None:
        """Drop a string of one line whose last line ends inside an expression."""
        for number, entry in enumerate(self.opened):
            if entry in self.syntax.quotes and not self.syntax.quotes[entry].lines:
                self._drop(number, cut_off=len(self.opened) - number)
                return


def _with_prefix(quote: str, before: str, syntax: Syntax) -> str:
    """The kind of string that `quote` opens: letters in `before` can make it one with expressions in it."""
    if "f" + quote not in syntax.quotes:
        return quote
    prefix = before[len(before.rstrip(_LETTERS)) :].lower()
    return "f" + quote if prefix in _FORMATTED else quote


def closers_in(text: str) -> bool:
    """Whether a text contains anything that could close a bracket or a string."""
    return any(character in CLOSERS or character in "\"'`" for character in text)
