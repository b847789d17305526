"""Find the longest head of a generated text that fits at the cursor.

A head is a part of the text from its beginning to the end of a token. A head fits if it leaves no bracket or quote
unbalanced (`scan.py`), does not repeat the text after the cursor (`repetition.py`), and adds no syntax error
(`syntax.py`). The parser comes last, because it takes the most time. If the parser finds an error inside a head, no
other head that contains this error is tried. `_PARSES` limits the number of parses. `cut.py` excludes heads that would
mean something else than the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from indexer.languages import grammar_of
from policy.completion.shaping.cut import NEEDS_OPERAND, TOKEN, Cut
from policy.completion.shaping.elements import NAME
from policy.completion.shaping.files import ParsedFiles
from policy.completion.shaping.lexical import OPENERS, is_literal, syntax_of
from policy.completion.shaping.reader import Scan, Stack, closing_text
from policy.completion.shaping.region import Region
from policy.completion.shaping.repetition import Right, is_closing
from policy.completion.shaping.scan import Opened, as_balanced, opened_after, reads_apart, scan, states
from policy.completion.shaping.syntax import SyntaxCheck

# Heads can leave different stacks open, and the text after the cursor is read once for each of these stacks. After more
# than this number of stacks, no further head is tried.
_STATES = 40
_BEYOND = 40_000  # characters; a longer text below the region is not searched for closing brackets
_CUTS = 60  # no further head is tried after this number of heads that may not be shown alone
_PARSES = 5  # no further head is tried after this number of parses of the region
_COSTLY = 3  # a parse of the whole file counts as this number of parses of the region
_JOINS = re.compile(r"(?s:[\"'`/*$#<\\(@-].|.[\"'`])(?<!\s)")  # two characters that may belong to one token
UNBALANCED = "the text would leave brackets, quotes or elements unbalanced"
REPEATED = "the text would repeat what is right of the cursor or below"
SYNTAX_ERROR = "the text would add a syntax error"


class Fit:
    """Decides which generated texts fit at one cursor.

    `region` is the part of `file` in which the texts are checked. `before_line` has the brackets, strings and comments
    that are open before the cursor's line, and the attribute `stack` has those that are open at the cursor. `parsed`
    says whether the language has a grammar. `files` keeps the syntax tree of the file under the name `document`.
    """

    def __init__(
        self, region: Region, file: Region, language: str, before_line: Opened, files: ParsedFiles, document: str
    ) -> None:
        self._language = language
        self.parsed = grammar_of(language) is not None
        line_start = region.left.rfind("\n") + 1
        self._line = region.left[line_start:]
        self._before_line = before_line.stack
        self.stack: Stack = opened_after(region.left, language, before_line, line_start).stack
        self._region = region = _with_closers(region, language, self.stack)
        self._right = Right(region.left, region.right, self.read, parsed=self.parsed)
        self._cut = Cut(region.right, language)
        self._before_tag = syntax_of(language).elements and region.right.lstrip(" \t").startswith("<")
        self._scans: dict[Stack, Scan] = {}
        self._syntax = SyntaxCheck(region, file, language, files, document) if self.parsed else None

    def prepare(self) -> None:
        """Do the work that does not depend on the generated text."""
        self._rest(self.stack)
        if self._syntax is not None:
            self._syntax.prepare()

    @property
    def closable(self) -> int:
        """The number of innermost entries of `stack` that the text after the cursor does not close.

        A generated text may close these entries, but no others.
        """
        rest = self._rest(self.stack)
        if not rest.kept and not rest.cut_off and self.stack and self.stack[-1] in OPENERS:
            return 0  # the text after the cursor closes every entry of `stack`
        if self.stack and is_literal(self.stack[-1]) and not rest.missing and not rest.strays:
            line = scan(self._right.rest, self._language, self.stack)
            if line.kept < len(self.stack):
                return 0  # the rest of the line closes the string
        count = 0
        while count < len(self.stack):
            size = len(self.stack) - count - 1
            if not self._balances(Scan(self.stack[:size], kept=size)):
                break
            count += 1
        return count

    def read(self, text: str) -> Scan:
        """Return what is open after `text` at the cursor, and the errors in `text`."""
        return scan(text, self._language, self.stack, before=self._line)

    def balanced(self, text: str) -> bool:
        """Return whether the brackets and quotes of the file are at least as balanced with `text` as without it."""
        return self._balances(self.read(text))

    def repeats_below(self, text: str) -> int | None:
        """Return the offset in `text`, which may grow, before its first whole line that repeats a line below, or None.

        Nothing that follows in `text` changes the result.
        """
        return self._right.line_below_at(text)

    def may_repeat_below(self, text: str) -> bool:
        """Return whether the last line of `text`, if it is not the first, is the beginning of the line below."""
        return self._right.may_repeat_below(text)

    def longest(self, text: str, *, cut: bool = False) -> tuple[str, str]:
        """Return the longest head of `text` that fits, and "". If no head fits, return "" and the reason.

        `cut` says whether the generated text continues after `text` on the same line.
        """
        reason, best, errors, parses, cuts, limit = "", "", 0, 0, 0, len(text)
        repeat = len(text) + 1  # the offset at which `text` begins to repeat the rest of the line
        for head, state in self._heads(text):
            if len(head) > limit:
                continue
            continued = len(head) <= repeat <= len(text) and not text[len(head) : repeat].strip(" \t")
            if continued and not self._right.rest[:1].isspace():
                head = text[:repeat]  # with the spaces
            if len(self._scans) > _STATES:
                break
            if not self._balances(state) or not self._joins(head):
                reason = reason or UNBALANCED
            elif (repeated := self._right.repeated_at(head)) is not None:
                reason, limit = reason or REPEATED, repeated
                repeat = repeated if repeated > text.rfind("\n") + 1 else repeat
            elif not continued and self._cut.misleads(text, len(head), state):
                reason = reason or UNBALANCED
                cuts += 1
                if cuts >= _CUTS:
                    break
            elif self._syntax is None:
                return self._without_surplus_closing(head, None), ""
            else:
                # If the head leaves a bracket open, the bracket that closes it can be far below the cursor. If the head
                # ends a comment or a string of several lines, all code below is read in another way.
                opens = len(state.stack) > len(self.stack)
                below = opens or self._ends_lines(state)
                verdict = self._syntax.judge(head, opens=opens, unfinished=not best)
                parses += _COSTLY if verdict.costly else 1
                # The model wrote something after the operator at the end of `text`, but not an operand.
                broken_off = cut and not verdict.finished and bool(NEEDS_OPERAND.search(head))
                if verdict.fits and not broken_off and (not below or verdict.flawless or self._balances_below(state)):
                    best, errors = head, verdict.errors
                    if verdict.finished or not self._right.rest.strip():
                        break
                reason = reason or SYNTAX_ERROR
                limit = min(verdict.longest, len(head) - 1)
                if parses >= _PARSES:
                    break
        return self._without_surplus_closing(best, errors), "" if best else reason

    def _without_surplus_closing(self, text: str, errors: int | None) -> str:
        """Return `text` without closing brackets and keywords at its end that the text after the cursor has already.

        In incomplete code, as in `if ‸` above an `end`, the text after the cursor has a closing bracket or keyword that
        closes nothing. The text may contain another one, but the file has fewer errors without it. `errors` is the
        number of errors with `text`, or None if the language has no grammar.
        """
        while errors is None or errors > 0:
            last = text.rfind("\n") + 1
            if not (last and is_closing(text[last:])):
                last = len(text) - 1
            closing, shorter = text[last:].strip(), text[:last].rstrip()
            token = TOKEN.match(closing)
            if not shorter or token is None or not is_closing(closing):
                break
            if token.group() != self._cut.next and not (
                token.group().isalpha() and token.group() in self._region.right
            ):
                break
            state = self.read(shorter)
            if not self._balances(state):
                break
            if self._syntax is None:
                rest, shorter_rest = self._rest(self.read(text).stack), self._rest(state.stack)
                if shorter_rest.extra + shorter_rest.missing >= rest.extra + rest.missing:
                    break
            else:
                verdict = self._syntax.judge(shorter, opens=True, unfinished=True)
                if not verdict.fits or verdict.errors >= (errors or 0):
                    break
                errors = verdict.errors
            text = shorter
        return text

    def _heads(self, text: str) -> Iterator[tuple[str, Scan]]:
        """Yield `text` and its heads, longest first, each with what is open after it.

        A head that ends inside a string or a comment is left out if `text` itself opens that string or comment.
        """
        if not text.strip():
            return
        rest = self._right.rest
        whole = text if rest.strip() and not rest[0].isspace() else text.rstrip()
        yield whole, self.read(whole)
        changes = list(states(text, self._language, self.stack, before=self._line))
        at_once = self.read("")
        within_name = bool(self.stack) and self.stack[-1].startswith(NAME)
        for end in reversed([match.end() for match in TOKEN.finditer(text) if match.end() < len(whole)]):
            while changes and changes[-1][1] > end:
                if changes[-1][0] < end:  # the head would end inside a mark such as `<!--` or `/*`
                    break
                changes.pop()
            else:
                state = changes[-1][2] if changes else at_once
                if within_name:  # how the rest of a name is read depends on what follows it
                    state = self.read(text[:end])
                own = state.literal and state.stack != self.stack[: len(state.stack)]
                if not own:
                    yield text[:end], state

    def _balances(self, state: Scan) -> bool:
        """Return whether the brackets and quotes of the file are at least as balanced with a text as without it.

        `state` is the result of `read` for the text. To count brackets is not enough: each bracket of the text needs
        its own partner, in the text or around it, and must not take the partner of another bracket. Each closing
        bracket after the cursor that has a partner without the text must also have one with the text. For example, if
        the text closes `${` itself, the `}` after the cursor loses its partner and becomes a part of the string.
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

    def _ends_lines(self, state: Scan) -> bool:
        """Return whether a text ends a comment or string at the cursor that would continue on the next line.

        `state` is the result of `read` for the text.
        """
        if state.kept >= len(self.stack):
            return False
        lasting = self.read("\n").kept
        return any(map(is_literal, self.stack[state.kept : lasting]))

    def _balances_below(self, state: Scan) -> bool:
        """Return whether brackets and quotes are as balanced with a text as without it, to the end of the file.

        `state` is the result of `read` for the text. `_balances` checks only the region. If more than `_BEYOND`
        characters are below the region, they are not checked, and the result is true.
        """
        region = self._region
        if not region.beyond or len(region.beyond) > _BEYOND:
            return True
        below = region.right[: region.near] + region.beyond
        return as_balanced(below, self._language, state.stack, self.stack)

    def _joins(self, text: str) -> bool:
        """Return whether brackets and quotes stay balanced where `text` meets the text before and after it.

        There, the characters of two texts may form one token. For example, `/` and `*` form a comment mark. Whether `<`
        begins an element depends on the text before it.
        """
        line, right = self._line, self._region.right
        # The cursor can be inside a token, as in `<<‸EOF`. Then the text after it was not read as it is without a text.
        borders = [(line, right), (line, text + right), (line + text, right)]
        if all(
            reads_apart(left, behind, self._language, self._before_line)
            for left, behind in borders
            if "<<" in left or self._before_tag or _JOINS.match(left[-1:] + behind[:1])
        ):
            return True
        without = scan(line + right, self._language, self._before_line)
        with_text = scan(line + text + right, self._language, self._before_line)
        return with_text.extra <= without.extra and with_text.missing <= without.missing

    def _rest(self, stack: Stack) -> Scan:
        """Return the result of reading the region's text after the cursor, given that `stack` is open before it."""
        if (known := self._scans.get(stack)) is None:
            known = self._scans[stack] = scan(self._region.right, self._language, stack)
        return known


def _with_closers(region: Region, language: str, stack: Stack) -> Region:
    """Return `region` with text at its end that closes the brackets and strings which the file closes below the region.

    Comments are closed too. What the headers (the first `region.outer` characters) open counts as closed by the file.
    What is open near the cursor and is never closed in the file stays open, because the generated text may close it.
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
