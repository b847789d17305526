"""Decide whether a text may be cut at an offset, so that only its beginning is shown.

The beginning of a text can fit at the cursor and still be wrong. For example, the name of an argument, without the
value that the model wrote, is another argument. So a text is cut only where a part of it is complete: after an item of
a list, before an operator, or at the end of a line.
"""

from __future__ import annotations

import re

from indexer.languages import LANGUAGES
from policy.completion.shaping.lexical import is_literal
from policy.completion.shaping.reader import Scan

TOKEN = re.compile(r"\w+|[^\w\s]")
# The text before a cut must not end with an operator (not `i++`, `List<T>`, `a?` or `a!`).
NEEDS_OPERAND = re.compile(r"(?:(?<!\+)\+|(?<!-)-|[*/%<=&|^.])\s*\Z")
_NEEDS_MORE = re.compile(  # nor with a keyword that begins something
    r"(?<![\w.])(?:and|as|assert|await|case|catch|class|const|def|del|delete|echo|elif|else|enum|export|fn|for|foreach"
    r"|from|func|function|goto|if|import|in|interface|is|let|new|not|or|package|print|pub|puts|raise|return|static"
    r"|struct|switch|throw|typedef|unless|until|use|using|val|var|when|while|with|yield)\s*\Z"
)
_BELONGS = re.compile(  # the text after a cut must not begin with what belongs to the text before it
    r"(?<=\w)[(\[]|(?<=\w)\s*\{"  # arguments, an index, a block
    r"|(?<=[(\[{:])[ \t]*[^\s)\]}]"  # the content of a bracket, the value of a key
    r"|(?<=[!~@#$\\])[^\s.,;)\]}]"  # the operand of an operator
    r"|\s*(?:[-+*/%&|^?]{0,2}=(?![=~])|:|\??\.\w|->)"  # a value, a type, a member
    r"|(?<=\w)(?:\s+[\"'`]|[\"'`]\S)|(?<=[\"'`])\w"  # a string, or its content
)
_EXPRESSION_BEGUN = re.compile(r"(?:[$@#%]\w*[{(\[]|\{[{$%])[^)}\]\n]*\Z")  # in a string, as in `"${a["b"]}"`
_QUOTES = frozenset("\"'`")
_AGREEING = 3  # characters; two different strings often begin with the same quote
_ELEMENT_BEGUN = re.compile(r"<\w+\Z")  # a type argument, or a marker of an unknown model, without its `>`
# In these languages, a word after a space can be an argument, as in `ls -l`.
_COMMANDS = frozenset({"bash", "elixir", "haskell", "ocaml", "fsharp", "perl", "powershell", "ruby"})
_ARGUMENT = re.compile(r"(?<=[\w\"'])[ \t]+[\w$-]")


class Cut:
    """Judges where texts at one cursor may be cut. `right` is the text after the cursor.

    The attribute `next` is the first token of `right`, or "" if there is none.
    """

    def __init__(self, right: str, language: str) -> None:
        after = TOKEN.search(right)
        self.next = after.group() if after else ""
        self._language = language
        self._begin = right.lstrip()[:_AGREEING]
        self._within_line = bool(right.partition("\n")[0].strip())
        self._before_word = right[:1].isalnum()

    def misleads(self, text: str, end: int, state: Scan) -> bool:
        """Return whether the part of `text` before the offset `end` is wrong or misleading without the rest of `text`.

        `state` says what is open after this part.
        """
        head, dropped = text[:end], text[end:]
        if state.literal:  # a string must not end within an expression
            begun = head[-1:] in ("$", "{") and re.match(r"[\w{($%]", dropped)
            return bool(begun or _EXPRESSION_BEGUN.search(head))
        if not dropped.strip():
            return False
        if self._before_word and head[-1:].isalnum():
            return True  # two words would become one
        token = TOKEN.search(dropped)
        if token and token.group() == self.next and (self.next not in _QUOTES or self._agrees(dropped)):
            return False  # the text after the cursor continues in the same way
        if NEEDS_OPERAND.search(head) or (self._language in LANGUAGES and _NEEDS_MORE.search(head)):
            return True
        if head.rstrip().endswith(","):  # a comma ends a list only on a line of its own
            return self._within_line or not state.stack or is_literal(state.stack[-1])
        if _BELONGS.match(text, end) or (self._language in _COMMANDS and _ARGUMENT.match(text, end)):
            return True
        return dropped[0] == ">" and bool(_ELEMENT_BEGUN.search(head))

    def _agrees(self, dropped: str) -> bool:
        """Return whether `dropped` and the text after the cursor begin with the same characters."""
        return dropped.lstrip()[:_AGREEING] == self._begin
