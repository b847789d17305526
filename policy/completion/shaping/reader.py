"""Read the brackets, strings, comments and elements of a text in order, and record which of them are open.

The state of a reader is a stack of what is open, with the innermost last. How the reader has to read the following text
depends only on this stack, and on the heredocs whose marks, such as `<<EOF`, are on the current line. An entry of the
stack is the opening bracket, quote or comment mark. The end of a raw string or a heredoc depends on how it begins, so
its entry is a prefix and the text that closes it: `raw )"` or `heredoc EOF`. `elements.py` describes the entries of an
element, such as `<a>`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from policy.completion.shaping import elements
from policy.completion.shaping.elements import ELEMENT, NAME, TAG, closing_tag, is_element
from policy.completion.shaping.lexical import LINE_COMMENT, OPENERS, Syntax, is_literal, syntax_of

Stack = tuple[str, ...]

_RAW, _HEREDOC = "raw ", "heredoc "
_LETTERS = string.ascii_letters + string.digits + "_"
_FORMATTED = frozenset({"f", "fr", "rf", "t", "tr", "rt"})


@dataclass(frozen=True, slots=True)
class Token:
    """A bracket, a word, an operator or a part of an element, with its offsets in characters."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of reading a text: what is open after it, and the errors in it.

    `stack` has the brackets, strings and comments that are open after the text. `strays` has the offsets of the closing
    brackets that close nothing, and `closers` has the offsets of those that close something. `unclosed` is the number
    of brackets and strings that are cut off: a string at the end of its line, or a bracket when another kind of bracket
    around it is closed. `tokens` has the words, brackets and operators of the text, if they were requested.

    `cut_off` and `kept` refer to the stack before the text. `cut_off` has the indexes of the entries that are cut off,
    and the outermost `kept` entries stay open throughout the text.
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
        """The number of closing brackets that close nothing."""
        return len(self.strays)

    @property
    def missing(self) -> int:
        """The number of brackets and strings that are never closed if no more text follows."""
        return self.unclosed + sum(entry != LINE_COMMENT for entry in self.stack)

    @property
    def literal(self) -> bool:
        """Whether the text ends inside a string or a comment."""
        return bool(self.stack) and is_literal(self.stack[-1])


class Reader:
    """Reads a text step by step, from the offset `start`.

    `stack` has the brackets, strings and comments that are open at `start`. `offsets` has the offset in the text at
    which each entry was opened, or -1 if it is unknown (the default). `begin` and `position` are the start and the end
    of the last bracket, quote, comment mark or line end that was read.
    """

    def __init__(
        self, text: str, language: str, stack: Stack, offsets: Sequence[int] | None = None, start: int = 0
    ) -> None:
        self.syntax = syntax_of(language)
        self.text = text
        self.opened = list(stack)
        self._literals = sum(map(is_literal, stack))
        self.heredocs: list[tuple[str, int]] = []  # entries whose marks are on this line, with the marks' offsets
        self.offsets = [-1] * len(stack) if offsets is None else list(offsets)
        self.tokens: list[Token] = []
        self.strays: list[int] = []
        self._cut_off: list[int] = []
        self._closers: list[int] = []
        self._kept = len(stack)  # the number of entries of `stack` that have been open since the start
        self._unclosed = 0
        self.begin = self.position = start

    def result(self) -> Scan:
        """Return the result of reading the text up to `position`."""
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
        """Return whether this reader and another reader of the same text will read the rest in the same way."""
        return self.position == other.position and self.opened == other.opened and self.heredocs == other.heredocs

    def step(self, *, words: bool = False) -> bool:
        """Read up to and including the next bracket, quote, comment mark or line end that can change the state.

        If `words` is true, the next word or operator also ends the step. Return false if none of these follows.
        """
        if self.opened and (top := self.opened[-1]) not in OPENERS:
            return self._element(top, words=words) if is_element(top) else self._literal(top, words=words)
        return self._code(words=words)

    def _code(self, *, words: bool, pattern: re.Pattern[str] | None = None) -> bool:
        """Read to the next match of `pattern`, which is that of code by default."""
        syntax, text = self.syntax, self.text
        if pattern is not None:
            found = pattern.search(text, self.position)
        elif words:
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
        if words and kind in ("word", "sign", "open", "close"):
            self.tokens.append(Token(self.begin, self.position, value))
        if kind == "word" or kind == "sign":
            return True
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
        elif kind in elements.KINDS:
            self._part(kind, value)
            if words:
                self.tokens += [Token(self.begin, self.position, token) for token in elements.tokens(kind, value)]
        return True

    def _element(self, top: str, *, words: bool) -> bool:
        """Read to the next tag, bracket, string or comment in the element with the entry `top`."""
        if top.startswith(NAME):
            return self._name(top) or (self.opened[-1:] != [top] and self.step(words=words))
        if top.startswith(TAG):
            return self._code(words=words, pattern=elements.patterns().tag)
        return self._code(words=words, pattern=elements.patterns().words if words else elements.patterns().content)

    def _part(self, kind: str, text: str) -> None:
        """Handle a part of an element, `text`. `kind` is the name of its group in the patterns of `elements`."""
        if kind == "tag":
            self._tag(text)
        elif kind == "content":
            self.opened[-1] = ELEMENT + self.opened[-1].removeprefix(TAG)
            self._closers.append(self.begin)
        elif kind == "empty":
            self._close("/>")
        elif kind == "attribute":
            self._open(kind + text)

    def _tag(self, tag: str, *, begun: bool = False) -> None:
        """Handle `tag`, which ends after its name. `begun` says whether the innermost entry is its beginning."""
        if self.position == len(self.text) and not tag.endswith(">"):
            entry = NAME + tag[1:]
        elif tag.startswith("</"):
            if begun:
                self._drop(len(self.opened) - 1)
            self._close("".join(tag.split()))
            return
        else:
            entry = ELEMENT if tag == "<>" else TAG + tag[1:]
        if begun:
            self.opened[-1] = entry
        else:
            self._open(entry)

    def _name(self, top: str) -> bool:
        """Read the rest of the tag with the entry `top`, and return whether there is any.

        If the text does not continue the name, the entry becomes that of the opening tag. If the text shows that this
        is not a tag, the entry is removed.
        """
        begun = "<" + top.removeprefix(NAME)
        rest = self.text[self.position : self.position + elements.LONGEST_NAME]
        if not rest:
            return False
        in_content = len(self.opened) > 1 and self.opened[-2].startswith(ELEMENT)
        pattern = elements.patterns().begun_in_content if in_content else elements.patterns().begun_in_code
        found = pattern.match(begun + rest)
        if found is None:
            self._drop(len(self.opened) - 1)
            return False
        self.begin, self.position = self.position, self.position + max(0, found.end() - len(begun))
        self._tag(found.group(), begun=True)
        return self.begin < self.position

    def _literal(self, top: str, *, words: bool) -> bool:
        """Read to the end of the string or comment with the entry `top`, or to the next escape or expression in it."""
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
            self.position = end if top == LINE_COMMENT else end + len(close)  # the line end is outside of the comment
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
            if words:
                self.tokens.append(Token(self.begin, self.position, value))
        elif value == "}":
            self.strays.append(self.begin)
        return True

    def _open(self, entry: str, begin: int | None = None) -> None:
        self.opened.append(entry)
        self.offsets.append(self.begin if begin is None else begin)
        self._literals += is_literal(entry)

    def _close(self, closer: str) -> None:
        """Close the innermost bracket that `closer` can close. Open brackets inside this bracket are cut off."""
        for depth, entry in enumerate(reversed(self.opened)):
            expected = OPENERS.get(entry) or closing_tag(entry)
            if not expected:
                break  # the other entries are outside of the string that contains `closer`
            if expected == closer:
                self._drop(len(self.opened) - depth - 1, cut_off=depth)
                self._closers.append(self.begin)
                return
        if closer not in self.syntax.loose:
            self.strays.append(self.begin)

    def _drop(self, size: int, *, cut_off: int = 0) -> None:
        """Remove all entries but the outermost `size`. The innermost `cut_off` of the removed ones count as cut off."""
        self._unclosed += cut_off
        self._cut_off.extend(range(len(self.opened) - cut_off, self._kept))
        if self._literals:
            self._literals -= sum(map(is_literal, self.opened[size:]))
        del self.opened[size:], self.offsets[size:]
        self._kept = min(self._kept, size)

    def _end_line(self) -> None:
        """Handle the end of a line of code.

        A string that cannot contain line ends, but contains an expression that is still open, is cut off. The heredocs
        whose marks are on the line begin.
        """
        for number, entry in enumerate(self.opened):
            if entry in self.syntax.quotes and not self.syntax.quotes[entry].lines:
                self._drop(number, cut_off=len(self.opened) - number)
                break
        for entry, begin in reversed(self.heredocs):
            self._open(entry, begin)
        self.heredocs.clear()


@lru_cache(256)
def _end_of(entry: str) -> re.Pattern[str]:
    """Return a pattern for the end of the raw string or heredoc with this entry in the stack."""
    if entry.startswith(_RAW):
        return re.compile(re.escape(entry.removeprefix(_RAW)))
    return re.compile(rf"^[ \t]*{entry.removeprefix(_HEREDOC)}(?!\w)", re.MULTILINE)


def closing_text(entry: str, language: str) -> str:
    """Return the text that closes an entry of a stack. It is empty for a line comment, which the line's end closes."""
    syntax = syntax_of(language)
    if entry in OPENERS:
        return OPENERS[entry]
    if is_element(entry):
        return closing_tag(entry)
    if entry in syntax.quotes:
        return syntax.quotes[entry].close
    if entry.startswith((_RAW, _HEREDOC)):
        return entry.removeprefix(_RAW).removeprefix(_HEREDOC)
    return syntax.blocks.get(entry, "")


def _in_arithmetic(opened: list[str]) -> bool:
    """Return whether `<<` is an operator, because it is inside two parentheses, as in the shell's `$((1 << n))`."""
    return len(opened) > 1 and all(OPENERS.get(entry) == ")" for entry in opened[-2:])


def _with_prefix(quote: str, before: str, syntax: Syntax) -> str:
    """Return the key in `Syntax.quotes` of the string that `quote` opens.

    `before` is the text before the quote. If it ends with a prefix such as `f`, the key is that of a formatted string.
    """
    if "f" + quote not in syntax.quotes:
        return quote
    prefix = before[len(before.rstrip(_LETTERS)) :].lower()
    return "f" + quote if prefix in _FORMATTED else quote
