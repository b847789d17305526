"""Find where blocks begin and end from the tokens of a line.

A block is opened at the end of a line (`{`, a final `:`, `do`). A language therefore needs no rule of its own, only its
keywords if its blocks have neither braces nor a colon.
"""

from __future__ import annotations

from collections.abc import Sequence

from policy.completion.shaping.lexical import CLOSERS, OPENERS
from policy.completion.shaping.reader import Token

_COLON_BLOCKS = frozenset({"python", "cython"})
_OPENING_WORDS = {
    "ruby": frozenset({"do", "then", "def", "class", "module", "begin", "if", "unless", "while", "until", "case"}),
    "lua": frozenset({"do", "then", "function", "repeat", "else"}),
    "bash": frozenset({"do", "then", "else"}),
    "elixir": frozenset({"do"}),
    "julia": frozenset({"do", "function", "if", "for", "while", "module", "struct", "begin", "try", "let"}),
}
_CLOSING_WORDS = {
    "ruby": frozenset({"end"}),
    "lua": frozenset({"end", "until"}),
    "bash": frozenset({"done", "fi", "esac"}),
    "elixir": frozenset({"end"}),
    "julia": frozenset({"end"}),
}
_MODIFIERS = {"ruby": frozenset({"if", "unless", "while", "until"})}  # after a statement, these open no block


def depth(line: Sequence[Token]) -> int:
    """Return the number of brackets opened minus the number closed."""
    return sum((token.text in OPENERS) - (token.text in CLOSERS) for token in line)


def open_after(line: Sequence[Token], before: int) -> int:
    """Return how many brackets are open after a line, if `before` are open before it; the result is never negative."""
    for token in line:
        before = max(0, before + (token.text in OPENERS) - (token.text in CLOSERS))
    return before


def opens_block(line: Sequence[Token], language: str) -> bool:
    """Return whether a line with these tokens opens a block whose body begins on the next line."""
    if not line:
        return False
    last = line[-1].text
    if language in _COLON_BLOCKS:
        return last == ":" and depth(line) <= 0
    words = _keywords(line, language)
    if words & closing_words(language):
        return False
    return last == "{" or bool(words & _OPENING_WORDS.get(language, frozenset()))


def closing_words(language: str) -> frozenset[str]:
    """Return the keywords that end a block, in languages that have them (`end`, `fi`)."""
    return _CLOSING_WORDS.get(language, frozenset())


def closes_block(line: Sequence[Token], language: str) -> bool:
    """Return whether a line with these tokens begins with a keyword that ends a block."""
    return bool(line) and line[0].text in closing_words(language)


def _keywords(line: Sequence[Token], language: str) -> set[str]:
    """Return the words of a line that can be keywords: no methods (`a.then`), symbols (`:if`) or argument names."""
    modifiers = _MODIFIERS.get(language, frozenset())
    found = set()
    for number, token in enumerate(line):
        before = line[number - 1].text if number else ""
        after = line[number + 1] if number + 1 < len(line) else None
        named = after is not None and after.text == ":" and after.start == token.end
        modifies = token.text in modifiers and number > 0 and before not in ("=", ";", "(")
        if before not in (".", ":", "@", "$") and not named and not modifies:
            found.add(token.text)
    return found
