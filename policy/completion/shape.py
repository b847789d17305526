"""Decide which part of a generated text to show: where the completion ends, and which part fits at the cursor.

A `Shaper` serves one cursor. It works in four steps, which use the modules of `shaping`:

1. *Read* the file while the model generates. `region.py` selects the lines around the cursor and the scopes that
   enclose them. `scan.py` finds which brackets, strings and JSX elements are open at the cursor (with `reader.py`,
   `elements.py` and the tables of `lexical.py`). `syntax.py` parses the region, or the whole file if the region is not
   enough (`parsing.py`, `files.py`).
2. *Clean* the text. `clean.py` removes markers and control characters, and `indentation.py` applies the document's
   indentation style.
3. *End* the text. `ending.py` and `blocks.py` find the offset where the line, the statement or the block is complete.
   `Shaper.decided` does this while text streams in, so that the generation stops as soon as the end is certain.
4. *Fit* the text. `fit.py` finds its longest head (a part from its beginning) that adds no unbalanced bracket or quote
   (`scan.py`), no repeated line (`repetition.py`) and no syntax error (`syntax.py`) to the file. `cut.py` prevents that
   a statement loses a part without which it means something else.

Each step only shortens the text or changes its whitespace. If no complete statement is left, nothing is shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from indexer.model import Cursor
from policy.completion.shaping.blocks import continues, depends_on_indentation, depth, opens_block, statement_brackets
from policy.completion.shaping.clean import Clean, Cleaner
from policy.completion.shaping.ending import (
    Ending,
    Start,
    first_line,
    lines_of,
    open_ending,
    well_indented,
    whole_statements,
)
from policy.completion.shaping.files import ParsedFiles
from policy.completion.shaping.fit import REPEATED, UNBALANCED, Fit
from policy.completion.shaping.indentation import Indentation, style_of
from policy.completion.shaping.lexical import syntax_of
from policy.completion.shaping.region import Region, indent, region
from policy.completion.shaping.repetition import lines_before_repeating, loop_in
from policy.completion.shaping.scan import closers_in, opened_after, scan, surplus

Scope = Literal["line", "block"]

MAX_LINES = 12  # the maximum number of nonblank lines of a completion below the cursor's line
NOTHING = "the model generated no text"


@dataclass(frozen=True, slots=True)
class Shaped:
    """The text to show. If it is empty, `reason` says why."""

    text: str
    reason: str = ""


class Shaper:
    """Shapes the completions at one cursor.

    `scope` does not depend on the generated text. It is "block" if the code before the cursor opens a block that has no
    body yet, otherwise "line". A completion with the scope "line" can also have several lines if its first line opens a
    block, a bracket or a string.

    If `multiline` is false, every completion ends with the cursor's line. If `bodies` is false, a completion of a line
    that already has text ends where the line opens a block, so that the user does not wait for the body. The body is
    the next completion, which is generated in advance. `files` keeps the syntax tree of the file under the name
    `document` for the next completion.
    """

    def __init__(
        self,
        cursor: Cursor,
        *,
        multiline: bool = True,
        bodies: bool = True,
        max_lines: int = MAX_LINES,
        files: ParsedFiles | None = None,
        document: str = "",
    ) -> None:
        self._language = cursor.language
        self._max_lines = max_lines
        files = ParsedFiles() if files is None else files  # not `or`, because an empty `ParsedFiles` is falsy
        near = region(
            cursor.prefix, cursor.suffix, cursor.language, opened=partial(files.opened, document, cursor.language)
        )
        line_start = near.left.rfind("\n") + 1
        self._line = near.left[line_start:]
        above = near.left[:line_start].rstrip()
        self._above = above[above.rfind("\n") + 1 :]
        blank = not self._line.strip()
        # Only the last line with text can open a block that has no body yet. This line begins at `base`.
        base = max(0, len(above) - len(self._above)) if blank else line_start
        file = Region(cursor.prefix, cursor.suffix)
        outside = opened_after(near.left[:base], cursor.language)
        before_line = opened_after(near.left[:line_start], cursor.language, outside, base)
        self._fit = Fit(near, file, cursor.language, before_line, files, document)
        brackets = statement_brackets(outside.stack, cursor.language)
        first = near.left.rfind("\n", 0, outside.offsets[-brackets]) + 1 if brackets else base
        self._start = Start(
            near.left[base:],
            outside.stack,
            indent(near.left[first:]),
            brackets,
            line_start - base,
            cursor.language,
        )
        self._cleaner = Cleaner(near.left, near.right, cursor, self._fit.stack)
        # Whether the cursor's line continues a statement, a string or a comment of the line above
        self._continued = before_line.stack[-1:] not in ((), ("{",)) or self._literal
        self._indentation = Indentation(
            style_of(near.left, near.right, cursor.language),
            self._line,
            indent(self._above),
            block=self._block_above(),
            colons=depends_on_indentation(cursor.language),
            opens=self._opens_block_after,
        )
        self._multiline = multiline and not near.right.partition("\n")[0].strip() and not self._literal
        self.scope: Scope = "line"
        if self._multiline and self._opens_block():
            self.scope = "block"
        self._bodies = bodies or self.scope == "block" or blank
        self._closable: int | None = None
        self._known: tuple[str, Ending] | None = None  # the last text and its ending, which `finish` needs again

    @property
    def grows(self) -> bool:
        """Whether the completion can have several lines."""
        return self._multiline

    @property
    def parsed(self) -> bool:
        """Whether the language has a grammar, so that the syntax is checked."""
        return self._fit.parsed

    def prepare(self) -> None:
        """Do the work that does not depend on the generated text. It can run while the model generates."""
        self._fit.prepare()
        self._surplus("")

    def decided(self, text: str) -> bool:
        """Return whether the text to show is certain, given that the model has generated `text` so far."""
        clean = self._prepared(text, streaming=True)
        if clean.ended or clean.broken or loop_in(clean.text, self._fit.stack) is not None:
            return True
        if "\n" not in clean.text and not closers_in(clean.text):
            return False
        return self._ending(clean.text).certain

    def finish(self, text: str, *, complete: bool) -> Shaped:
        """Return the part of `text` to show. `complete` says whether the model itself ended the text."""
        if not text.strip():
            return Shaped("", NOTHING)
        clean = self._prepared(text)
        if not clean.text.strip():
            return Shaped("", "the model generated only markers or control characters")
        whole = self._until_the_end(clean, complete=complete)
        if not whole.strip():
            return Shaped("", self._why_nothing(clean.text))
        said = self._without_repetition(whole)
        if not said.strip():
            return Shaped("", "the model repeated its own text or the lines above")
        following = clean.text[len(whole) :]
        shown, reason = self._fit.longest(said, cut=said == whole and following[:1] not in ("", "\n"))
        return Shaped(shown, "" if shown else reason or NOTHING)

    def _prepared(self, text: str, *, streaming: bool = False) -> Clean:
        """Return `text` without markers and control characters, indented in the document's style."""
        clean = self._cleaner.clean(text, streaming=streaming)
        return replace(clean, text=self._indentation.apply(clean.text))

    # -- where the completion ends --------------------------------------------------------------------------------

    @property
    def _literal(self) -> bool:
        return bool(self._fit.stack) and scan("", self._language, self._fit.stack).literal

    def _opens_block(self) -> bool:
        lines = lines_of(self._start.head, self._language, self._start.stack)
        return opens_block([token for line in lines for token in line.scan.tokens], self._language)

    @property
    def _before_element(self) -> bool:
        """Whether an element can begin on the next line, because the cursor's line ends with a parenthesis."""
        return self._multiline and self._line.rstrip().endswith("(") and syntax_of(self._language).elements

    def _block_above(self) -> bool | None:
        """Return whether the last line before the cursor opens a block, or None if it may continue after the cursor."""
        if self._continued:
            return None
        if self._opens_block():
            return True
        return None if continues(self._above, self._language) else False

    def _opens_block_after(self, first: str) -> bool | None:
        """Return whether the cursor's line opens a block if `first` is added to it, or None if the line continues."""
        if self._continued:
            return None
        line = lines_of(self._start.head + first, self._language, self._start.stack)[-1]
        tokens = line.scan.tokens
        if line.scan.literal or line.text.endswith("\\") or (depth(tokens) > 0 and tokens[-1].text != "{"):
            return None
        return opens_block(tokens, self._language)

    def _ending(self, text: str) -> Ending:
        if self._known is None or self._known[0] != text:
            self._known = text, self._find_ending(text)
        return self._known[1]

    def _find_ending(self, text: str) -> Ending:
        if text.startswith("\n") and (self.scope == "line" or not self._line.strip()):
            # The completion adds nothing to the line, unless an element follows on the next line.
            if not (self._before_element and text.lstrip()[:1] in ("", "<")):
                return Ending(0, True, True)
            if not text.strip():
                return Ending(0, False, True)
        closer = self._surplus(text)
        ending = first_line(text)
        if self._multiline:
            ending = open_ending(
                self._start, text, max_lines=self._max_lines, bodies=self._bodies, balanced=self._fit.balanced
            )
        if (repeated := self._fit.repeats_below(text)) is not None and repeated < ending.offset:
            ending = Ending(repeated, True, True)
        if closer is None or closer >= ending.offset:
            return ending
        # The next character can change the token at `closer`: `}` may become `}}`, and `/[)` a regular expression.
        # And the closer's line may become the line below.
        certain = "\n" in text[closer:] or (
            not self._fit.may_repeat_below(text[:closer])
            and all(self._surplus(text + sign) == closer for sign in (text[-1], "/"))
        )
        return Ending(closer, certain, True)

    def _surplus(self, text: str) -> int | None:
        """Return the offset where `text` closes something that the text after the cursor already closes, or None."""
        if self._closable is None:
            self._closable = self._fit.closable
        return surplus(text, self._language, self._fit.stack, self._closable, before=self._line)

    def _until_the_end(self, clean: Clean, *, complete: bool) -> str:
        text = clean.text
        ending = self._ending(text)
        complete = (complete or clean.ended) and not clean.broken
        shown = text[: ending.offset]
        if not ending.whole and not (complete and ending.offset == len(text)):
            shown = shown if ending.certain else shown[: max(0, shown.rfind("\n"))]
            shown = whole_statements(shown, self._fit.read)
        return well_indented(self._start, shown) if depends_on_indentation(self._language) else shown

    def _why_nothing(self, text: str) -> str:
        if self._ending(text).offset:
            return "the statement is incomplete"
        if self._fit.repeats_below(text) is not None:
            return REPEATED
        return "the line is already complete" if text.startswith("\n") else UNBALANCED

    # -- which part of the completion is shown --------------------------------------------------------------------

    def _without_repetition(self, text: str) -> str:
        """Return the part of `text` before it repeats itself or the lines above the cursor."""
        loop = loop_in(text, self._fit.stack)
        if loop is not None:
            text = text[: max(0, text.rfind("\n", 0, loop))]
        if not text.strip():
            return ""
        lines = text.split("\n")
        elements = syntax_of(self._language).elements
        return "\n".join(lines[: lines_before_repeating(lines, self._line, self._above, elements=elements)])


def inside_word(cursor: Cursor) -> bool:
    """Return whether the cursor is between two word characters. At such a cursor, there is no completion."""
    left, right = cursor.prefix[-1:], cursor.suffix[:1]
    return bool(re.match(r"\w\w", left + right)) if left and right else False
