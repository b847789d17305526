"""Make traces of a simulated user who types: the keys and their times.

The user types lines that were removed from a real file. The typing is fast and uneven: 8 keys per second with
log-normal intervals, pauses of 0.6 s after every line and before some words, and typing errors, which the user corrects
immediately or after one or two more keys. The user accepts no suggestion, so that every system gets the same keys at
the same times, and the figures of the systems can be compared.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from indexer.languages import language_of
from indexer.rules import Rules
from indexer.settings import IndexSettings

INTERVAL = 1 / 8  # the mean time between two keys in seconds
UNEVENNESS = 0.35  # the standard deviation of the interval's natural logarithm
PAUSE = 0.6  # the length of a pause in seconds
THOUGHTFUL = 1 / 6  # the share of words before which the user pauses
SLIPS = 1 / 40  # the share of letters for which the user first types the wrong letter, of those in `_NEIGHBOURS`
_NEIGHBOURS = {"a": "s", "e": "r", "i": "o", "n": "m", "o": "p", "r": "t", "s": "d", "t": "y", "u": "i", "l": "k"}
_SIZES = range(1_500, 40_000)  # the sizes of suitable files in bytes
_WIDTHS = range(8, 90)  # the lengths of suitable lines in characters, without the indentation


@dataclass(frozen=True, slots=True)
class Key:
    """A key, which inserts `text`, or deletes a character if `text` is empty.

    `after` is the time since the previous key in seconds.
    """

    after: float
    text: str


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file where the user types.

    The rest of the file is `prefix` and `suffix`. `typed` is the text between them after all `keys`.
    """

    path: Path
    language: str
    prefix: str
    suffix: str
    typed: str
    keys: tuple[Key, ...]

    def moments(self) -> list[float]:
        """Return the time of each key in seconds since the user started to type."""
        return list(accumulate(key.after for key in self.keys))

    def states(self) -> Iterator[str]:
        """Yield the whole typed text after each key."""
        text = ""
        for key in self.keys:
            text = text + key.text if key.text else text[:-1]
            yield text


def record(root: Path, places: int, keys: int, seed: int) -> list[Place]:
    """Return up to `places` places in files below `root`, with about `keys` keys at each place.

    The result depends only on the files and on `seed`. Ends the program with a message if no file is suitable.
    """
    dice = random.Random(seed)
    files = sorted(root / entry.path for entry in Rules(root, IndexSettings()).walk())
    dice.shuffle(files)
    found: list[Place] = []
    for file in files:
        language = language_of(str(file))
        if len(found) == places:
            break
        if language is None or file.stat().st_size not in _SIZES:
            continue
        if place := _place(file, language.id, file.read_text("utf-8", "replace"), keys, dice):
            found.append(place)
    if not found:
        raise SystemExit(f"{root}: no source file of this folder is suitable for typing")
    return found


def _place(file: Path, language: str, text: str, keys: int, dice: random.Random) -> Place | None:
    lines = text.split("\n")
    starts = list(range(len(lines) // 4, len(lines) * 3 // 4))
    dice.shuffle(starts)
    for start in starts:
        end = start
        while end < len(lines) and len(lines[end].strip()) in _WIDTHS and sum(map(len, lines[start:end])) < keys:
            end += 1
        piece = "\n".join(lines[start:end])
        if end - start < 2 or len(piece.replace(" ", "")) < keys * 2 // 3:
            continue
        indent = re.match(r"\s*", lines[start])[0]  # type: ignore[index]  # the pattern always matches
        prefix = "".join(line + "\n" for line in lines[:start]) + indent
        suffix = "".join("\n" + line for line in lines[end:])
        typed = piece[len(indent) :]
        return Place(file, language, prefix, suffix, typed, tuple(_keys_for(typed, dice)))
    return None


def _keys_for(text: str, dice: random.Random) -> Iterator[Key]:
    """Yield the keys that type `text`. One key types a line break and the indentation after it, as in editors."""
    strokes: Sequence[str] = re.findall(r"\n[ \t]*|.", text)
    gap = 0.0
    for at, stroke in enumerate(strokes):
        before = strokes[at - 1] if at else ""
        rests = before.startswith("\n") or (stroke.isalpha() and before == " " and dice.random() < THOUGHTFUL)
        gap = PAUSE if rests else _interval(dice)
        if stroke in _NEIGHBOURS and dice.random() < SLIPS:
            more = [other for other in strokes[at + 1 : at + 1 + dice.randrange(3)] if not other.startswith("\n")]
            for wrong in (_NEIGHBOURS[stroke], *more):
                yield Key(gap, wrong)
                gap = _interval(dice)
            for number in range(1 + len(more)):
                yield Key(2 * INTERVAL if number == 0 else _interval(dice), "")
        yield Key(gap, stroke)


def _interval(dice: random.Random) -> float:
    return INTERVAL * math.exp(dice.gauss(-(UNEVENNESS**2) / 2, UNEVENNESS))
