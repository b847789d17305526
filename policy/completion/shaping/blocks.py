"""Find where blocks begin and end, from the tokens of each line.

A line opens a block if it ends with `{` or with the opening tag of an element, if it ends with `:` in Python, or if it
has a keyword such as `do`. The tables below list these keywords for each language that has them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from indexer.languages import grammar_of
from policy.completion.shaping import elements
from policy.completion.shaping.elements import is_element
from policy.completion.shaping.lexical import CLOSERS, OPENERS
from policy.completion.shaping.reader import Stack, Token

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
# How a decorator, an annotation or an attribute begins. It can be on a line of its own, above what it belongs to.
_ANNOTATIONS = {
    **dict.fromkeys(
        ("python", "cython", "java", "kotlin", "scala", "swift", "javascript", "typescript", "tsx", "dart", "groovy"),
        "@",
    ),
    **dict.fromkeys(("rust", "php"), "#"),
    "csharp": "[",
}
# In these languages, a body without a brace, or the brace itself, can be on the line below these keywords.
_BRACES = frozenset(
    {"c", "cpp", "objective-c", "java", "csharp", "javascript", "typescript", "tsx", "php", "dart", "groovy", "kotlin"}
)
_ALONE = frozenset({"else", "do", "try", "finally"})
_CONTROL = _ALONE | {"if", "for", "foreach", "while", "switch", "catch", "using", "lock", "synchronized"}
# The tokens that open and close a bracket or an element
_OPENING, _CLOSING = OPENERS.keys() | {elements.BEGIN}, CLOSERS | {elements.END}
_FIRST_WORD = re.compile(r"[\s}]*(\w*)")
_COMPLETE = re.compile(r"[\w;)\]}\"'`]\s*\Z")


def depends_on_indentation(language: str) -> bool:
    """Return whether a block ends at a line with less indentation, as in Python."""
    return language in _COLON_BLOCKS


def continues(line: str, language: str) -> bool:
    """Return whether the statement of `line` may continue on the next line, although no bracket or string is open."""
    if language in _COLON_BLOCKS:
        return line.endswith("\\")
    if grammar_of(language) is None or not _COMPLETE.search(line):
        return True
    word = _FIRST_WORD.match(line)
    return word is not None and word.group(1) in _CONTROL


def statement_brackets(stack: Stack, language: str) -> int:
    """Return the number of innermost entries of `stack` that are brackets or elements in which one statement continues.

    A brace is not one of them, because it can contain statements, except where blocks depend on indentation.
    """
    inner = [
        is_element(entry) or (entry in OPENERS and (entry != "{" or language in _COLON_BLOCKS))
        for entry in reversed(stack)
    ]
    return inner.index(False) if False in inner else len(inner)


def depth(line: Sequence[Token]) -> int:
    """Return the number of brackets and elements that a line opens minus the number of those that it closes."""
    return sum((token.text in _OPENING) - (token.text in _CLOSING) for token in line)


def open_after(line: Sequence[Token], before: int) -> int:
    """Return how many brackets and elements are open after a line, if `before` are open before it, at least 0."""
    for token in line:
        before = max(0, before + (token.text in _OPENING) - (token.text in _CLOSING))
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
    return last in ("{", elements.BEGIN, elements.CONTENT) or bool(words & _OPENING_WORDS.get(language, frozenset()))


def needs_next(line: Sequence[Token], language: str) -> bool:
    """Return whether a line with these tokens is incomplete without the next line, although no bracket is open.

    This is a decorator, an annotation or an attribute that is alone on its line, or a condition whose body begins on
    the next line.
    """
    if not line or depth(line):
        return False
    first, last = line[0].text, line[-1].text
    if language in _BRACES and last in _ALONE:
        return True
    if language == "swift" and first in ("case", "default") and last == ":":
        return True  # a label needs a statement
    annotates = first == _ANNOTATIONS.get(language)
    if not annotates and not (language in _BRACES and first in _CONTROL and last == ")"):
        return False
    bracket = next((number for number, token in enumerate(line) if token.text in OPENERS), len(line))
    if annotates and not all(token.text == "." or token.text.isidentifier() for token in line[1:bracket]):
        return False
    # Nothing follows the first bracket and its content.
    return all(open_after(line[bracket:end], 0) for end in range(bracket + 1, len(line)))


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
