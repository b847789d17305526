"""Cut a file into chunks along its syntax.

A definition that fits is one chunk. A class that is too long gives one chunk for its head (with the fields) and further
chunks for its members. A function that is too long is split between statements, and each part except the first has a
`Chunk.header` that names the scope. Small neighboring pieces of one scope are merged. Comments and decorators stay with
the definition that follows them. The chunks partition the file: each line is in exactly one chunk, even if the text has
syntax errors. Only a text that cannot be parsed (no grammar, too long, almost nothing but errors) is cut into
overlapping windows instead.

The trade-off: cuts are made between lines, not between bytes, so two statements on one line stay together. In return,
line ranges describe chunks exactly, and the code needs no special cases.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from indexer.languages import Language, parser_for, query_of
from indexer.model import Chunk, ChunkKind
from indexer.windows import Span, windows

if TYPE_CHECKING:
    import tree_sitter

# The number of levels of the syntax tree that are searched for statements. Code that is nested deeper is cut into parts
# of equal length, without regard to syntax.
MAX_DEPTH = 48
HEADER_COLUMNS = 160  # maximum number of characters of a line in a header; a longer line is cut
# Maximum number of characters of a text that is parsed. A longer text is not written by hand, and parsing it would
# delay the files queued after it, so it is cut into windows.
PARSED_LENGTH = 2_000_000
# A text is cut into windows if an error node of its syntax tree has more children than this: the time of a tree-sitter
# query grows with the square of their number.
MAX_ERRORS = 2_000
_WORD = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class Chunking:
    """How to cut files into chunks. All sizes are in lines.

    The style "structure" cuts along the syntax, and "window" into overlapping windows. `max_lines` is the length of
    the longest chunk. Neighboring pieces are merged while they have at most `merge_lines` together. `window_lines` is
    the length of a window, and `window_stride` the distance between the starts of two windows. Their defaults are the
    paper's; for function completion, the paper uses 50 and 25.
    """

    style: Literal["structure", "window"] = "structure"
    max_lines: int = 30
    merge_lines: int = 20
    window_lines: int = 20
    window_stride: int = 10


@dataclass(slots=True)
class _Definition:
    """A function or class in a file that is being cut. Rows count from 0, and `end` is the row after the last one."""

    start: int
    end: int
    kind: ChunkKind
    body: int  # the row where the body begins; the rows before it are the signature
    node: tree_sitter.Node
    children: list[_Definition] = field(default_factory=list)


# The rows of a piece (start, end), its kind and its header.
_Piece: TypeAlias = tuple[int, int, ChunkKind, str]
# A named child of a node, and its rows (start, end).
_Child: TypeAlias = "tuple[tree_sitter.Node, int, int]"
# A scope that is not cut yet: its rows (start, end), the definitions in it, its kind, the header of its first part, the
# header of its other parts, and its node.
_Scope: TypeAlias = "tuple[int, int, Sequence[_Definition], ChunkKind, str, str, tree_sitter.Node]"


def chunk(
    text: str, language: Language | None, *, root: str, path: str, chunking: Chunking | None = None
) -> list[Chunk]:
    """Cut a file's text into chunks, in the order of their lines.

    A chunk's text has no blank lines at its end, but its line range includes them.
    """
    text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    return [
        Chunk(
            root,
            path,
            span.start_line,
            span.end_line,
            "\n".join(lines[span.start_line - 1 : span.end_line]).rstrip(),
            span.kind,
            span.header,
            span.symbols,
        )
        for span in spans(text, language, chunking or Chunking())
    ]


def spans(text: str, language: Language | None, chunking: Chunking) -> list[Span]:
    r"""Return the line ranges of a file's chunks; `text` has `\n` line ends."""
    if not text:
        return []
    count = text.count("\n") + (not text.endswith("\n"))
    parsed = language is not None and chunking.style == "structure" and len(text) <= PARSED_LENGTH
    parser = parser_for(language.id) if language and parsed else None
    if parser is None or language is None:
        return windows(count, chunking.window_lines, chunking.window_stride)
    source = text.encode("utf-8", "replace")
    tree = parser.parse(source)
    if _is_beyond_repair(tree.root_node):
        return windows(count, chunking.window_lines, chunking.window_stride)
    return _Cutter(source, text.split("\n"), count, tree.root_node, language, chunking).spans()


class _Cutter:
    """Cuts one parsed file. The methods share the arguments of the constructor."""

    def __init__(
        self,
        source: bytes,
        lines: Sequence[str],
        count: int,
        root: tree_sitter.Node,
        language: Language,
        chunking: Chunking,
    ) -> None:
        self._source = source
        self._lines = lines
        self._count = count
        self._root = root
        self._comment = language.comment.strip()
        self._chunking = chunking
        self._imports: list[tuple[int, int]] = []
        self._symbols: dict[int, list[str]] = {}
        self._children: dict[int, list[_Child]] = {}  # by the id of the parent
        self._definitions = self._outline(language.id)

    def spans(self) -> list[Span]:
        pieces = self._merge(self._cut(0, self._count, self._definitions, "block", "", self._root))
        result = []
        for start, end, kind, header in pieces:
            names = (name for row in range(start, end) for name in self._symbols.get(row, ()))
            result.append(Span(start + 1, end, kind, header, tuple(dict.fromkeys(names))))
        return result

    # -- find the definitions -----------------------------------------------------------------------------------------

    def _outline(self, language_id: str) -> list[_Definition]:
        """Return the outermost definitions that the language's query finds, each with the definitions inside it."""
        import tree_sitter

        query = query_of(language_id)
        if query is None:
            return []
        found: dict[int, _Definition] = {}
        for _, captures in tree_sitter.QueryCursor(query).matches(self._root):
            if (nodes := captures.get("import")) is not None:
                self._imports.extend((node.start_point.row, _end_row(node)) for node in nodes)
            for node in captures.get("symbol", ()):
                self._name(node)
            name = captures.get("name")
            if not name:
                continue
            kind: ChunkKind = "class" if "class" in captures else "function"
            node = captures[kind][0]
            self._name(name[0])
            body = captures["body"][0] if "body" in captures else node.child_by_field_name("body")
            definition = _Definition(
                self._first_row(node),
                _end_row(node),
                kind,
                body.start_point.row if body else node.start_point.row + 1,
                node,
            )
            known = found.get(name[0].start_byte)
            # The query finds a definition with `export`, decorators or a template twice: with and without these. Keep
            # the longer match.
            if known is None or node.start_byte < known.node.start_byte or node.end_byte > known.node.end_byte:
                found[name[0].start_byte] = definition
        return _nest(sorted(found.values(), key=lambda d: (d.start, -d.end)))

    def _name(self, node: tree_sitter.Node) -> None:
        text = self._source[node.start_byte : node.end_byte].decode("utf-8", "replace")
        if len(text) <= HEADER_COLUMNS:
            names = self._symbols.setdefault(node.start_point.row, [])
            names.append(text)

    def _first_row(self, node: tree_sitter.Node) -> int:
        """Return the first row of a definition, together with the comments and attributes directly before it."""
        start, before = node.start_point.row, node.prev_sibling
        while before is not None and ("comment" in before.type or "attribute" in before.type):
            alone = not self._lines[before.start_point.row][: before.start_point.column].strip()
            if _end_row(before) < start or not alone or before.start_point.row >= start:
                break
            start, before = before.start_point.row, before.prev_sibling
        return start

    # -- cut the file -------------------------------------------------------------------------------------------------

    def _cut(
        self,
        start: int,
        end: int,
        definitions: Sequence[_Definition],
        kind: ChunkKind,
        header: str,
        node: tree_sitter.Node,
    ) -> Iterator[_Piece]:
        """Cut the rows of one scope into pieces. Yield (start, end, kind, header) of each piece.

        The method is not recursive, so that deep nesting cannot overflow the stack.
        """
        stack: list[_Scope] = [(start, end, definitions, kind, header, header, node)]
        while stack:
            start, end, definitions, kind, header, inner, node = stack.pop()
            long = end - start > self._chunking.max_lines
            if not definitions or not (long or node is self._root):
                yield from self._split(start, end, kind, header, inner, node)
                continue
            todo: list[tuple[int, int, Sequence[_Definition], ChunkKind, str, str, tree_sitter.Node]] = []
            at = start
            for child in definitions:
                child_start = max(child.start, at)
                if child.end <= child_start:
                    continue
                if child_start > at:
                    todo.append((at, child_start, (), kind, header if at == start else inner, inner, node))
                scope = self._scope(inner, child)
                todo.append((child_start, child.end, child.children, child.kind, inner, scope, child.node))
                at = child.end
            if at < end:
                todo.append((at, end, (), kind, header if at == start else inner, inner, node))
            stack.extend(reversed(todo))

    def _scope(self, header: str, definition: _Definition) -> str:
        """Return the header of the code inside a definition: the outer header, and the signature in one line."""
        row = definition.node.start_point.row
        last = max(min(definition.body, definition.end), row + 1)
        for number in range(row, last):  # skip decorators and attributes
            if not self._lines[number].lstrip().startswith(("@", "#[", "[")):
                row = number
                break
        signature = (line.strip() for line in self._lines[row:last])
        words = " ".join(line for line in signature if not line.startswith(self._comment))
        indent = self._lines[row][: len(self._lines[row]) - len(self._lines[row].lstrip())]
        line = (indent + words)[:HEADER_COLUMNS].rstrip()
        return f"{header}\n{line}" if header else line

    def _split(
        self, start: int, end: int, kind: ChunkKind, header: str, inner: str, node: tree_sitter.Node
    ) -> Iterator[_Piece]:
        """Split rows that contain no definition.

        Imports get their own chunk. If there are too many rows for one chunk, they are cut between statements.
        """
        if kind == "block" and (imports := [r for r in self._imports if start <= r[0] and r[1] <= end]):
            first, last = imports[0][0], max(r[1] for r in imports)
            parts: tuple[tuple[int, int, ChunkKind], ...]
            parts = ((start, first, kind), (first, last, "imports"), (last, end, kind))
            for a, b, what in parts:
                if a < b:
                    yield from self._pack(a, b, what, header, inner, node)
            return
        yield from self._pack(start, end, kind, header, inner, node)

    def _pack(
        self, start: int, end: int, kind: ChunkKind, header: str, inner: str, node: tree_sitter.Node
    ) -> Iterator[_Piece]:
        limit = self._chunking.max_lines
        if end - start <= limit:
            yield start, end, kind, header
            return
        borders = self._borders(node, start, end, limit)
        at = start
        while end - at > limit:
            cut, what = _best_border(borders, at, limit), kind
            if cut is None:
                cut, what = at + limit, "window"
            yield at, cut, what, header if at == start else inner
            at = cut
        yield at, end, kind, header if at == start else inner

    def _borders(self, node: tree_sitter.Node, start: int, end: int, limit: int) -> dict[int, int]:
        """Map each row at which a statement begins to the statement's depth in the syntax tree.

        A node with at most a third of `limit` rows is not searched, because no cut inside it is needed.
        """
        borders: dict[int, int] = {}
        level = [node]
        for depth in range(MAX_DEPTH):
            below = []
            for parent in level:
                for child, first, after in self._children_between(parent, start, end):
                    if first > start and first > parent.start_point.row:
                        borders.setdefault(first, depth)
                    if after - first > limit // 3:
                        below.append(child)
            if not below:
                break
            level = below
        return borders

    def _children_between(self, parent: tree_sitter.Node, start: int, end: int) -> Sequence[_Child]:
        """Return the named children of a node that overlap the rows from `start` to `end`, sorted by row.

        The list of a node's children is cached, because the root is searched again for each part of a file.
        """
        children = self._children.get(parent.id)
        if children is None:
            children = [(child, child.start_point.row, _end_row(child)) for child in parent.named_children]
            self._children[parent.id] = children
        low = bisect_right(children, start, key=lambda child: child[2])
        high = bisect_left(children, end, low, key=lambda child: child[1])
        return children[low:high]

    def _merge(self, pieces: Iterator[_Piece]) -> Iterator[_Piece]:
        """Merge neighboring small pieces of one scope. A piece without words is added to the piece before it."""
        limit = self._chunking.merge_lines
        held: _Piece | None = None
        for start, end, kind, header in pieces:
            if held is None:
                held = (start, end, kind, header)
                continue
            blank = not any(_WORD.search(line) for line in self._lines[start:end])  # no words, but perhaps brackets
            together = header == held[3] and end - held[0] <= limit and "imports" not in (kind, held[2])
            if blank:
                held = (held[0], end, held[2], held[3])
            elif together:
                held = (held[0], end, kind if kind == held[2] else "block", header)
            else:
                yield held
                held = (start, end, kind, header)
        if held is not None:
            yield held


def _end_row(node: tree_sitter.Node) -> int:
    """Return the row after a node's last row. Some nodes end at column 0 of the line that follows them."""
    row, column = node.end_point
    return row if column == 0 and row > node.start_point.row else row + 1


def _nest(definitions: Sequence[_Definition]) -> list[_Definition]:
    """Return the outermost of `definitions`, which are sorted by (start, -end), and make the others their children.

    If a definition ends after its parent, its end becomes that of the parent.
    """
    top: list[_Definition] = []
    open_: list[_Definition] = []
    for definition in definitions:
        while open_ and open_[-1].end <= definition.start:
            open_.pop()
        if open_:
            definition.end = min(definition.end, open_[-1].end)
            open_[-1].children.append(definition)
        else:
            top.append(definition)
        open_.append(definition)
    return top


def _is_beyond_repair(root: tree_sitter.Node) -> bool:
    """Return whether the parser understood too little of a text: an error node has more than `MAX_ERRORS` children."""
    todo = [root] if root.has_error else []
    while todo:
        node = todo.pop()
        if node.is_error and node.child_count > MAX_ERRORS:
            return True
        todo.extend(child for child in node.children if child.has_error)
    return False


def _best_border(borders: dict[int, int], at: int, limit: int) -> int | None:
    """Return the best row in (at, at + limit] to cut at, or None.

    The part before the cut has at least a third of `limit` lines. Of the possible borders, the one at the least depth
    is the best; of several at that depth, the last one.
    """
    inside = [row for row in range(at + max(limit // 3, 1), at + limit + 1) if row in borders]
    return min(inside, key=lambda row: (borders[row], -row), default=None)
