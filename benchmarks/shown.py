"""Measure how often accepting a suggestion damages a file: a new syntax error, unbalanced brackets, a repeated line.

    python -m benchmarks.shown FOLDER… [--places N] [--seed N] [--language ID] [--failures N]

The benchmark removes a part of a source file, the *truth*, and puts the cursor there. It does this equally often for
every language with a grammar. Half of the cursors have text right of them. No model runs. Instead, the generated text
is the truth, the truth and the text after it, the beginning of the truth, text of another place, random tokens, a
repetition, or the truth with one bracket too many or with a marker. The benchmark streams the text into a `Shaper`, as
a completion does, and inserts the part that the shaper shows into the file.

To judge the result, the benchmark parses the whole file, with and without the shown text. It does not use the code that
it measures for this. Files that already have syntax errors are included. *exact* is the share of texts for which
exactly the truth is shown, among those that begin with the whole truth.

Times are processor time of this thread. The shaper reads the file while the model runs: *first* is the time for a new
file, and *ahead* the time for a file that was read before the last typed character. After that, a completion waits only
for each *look* at the streamed text, and for the work *after* the last token.
"""

from __future__ import annotations

import argparse
import gc
import random
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.machine import describe
from indexer.languages import LANGUAGES, language_of, parser_for
from indexer.model import Cursor
from indexer.reading import decode
from policy.completion.shape import Shaper
from policy.completion.shaping.files import ParsedFiles
from policy.completion.shaping.repetition import is_closing
from policy.completion.shaping.scan import scan

LARGEST = 80_000  # the largest size of a file in bytes, because each file is parsed several times
_LINE_END = re.compile(r"[^\n]*")
_TOKEN = re.compile(r"\w+|\*/|/\*+|//+|\"\"\"|'''|--\[?\[?|[^\w\s]|\s+")


@dataclass(frozen=True, slots=True)
class Place:
    """A cursor in a file, and the text that was removed there, the truth."""

    path: str
    cursor: Cursor
    truth: str


@dataclass
class Figures:
    """The figures of one language, which the module's docstring explains. Times are in seconds.

    `truths` is the number of texts that begin with the whole truth. `broken` is the number of shown texts that add a
    syntax error.
    """

    places: int = 0
    shown: int = 0
    truths: int = 0
    exact: int = 0
    broken: int = 0
    unbalanced: int = 0
    repeated: int = 0
    first: list[float] = field(default_factory=list)
    ahead: list[float] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)


def sources(folders: Sequence[Path], seed: int, most: int = 400) -> dict[str, list[tuple[str, str]]]:
    """Return up to `most` pairs of path and text for each language with a grammar, by language id.

    The result depends only on the files and on `seed`.
    """
    paths: dict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            language = language_of(path)
            if language and language.grammar and path.is_file() and 300 < path.stat().st_size < LARGEST:
                paths[language.id].append(path)
    found: dict[str, list[tuple[str, str]]] = {}
    for language_id, listed in sorted(paths.items()):
        random.Random(seed).shuffle(listed)
        texts = []
        for path in listed[:most]:
            text = decode(path.read_bytes())
            # Files with longer lines are left out, because tools wrote them.
            if isinstance(text, str) and text and max(map(len, text.split("\n"))) < 400:
                texts.append((str(path), text.replace("\r\n", "\n")))
        found[language_id] = texts
    return found


def place(rng: random.Random, path: str, text: str, language: str, *, right: bool) -> Place | None:
    """Remove a random part of a text. Return None if no part is suitable.

    With `right`, the part is within a line, and text follows it on the line. Otherwise, it ends at the end of its first
    line, or of one of the three lines after that.
    """
    starts = [match.start() for match in _TOKEN.finditer(text) if not match.group().isspace()]
    if not starts:
        return None
    start = rng.choice(starts)
    line_end = _LINE_END.match(text, start).end()  # type: ignore[union-attr]
    if right:
        ends = [m.end() for m in _TOKEN.finditer(text, start, line_end) if not m.group().isspace()][:-1]
        if not ends:
            return None
        end = rng.choice(ends)
    else:
        end = line_end
        for _ in range(rng.choice((0, 0, 0, 1, 3))):
            if end + 1 < len(text):
                end = _LINE_END.match(text, end + 1).end()  # type: ignore[union-attr]
    return Place(path, Cursor("", text[:start], text[end:], language), text[start:end])


def writings(rng: random.Random, at: Place, others: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, bool]]:
    """Yield generated texts for a place, as (kind, text, complete).

    `complete` says whether the simulated model ended the text itself, and not the token limit.
    """
    truth, right = at.truth, at.cursor.suffix
    yield "truth", truth, True
    yield "continued", truth + right[: rng.randrange(20, 400)], rng.random() < 0.5
    yield "truncated", truth[: rng.randrange(len(truth) + 1)], rng.random() < 0.5
    other = rng.choice(others)[1]
    start = rng.randrange(len(other))
    yield "elsewhere", other[start : start + rng.randrange(1, 300)], rng.random() < 0.5
    words = [match.group() for match in _TOKEN.finditer(at.cursor.prefix[-2_000:] + right[:2_000])]
    noise = [*words, *"()[]{}\"'`;:,", "\n", " ", "end", "é", "\\", "/*", "//", "#"]
    yield "garbage", "".join(rng.choice(noise) for _ in range(rng.randrange(1, 40))), rng.random() < 0.5
    line = rng.choice([at.cursor.prefix.rsplit("\n", 2)[-2:][0], right.lstrip("\n").split("\n")[0], truth + "\n"])
    yield "repetition", (line + "\n") * rng.randrange(1, 6), rng.random() < 0.5
    yield "bracket", truth + rng.choice((")", "]", "}", "})", "('", "{", '"', "end", "\nend\n", "\n}\n")), True
    yield "marker", truth + rng.choice(("<|endoftext|>", "<fim_middle>", "<EOT>", "\r\n", "</s>")) + right[:80], True


def reading_time(cursor: Cursor, known: ParsedFiles) -> float:
    """Return the processor time, in seconds, that the shaper takes to read the file around a cursor."""
    started = time.thread_time()
    Shaper(cursor, files=known).prepare()
    return time.thread_time() - started


def shaped(shaper: Shaper, text: str, complete: bool, rng: random.Random, figures: Figures) -> str:
    """Stream `text` in pieces of one to six characters, like tokens, and return the part that is shown.

    Adds the times to `figures`.
    """
    end = 0
    while end < len(text):
        end = min(len(text), end + rng.randrange(1, 7))
        started = time.thread_time()
        decided = shaper.decided(text[:end])
        figures.looks.append(time.thread_time() - started)
        if decided:
            complete = False
            break
    started = time.thread_time()
    shown = shaper.finish(text[:end], complete=complete).text
    figures.after.append(time.thread_time() - started)
    return shown


def errors(text: str, language: str) -> int:
    """Return the number of `ERROR` and `MISSING` nodes in tree-sitter's syntax tree of a whole file."""
    parser = parser_for(language)
    assert parser is not None
    stack, count = [parser.parse(text.encode("utf-8", "replace")).root_node], 0
    while stack:
        node = stack.pop()
        count += node.is_error or node.is_missing
        stack.extend(child for child in node.children if child.has_error)
    return count


def says_twice(at: Place, shown: str) -> bool:
    """Return whether a line of `shown` repeats the next line below the cursor that is not blank.

    A line that only closes a block is no repetition.
    """
    rest, _, below = at.cursor.suffix.partition("\n")
    following = next((line.strip() for line in below.split("\n") if line.strip()), "")
    before = at.cursor.prefix.rsplit("\n", 1)[-1]
    lines = (before + shown + rest).split("\n")
    return (
        bool(following)
        and not is_closing(following)
        and (before + rest).strip() != following
        and following in map(str.strip, lines)
    )


def judge(at: Place, shown: str, before: int, figures: Figures) -> str:
    """Count the damage to the file if the user accepts `shown`, and return it in words, or "" if there is none.

    `before` is the number of syntax errors in the file without the text.
    """
    left, right, language = at.cursor.prefix, at.cursor.suffix, at.cursor.language
    figures.shown += 1
    wrong = []
    if shown != at.truth or before:
        if errors(left + shown + right, language) > before:
            figures.broken += 1
            wrong.append("syntax error")
        without, with_text = scan(left + right, language), scan(left + shown + right, language)
        if with_text.extra > without.extra or with_text.missing > without.missing:
            figures.unbalanced += 1
            wrong.append("unbalanced")
    if shown != at.truth and says_twice(at, shown):
        figures.repeated += 1
        wrong.append("repeated")
    return ", ".join(wrong)


def measure(
    files: Sequence[tuple[str, str]], language: str, count: int, seed: int, tell: Callable[[str], None]
) -> Figures:
    """Judge `count` generated texts in files of one language, and return the figures.

    Calls `tell` with a description of each failure.
    """
    rng, figures = random.Random(f"{seed} {language}"), Figures()
    while figures.places < count:
        at = place(rng, *rng.choice(files), language, right=rng.random() < 0.5)
        if at is None:
            continue
        before = errors(at.cursor.prefix + at.cursor.suffix, language)
        known = ParsedFiles()
        typed = replace(at.cursor, prefix=at.cursor.prefix[:-1])
        figures.first.append(reading_time(typed, known))
        figures.ahead.append(reading_time(at.cursor, known))
        options = list(writings(rng, at, files))
        for kind, text, complete in [options[0], options[1], *rng.sample(options[2:], 3)]:
            figures.places += 1
            shaper = Shaper(at.cursor, bodies=rng.random() < 0.5, files=known)
            shaper.prepare()
            shown = shaped(shaper, text, complete, rng, figures)
            if kind in ("truth", "continued"):
                figures.truths += 1
                figures.exact += shown.rstrip() == at.truth.rstrip()
            if shown and (wrong := judge(at, shown, before, figures)):
                where = f"{at.path}:{at.cursor.prefix.count(chr(10)) + 1}"
                left, right = at.cursor.prefix[-200:], at.cursor.suffix[:200]
                tell(f"{wrong} [{kind}] {where}\n  {left!r}\n  + {shown!r}\n  + {right!r}\n  of {text!r}\n")
    return figures


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile in milliseconds of `values` in seconds, or 0.0 if there are none. `share` is in [0, 1]."""
    return sorted(values)[int(share * (len(values) - 1))] * 1e3 if values else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--places", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--language", action="append", choices=sorted(LANGUAGES))
    parser.add_argument("--failures", type=int, default=3, help="the number of failures to print for each language")
    options = parser.parse_args()
    files = sources(options.folders, options.seed)
    chosen = [language for language in options.language or files if files.get(language)]
    print(f"{describe()}; {options.places} texts, seed {options.seed}\n")
    print("language    files texts shown exact | errors, unbalanced, repeated | ms: first, ahead, look, after p95, p50")
    gc.collect()
    gc.freeze()  # garbage collections during the measurement then skip the texts of all files
    total = Figures()
    for language in chosen:
        told: list[str] = []
        figures = measure(files[language], language, options.places // len(chosen), options.seed, told.append)
        print(_row(language, len(files[language]), figures))
        for text in told[: options.failures]:
            print("   ", text, file=sys.stderr)
        for name, value in vars(figures).items():
            setattr(total, name, getattr(total, name) + value)
    print(_row("all", sum(len(files[language]) for language in chosen), total))
    missing = [row.id for row in LANGUAGES.values() if row.grammar and row.id not in files]
    if missing:
        print(f"no files: {', '.join(missing)}")


def _row(name: str, files: int, figures: Figures) -> str:
    return (
        f"{name:11} {files:5} {figures.places:5} {figures.shown:5} {figures.exact / max(1, figures.truths):5.2f} | "
        f"{figures.broken:4} {figures.unbalanced:4} {figures.repeated:4} | {percentile(figures.first, 0.95):6.2f} "
        f"{percentile(figures.ahead, 0.95):6.2f} "
        f"{percentile(figures.looks, 0.95):6.2f} {percentile(figures.after, 0.95):6.2f} "
        f"{percentile(figures.after, 0.5):6.2f}"
    )


if __name__ == "__main__":
    main()
