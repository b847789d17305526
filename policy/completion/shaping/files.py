"""Keep state of whole documents between completions: syntax trees, and what is open at one offset.

A document changes little between two completions, so tree-sitter parses only the change. A file with errors is parsed
from scratch, because the errors that tree-sitter finds in an incremental parse depend on the earlier tree, and the
errors are counted. This can take 100 ms, so the parse runs in a thread while the model generates. A tree takes about
ten times the memory of its text, so only the trees of a few documents are kept.

`ParsedFiles.opened` keeps the brackets, strings and comments that are open after a part of the document from its
beginning. If that part only became longer since the previous completion, only the new text is read.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from indexer.languages import parser_for
from policy.common_prefix import common_prefix
from policy.completion.shaping.scan import Opened, opened_after

if TYPE_CHECKING:
    import tree_sitter

Point = tuple[int, int]
_DOCUMENTS = 8  # the maximum number of documents whose trees are kept
_BYTES = 1_000_000  # the maximum size of all texts whose trees are kept; the last text may exceed it alone
_PIECE = 4096  # bytes; a parser gets the text in pieces of this size, and other threads can run between two pieces

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Parsed:
    language: str
    data: bytes
    tree: tree_sitter.Tree


@dataclass(frozen=True, slots=True)
class _Read:
    language: str
    text: str
    opened: Opened


class ParsedFiles:
    """The syntax trees of the documents that were parsed last, and what is open at one offset of each document.

    `documents` is the maximum number of documents, and `size` the maximum size of their texts together, in bytes. If
    `background` is true, `start` runs the work in a thread. Only `tree` may be called from any thread.
    """

    def __init__(self, documents: int = _DOCUMENTS, size: int = _BYTES, *, background: bool = False) -> None:
        self._documents = documents
        self._size = size
        self._known: OrderedDict[str, _Parsed] = OrderedDict()
        self._lock = threading.Lock()  # protects `_known`
        self._thread = ThreadPoolExecutor(1, "syntax") if background else None
        # The last work of each document. The references are weak, because a result has a syntax tree.
        self._started: WeakValueDictionary[str, Future[Any]] = WeakValueDictionary()
        self._read: OrderedDict[str, _Read] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def start(self, document: str, work: Callable[[], T]) -> Future[T]:
        """Start `work` on a document, and return its result as a future.

        Earlier work on the document that has not begun is cancelled, so that fast typing does not queue up parses.
        """
        future: Future[T] = Future()
        if self._thread is None:
            future.set_result(work())
            return future
        if earlier := self._started.get(document):
            earlier.cancel()
        self._started[document] = future = self._thread.submit(work)
        return future

    def tree(self, document: str, language: str, data: bytes) -> tree_sitter.Tree:
        """Return the syntax tree of `data`, the text of `document` in UTF-8. `language` must have a grammar.

        Any thread may call this method.
        """
        with self._lock:
            known = self._known.pop(document, None)
        if known is None or known.language != language or known.data != data:
            known = _parse(language, data, known if known is not None and known.language == language else None)
        with self._lock:
            self._known[document] = known
            while len(self._known) > 1 and (len(self._known) > self._documents or self._total() > self._size):
                self._known.popitem(last=False)
        return known.tree

    def opened(self, document: str, language: str, text: str) -> Opened:
        """Return the brackets, strings and comments that are open after `text`.

        `text` is the text of `document` from its beginning to the start of a line.
        """
        known = self._read.pop(document, None)
        if known is None or known.language != language or not text.startswith(known.text):
            opened = opened_after(text, language)
        else:
            opened = opened_after(text, language, known.opened, len(known.text))
        self._read[document] = _Read(language, text, opened)
        while len(self._read) > self._documents:
            self._read.popitem(last=False)
        return opened

    def forget(self, document: str) -> None:
        """Delete the state of a closed document."""
        with self._lock:
            self._known.pop(document, None)
        self._read.pop(document, None)

    def _total(self) -> int:
        return sum(len(parsed.data) for parsed in self._known.values())


def _parse(language: str, data: bytes, old: _Parsed | None) -> _Parsed:
    parser = parser_for(language)
    assert parser is not None, f"no grammar for {language!r}"
    tree = None

    def piece(offset: int, _point: object) -> bytes:
        return data[offset : offset + _PIECE]

    if old is not None and not old.tree.root_node.has_error:
        start = common_prefix(old.data, data)
        kept = common_prefix(old.data[start:][::-1], data[start:][::-1])  # the number of bytes after the change
        old_end, new_end = len(old.data) - kept, len(data) - kept
        edited = old.tree.copy()
        edited.edit(
            start_byte=start,
            old_end_byte=old_end,
            new_end_byte=new_end,
            start_point=_point(old.data, start),
            old_end_point=_point(old.data, old_end),
            new_end_point=_point(data, new_end),
        )
        tree = parser.parse(piece, edited)
    if tree is None or tree.root_node.has_error:
        tree = parser.parse(piece)
    return _Parsed(language, data, tree)


def _point(data: bytes, offset: int) -> Point:
    """Return the row of an offset in `data`, and its column in bytes."""
    return data.count(b"\n", 0, offset), offset - data.rfind(b"\n", 0, offset) - 1
