"""Find the syntax errors of a region without a suggestion and with it.

Tree-sitter parses the region with the suggestion incrementally: it reuses the nodes of the tree without the suggestion
that the suggestion does not touch. An error is an `ERROR` or a `MISSING` node. In two languages, a closing keyword that
the grammar reads as a name is also an error. Unfinished code has errors without the suggestion, and may have as many
errors with it.

How an incremental parser recovers from an error depends on the tree that it reuses. `errors_from_scratch` parses
without another tree, so its errors depend only on the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from indexer.languages import parser_for
from policy.completion.shaping.region import Region

if TYPE_CHECKING:
    import tree_sitter

Span = tuple[int, int]

# If these keywords close nothing, the grammars of these languages read them as the name of a method or a command.
_STRAY = {
    "ruby": re.compile(rb"(?<![\w.:@$&])end(?![\w:?!=(])"),
    "bash": re.compile(rb"(?<![\w./$-])(?:fi|done|esac)(?![\w./=-])"),
}
_NAMES = frozenset({"identifier", "command_name"})


@dataclass(frozen=True, slots=True)
class Errors:
    """The spans of the errors in a text, in order, as offsets in bytes.

    `strays` is the number of spans that are superfluous closing keywords. The grammar reads these keywords as names.
    `unreadable` is the number of spans that are characters which begin no token, inside of a larger error.
    """

    spans: tuple[Span, ...]
    strays: int = 0
    unreadable: int = 0

    def __len__(self) -> int:
        return len(self.spans)

    def no_more_than(self, other: Errors) -> bool:
        """Return whether there are at most as many errors as in `other`, with and without the strays and unreadable."""
        return all(
            len(self) - mine <= len(other) - others
            for mine, others in ((0, 0), (self.strays, other.strays), (self.unreadable, other.unreadable))
        )


class ParseCheck:
    """Finds the errors of one region with different texts at the cursor.

    `tree` is the syntax tree of the region without a text, if it is known. `whole` says whether the region is the whole
    file. `before` has the errors without a text, and `elsewhere` is the number of these errors that are not on the
    cursor's line. If `from_scratch` is true, the method `errors` parses the whole region each time, and not
    incrementally. It is true for a whole file with errors elsewhere: these errors remain with every text, and an
    incremental parse may count them differently.
    """

    def __init__(
        self, region: Region, language: str, tree: tree_sitter.Tree | None = None, *, whole: bool = False
    ) -> None:
        self._language = language
        self._stray = _STRAY.get(language)
        self._left = region.left.encode("utf-8", "replace")
        self._right = region.right.encode("utf-8", "replace")
        self._tree = tree or self._parser.parse(self._left + self._right)
        self._at = (self._left.count(b"\n"), len(self._left) - self._left.rfind(b"\n") - 1)
        self.before = self._errors(self._tree, self._left + self._right)
        line_start = self._left.rfind(b"\n") + 1
        line_end = len(self._left) + self._right.find(b"\n") if b"\n" in self._right else len(self._left + self._right)
        # Where a token is missing if the statement of the cursor's line continues on the next line
        self._line_end = len((self._left + self._right)[:line_end].rstrip()) - len(self._left + self._right)
        self.elsewhere = sum(end < line_start or start > line_end for start, end in self.before.spans)
        self.from_scratch = whole and self.elsewhere > 0

    @property
    def _parser(self) -> tree_sitter.Parser:
        # Looked up at each use, because each thread has its own parser, and the check may be made in another thread.
        parser = parser_for(self._language)
        assert parser is not None, f"no grammar for {self._language!r}"
        return parser

    def errors(self, text: str) -> Errors:
        """Return the errors of the region with `text` at the cursor."""
        if self.from_scratch:
            return self.errors_from_scratch(text)
        data = text.encode("utf-8", "replace")
        whole = self._left + data + self._right
        at = len(self._left)
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
        return self._errors(self._parser.parse(whole, tree), whole)

    def errors_from_scratch(self, text: str) -> Errors:
        """Return the errors of the region with `text` at the cursor, from a parse that does not use the earlier tree.

        This takes longer than `errors`.
        """
        whole = self._left + text.encode("utf-8", "replace") + self._right
        return self._errors(self._parser.parse(whole), whole)

    def adds_none(self, errors: Errors, text: str) -> bool:
        """Return whether `text` adds no error. `errors` are the errors of the region with `text` at the cursor.

        In unfinished code, `text` may replace an error by another one. But no error may be inside `text`, and there
        must be no more errors than without `text`, both in the whole region and after the cursor.
        """
        if len(errors) <= self.elsewhere:
            return True
        start, end = len(self._left), len(self._left) + len(text.encode("utf-8", "replace"))
        # A missing token at the end of `text` is no error inside it, because `text` may be incomplete there.
        inside = any(start <= begin < end and last <= end for begin, last in errors.spans)
        line_end = len(self._left + self._right) + end - start + self._line_end
        right = sum(begin > end and (begin, last) != (line_end, line_end) for begin, last in errors.spans)
        right_before = sum(begin > start for begin, _ in self.before.spans)
        return len(errors) <= len(self.before) and not inside and right <= right_before

    def length_before(self, errors: Errors, text: str) -> int:
        """Return the offset in `text`, in characters, at which the first error inside `text` ends.

        Every head of `text` that is longer contains this error. If no error is inside `text`, return the length of
        `text`. `errors` are the errors of the region with `text` at the cursor.
        """
        data, start = text.encode("utf-8", "replace"), len(self._left)
        ends = [end - start for begin, end in errors.spans if begin >= start and end < start + len(data)]
        return len(data[: min(ends)].decode("utf-8", "ignore")) if ends else len(text)

    def _errors(self, tree: tree_sitter.Tree, text: bytes) -> Errors:
        found, unreadable = _nodes(tree)
        strays = 0
        if self._stray is not None:
            for match in self._stray.finditer(text):
                node = tree.root_node.descendant_for_byte_range(*match.span())
                # A keyword that closes something is an anonymous node. This test is much faster than `parent`.
                if node and node.is_named and (node.type in _NAMES or (node.parent and node.parent.type in _NAMES)):
                    found.append(match.span())
                    strays += 1
        return Errors(tuple(sorted(found)), strays, unreadable)


def _nodes(tree: tree_sitter.Tree) -> tuple[list[Span], int]:
    """Return the spans of `ERROR` and `MISSING` nodes, and how many of them are characters that begin no token."""
    found: list[Span] = []
    unreadable = 0
    stack = [tree.root_node] if tree.root_node.has_error else []
    while stack:
        node = stack.pop()
        if node.is_error or node.is_missing:
            found.append((node.start_byte, node.end_byte))
            unreadable += not node.has_error
        stack.extend(child for child in node.children if child.has_error or child.is_error)
    return found, unreadable
