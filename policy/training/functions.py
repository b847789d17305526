"""Find the bodies of functions for function blanks, with the indexer's tree-sitter queries (capture `@body`)."""

from __future__ import annotations

from collections.abc import Iterator

from indexer.languages import language_of, parser_for, query_of

MIN_LINES, MAX_LINES = 3, 30


def bodies(path: str, text: str) -> Iterator[tuple[int, int]]:
    """Yield the (start, end) of the body of each function that has 3 to 30 lines, the signature included.

    The limits are those of the paper (section 4.1). Offsets are in characters. A body is the text between the braces,
    or the indented block, without surrounding white space. A docstring is part of the body. Bodies of at most 10
    characters are skipped.
    """
    language = language_of(path)
    parser = parser_for(language.id) if language else None
    query = query_of(language.id) if language else None
    if parser is None or query is None:
        return
    import tree_sitter

    source = text.encode()
    tree = parser.parse(source)
    for _, captures in tree_sitter.QueryCursor(query).matches(tree.root_node):
        for function in captures.get("function", ()):
            lines = function.end_point.row - function.start_point.row + 1
            body = captures["body"][0] if "body" in captures else function.child_by_field_name("body")
            if body is None or not MIN_LINES <= lines <= MAX_LINES:
                continue
            inner = source[body.start_byte : body.end_byte].decode()
            start = len(source[: body.start_byte].decode())
            end = start + len(inner)
            if inner.startswith("{") and inner.endswith("}"):
                start, end = start + 1, end - 1
            span = text[start:end]
            start, end = start + len(span) - len(span.lstrip()), end - (len(span) - len(span.rstrip()))
            if end - start > 10:
                yield start, end
