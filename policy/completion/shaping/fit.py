"""The longest head of a text that fits: nothing unbalanced, nothing said twice, no syntax error that was not there.

A head ends at the border of a token. The cheap rules are asked first, the parser last, and where the parser finds an
error inside a head, no head that contains it is tried. `_PARSES` bounds the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from indexer.languages import grammar_of
from policy.completion.shaping.lexical import OPENERS
from policy.completion.shaping.parsing import ParseCheck, Span
from policy.completion.shaping.region import Region
from policy.completion.shaping.repetition import Right
from policy.completion.shaping.scan import Scan, Stack, scan, states

LARGEST = 200_000  # characters on a side of the cursor: a larger file is never parsed as a whole
_STATES = 40  # states in which the right side is read at most
_PARSES = 12  # heads that are parsed at most
_TOKEN = re.compile(r"\w+|[^\w\s]")
UNBALANCED = "it would leave brackets or quotes unbalanced"
REPEATED = "it would repeat what is right of the cursor or below"
SYNTAX_ERROR = "it would add a syntax error"


class Fit:
    """Which texts fit at one cursor. `stack` is what is open there, `file` the whole file beside its `region`."""

    def __init__(self, region: Region, file: Region, language: str, line: str) -> None:
        self._file = file
        self._language = language
        self.parsed = grammar_of(language) is not None
        self.stack: Stack = scan(region.left, language).stack
        self._region = region = _with_closers(region, language, self.stack)
        self._right = Right(line, region.right, self._whole, parsed=self.parsed)
        self._scans: dict[Stack, Scan] = {}
        self._check: ParseCheck | None = None
        self._file_check: ParseCheck | None = None

    def prepare(self) -> None:
        """Do what takes time and does not depend on the text."""
        self._rest(self.stack)
        if self.parsed and self._check is None:
            self._check = ParseCheck(self._region, self._language)

    @property
    def closable(self) -> int:
        """How many of the innermost things that are open at the cursor are not closed by what is right of it."""
        count = 0
        while count < len(self.stack) and self._as_balanced(self.stack[: len(self.stack) - count - 1], 0):
            count += 1
        return count

    def balanced(self, text: str) -> bool:
        """Whether brackets and quotes are at least as balanced with `text` as without."""
        done = scan(text, self._language, self.stack)
        return not done.extra and self._as_balanced(done.stack, done.unclosed)

    def _whole(self, text: str) -> bool:
        """Whether `text` opens nothing that it does not close."""
        done = scan(text, self._language, self.stack)
        return len(done.stack) <= len(self.stack) and not done.unclosed

    def longest(self, text: str) -> tuple[str, str]:
        """The longest head of `text` that fits, and if that is empty the reason."""
        reason, unfinished, parses, limit = "", "", 0, len(text)
        for head, state in self._heads(text):
            if len(head) > limit:
                continue
            if len(self._scans) > _STATES:
                break
            if state.extra or not self._as_balanced(state.stack, state.unclosed):
                reason = reason or UNBALANCED
            elif (repeated := self._right.repeated_at(head)) is not None:
                reason, limit = reason or REPEATED, repeated
            elif not self.parsed:
                return head, ""
            else:
                self.prepare()
                assert self._check is not None
                errors = self._check.errors(head)
                parses += 1
                opens = len(state.stack) > len(self.stack)  # it relies on what may be far below
                if len(errors) <= self._check.elsewhere and (not (errors or opens) or self._file_agrees(head)):
                    return head, ""
                if not unfinished and self._check.adds_none(errors, head) and self._file_agrees(head):
                    unfinished = head
                    if not self._right.rest.strip():
                        break
                reason = reason or SYNTAX_ERROR
                limit = min(_before_first_error(errors, head), len(head) - 1)
                if parses == _PARSES:
                    break
        return unfinished, "" if unfinished else reason

    def _file_agrees(self, text: str) -> bool:
        """Whether the whole file has no more errors with `text`, where the region has some with and without it.

        How a parser recovers from an error depends on what is far away. That takes a parse of the file, but only for
        code that stays unfinished.
        """
        if self._file_check is None:
            if max(len(self._file.left), len(self._file.right)) > LARGEST or self._region == self._file:
                return True
            self._file_check = ParseCheck(self._file, self._language)
        return len(self._file_check.errors(text)) <= len(self._file_check.before)

    def _heads(self, text: str) -> Iterator[tuple[str, Scan]]:
        """`text`, then its heads, longest first, with the states behind them; none ends in a string of its own."""
        if not text.strip():
            return
        rest = self._right.rest
        whole = text if rest.strip() and not rest[0].isspace() else text.rstrip()
        yield whole, scan(whole, self._language, self.stack)
        changes = list(states(text, self._language, self.stack))
        at_once = Scan(self.stack, 0, 0)
        for end in reversed([match.end() for match in _TOKEN.finditer(text) if match.end() < len(whole)]):
            while changes and changes[-1][1] > end:
                inside = changes[-1][0] < end
                changes.pop()
                if inside:
                    break
            else:
                state = changes[-1][2] if changes else at_once
                own = state.literal and state.stack != self.stack[: len(state.stack)]
                if not own:
                    yield text[:end], state

    def _as_balanced(self, stack: Stack, unclosed: int) -> bool:
        with_text, without = self._rest(stack), self._rest(self.stack)
        return with_text.extra <= without.extra and with_text.missing + unclosed <= without.missing

    def _rest(self, stack: Stack) -> Scan:
        """The right side, read with `stack` open."""
        if (known := self._scans.get(stack)) is None:
            known = self._scans[stack] = scan(self._region.right, self._language, stack)
        return known


def _with_closers(region: Region, language: str, stack: Stack) -> Region:
    """`region` with what closes the headers at its beginning, where that is too far below to be in it."""
    if not region.cut:
        return region
    outer = len(scan(region.left[: region.outer], language).stack)
    still_open = scan(region.right, language, stack).stack[:outer]
    closers = [OPENERS[entry] for entry in reversed(still_open) if entry in OPENERS]
    return replace(region, right=region.right + "".join(closer + "\n" for closer in closers))


def _before_first_error(errors: list[Span], head: str) -> int:
    """How long a head can be, in characters, if it is not to contain the first error: those that do have it, too."""
    data = head.encode("utf-8", "replace")
    ends = [end for start, end in errors if start >= 0 and end < len(data)]
    return len(data[: min(ends)].decode("utf-8", "ignore")) if ends else len(head)
