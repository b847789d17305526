"""Print how the time of functions that run often grows with the size of their input.

The inputs are texts that may be slow to process.

Usage: `python -m benchmarks.sizes [--largest CHARACTERS]`. A row has the times of a function in milliseconds, for a
quarter of the largest size, for half of it, and for the largest size. The last column is the exponent of the growth
between the last two times: 1 is linear, and 2 is quadratic.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

from indexer.chunking import chunk
from indexer.languages import LANGUAGES
from indexer.model import Cursor
from indexer.reading import check_text
from indexer.retrieval.ngram import tokenize
from indexer.retrieval.query import Query
from indexer.secrets import secret_spans
from lsp_server.features.completion import entry
from lsp_server.items import item
from lsp_server.session import Record
from lsp_server.text import Change, Document, Place
from policy.completion.pinned import LineDecisions
from policy.completion.request import Completion, Request
from policy.completion.reuse import Reuse
from policy.completion.shape import Shaper
from policy.gating.decision import by_policy
from policy.gating.evidence import evidence
from policy.generators.text import TextPrompts
from policy.prompting.prompt import Budgets
from policy.prompting.truncation import truncate

# Each text is repeated up to the measured size. Each of these inputs can be slow for at least one function.
TEXTS = {
    "letters": "a",
    "words": "word ",
    "wide": "é😀",
    "lines": "x = 1\n",
    "blank lines": "\n",
    "carriage returns": "\r",
    "blanks": " ",
    "quotes": "\"'",
    "tokens": "eyJhbGciOiJI-",
    "keys": "-----BEGIN A PRIVATE KEY",
    "addresses": "://a:",
    "brackets": "({[",
    "definitions": "def f(a):\n    return a\n",
    "long blocks": "x = 1\n" * 31 + "def f(a):\n    return a\n",
    "imports": "import a\nx = 1\n",
    "comments": "# a\n",
}


def of_size(text: str, size: int) -> str:
    """Return `text`, repeated and cut to `size` characters."""
    return (text * (size // len(text) + 1))[:size]


def _edit(text: str) -> None:
    document = Document.of("file:///a.py", text)
    last = len(document.lines) - 1
    end = (last, len(document.lines[last]))
    document.apply([Change("x", end, end)] * 20, 1, "utf-32")


def _edit_everywhere(text: str) -> None:
    document = Document.of("file:///a.py", text)
    document.apply([Change("y", (line, 0), (line, 1)) for line in range(len(document.lines))], 1, "utf-16")


def _show(text: str) -> None:
    document = Document.of("file:///a.py", text)
    last = len(document.lines) - 1
    place = Place(last, len(document.lines[last]))
    cursor = Cursor("/a.py", text, "", "python")
    record = Record(1, document.uri, (0, 0), Request(cursor, document.uri), Completion("x"))
    item(document, place, None, "x", "utf-16")
    entry(document, place, record, "utf-16")


def _complete(text: str) -> None:
    """Do the work of a completion in the middle of a document, without the model's work."""
    middle = len(text) // 2
    cursor = Cursor("/a.py", text[:middle], text[middle:], "python")
    Query.at(cursor, 20)
    evidence(cursor, ())
    truncate(cursor, Budgets())
    shaper = Shaper(cursor)
    shaper.decided("x = 1\n")
    shaper.finish("x = 1\n", complete=True)
    held, decision = LineDecisions(), by_policy("never")
    assert decision is not None
    held.put("d", cursor, None, decision)
    held.find("d", cursor, None)
    reuse: Reuse[None] = Reuse()
    reuse.put("d", cursor, None, "x", None)
    reuse.find("d", cursor, None)


def _chunk(text: str) -> None:
    chunk(text, LANGUAGES["python"], root="/", path="a.py")


FUNCTIONS: dict[str, Callable[[str], Any]] = {
    "open": lambda text: Document.of("file:///a.py", text),
    "20 edits": _edit,
    "edit each line": _edit_everywhere,
    "items": _show,
    "complete": _complete,
    "server's prompt": lambda text: TextPrompts("qwen", Budgets()).generate(Cursor("/a.py", text, text, ""), None),
    "secrets": lambda text: list(secret_spans(text)),
    "chunks": _chunk,
    "check": check_text,
    "tokens": tokenize,
}


def milliseconds(function: Callable[[str], Any], text: str) -> float:
    """Return the clock time of one call in milliseconds."""
    started = time.perf_counter()
    function(text)
    return (time.perf_counter() - started) * 1e3


def main(largest: int) -> None:
    sizes = (largest // 4, largest // 2, largest)
    print(f"{'function':18}{'text':18}" + "".join(f"{size:>12,}" for size in sizes) + f"{'exponent':>10}")
    for name, function in FUNCTIONS.items():
        for kind, text in TEXTS.items():
            times = [milliseconds(function, of_size(text, size)) for size in sizes]
            exponent = math.log2(times[2] / times[1]) if times[1] > 1 else float("nan")  # below 1 ms: too inexact
            print(f"{name:18}{kind:18}" + "".join(f"{ms:12.1f}" for ms in times) + f"{exponent:10.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=400_000)
    main(parser.parse_args().largest)
