"""Define the lexical syntax of JSX elements, such as `<a href="b">text</a>`, in JavaScript.

A `Reader` has one entry in its stack for each open element: `tag ` and the name in the opening tag, then `element ` and
the name in the content. The name of a fragment, `<>`, is empty. If a text ends within a tag's name or just after it,
the entry is `name ` and the tag without `<`: the next text may continue the name, or show that it is a type.

In code, `<` can also be an operator or begin a list of types. It begins an element where no operator can be: at the
beginning of a line, or after an operator, an opening bracket or a keyword such as `return`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

NAME, TAG, ELEMENT = "name ", "tag ", "element "
LONGEST_NAME = 100  # characters; the rest of a longer name counts as an attribute
# The texts of the tokens of an element: where it begins, where its content begins, a word there, and where it ends
BEGIN, CONTENT, WORD, END = "<tag", "<tag>", "<text>", "</tag>"

_NAME = r"[A-Za-z_$][\w$.:-]*"
_OPENING = rf"(?:{_NAME}(?:[ \t]+\Z)?|>|\Z)"
_CLOSING = rf"</(?:{_NAME})?(?:\s*>|\Z)"
# The beginning of a generic function, as in `<T,>(x: T) => x`, or of its type. `<T>(text)</T>` is an element.
_GENERIC = r"(?:const\s|[A-Za-z_$][\w$]*(?:\s*[,=]|\s+extends\b)|[A-Z][\w$]*\s*>\((?![^<\n]*</))"
_BEFORE = (
    r"(?:(?<![^\n\t])|(?<=  )|(?<=(?m:^) )|(?<=[(,=:\[!&|?{])|(?<=[(,=:\[&|?{] )|(?<==>)|(?<==> )|(?<=\*/)|(?<=\*/ )"
    r"|(?<=return )|(?<=default )|(?<=yield ))"
)
# The types of a generic component, as in `<Table<Row<string>> rows={rows} />`, with up to two levels of nested types
_TYPES = r"<(?:[^<>]|<(?:[^<>]|<[^<>]*>)*>)*>"
_IN_CONTENT = rf"<{_OPENING}|{_CLOSING}"
# A tag in code. The lookahead saves time.
IN_CODE = rf"(?=<)(?:{_BEFORE}<(?!{_GENERIC}){_OPENING}|{_CLOSING})"
KINDS = frozenset({"tag", "content", "empty", "attribute", "text"})  # the names of groups that only elements have
_TOKENS = {"content": (CONTENT,), "empty": (END,), "text": (WORD,)}


@dataclass(frozen=True, slots=True)
class Patterns:
    """The patterns for the parts of an element.

    `tag` finds what can end an opening tag or begin something in it, and `content` does the same for the content of an
    element. `words` is `content` with words. `begun_in_code` and `begun_in_content` match a tag from its `<`.
    """

    tag: re.Pattern[str]
    content: re.Pattern[str]
    words: re.Pattern[str]
    begun_in_code: re.Pattern[str]
    begun_in_content: re.Pattern[str]


@cache
def patterns() -> Patterns:
    """Compile the patterns when they are needed first, because this takes 2 ms."""
    content = rf"(?P<open>\{{)|(?P<close>\}})|(?P<tag>{_IN_CONTENT})"
    return Patterns(
        re.compile(
            r"(?P<empty>/>|(?<=/)>)|(?P<content>>)|(?P<open>\{)|(?P<close>[)\]}])|(?P<line>//)|(?P<block>/\*)"
            rf"|(?P<attribute>[\"'])|(?P<types>(?<=[\w$]){_TYPES})|(?P<tag>{_IN_CONTENT})"
        ),
        re.compile(content),
        re.compile(rf"{content}|(?P<text>[^\s{{}}<]+)"),
        re.compile(rf"<(?!{_GENERIC}){_OPENING}|{_CLOSING}"),
        re.compile(_IN_CONTENT),
    )


def tokens(kind: str, text: str) -> tuple[str, ...]:
    """Return the texts of the tokens for `text`, which matched the group `kind` of a pattern."""
    if kind == "tag":
        return (END,) if text.startswith("</") else (BEGIN, CONTENT) if text == "<>" else (BEGIN,)
    return _TOKENS.get(kind, ())


def is_element(entry: str) -> bool:
    """Return whether an entry of a stack is an element or a part of it."""
    return entry.startswith((NAME, TAG, ELEMENT))


def closing_tag(entry: str) -> str:
    """Return the text that ends the element with this entry, or "" if the entry is no element.

    In the opening tag, this is `/>`.
    """
    if entry.startswith(ELEMENT):
        return f"</{entry.removeprefix(ELEMENT)}>"
    return "/>" if is_element(entry) else ""


def opening_tag(entry: str) -> str:
    """Return the text that begins the element with this entry."""
    name = entry.partition(" ")[2]
    return f"<{name}>" if entry.startswith(ELEMENT) else f"<{name}"
