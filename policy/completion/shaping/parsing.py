"""Does a suggestion add a syntax error? The region around the cursor is parsed without it and with it.

Tree-sitter parses the second text incrementally: what the suggestion does not touch is taken from the first tree. An
error is an `ERROR` or a `MISSING` node, and in two languages also a closing keyword that the grammar takes for a name.
Code that is not finished has errors without the suggestion, and may have as many with it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from indexer.languages import parser_for
from policy.completion.shaping.region import Region

if TYPE_CHECKING:
    import tree_sitter

Span = tuple[int, int]

# Where nothing is left to close, these grammars read the keyword as a name: a call, a command.
_STRAY = {
    "ruby": re.compile(rb"(?<![\w.:@$&])end(?![\w:?!=(])"),
    "bash": re.compile(rb"(?<![\w./$-])(?:fi|done|esac)(?![\w./=-])"),
}
_NAMES = frozenset({"identifier", "command_name"})


class ParseCheck:
    """The errors of one region with different texts at the cursor. `tree` is the region's tree, if that is known.

    `before` are the errors without a text, `elsewhere` how many of them lie apart from the cursor's line.
    """

    def __init__(self, region: Region, language: str, tree: tree_sitter.Tree | None = None) -> None:
        parser = parser_for(language)
        assert parser is not None, f"no grammar for {language!r}"
        self._parser = parser
        self._stray = _STRAY.get(language)
        self._left = region.left.encode("utf-8", "replace")
        self._right = region.right.encode("utf-8", "replace")
        self._tree = tree or parser.parse(self._left + self._right)
        self._at = (self._left.count(b"\n"), len(self._left) - self._left.rfind(b"\n") - 1)
        self.before = self._errors(self._tree, self._left + self._right)
        self._nodes = len(_errors(self._tree))
        line_start = self._left.rfind(b"\n") + 1
        line_end = len(self._left) + self._right.find(b"\n") if b"\n" in self._right else len(self._left + self._right)
        self.elsewhere = sum(end < line_start or start > line_end for start, end in self.before)

    def errors(self, text: str) -> list[Span]:
        """The errors with `text` at the cursor, as bytes from the cursor on (before it: negative), in order."""
        if not text:
            return [(start - len(self._left), end - len(self._left)) for start, end in self.before]
        data, at = text.encode("utf-8", "replace"), len(self._left)
        row, column = self._at
        lines = data.count(b"\n")
        tree = self._tree.copy()
        tree.edit(
            start_byte=at,
            old_end_byte=at,
            new_end_byte=at + len(data),
            start_point=(row, column),
            old_end_point=(row, column),
            new_end_point=(row + lines, len(data) - data.rfind(b"\n") - 1 if lines else column + len(data)),
        )
        whole = self._left + data + self._right
        found = self._errors(self._parser.parse(whole, tree), whole)
        return [(start - at, end - at) for start, end in found]

    def agrees_from_scratch(self, text: str) -> bool:
        """Whether a parse from scratch finds no more errors with `text` than without.

        How a parser recovers from an error depends on the tree it begins with.
        """
        whole = self._left + text.encode("utf-8", "replace") + self._right
        return len(self._errors(self._parser.parse(whole), whole)) <= len(self.before)

    def replaces_stray(self, text: str) -> bool:
        """Whether `text` takes a stray closing keyword away, and adds an `ERROR` or `MISSING` node for it.

        Both count as errors, so their number alone does not tell.
        """
        if self._nodes == len(self.before):  # nothing is stray
            return False
        whole = self._left + text.encode("utf-8", "replace") + self._right
        return len(_errors(self._parser.parse(whole))) > self._nodes

    def adds_none(self, errors: list[Span], text: str) -> bool:
        """Whether `errors`, those with `text` at the cursor, are no more than there are without it.

        Where the code is not finished, an error may have become another. But one that lies inside the text, or right
        of it where there was none, comes of the text.
        """
        if len(errors) <= self.elsewhere:
            return True
        size = len(text.encode("utf-8", "replace"))
        inside = any(start >= 0 and end < size for start, end in errors)
        right = sum(start > size for start, _ in errors)
        right_before = sum(start > len(self._left) for start, _ in self.before)
        return len(errors) <= len(self.before) and not inside and right <= right_before

    def _errors(self, tree: tree_sitter.Tree, text: bytes) -> list[Span]:
        found = _errors(tree)
        if self._stray is not None:
            for match in self._stray.finditer(text):
                node = tree.root_node.descendant_for_byte_range(*match.span())
                if node and (node.type in _NAMES or (node.parent and node.parent.type in _NAMES)):
                    found.append(match.span())
        return sorted(found)


def _errors(tree: tree_sitter.Tree) -> list[Span]:
    """Where `ERROR` and `MISSING` nodes are, in the order of their beginnings."""
    found: list[Span] = []
    stack = [tree.root_node] if tree.root_node.has_error else []
    while stack:
        node = stack.pop()
        if node.is_error or node.is_missing:
            found.append((node.start_byte, node.end_byte))
        stack.extend(child for child in reversed(node.children) if child.has_error)
    return found
