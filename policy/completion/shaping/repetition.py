"""Find where a generated text repeats itself, the line above, the rest of the cursor's line, or the lines below.

If the user accepted such a text, the user would have to delete the repeated part. Lines that have only literals, as in
a table, may repeat.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from policy.completion.shaping.lexical import is_literal
from policy.completion.shaping.reader import Scan, Stack
from policy.completion.shaping.region import indent

BELOW = 3  # the number of lines with text below the cursor's line that a text must not repeat
_LOOP = re.compile(r"(\w.{4,40}?)\1{3,}")
_QUOTES_IN_A_ROW = re.compile(r"([\"'`])\1{7,}")  # at least eight quotes; an empty string has at most six
_MANY = 4  # a short line counts as a repetition only if it occurs this number of times in succession
_CLOSING_WORD = r"(?:end|fi|done|esac|od|end(?:if|for|while|function|macro|foreach|ef|switch|case)|END)\b[\s;,)\]}.]*"
_CLOSING = re.compile(r"[)\]}>,;\s]*(?:" + _CLOSING_WORD + r"|</[\w.-]*>)?[)\]};,\s]*")
_OPENING_TAG = re.compile(r"<[\w$.:-]*>")
_LITERAL = r"\"[^\"]*\"|'[^']*'|0[xXbBoO]\w+|[\d.]+\w?|true|false|null|nil|None|True|False|NULL"
_DATA = re.compile(rf"(?:{_LITERAL}|[\s,;:(){{}}\[\]+-])*")
_APOSTROPHE = re.compile(r"(?<=\w)'(?=\w)")
_STATEMENT_END = re.compile(r"[;{}]\s*\Z")
_BRACKETS = {")": "(", "]": "[", "}": "{"}
_WORD_OR_STRING = re.compile(r"\w|([\"'`]).+\1")
_QUOTES, _OPENING_SIGNS = frozenset("\"'`"), frozenset("([{")
_CLOSING_SIGNS = _BRACKETS.keys() | _QUOTES


def _is_data(line: str) -> bool:
    """Return whether a line has only literals and punctuation, with at least one comma, like a row of a table."""
    return bool(_DATA.fullmatch(line)) and "," in line


def is_closing(line: str) -> bool:
    """Return whether a line only closes something, with brackets, `end`, `fi` or `</div>`."""
    return bool(line.strip()) and bool(_CLOSING.fullmatch(line.strip()))


def _is_statement(line: str) -> bool:
    return bool(re.search(r"[^\W\d]", line)) and not is_closing(line) and not _DATA.fullmatch(line)


def _has_words(line: str) -> bool:
    """Return whether a line has at least four word characters.

    A shorter line, such as `x = 0`, often occurs again by chance, so one repetition of it does not count.
    """
    return len(re.findall(r"\w", line)) >= 4


def loop_in(text: str, stack: Stack) -> int | None:
    """Return the offset where `text` begins to repeat the same characters within a line, or None.

    Items that are separated by commas may repeat inside brackets. `stack` has the brackets, strings and comments that
    are open at the cursor.
    """
    for found in _LOOP.finditer(text):
        if "," in found.group(1) and (stack or re.search(r"[(\[{]", text[: found.start()])):
            continue
        return found.start()
    in_code = not stack or not is_literal(stack[-1])
    quotes = _QUOTES_IN_A_ROW.search(text) if in_code else None
    return quotes.start() if quotes else None


def lines_before_repeating(lines: Sequence[str], line: str, above: str, *, elements: bool = False) -> int:
    """Return the number of `lines` before the first block of one to three lines that repeats the block just before it.

    `lines` are the lines of the generated text. `line` is the part of the cursor's line before the cursor, and `above`
    is the last line with text above the cursor's line. Rows of a table may repeat, and a short line may occur three
    times in succession. If `elements` is true, opening tags and closing tags may repeat, because `Fit` checks that they
    are balanced.
    """
    previous = [above.strip()] if above.strip() else []
    contents = [*previous, (line + lines[0]).strip(), *(other.strip() for other in lines[1:])]
    for number in range(len(previous), len(contents)):
        for period in (1, 2, 3):
            block = contents[number : number + period]
            if number < period or block != contents[number - period : number]:
                continue
            if elements and (all(map(is_closing, block)) or all(map(_OPENING_TAG.fullmatch, block))):
                continue
            if _has_words("".join(block)) and not all(map(_is_data, block)):
                return number - len(previous)
            if period == 1 and contents[number : number + _MANY - 1] == block * (_MANY - 1) and _is_statement(block[0]):
                return number - len(previous)
    return len(lines)


def _lacks_partner(closer: str, text: str) -> bool:
    """Return whether `text` contains no partner for `closer`, a closing bracket or quote just after `text`.

    This function is for strings and comments, in which `Reader` does not match brackets.
    """
    if closer in _BRACKETS:
        return text.count(_BRACKETS[closer]) == text.count(closer)
    return _APOSTROPHE.sub("", text).count(closer) % 2 == 0


def _unpartnered(text: str, bracket: str, partner: str) -> int | None:
    """Return the offset of the first `bracket` in `text` that has no `partner` before it, or None."""
    depth = 0
    for found in re.finditer(rf"(?<!\\)[{re.escape(bracket + partner)}]", text):
        depth += 1 if found.group() == partner else -1
        if depth < 0:
            return found.start()
    return None


class Right:
    """The text after the cursor, `right`, which a generated text must not repeat. `left` is the text before the cursor.

    The attribute `rest` is the rest of the cursor's line. `read` returns what is open after a text at the cursor.
    `parsed` says whether the language has a grammar, so that the parser finds a superfluous `end`.
    """

    def __init__(self, left: str, right: str, read: Callable[[str], Scan], *, parsed: bool) -> None:
        self.rest, _, below = right.partition("\n")
        self._left = left
        self._line = left[left.rfind("\n") + 1 :]
        self._below = [other for other in below[:2_000].split("\n") if other.strip()][:BELOW]
        self._read = read
        self._parsed = parsed

    def repeated_at(self, text: str) -> int | None:
        """Return the offset where `text` begins to repeat the rest of the line or a line below, or None."""
        found = [self._rest_repeated_at(text), self._below_repeated_at(text), self._bracket_repeated_at(text)]
        return min((offset for offset in found if offset is not None), default=None)

    def line_below_at(self, text: str) -> int | None:
        """Return the offset where `text` repeats a line below, or None. A last line without a line end does not count.

        A line end before the repeated line belongs to the repetition.
        """
        whole = text[: text.rfind("\n") + 1]
        found = self._below_repeated_at(whole) if whole else None
        return found - 1 if found and whole[found - 1] == "\n" else found

    def may_repeat_below(self, text: str) -> bool:
        """Return whether the last line of `text`, if it is not the first, is the beginning of the line below."""
        _, line_end, last = text.rpartition("\n")
        return bool(line_end and last.strip() and self._below) and self._below[0].strip().startswith(last.strip())

    def _rest_repeated_at(self, text: str) -> int | None:
        rest, text = self.rest.strip(), text.rstrip()
        if not rest or not text:
            return None
        if len(rest) >= 6 and re.search(r"\w", rest) and rest in text:
            return text.index(rest)
        for size in range(min(len(rest), len(text)), 0, -1):
            if text.endswith(rest[:size]) and self._overlaps(text[: len(text) - size], rest, size):
                return len(text) - size
        return None

    def _bracket_repeated_at(self, text: str) -> int | None:
        """Return the offset where `text` closes a bracket of a string or comment that `rest` closes, or None.

        An example is `"${‸}"`, in which the bracket is a part of the string, so that `Fit` does not count it.
        """
        rest = self.rest.lstrip()
        opening, closing = _BRACKETS.get(rest[:1], ""), rest[:1]
        if not opening or not self._read("").literal or _unpartnered(self._line[::-1], opening, closing) is None:
            return None
        return _unpartnered(text, closing, opening)

    def _overlaps(self, before: str, rest: str, size: int) -> bool:
        """Return whether the end of a text repeats the beginning of `rest`, other than by chance.

        The text is `before` followed by the first `size` characters of `rest`.
        """
        overlap = rest[:size]
        one_word = re.fullmatch(r"\w+", overlap) and re.match(r"\w", rest[size:])
        if re.match(r"\w\w", before[-1:] + overlap) or one_word:
            return False  # the text and `rest` have only a part of a word in common
        if overlap in ("?", "!") and self.rest[0].isspace() and re.search(r"\w\Z", before):
            return False  # the text ends with a name, as in `nil?`, and `rest` begins with an operator
        if overlap[0] == ">" and before.count("<") > before.count(">"):
            return False  # this `>` closes a list of type arguments that the text opens
        if set(overlap) <= _CLOSING_SIGNS:
            return not self._counted(before, overlap) and all(_lacks_partner(closer, before) for closer in overlap)
        if set(overlap) <= _OPENING_SIGNS and overlap != rest:
            return False  # `Fit` checks whether brackets are balanced
        return (size > 2 and bool(_WORD_OR_STRING.search(overlap))) or self._whole(before)

    def _counted(self, before: str, closers: str) -> bool:
        """Return whether `closers`, the brackets or quotes after `before`, are in code, so that `Fit` checks them.

        In code, they change the result of reading, because each closes something or is an error. In a string or a
        comment, they change nothing.
        """
        state, closed = self._read(before), self._read(before + closers)
        return before.endswith("\\") or (state.stack, state.missing, state.extra) != (
            closed.stack,
            closed.missing,
            closed.extra,
        )

    def _whole(self, text: str) -> bool:
        """Return whether `text` closes everything that it opens."""
        state, at_once = self._read(text), self._read("")
        return len(state.stack) <= len(at_once.stack) and not state.unclosed

    def _below_repeated_at(self, text: str) -> int | None:
        if not self._below:
            return None
        lines = text.split("\n")
        below = [line.strip() for line in self._below]
        first = lines[0].rstrip()
        header = first.removesuffix("{").rstrip()
        if first.endswith("{") and below[0] == "{" and (self._line + header).strip():
            return len(header)  # the block of the cursor's line begins below
        if _STATEMENT_END.search(self._line) and first.strip() == below[0] and not is_closing(below[0]):
            return 0
        position = 0
        for number, line in enumerate(lines):
            whole = (self._line if number == 0 else "") + line + (self.rest if number == len(lines) - 1 else "")
            if (
                line.strip()
                and not self._is_item(lines, number, below)
                and self._is_below(whole, below, last=number == len(lines) - 1)
            ):
                return position
            position += len(line) + 1
        return None

    def _is_item(self, lines: Sequence[str], number: int, below: Sequence[str]) -> bool:
        """Return whether a line begins an item of a list with a bracket, and another item than the one below.

        The `{` of a block is no item. `number` is the index of the line in `lines`, the lines of the text.
        """
        if not lines[number].strip() or not set(lines[number].strip()) <= _OPENING_SIGNS or number + 1 == len(lines):
            return False
        before = (self._left + "\n".join(lines[:number])).rstrip()
        return before[-1:] in (*_OPENING_SIGNS, ",") and lines[number + 1].strip() not in below[1:2]

    def _is_below(self, line: str, below: Sequence[str], *, last: bool) -> bool:
        content = line.strip()
        if is_closing(content):
            # `Fit` finds a superfluous bracket, and the parser finds a superfluous `end`. Without a grammar, `end`
            # counts as repeated if it is indented no more than the `end` below.
            checked = self._parsed or not re.search(r"\w", content)
            same = content == below[0] or (last and re.match(re.escape(content) + r"(?!\w)", below[0]) is not None)
            return same and not checked and indent(line) <= indent(self._below[0])
        if content == below[0] or (content in below and _has_words(content)):
            return True
        return last and len(content) >= 8 and below[0].startswith(content)
