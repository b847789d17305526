"""The part of a generation that is scored: as many lines as the truth has, or the body of a function."""

from __future__ import annotations

import pytest

from indexer.model import Cursor
from policy.evaluation.cutting import cut, stop_for
from policy.evaluation.task import Task, TaskKind


def task(kind: TaskKind, marked: str, path: str = "a.py", language: str = "python") -> Task:
    """Return a task for a file with the text `marked`, in which `«…»` marks the blank."""
    prefix, _, rest = marked.partition("«")
    truth, _, suffix = rest.partition("»")
    return Task("1", kind, "r", path, Cursor(f"/r/{path}", prefix, suffix, language), truth)


@pytest.mark.parametrize(
    ("truth", "predicted", "kept"),
    [
        ("a = 1", "a = 2\nb = 3\n", "a = 2"),
        ("a = 1\nb = 2\n", "\n\na = 2\n\nb = 3\nc = 4", "\n\na = 2\n\nb = 3"),  # blank lines do not count
        ("a = 1", "", ""),
        ("a = 1\nb = 2", "a", "a"),
    ],
)
def test_as_many_lines_as_the_truth(truth: str, predicted: str, kept: str) -> None:
    blank = task("line", f"«{truth}»\n")
    assert cut(predicted, blank) == kept


PYTHON = "def f(x):\n    «y = x\n    return y»\n\n\ndef g():\n    pass\n"


@pytest.mark.parametrize(
    ("predicted", "kept"),
    [
        ("return x\n\n\ndef h():\n    pass", "return x\n\n"),  # the body ends before the next function
        ("if x:\n        return 1\n    return 2\nprint(f)", "if x:\n        return 1\n    return 2"),
        ("return x\n    return (", "return x"),  # the token limit ended the last line, which does not parse
        ("return (", "return ("),  # no part parses, so the whole text is scored
    ],
)
def test_a_function_ends_with_its_body(predicted: str, kept: str) -> None:
    assert cut(predicted, task("function", PYTHON)) == kept


def test_a_function_in_braces() -> None:
    blank = task("function", "function f(x) {\n  «return x;»\n}\n", "a.js", "javascript")
    assert (
        cut("if (x) {\n    return 1;\n  }\n  return 2;\n}\nf(1);", blank) == "if (x) {\n    return 1;\n  }\n  return 2;"
    )


def test_a_generation_stops_where_it_would_be_cut() -> None:
    line, function = task("line", "«a = 1\nb = 2»\n"), task("function", PYTHON)
    assert (stop_for(line).tokens, stop_for(line).lines, stop_for(line).indent) == (50, 2, 0)
    assert (stop_for(function).tokens, stop_for(function).lines, stop_for(function).indent) == (256, 0, 4)
    assert stop_for(line, 7).tokens == 7
    assert stop_for(task("function", "def f(x): «return x»\n")).indent == 0
