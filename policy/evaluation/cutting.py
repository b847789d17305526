"""Cut a generation to the part that is compared with the truth (paper, section 5.1).

Line, API, cursor and chunk completions are cut to as many non-blank lines as the truth has. A function is cut at the
end of its body, and then to the longest part that parses. `stop_for` returns the same limits for the generation, so
that the model does not generate tokens that `cut` would remove.
"""

from __future__ import annotations

from indexer.languages import parser_for
from policy.engine.messages import Stop

from .task import TOKENS, Task

MAX_DROPPED_LINES = 8  # maximum number of lines that are removed from the end to find a body that parses


def stop_for(task: Task, tokens: int = 0) -> Stop:
    """Return the limits of the generation for `task`. `tokens`, unless 0, replaces the paper's maximum (`TOKENS`)."""
    limit = tokens or TOKENS[task.kind]
    if task.kind == "function":
        return Stop(limit, indent=body_indent(task.cursor.prefix, task.truth))
    return Stop(limit, lines=max(1, line_count(task.truth)))


def cut(text: str, task: Task) -> str:
    """Return the part of the generation `text` that is compared with the truth."""
    if task.kind == "function":
        return function_body(text, task)
    return leading_lines(text, line_count(task.truth))


def leading_lines(text: str, wanted: int) -> str:
    """Return the first lines of `text`, up to `wanted` non-blank lines."""
    kept = []
    for line in text.split("\n"):
        if wanted == 0:
            break
        wanted -= bool(line.strip())
        kept.append(line)
    return "\n".join(kept)


def line_count(text: str) -> int:
    """Return the number of non-blank lines in `text`."""
    return sum(bool(line.strip()) for line in text.splitlines())


def body_indent(prefix: str, body: str) -> int:
    """Return the indentation of the first line of `body`, in characters.

    `prefix` may already contain part of this indentation. The result is 0 for a body on the line of the signature.
    """
    typed = prefix[prefix.rfind("\n") + 1 :]
    if typed.strip():
        return 0  # the body begins on the line of the signature
    first = next((line for line in (typed + body).split("\n") if line.strip()), "")
    return len(first) - len(first.lstrip())


def function_body(text: str, task: Task) -> str:
    """Return the longest part of `text` that is a function body and parses.

    The body ends before the first line with less indentation than the body of the truth. If no part parses after
    removing up to `MAX_DROPPED_LINES` lines, the whole body is returned.
    """
    indent = body_indent(task.cursor.prefix, task.truth)
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if number and line.strip() and len(line) - len(line.lstrip()) < indent:
            lines = lines[:number]
            break
    for dropped in range(min(MAX_DROPPED_LINES, len(lines) - 1) + 1):
        head = "\n".join(lines[: len(lines) - dropped])
        if parses(head, task):
            return head
    return "\n".join(lines)


def parses(body: str, task: Task) -> bool:
    """Return whether `body`, inserted at the cursor of `task`, has no syntax error. Errors elsewhere are ignored."""
    parser = parser_for(task.cursor.language)
    if parser is None:
        return True
    before = task.cursor.prefix.encode("utf-8", "replace")
    middle = body.rstrip().encode("utf-8", "replace")
    tree = parser.parse(before + middle + b"\n" + task.cursor.suffix.lstrip("\n").encode("utf-8", "replace"))
    end = len(before) + len(middle)
    stack = [tree.root_node]
    while stack:
        node = stack.pop()
        if not node.has_error or node.end_byte < len(before) or node.start_byte > end + 1:
            continue
        if node.is_error or node.is_missing:
            if node.start_byte >= len(before) or node.end_byte > len(before):
                return False
            continue
        stack.extend(node.children)
    return True
