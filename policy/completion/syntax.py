"""What is open at a place in a text, by the syntax: punctuation and keywords, out of a tree-sitter tree.

Counting characters goes wrong in strings, comments, character literals and lifetimes; a parser's tokens do not, and
they are there even where the code around the cursor does not parse yet. What a block is opened by (`{`, a final `:`,
`do`) is seen from the tokens, so a language needs no rule of its own beyond its grammar and, where blocks have
neither braces nor a colon, its keywords. Text without a grammar gets its brackets, every one of them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from indexer.languages import parser_for

if TYPE_CHECKING:
    import tree_sitter

OPENERS = {"(": ")", "[": "]", "{": "}", "${": "}", "#{": "}"}
CLOSERS = frozenset(OPENERS.values())
_COLON_BLOCKS = frozenset({"python"})
_OPENING_WORDS = {
    "ruby": frozenset({"do", "then", "def", "class", "module", "begin", "if", "unless", "while"}),
    "lua": frozenset({"do", "then", "function", "repeat", "else"}),
    "bash": frozenset({"do", "then", "else"}),
}
_CLOSING_WORDS = {
    "ruby": frozenset({"end"}),
    "lua": frozenset({"end", "until"}),
    "bash": frozenset({"done", "fi", "esac"}),
}
_LITERALS = ("comment", "string_content", "string_fragment", "string_literal", "char_literal", "character_literal")
_EMBEDDED = ("interpolation", "template_substitution")
# How far back a parse begins: long enough for nearly any function, short enough for a few milliseconds.
_WINDOW = 12_000  # characters that are parsed at most
_ENOUGH = 1_500  # characters that are parsed at least
_UNINDENTED = re.compile(r"\n(?=[^\s})\]#/*])")


@dataclass(frozen=True, slots=True)
class Token:
    """A leaf of the tree. `text` is its punctuation or keyword, "" for names and literals.

    Offsets are in characters. `literal` marks what stands inside a string or a comment.
    """

    start: int
    end: int
    text: str
    literal: bool


def window(prefix: str) -> str:
    """The end of `prefix` that is worth parsing: `_ENOUGH`, and back to a line without indentation from there."""
    tail = prefix[-_WINDOW:]
    starts = [match.end() for match in _UNINDENTED.finditer(tail)]
    if near := [start for start in starts if start <= len(tail) - _ENOUGH]:
        return tail[near[-1] :]
    if len(prefix) <= _WINDOW:
        return prefix
    return tail[starts[0] :] if starts else tail[tail.find("\n") + 1 :]


def tokens(text: str, language: str, start: int = 0) -> list[Token]:
    """The leaves of `text` that end behind offset `start`, in order."""
    parser = parser_for(language)
    if parser is None:
        return [Token(m.start(), m.end(), m.group(), False) for m in re.finditer(r"[][(){}]", text) if m.end() > start]
    data = text.encode("utf-8", "replace")
    if len(data) == len(text):  # ASCII: bytes are characters
        found = _leaves(parser.parse(data).root_node, start)
        return [_token(node, literal, node.start_byte, node.end_byte) for node, literal in found]
    starts = _byte_offsets(text)
    found = _leaves(parser.parse(data).root_node, starts[start])
    return [
        _token(node, literal, bisect_left(starts, node.start_byte), bisect_left(starts, node.end_byte))
        for node, literal in found
    ]


def depth(line: Sequence[Token]) -> int:
    """Brackets opened less brackets closed."""
    return sum((token.text in OPENERS) - (token.text in CLOSERS) for token in line if not token.literal)


def opens_block(line: Sequence[Token], language: str) -> bool:
    """Whether a block begins at the end of a line with these tokens, its body on the next line."""
    code = [token for token in line if not token.literal]
    if not code:
        return False
    last = code[-1].text
    if language in _COLON_BLOCKS:
        return last == ":" and depth(code) <= 0
    if any(token.text in closing_words(language) for token in code):
        return False
    words: frozenset[str] = _OPENING_WORDS.get(language, frozenset())
    return last == "{" or any(token.text in words for token in code)


def closing_words(language: str) -> frozenset[str]:
    """The keywords behind a block, in languages that have them (`end`, `fi`)."""
    return _CLOSING_WORDS.get(language, frozenset())


def closes_block(line: Sequence[Token], language: str) -> bool:
    """Whether a line with these tokens is the end that a keyword language writes behind a block."""
    return bool(line) and not line[0].literal and line[0].text in closing_words(language)


def in_literal(line: Sequence[Token], offset: int) -> bool:
    """Whether `offset` lies inside a string or a comment that has begun before it."""
    return any(token.literal and token.start < offset <= token.end for token in line)


def _token(node: tree_sitter.Node, literal: bool, start: int, end: int) -> Token:
    return Token(start, end, "" if node.is_named else node.type, literal)


def _leaves(root: tree_sitter.Node, start: int) -> Iterator[tuple[tree_sitter.Node, bool]]:
    """Leaves that end behind byte `start`, with whether they are in a literal. Iterative: nesting may be deep."""
    stack: list[tuple[tree_sitter.Node, bool]] = [(root, False)]
    while stack:
        node, literal = stack.pop()
        if node.end_byte <= start:
            continue
        if node.is_named:
            kind = node.type
            literal = (literal or kind.endswith(_LITERALS)) and kind not in _EMBEDDED
        if node.child_count:
            stack.extend((child, literal) for child in reversed(node.children))
        elif node.end_byte > node.start_byte:
            yield node, literal


def _byte_offsets(text: str) -> list[int]:
    """Byte offset in UTF-8 of every character, and of the end."""
    offsets, position = [], 0
    for character in text:
        offsets.append(position)
        code = ord(character)
        # What cannot be encoded (a lone surrogate) became one question mark.
        position += 1 if code < 0x80 or 0xD800 <= code < 0xE000 else 2 if code < 0x800 else 3 if code < 0x10000 else 4
    offsets.append(position)
    return offsets
