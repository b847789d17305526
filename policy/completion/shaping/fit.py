"""Find the longest head of a text that fits: nothing unbalanced, nothing repeated, no new syntax error.

A head is a part of the text from its beginning to the end of a token. The fast checks come first: balanced brackets and
quotes (`scan.py`), then repetition (`repetition.py`). The parser comes last (`syntax.py`). If it finds an error inside
a head, no other head with this error is tried. `_PARSES` limits the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from indexer.languages import grammar_of
from policy.completion.shaping.files import ParsedFiles
from policy.completion.shaping.lexical import OPENERS
from policy.completion.shaping.reader import Scan, Stack, closing_text
from policy.completion.shaping.region import Region
from policy.completion.shaping.repetition import Right
from policy.completion.shaping.scan import Opened, as_balanced, opened_after, reads_apart, scan, states
from policy.completion.shaping.syntax import SyntaxCheck

_STATES = 40  # the text after the cursor is read from at most about this number of different states
_BEYOND = 40_000  # the text below the region is searched for closing brackets if it has at most this many characters
_PARSES = 5  # no further head is tried after this number of parses of the region
_COSTLY = 3  # a parse of the whole file counts as this number of parses of the region
_JOINS = re.compile(r"(?s:[\"'`/*$#<\\(@-].|.[\"'`])(?<!\s)")  # two characters that may form one token
_TOKEN = re.compile(r"\w+|[^\w\s]")
UNBALANCED = "the text would leave brackets or quotes unbalanced"
REPEATED = "the text would repeat what is right of the cursor or below"
SYNTAX_ERROR = "the text would add a syntax error"


class Fit:
    """Decides which texts fit at one cursor. The attribute `stack` is what is open at the cursor.

    `region` is the part of `file` that decides whether a text fits. `before_line` is what is open before the cursor's
    line. `files` keeps the syntax tree of the file under the name `document`.
    """

    def __init__(
        self, region: Region, file: Region, language: str, before_line: Opened, files: ParsedFiles, document: str
    ) -> None:
        self._language = language
        self.parsed = grammar_of(language) is not None
        line_start = region.left.rfind("\n") + 1
        self._line = line = region.left[line_start:]
        self._before_line = before_line.stack
        self.stack: Stack = opened_after(region.left, language, before_line, line_start).stack
        self._region = region = _with_closers(region, language, self.stack)
        self._right = Right(line, region.right, self.read, parsed=self.parsed)
        self._scans: dict[Stack, Scan] = {}
        self._syntax = SyntaxCheck(region, file, language, files, document) if self.parsed else None

    def prepare(self) -> None:
        """Do the work that does not depend on the generated text."""
        self._rest(self.stack)
        if self._syntax is not None:
            self._syntax.prepare()

    @property
    def closable(self) -> int:
        """The number of innermost entries of `stack` that a text may close, because the text after it does not."""
        rest = self._rest(self.stack)
        if not rest.kept and not rest.cut_off and self.stack and self.stack[-1] in OPENERS:
            return 0  # the text after the cursor closes all entries
        count = 0
        while count < len(self.stack):
            size = len(self.stack) - count - 1
            if not self._balances(Scan(self.stack[:size], kept=size)):
                break
            count += 1
        return count

    def read(self, text: str) -> Scan:
        """Return the state after `text` at the cursor."""
        return scan(text, self._language, self.stack, before=self._line)

    def balanced(self, text: str) -> bool:
        """Return whether the brackets and quotes of the file are at least as balanced with `text` as without it."""
        return self._balances(self.read(text))

    def longest(self, text: str) -> tuple[str, str]:
        """Return the longest head of `text` that fits, and "". If no head fits, return "" and the reason."""
        reason, best, parses, limit = "", "", 0, len(text)
        for head, state in self._heads(text):
            if len(head) > limit:
                continue
            if len(self._scans) > _STATES:
                break
            if not self._balances(state) or not self._joins(head):
                reason = reason or UNBALANCED
            elif (repeated := self._right.repeated_at(head)) is not None:
                reason, limit = reason or REPEATED, repeated
            elif self._syntax is None:
                return head, ""
            else:
                # If the head opens a bracket or a block, the text that closes it can be far below.
                opens = len(state.stack) > len(self.stack)
                verdict = self._syntax.judge(head, opens=opens, unfinished=not best)
                parses += _COSTLY if verdict.costly else 1
                if verdict.fits and (not opens or verdict.flawless or self._balances_below(state)):
                    best = head
                    if verdict.finished or not self._right.rest.strip():
                        break
                reason = reason or SYNTAX_ERROR
                limit = min(verdict.longest, len(head) - 1)
                if parses >= _PARSES:
                    break
        return best, "" if best else reason

    def _heads(self, text: str) -> Iterator[tuple[str, Scan]]:
        """Yield `text` and its heads, longest first, each with the state after it.

        A head that ends inside a string or a comment is left out if `text` itself opens that string or comment.
        """
        if not text.strip():
            return
        rest = self._right.rest
        whole = text if rest.strip() and not rest[0].isspace() else text.rstrip()
        yield whole, self.read(whole)
        changes = list(states(text, self._language, self.stack, before=self._line))
        at_once = self.read("")
        for end in reversed([match.end() for match in _TOKEN.finditer(text) if match.end() < len(whole)]):
            while changes and changes[-1][1] > end:
                if changes[-1][0] < end:  # the head would end inside a quote or comment mark
                    break
                changes.pop()
            else:
                state = changes[-1][2] if changes else at_once
                own = state.literal and state.stack != self.stack[: len(state.stack)]
                if not own:
                    yield text[:end], state

    def _balances(self, state: Scan) -> bool:
        """Return whether brackets and quotes are at least as balanced with a text as without it.

        `state` is the state after the text. It is not enough to count brackets: each bracket of the text needs its own
        partner, in the text or around it, and must not take the partner of another bracket. Each bracket after the
        cursor that closes something must still close something: if the text closes `${` itself, the `}` after the
        cursor becomes a part of the string.
        """
        if state.strays or state.unclosed:
            return False
        with_text, without = self._rest(state.stack), self._rest(self.stack)
        return (
            set(with_text.strays) <= set(without.strays)
            and with_text.missing <= without.missing
            and with_text.closers >= without.closers
            and not any(entry >= state.kept for entry in with_text.cut_off)
        )

    def _balances_below(self, state: Scan) -> bool:
        """Return whether brackets and quotes stay balanced in the whole text after the cursor.

        `_balances` checks only the region. A text below the region that is longer than `_BEYOND` is not checked.
        """
        region = self._region
        if not region.beyond or len(region.beyond) > _BEYOND:
            return True
        below = region.right[: region.near] + region.beyond
        return as_balanced(below, self._language, state.stack, self.stack)

    def _joins(self, text: str) -> bool:
        """Return whether brackets and quotes stay balanced where `text` meets the text before and after it.

        Characters on both sides of a border may form one token, as `"` and `""` do.
        """
        line, right = self._line, self._region.right
        borders = [(line, text + right), (line + text, right)]
        if all(
            reads_apart(left, behind, self._language, self._before_line)
            for left, behind in borders
            if "<<" in left or _JOINS.match(left[-1:] + behind[:1])
        ):
            return True
        without = scan(line + right, self._language, self._before_line)
        with_text = scan(line + text + right, self._language, self._before_line)
        return with_text.extra <= without.extra and with_text.missing <= without.missing

    def _rest(self, stack: Stack) -> Scan:
        """Return the state after the text that follows the cursor, if `stack` is open at its beginning."""
        if (known := self._scans.get(stack)) is None:
            known = self._scans[stack] = scan(self._region.right, self._language, stack)
        return known


def _with_closers(region: Region, language: str, stack: Stack) -> Region:
    """Return `region` with the text that closes the brackets, strings and comments which the file closes below it.

    Those that the headers at the region's beginning open count as closed. What is open near the cursor and is never
    closed in the file stays open, because the generated text may close it.
    """
    if not region.beyond:
        return region
    outer = len(scan(region.left[: region.outer], language).stack)
    still_open = scan(region.right, language, stack).stack
    never_closed = len(still_open)
    if never_closed > outer:
        near = scan(region.right[: region.near], language, stack).stack
        never_closed = scan(region.beyond, language, near).kept if len(region.beyond) <= _BEYOND else 0
    closed = [*still_open[:outer], *still_open[max(outer, never_closed) :]]
    right = region.right if region.right.endswith("\n") else region.right + "\n"
    closers = [closing_text(entry, language) for entry in reversed(closed)]
    return replace(region, right=right + "".join(closer + "\n" for closer in closers if closer))
