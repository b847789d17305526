"""Find quiet places: places in a file at which no text is missing, so that every suggestion there is wrong.

There are three variants: the end of a finished statement ("statement"), the end of a comment ("comment"), and a
position before a word within a finished line ("before"). A user's cursor is often at such places.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

from indexer.languages import language_of
from policy.training.blanks import code_start

from .task import TaskKind

Span = tuple[str, TaskKind, str, int, int]

_SEMICOLONS = frozenset({"c", "cpp", "csharp", "java", "rust", "php"})
_UNFINISHED = re.compile(r"(?:[-+*/%=<>&|^~!?.,:(\[{\\]|\b(?:and|or|not|in|is|else|then|do|return|=>))$")
_PLACE = re.compile(r"[(\[{,=]\s?(?=[\w\"'])|(?<=\w) (?=\w)")
_OPEN, _CLOSE = re.compile(r"[(\[{]"), re.compile(r"[)\]}]")


def quiet_spans(files: Mapping[str, str], wanted: int, rng: random.Random) -> list[Span]:
    """Return up to `wanted` empty spans, as equally by variant as possible.

    A span is (path, kind, variant, start, end), with offsets in characters.
    """
    places: dict[str, list[Span]] = {"statement": [], "comment": [], "before": []}
    paths = list(files)
    rng.shuffle(paths)
    for path in paths:
        for variant, found in _places(path, files[path], rng).items():
            places[variant] += rng.sample(found, min(len(found), max(1, wanted // 3)))
        if min(map(len, places.values())) >= wanted:
            break
    for spans in places.values():
        rng.shuffle(spans)
    taken: list[Span] = []
    while len(taken) < wanted and any(places.values()):
        taken += [spans.pop() for spans in places.values() if spans]
    return taken[:wanted]


def _places(path: str, text: str, rng: random.Random) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {"statement": [], "comment": [], "before": []}
    language = language_of(path)
    if language is None:
        return found
    comment = language.comment.strip()
    first = code_start(text)
    lines = text.split("\n")
    start = 0
    for number, line in enumerate(lines[:-1]):
        end = start + len(line)
        below = lines[number + 1]
        if start >= first and (code := line.strip()):
            if comment and code.startswith(comment):
                if not below.strip().startswith(comment) and len(code) > len(comment) + 3:
                    found["comment"].append((path, "quiet", "comment", end, end))
            elif not code.startswith(("*", "/*", '"')) and (not comment or comment not in line):
                if _is_finished(line, below, language.id):
                    found["statement"].append((path, "quiet", "statement", end, end))
                if inner := [match.end() for match in _PLACE.finditer(line)]:
                    at = start + rng.choice(inner)
                    found["before"].append((path, "quiet", "before", at, at))
        start = end + 1
    return found


def _is_finished(line: str, below: str, language: str) -> bool:
    """Return whether a statement ends with `line`. This is a guess from this line and the line `below`."""
    code = line.rstrip()
    if language in _SEMICOLONS:
        return code.endswith(";") and code == line
    deeper = bool(below.strip()) and _indent(below) > _indent(line)
    balanced = len(_OPEN.findall(code)) == len(_CLOSE.findall(code))
    return code == line and balanced and not deeper and not _UNFINISHED.search(code) and code.strip() not in {")", "}"}


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
