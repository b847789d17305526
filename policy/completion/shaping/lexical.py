"""Define the lexical syntax of each language: comments, quotes, and what looks like a quote or bracket but is neither.

Each language has one row in a table. The row is enough to find which brackets and strings are open at any offset. This
also works in code with syntax errors, in which the tokens of a parser depend on how the parser recovers from the
errors. The table need not be complete. The file with a suggestion is only compared with the file without it, so code
that is read incorrectly far from the cursor has the same effect in both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from indexer.languages import LANGUAGES
from policy.completion.shaping.elements import IN_CODE, is_element

OPENERS = {"(": ")", "[": "]", "{": "}", "${": "}", "#{": "}", "$(": ")", "\\(": ")"}
CLOSERS = frozenset(OPENERS.values())
LINE_COMMENT = "line comment"


def is_literal(entry: str) -> bool:
    """Return whether an entry of a stack is a string or a comment, and not a bracket or an element."""
    return entry not in OPENERS and not is_element(entry)


@dataclass(frozen=True, slots=True)
class Quote:
    """A kind of string.

    `close` is the closing quote. `escape` is the character that escapes the next character, or "". `doubled` says
    whether two closing quotes in a row represent one quote in the string. `lines` says whether the string can contain
    line ends. `hole` is the text that opens an expression in the string, such as `${`, or "".
    """

    close: str
    escape: str = "\\"
    doubled: bool = False
    lines: bool = False
    hole: str = ""


@dataclass(frozen=True, slots=True)
class Syntax:
    """The lexical syntax of one language, as patterns.

    `stops` finds the characters at which a bracket, a string or a comment can begin or end. `code` is matched at these
    characters outside of strings, and the name of the matching group says what begins there. `line_stops` finds the
    same characters and line ends, which matter only in an expression inside a string and after the mark of a heredoc,
    such as `<<EOF`. `words` replaces `stops` and `code` if words and operators are needed too.

    `quotes` maps each opening quote to its kind of string. `inside` maps each opening quote to a pattern that finds the
    next quote, escape, expression or line end in the string. `blocks` maps the mark that opens a block comment to the
    mark that closes it. `nested` says whether block comments can contain block comments. `raw` is a template for the
    closing quote of a raw string. It is expanded with the match of the opening quote. `loose` has the closing brackets
    that need no opening bracket. `elements` says whether the language has JSX elements, so that `code` and `words` also
    find tags.
    """

    stops: re.Pattern[str]
    line_stops: re.Pattern[str]
    code: re.Pattern[str]
    words: re.Pattern[str]
    quotes: Mapping[str, Quote]
    inside: Mapping[str, re.Pattern[str]]
    blocks: Mapping[str, str]
    raw: str
    loose: frozenset[str]
    nested: bool = False
    elements: bool = False


Skipped = tuple[str, str]  # the first character of a text to skip, and a pattern for the whole text
# In the text of an element, as in `<p>Don't</p>`. A quote after a keyword, as in `return'a'`, is after a small letter.
_APOSTROPHE = ("'", r"(?<=[a-z])'(?=[a-z])|(?<=[A-Z])'(?=[A-Za-z])")
_CHARACTER = ("'", r"'(?:\\(?:u\{[^}\n]*\}|x[0-9a-fA-F]+|.)|[^\\'\n])'")  # the literal 'a', not Rust's lifetime 'a
_BEFORE_REGEX = r"(?:(?<=[(,=:\[!&|?{};~\n])|(?<=[(,=:\[!&|?{};~] )|(?<=return )|(?<=if )|(?<=when ))"
_REGEX = ("/", _BEFORE_REGEX + r"/(?![/*\s])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/")
_SHELL_HEREDOC = ("<", r"(?<![<\d])<<-?[ \t]*\\?(?P<mark>['\"]?)(?P<name>[A-Za-z_]\w*)(?P=mark)")
_RUBY_HEREDOC = (  # `<<` is also an operator, so a heredoc without `~` or `-` must begin with a capital letter
    "<",
    r"<<(?:[~-](?=['\"`]?[A-Za-z_])|(?=['\"`]?[A-Z]))(?P<mark>['\"`]?)(?P<name>\w+)(?P=mark)",
)
_PHP_HEREDOC = ("<", r"<<<[ \t]*(?P<mark>['\"]?)(?P<name>[A-Za-z_]\w*)(?P=mark)(?=\r?\n)")
_ESCAPED = ("\\", r"\\.")
_DOUBLE = {'"': Quote('"')}
_BOTH = {'"': Quote('"'), "'": Quote("'")}
_TRIPLE = {'"""': Quote('"""', lines=True)}
_PYTHON = {
    **{key: Quote(key, lines=True) for key in ('"""', "'''")},
    **{"f" + key: Quote(key, lines=True, hole="{") for key in ('"""', "'''")},
    **_BOTH,
    **{"f" + key: Quote(key, hole="{") for key in ('"', "'")},
}
_TEMPLATE = {"`": Quote("`", lines=True, hole="${")}
_ATTRIBUTE = {"attribute" + quote: Quote(quote, escape="", lines=True) for quote in "\"'"}  # of a JSX element
_NESTED = frozenset({"dart", "haskell", "kotlin", "ocaml", "rust", "scala", "swift"})
_SLASHES = (("//",), {"/*": "*/"})
# Lines such as `#region` are not code either. The text after `#region` is free.
_SLASHES_AND_MESSAGES = (("//", r"#[ \t]*(?:region|endregion|error|warning)\b"), {"/*": "*/"})
_HASH: tuple[tuple[str, ...], dict[str, str]] = (("#",), {})


def _make(
    comments: tuple[tuple[str, ...], dict[str, str]],
    quotes: Mapping[str, Quote],
    *skipped: Skipped,
    heredoc: Skipped | None = None,
    raw: tuple[str, str, str] | None = None,
    loose: str = "",
    elements: bool = False,
) -> Syntax:
    """Return the syntax for one row of the table.

    `comments` has the patterns of line comments and the marks of block comments. `skipped` describes texts that look
    like a quote, a bracket or a comment but are not. `heredoc` describes the mark of a string that begins on the next
    line and ends at the text of the mark's group `name`. `raw` describes the opening quote of a string without escapes:
    its possible first characters, its pattern, and the template for the closing quote. `elements` says whether the
    language has JSX elements.
    """
    lines, blocks = comments
    firsts = {
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        *(first for first, _ in skipped),
        *(heredoc[0] if heredoc else ""),
        *(raw[0] if raw else ""),
        *(key[0] for key in (*_plain(quotes), *blocks)),
        *("<" if elements else ""),
    }
    firsts |= {"#" if "#" in line else line[0] for line in lines}
    parts = [
        *(f"(?P<skip{number}>{pattern})" for number, (_, pattern) in enumerate(skipped)),
        f"(?P<heredoc>{heredoc[1]})" if heredoc else "",
        f"(?P<raw>{raw[1]})" if raw else "",
        f"(?P<tag>{IN_CODE})" if elements else "",
        f"(?P<block>{_any(blocks)})" if blocks else "",
        f"(?P<line>{'|'.join(lines)})" if lines else "",
        f"(?P<quote>{_any(_plain(quotes))})" if quotes else "",
        r"(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<end>\n)",
    ]
    code = "|".join(filter(None, parts))
    stops = re.escape("".join(sorted(firsts)))
    return Syntax(
        re.compile(f"[{stops}]"),
        re.compile(f"[{stops}\n]"),
        re.compile(code, re.DOTALL),
        re.compile(code + r"|(?P<word>[^\W\d]\w*|\d[\w.]*)|(?P<sign>[^\s\w])", re.DOTALL),
        quotes,
        {key: _inside(quote) for key, quote in quotes.items()},
        blocks,
        raw[2] if raw else "",
        frozenset(loose),
        elements=elements,
    )


def _plain(quotes: Mapping[str, Quote]) -> list[str]:
    """Return the opening quotes, except those with a letter before the quote, which `reader._with_prefix` finds."""
    return [key for key in quotes if not key[0].isalpha()]


def _any(texts: Mapping[str, object] | list[str]) -> str:
    return "|".join(map(re.escape, sorted(texts, key=len, reverse=True)))


def _inside(quote: Quote) -> re.Pattern[str]:
    parts = [
        # In a string whose expressions begin with `{`, `{{` and `}}` are literal braces, and a single `}` is an error.
        r"\{\{|\}\}|\}" if quote.hole == "{" else "",
        re.escape(quote.hole),
        re.escape(quote.escape) + "." if quote.escape else "",
        re.escape(2 * quote.close) if quote.doubled else "",
        re.escape(quote.close),
        "" if quote.lines else "\n",
    ]
    return re.compile("|".join(filter(None, parts)), re.DOTALL)


def _row(*arguments: Any, **options: Any) -> Callable[[], Syntax]:
    """Return a function without arguments that calls `_make` with these arguments."""
    return partial(_make, *arguments, **options)


@cache
def _rows() -> dict[str, Callable[[], Syntax]]:
    """Return the table. A row makes its syntax only when it is needed, because compiling all takes 30 ms."""
    script = _row(_SLASHES, {**_BOTH, **_TEMPLATE}, _REGEX, _APOSTROPHE)
    jsx = _row(_SLASHES, {**_BOTH, **_TEMPLATE, **_ATTRIBUTE}, _REGEX, _APOSTROPHE, elements=True)
    python = _row(_HASH, _PYTHON)
    c = _row(
        _SLASHES_AND_MESSAGES,
        _BOTH,
        ("'", r"(?<=[0-9a-fA-F])'(?=[0-9a-fA-F])"),
        raw=('"', r"(?<=R)\"(?P<delimiter>[^()\\\s\"]{0,16})\(", r')\g<delimiter>"'),
    )
    shell = {
        '"': Quote('"', lines=True, hole="$("),
        "'": Quote("'", escape="", lines=True),
        "`": Quote("`", lines=True),
    }
    return {
        "python": python,
        "cython": python,
        "javascript": jsx,
        "typescript": script,
        "tsx": jsx,
        "java": _row(_SLASHES, {**_BOTH, **_TRIPLE}),
        "csharp": _row(
            _SLASHES_AND_MESSAGES,
            {
                '$@"': Quote('"', escape="", doubled=True, lines=True, hole="{"),
                '@$"': Quote('"', escape="", doubled=True, lines=True, hole="{"),
                '@"': Quote('"', escape="", doubled=True, lines=True),
                '$"': Quote('"', hole="{"),
                **_TRIPLE,
                **_BOTH,
            },
        ),
        "go": _row(_SLASHES, {**_BOTH, "`": Quote("`", escape="", lines=True)}),
        "rust": _row(
            _SLASHES,
            {'"': Quote('"', lines=True)},
            _CHARACTER,
            raw=('"#', r"(?<=r)(?P<hashes>#*)\"", r'"\g<hashes>'),
        ),
        "c": c,
        "cpp": c,
        "objective-c": c,
        "ruby": _row(
            _HASH,
            {
                '"': Quote('"', lines=True, hole="#{"),
                "'": Quote("'", lines=True),
                "`": Quote("`", lines=True, hole="#{"),
            },
            _REGEX,
            ("$", r"\$['\"`]"),
            heredoc=_RUBY_HEREDOC,
        ),
        "php": _row(
            (("//", r"#(?!\[)"), {"/*": "*/", "<!--": "-->"}),
            {'"': Quote('"', lines=True), "'": Quote("'", lines=True)},
            _APOSTROPHE,
            heredoc=_PHP_HEREDOC,
        ),
        "kotlin": _row(
            _SLASHES,
            {'"""': Quote('"""', escape="", lines=True, hole="${"), '"': Quote('"', hole="${"), "'": Quote("'")},
        ),
        "swift": _row(
            _SLASHES,
            {'"""': Quote('"""', lines=True, hole="\\("), '"': Quote('"', hole="\\(")},
            raw=("#", r"(?P<hashes>#+)(?P<marks>\"\"\"|\")", r"\g<marks>\g<hashes>"),
        ),
        "scala": _row(
            _SLASHES, {'"""': Quote('"""', escape="", lines=True, hole="${"), '"': Quote('"', hole="${")}, _CHARACTER
        ),
        "lua": _row((("--",), {}), _BOTH, raw=("[-", r"(?:--)?\[(?P<level>=*)\[", r"]\g<level>]")),
        "bash": _row(((r"(?<![^\s;])#",), {}), shell, _ESCAPED, ("$", r"\$#"), heredoc=_SHELL_HEREDOC, loose=")]"),
        "terraform": _row((("#", "//"), {"/*": "*/"}), {'"': Quote('"', hole="${")}),
        "dart": _row(
            _SLASHES,
            {
                **{key: Quote(key, lines=True, hole="${") for key in ('"""', "'''")},
                **{key: Quote(key, hole="${") for key in ('"', "'")},
            },
        ),
        "groovy": _row(
            _SLASHES,
            {
                '"""': Quote('"""', lines=True, hole="${"),
                "'''": Quote("'''", lines=True),
                '"': Quote('"', hole="${"),
                "'": Quote("'"),
            },
        ),
        "haskell": _row((("--",), {"{-": "-}"}), _DOUBLE, _CHARACTER),
        "ocaml": _row(((), {"(*": "*)"}), {'"': Quote('"', lines=True)}, _CHARACTER),
        "fsharp": _row((("//",), {"(*": "*)"}), {**_DOUBLE, **_TRIPLE}, _CHARACTER),
        "clojure": _row(((";",), {}), {'"': Quote('"', lines=True)}, _ESCAPED),
        "erlang": _row((("%",), {}), _BOTH, ("$", r"\$\\?[^\s]")),
        "elixir": _row(_HASH, {**_TRIPLE, '"': Quote('"', lines=True, hole="#{")}, _CHARACTER, ("?", r"\?\\?[^\s]")),
        "powershell": _row(
            (("#",), {"<#": "#>"}),
            {"'": Quote("'", escape="", doubled=True), '"': Quote('"', escape="`", doubled=True)},
        ),
        "sql": _row((("--",), {"/*": "*/"}), {"'": Quote("'", escape="", doubled=True, lines=True), '"': Quote('"')}),
        "perl": _row(_HASH, _BOTH, ("$", r"\$#"), _ESCAPED),
        "r": _row(_HASH, _BOTH),
        "proto": _row(_SLASHES, _BOTH),
        "solidity": _row(_SLASHES, _BOTH),
        "graphql": _row(_HASH, {**_TRIPLE, **_DOUBLE}),
        "yaml": _row(((r"(?<!\S)#",), {}), _DOUBLE, _CHARACTER),
        "toml": _row(_HASH, _DOUBLE, _CHARACTER),
        "makefile": _row(_HASH, _BOTH, _ESCAPED, ("$", r"\$\$")),
        "dockerfile": _row(_HASH, _BOTH, _ESCAPED),
        "vue": _row((("//",), {"/*": "*/", "<!--": "-->"}), {**_DOUBLE, **_TEMPLATE}, _CHARACTER),
        "svelte": _row((("//",), {"/*": "*/", "<!--": "-->"}), {**_DOUBLE, **_TEMPLATE}, _CHARACTER),
    }


@cache
def syntax_of(language: str) -> Syntax:
    """Return the syntax of a language.

    If the table has no row for the language, the syntax has strings in double quotes, characters in single quotes, and
    the line comment of `indexer.languages`. If that comment begins with `//`, the syntax also has `/*` comments.
    """
    if row := _rows().get(language):
        return replace(row(), nested=language in _NESTED)
    known = LANGUAGES.get(language)
    prefix = known.comment.strip() if known else ""
    if prefix == "//":
        return _make(_SLASHES, _DOUBLE, _CHARACTER)
    return _make(((re.escape(prefix),) if prefix else (), {}), _DOUBLE, _CHARACTER)
