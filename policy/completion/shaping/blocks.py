"""Find where blocks begin and end, from the tokens of each line.

A line opens a block if it ends with `{`, if it ends with `:` in Python, or if it has a keyword such as `do`. The tables
below list these keywords for each language that has them.
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
# After a statement, as in `return if x`, these keywords open no block.
_MODIFIERS = {"ruby": frozenset({"if", "unless", "while", "until"})}


def depth(line: Sequence[Token]) -> int:
    """Return the number of opening brackets in a line minus the number of closing brackets."""
    return sum((token.text in OPENERS) - (token.text in CLOSERS) for token in line)


def open_after(line: Sequence[Token], before: int) -> int:
    """Return how many brackets are open after a line, at least 0. `before` is the number that are open before it."""
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
    """Return the keywords that end a block in a language, such as `end` or `fi`. Most languages have none."""
    return _CLOSING_WORDS.get(language, frozenset())


def closes_block(line: Sequence[Token], language: str) -> bool:
    """Return whether a line with these tokens begins with a keyword that ends a block."""
    return bool(line) and line[0].text in closing_words(language)


def _keywords(line: Sequence[Token], language: str) -> set[str]:
    """Return the tokens of a line that can be keywords.

    A method (`a.then`), a symbol (`:if`), the name of an argument (`if: x`) and a modifier (`return if x`) are not in
    the result.
    """
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
