r"""Match paths against the patterns of one ignore file, exactly as git does.

Git compares bytes, not characters: `na?ve.py` does not match `naïve.py`, whose ï has two bytes. So patterns become
regular expressions over bytes. They also reproduce some peculiarities of git's code (`dir.c` and `wildmatch.c` of git
2.39); `tests/indexer/test_ignore_against_git.py` compares the results with git itself. The `pathspec` library differs
from git for whitelists (`*`, `!*/`), `**/`, POSIX classes and non-ASCII names.

Consecutive patterns that all ignore, or are all negated, are combined, because a scan matches every entry of every
directory. A pattern matches only the path itself, not the files in a directory that it matches: a scan never enters an
ignored directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby

_GLOB_SPECIAL = b"*?[\\"
_SLASH = ord("/")
_NEVER = b"(?!)"
_CLASSES = {
    b"alnum": re.compile(rb"[0-9A-Za-z]"),
    b"alpha": re.compile(rb"[A-Za-z]"),
    b"blank": re.compile(rb"[ \t]"),
    b"cntrl": re.compile(rb"[\x00-\x1f\x7f]"),
    b"digit": re.compile(rb"[0-9]"),
    b"graph": re.compile(rb"[\x21-\x7e]"),
    b"lower": re.compile(rb"[a-z]"),
    b"print": re.compile(rb"[\x20-\x7e]"),
    b"punct": re.compile(rb"[!-/:-@\[-`{-~]"),
    b"space": re.compile(rb"[ \t\n\r]"),
    b"upper": re.compile(rb"[A-Z]"),
    b"xdigit": re.compile(rb"[0-9A-Fa-f]"),
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of an ignore file.

    `ignores` is False for a negated pattern. If `by_name`, `regex` matches the base name, else the path relative to the
    ignore file; neither ends in "/". If the pattern is a base name without wildcards, `literal` is that name, else
    empty.
    """

    text: str
    line: int
    ignores: bool
    by_name: bool
    directories_only: bool
    regex: bytes
    literal: bytes = b""

    def matches(self, path: _Path, flags: re.RegexFlag) -> bool:
        """Return whether the pattern matches a path."""
        if self.directories_only and not path.is_directory:
            return False
        return re.match(self.regex, path.name if self.by_name else path.relative, flags) is not None


@dataclass(frozen=True, slots=True)
class _Path:
    relative: bytes  # to the directory of the ignore file
    name: bytes
    is_directory: bool

    @classmethod
    def of(cls, encoded: bytes) -> _Path:
        relative = encoded.removesuffix(b"/")
        return cls(relative, relative[relative.rfind(b"/") + 1 :], len(relative) < len(encoded))


class _Matcher:
    """Several patterns, combined so that a match shows only that one of them matches, but not which one."""

    def __init__(self, patterns: Sequence[Pattern], flags: re.RegexFlag) -> None:
        folds_case = bool(flags & re.IGNORECASE)
        self._literals = frozenset(p.literal for p in patterns if p.literal and not folds_case)
        others = [p for p in patterns if not p.literal or folds_case]
        self._names = _union((p.regex for p in others if p.by_name), flags)
        self._paths = _union((p.regex for p in others if not p.by_name), flags)

    def matches(self, path: _Path) -> bool:
        return (
            path.name in self._literals
            or (self._names is not None and self._names.match(path.name) is not None)
            or (self._paths is not None and self._paths.match(path.relative) is not None)
        )


class _Group:
    """Consecutive patterns that all ignore, or are all negated."""

    def __init__(self, patterns: Sequence[Pattern], flags: re.RegexFlag) -> None:
        self.ignores = patterns[0].ignores
        self._any = _Matcher([p for p in patterns if not p.directories_only], flags)
        self._directories = _Matcher([p for p in patterns if p.directories_only], flags)

    def matches(self, path: _Path) -> bool:
        return self._any.matches(path) or (path.is_directory and self._directories.matches(path))


class Patterns:
    """The patterns of one ignore file, which apply to the paths in one directory.

    `base` is the POSIX path of this directory from the root of the workspace folder, and "" for the root. If the
    directory is above the root, `base` is "", and `lead` is the POSIX path from the directory to the root.
    """

    def __init__(
        self, source: str, lines: Iterable[str | bytes], *, base: str = "", lead: str = "", ignore_case: bool = False
    ) -> None:
        self.source = source
        self._base = os.fsencode(f"{base}/") if base else b""
        self._lead = os.fsencode(f"{lead}/") if lead else b""
        self._flags = re.DOTALL | (re.IGNORECASE if ignore_case else re.RegexFlag(0))
        numbers = count()
        encoded = (line if isinstance(line, bytes) else os.fsencode(line) for line in lines)
        parsed = (_parsed(line, number, numbers, ignore_case) for number, line in enumerate(encoded, 1))
        self.patterns = tuple(pattern for pattern in parsed if pattern is not None)
        groups = [list(group) for _, group in groupby(self.patterns, key=lambda p: p.ignores)]
        self._groups = [_Group(group, self._flags) for group in reversed(groups)]

    def decide(self, path: str) -> bool | None:
        """Return whether a path is ignored, or None if no pattern matches it.

        A directory's path ends in "/".
        """
        relative = self._relative(path)
        if relative is not None:
            for group in self._groups:
                if group.matches(relative):
                    return group.ignores
        return None

    def deciding(self, path: str) -> Pattern | None:
        """Return the last pattern that matches a path, which is the one that decides."""
        relative = self._relative(path)
        if relative is None:
            return None
        return next((p for p in reversed(self.patterns) if p.matches(relative, self._flags)), None)

    def _relative(self, path: str) -> _Path | None:
        encoded = os.fsencode(path)
        return _Path.of(self._lead + encoded[len(self._base) :]) if encoded.startswith(self._base) else None


def split_lines(data: bytes) -> list[bytes]:
    """Split an ignore file into lines. Only LF ends a line; a CR before it and a leading BOM are dropped."""
    return [line.removesuffix(b"\r") for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")]


def _union(regexes: Iterable[bytes], flags: re.RegexFlag) -> re.Pattern[bytes] | None:
    joined = b"|".join(b"(?:%b)" % regex for regex in regexes)
    return re.compile(joined, flags) if joined else None


def _parsed(line: bytes, number: int, groups: Iterator[int], ignore_case: bool) -> Pattern | None:
    """Parse one line. Return None for a comment and for a pattern that can match nothing.

    `groups` yields the numbers of the named groups in the regular expressions of a file.
    """
    text = _without_trailing_spaces(line.partition(b"\0")[0])
    if not text or text.startswith(b"#"):
        return None
    ignores = not text.startswith(b"!")
    pattern = text if ignores else text[1:]
    directories_only = pattern.endswith(b"/")
    if directories_only:
        pattern = pattern[:-1]
    by_name = b"/" not in pattern
    if not pattern:
        return None
    prefix = _literal_length(pattern)
    literal = pattern if by_name and prefix == len(pattern) else b""
    if not by_name and pattern.startswith(b"/"):
        pattern, prefix = pattern[1:], max(prefix - 1, 0)
        if not pattern:
            return None
    # Git first compares the part before the first wildcard, then matches the rest as a separate pattern. So in
    # `foo**/bar` the `**` begins a pattern and matches slashes.
    start = 0 if by_name else prefix
    tokens = _tokens(pattern[start:], slashes=not by_name, ignore_case=ignore_case)
    if tokens is None:
        return None
    regex = re.escape(pattern[:start]) + _regex(tokens, groups) + rb"\Z"
    return Pattern(text.decode("utf-8", "replace"), number, ignores, by_name, directories_only, regex, literal)


def _without_trailing_spaces(line: bytes) -> bytes:
    """Drop trailing spaces, except a space that a backslash escapes."""
    stripped = line.rstrip(b" ")
    backslashes = len(stripped) - len(stripped.rstrip(b"\\"))
    return stripped + b" " if backslashes % 2 and len(stripped) < len(line) else stripped


def _literal_length(pattern: bytes) -> int:
    """Return how many bytes come before the first wildcard or backslash."""
    return next((at for at, byte in enumerate(pattern) if byte in _GLOB_SPECIAL), len(pattern))


# A pattern consists of these three tokens and of regular expressions that match one byte.
_STAR = b"*"  # any bytes but slashes
_DEEP = b"**"  # any bytes
_DEEP_SLASH = b"**/"  # nothing, or any bytes up to a slash


def _tokens(pattern: bytes, *, slashes: bool, ignore_case: bool) -> list[bytes] | None:
    """Split a pattern into tokens. Return None if it is malformed; a malformed pattern matches nothing.

    `slashes` says whether the pattern is matched against a path. In a base name, no star can match a slash, so `**`
    means the same as `*`.
    """
    tokens: list[bytes] = []
    at = 0
    while at < len(pattern):
        byte = pattern[at : at + 1]
        if byte == b"*":
            end = at
            while pattern[end : end + 1] == b"*":
                end += 1
            bounded = (at == 0 or pattern[at - 1] == _SLASH) and (
                pattern[end:] == b"" or pattern[end] == _SLASH or pattern[end : end + 2] == rb"\/"
            )
            deep = slashes and end - at > 1 and bounded
            if deep and pattern[end : end + 1] == b"/":
                tokens.append(_DEEP_SLASH)
                end += 1
            else:
                tokens.append(_DEEP if deep else _STAR)
            at = end
        elif byte == b"?":
            tokens.append(b"[^/]")
            at += 1
        elif byte == b"[":
            parsed = _bracket(pattern, at + 1, ignore_case=ignore_case)
            if parsed is None:
                return None
            token, at = parsed
            tokens.append(token)
        elif byte == b"\\":
            if at + 1 == len(pattern):
                return None
            escaped = pattern[at + 1 : at + 2]
            # If case is ignored, git makes the path lower-case, but not a letter after a backslash.
            tokens.append(_NEVER if ignore_case and escaped.isupper() else re.escape(escaped))
            at += 2
        else:
            tokens.append(re.escape(byte))
            at += 1
    return tokens


def _regex(tokens: Sequence[bytes], groups: Iterator[int]) -> bytes:
    """Join tokens into a regular expression whose running time is not exponential in the number of stars.

    Between two stars, the first match of the tokens is as good as any later match. A lookahead with a back reference
    keeps the regular expression from trying the later matches (Python 3.10 has no atomic groups).
    """
    parts: list[bytes] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token not in (_STAR, _DEEP, _DEEP_SLASH):
            parts.append(token)
            at += 1
            continue
        # `*` matches nothing beyond its path component, so only a star in the same component counts as the next one.
        stops = (_STAR, _DEEP, _DEEP_SLASH, b"/") if token == _STAR else (_DEEP, _DEEP_SLASH)
        end = at + 1
        while end < len(tokens) and tokens[end] not in stops:
            end += 1
        between = tokens[at + 1 : end]
        followed = end < len(tokens) and tokens[end] != b"/"
        body = b"".join(between) if token == _STAR else _regex(between, groups)
        star = {_STAR: b"[^/]*", _DEEP: b".*", _DEEP_SLASH: b"(?:[^/]*/)*"}[token]
        if followed:
            name = b"g%d" % next(groups)
            parts.append(b"(?=(?P<%b>%b?%b))(?P=%b)" % (name, star, body, name))
        else:
            parts.append(star + body)
        at = end
    return b"".join(parts)


def _bracket(pattern: bytes, at: int, *, ignore_case: bool) -> tuple[bytes, int] | None:
    """Parse a bracket expression whose "[" is before `at`. Return its regular expression and the offset of its end.

    Return None if it is malformed. If case is ignored, git makes each byte of the path lower-case and compares it with
    the members as they are written: `[A]` matches nothing. Only for a range and for `[:upper:]`, it also tries the
    upper-case letter.
    """
    negated = pattern[at : at + 1] in (b"!", b"^")
    at += negated
    members: set[int] = set()
    previous = 0  # the byte that can begin a range; 0 if none can
    first = True
    while first or pattern[at : at + 1] != b"]":
        first = False
        if at >= len(pattern):
            return None
        byte = pattern[at]
        following = pattern[at + 1 : at + 2]
        if byte == ord("\\"):
            if not following:
                return None
            previous = following[0]
            members.add(previous)
            at += 2
        elif byte == ord("-") and previous and following not in (b"", b"]"):
            at += 1
            if pattern[at : at + 1] == b"\\":
                at += 1
                if at >= len(pattern):
                    return None
            members.update(_folded(range(previous, pattern[at] + 1), ignore_case=ignore_case))
            previous = 0
            at += 1
        elif byte == ord("[") and following == b":":
            end = pattern.find(b"]", at + 2)
            if end < 0:
                return None
            if end - at - 3 < 0 or pattern[end - 1] != ord(":"):  # not a class: the "[" is itself a member
                members.add(byte)
                previous = byte
                at += 1
                continue
            name = pattern[at + 2 : end - 1]
            named = _CLASSES.get(name)
            if named is None:
                return None
            values = [value for value in range(128) if named.match(bytes((value,)))]
            members.update(_folded(values, ignore_case=ignore_case and name == b"upper"))
            previous = 0
            at = end + 1
        else:
            members.add(byte)
            previous = byte
            at += 1
    compared = bytes(range(256)).lower() if ignore_case else bytes(range(256))  # for each byte of a path
    matched = [value for value in range(256) if (compared[value] in members) != negated and value != _SLASH]
    if not matched:
        return _NEVER, at + 1
    regex = b"[%b]" % b"".join(rb"\x%02x" % value for value in matched)
    return b"(?-i:%b)" % regex if ignore_case else regex, at + 1


def _folded(values: Iterable[int], *, ignore_case: bool) -> set[int]:
    """Return the values and, if case is ignored, also the lower-case letter of each upper-case one."""
    found = set(values)
    return found | set(bytes(found).lower()) if ignore_case else found
