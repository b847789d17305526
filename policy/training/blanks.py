"""Step 2, `train blanks`: choose the blanks in the corpus and retrieve chunks for each.

A blank is a place in a file from which text is removed, for the model to fill in. There are four kinds:

- *Chunk* and *function* blanks follow the paper (section 4.1). Blocks of lines, or functions, are clustered by TF-IDF,
  and one of each cluster is drawn, so that frequent boilerplate does not dominate. For a chunk blank, a
  Poisson-distributed number of lines is removed from the block. For a function blank, the function's body is removed.
- *Cursor* blanks model the requests of an editor, which the paper does not cover. They begin at any character: inside a
  half-typed word, after an opening bracket, at the indentation of a new line, or at the end of a line. They end where a
  suggestion should end: with the line, before the closing bracket that the editor has already inserted, or with the
  block.
- *Line* blanks are whole lines, as in RepoEval.

A blank is stored as offsets, and each retrieved chunk as a path and line numbers, so the text is only in the corpus.
Output: `OUT/<split>.jsonl` and a manifest.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from indexer.languages import language_of
from indexer.model import Cursor, Hit
from indexer.snapshot import Snapshot
from indexer.words import first_lines, last_lines

from . import manifest
from .clusters import representatives
from .functions import bodies
from .manifest import TrainingError

BlankKind = Literal["line", "cursor", "chunk", "function"]

SHARES: Mapping[BlankKind, float] = {"line": 0.1, "cursor": 0.5, "chunk": 0.22, "function": 0.18}
HITS = 6  # maximum number of retrieved chunks of a blank
BLOCK_LINES = 10  # number of lines in a block; each chunk blank begins in a block that was drawn
MAX_BLOCKS = 3000  # maximum number of blocks, and of functions, of a repository that are clustered
BLOCK_END_LINES = 10  # maximum number of lines after the first line of the block with which a cursor blank ends
_COMMENT = re.compile(r"\s*(#|//|/\*|\*|\"\"\"|'''|<!--)")
_CLOSING = re.compile(r"[)\]}>'\";:,\s{]+$")


@dataclass(frozen=True, slots=True)
class RetrievedChunk:
    """The location of a retrieved chunk in the corpus, and the score of the hit.

    The other fields are as in `indexer.model.Chunk`.
    """

    path: str
    start_line: int
    end_line: int
    score: float
    header: str = ""


@dataclass(frozen=True, slots=True)
class Blank:
    """A blank: the characters from `start` to `end` (exclusive) of a file are removed.

    `hits` are the retrieved chunks, best first. `variant` is a subdivision of the kind, such as "end/block". `oracle`
    says whether the query of the search included the removed text.
    """

    id: str
    repository: str
    path: str
    language: str
    kind: BlankKind
    variant: str
    start: int
    end: int
    oracle: bool
    hits: tuple[RetrievedChunk, ...]


def run(out: Path, corpus: Path, per_repository: int = 300, oracle_share: float = 0.5, seed: int = 0) -> None:
    """Draw up to `per_repository` blanks from each repository of the corpus, and retrieve chunks for them.

    For the share `oracle_share` of the training blanks, the query includes the removed text (`oracle_hits`). Validation
    and test blanks never have such a query. An interrupted run resumes after the last finished repository. Raises
    `TrainingError` if no blank can be drawn.
    """
    corpus = corpus.resolve()  # the search excludes the blank's own file by its absolute path
    arguments = {"per_repository": per_repository, "oracle_share": oracle_share, "seed": seed}
    manifest.begin(out, "blanks", {"corpus": corpus}, arguments)
    if manifest.read(out)["done"]:
        return
    parts = out / "parts"
    parts.mkdir(exist_ok=True)
    folders = sorted(path for split in ("train", "valid", "test") for path in (corpus / split).glob("*"))
    for folder in tqdm(folders, desc="blanks", unit="repository"):
        part = parts / f"{folder.parent.name}~{folder.name}.jsonl"
        if part.exists():
            continue
        share = oracle_share if folder.parent.name == "train" else 0.0
        blanks = draw(folder, per_repository, share, seed)
        temporary = part.with_suffix(".new")
        temporary.write_text("".join(json.dumps(asdict(blank)) + "\n" for blank in blanks), "utf-8")
        temporary.replace(part)
    counts: dict[str, dict[str, int]] = {}
    for split in ("train", "valid", "test"):
        text = "".join(part.read_text("utf-8") for part in sorted(parts.glob(f"{split}~*.jsonl")))
        (out / f"{split}.jsonl").write_text(text, "utf-8")
        counts[split] = dict(Counter(str(json.loads(line)["kind"]) for line in text.splitlines()))
    if not any(counts.values()):
        raise TrainingError(f"no blanks could be drawn from {corpus}")
    manifest.finish(out, counts=counts)


def load(path: Path) -> list[Blank]:
    """Return the blanks in the file of one split."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Blank(**{**row, "hits": tuple(RetrievedChunk(**hit) for hit in row["hits"])}) for row in rows]


def eligible(data: Sequence[Blank], limit: int, seed: int) -> list[Blank]:
    """Return up to `limit` blanks (0: all) that `train label` can measure, in a fixed random order.

    These blanks are not empty, and have retrieved chunks from a query without the removed text.
    """
    found = [blank for blank in data if blank.hits and not blank.oracle and blank.end > blank.start]
    random.Random(seed).shuffle(found)
    return unique(found)[: limit or None]


def unique(data: Iterable[Blank]) -> list[Blank]:
    """Return the first blank of each id. The same span can be drawn for several kinds, but labels refer to the id."""
    found: dict[str, Blank] = {}
    for blank in data:
        found.setdefault(blank.id, blank)
    return list(found.values())


def draw(folder: Path, wanted: int, oracle_share: float, seed: int) -> list[Blank]:
    """Return about `wanted` blanks of the repository at the absolute path `folder`, in no particular order."""
    files = read_repository(folder)
    rng = random.Random(f"{seed} {folder.name}")
    spans = draw_spans(files, wanted, rng)
    snapshot = Snapshot.of(files.items(), root=str(folder))
    repository = f"{folder.parent.name}/{folder.name}"
    blanks: list[Blank] = []
    for path, kind, variant, start, end in spans:
        text = files[path]
        language = language_of(path)
        cursor = Cursor(str(folder / path), text[:start], text[end:], language.id if language else "")
        oracle = rng.random() < oracle_share
        hits = oracle_hits(snapshot, cursor, text[start:end]) if oracle else snapshot.search(cursor, HITS)
        found = tuple(
            RetrievedChunk(
                hit.chunk.path, hit.chunk.start_line, hit.chunk.end_line, round(hit.score, 4), hit.chunk.header
            )
            for hit in hits
        )
        name = f"{folder.name}:{path}:{start}:{end}"
        blanks.append(Blank(name, repository, path, cursor.language, kind, variant, start, end, oracle, found))
    return unique(blanks)


def read_repository(folder: Path) -> dict[str, str]:
    """Return the texts of all files of a repository in the corpus, by the path relative to `folder`."""
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in sorted(folder.rglob("*.*"))
            if path.is_file()}  # fmt: skip


def oracle_hits(snapshot: Snapshot, cursor: Cursor, blank: str) -> Sequence[Hit]:
    """Return the hits of a query that includes the removed text `blank` (paper, section 4.1).

    By default, half of the training blanks have such hits, so that the model sees useful chunks often enough to learn
    to use them.
    """
    lines = 10
    query = last_lines(cursor.prefix, lines) + blank + first_lines(cursor.suffix, lines)
    return snapshot.query(query, HITS, exclude=cursor.path)


Span = tuple[str, BlankKind, str, int, int]


def draw_spans(files: Mapping[str, str], wanted: int, rng: random.Random) -> list[Span]:
    """Return (path, kind, variant, start, end) for each blank, sorted and without duplicates.

    About `wanted` blanks are drawn, but at most one for every 12 lines of `files`. Offsets are in characters.
    """
    wanted = min(wanted, sum(text.count("\n") for text in files.values()) // 12)
    first = {path: code_start(text) for path, text in files.items()}
    spans: list[Span] = []
    spans += _chunks(files, round(wanted * SHARES["chunk"]), rng)
    spans += _functions(files, round(wanted * SHARES["function"]), rng)
    for kind, draw_span in (("line", line_span), ("cursor", cursor_span)):
        spans += _line_spans(files, kind, draw_span, round(wanted * SHARES[kind]), rng)  # type: ignore[index,arg-type]
    return sorted({span for span in spans if span[3] >= first[span[0]]})


def code_start(text: str) -> int:
    """Return the offset of the first line that is neither blank nor a comment, that is, after any license header."""
    at = 0
    for line in text.splitlines(keepends=True):
        if line.strip() and not _COMMENT.match(line):
            return at
        at += len(line)
    return at


def _line_spans(
    files: Mapping[str, str],
    kind: BlankKind,
    draw_span: Callable[[str, int, random.Random], tuple[str, int, int] | None],
    wanted: int,
    rng: random.Random,
) -> Iterator[Span]:
    """Draw up to `wanted` spans, each from a random line of a random file.

    The probability of a file is proportional to its number of lines, of which at most 400 count.
    """
    paths = list(files)
    weights = [min(text.count("\n"), 400) for text in files.values()]
    drawn = 0
    for path in rng.choices(paths, weights, k=wanted * 4):
        text = files[path]
        starts = [0, *(match.end() for match in re.finditer("\n", text))]
        if span := draw_span(text, rng.choice(starts), rng):
            yield path, kind, *span
            if (drawn := drawn + 1) == wanted:
                return


def line_span(text: str, start: int, rng: random.Random) -> tuple[str, int, int] | None:
    """Return the line at `start` without its indentation (RepoEval's line task), as (variant, start, end).

    Return None if the line is a comment or has fewer than 6 characters without its indentation.
    """
    line = text[start:].partition("\n")[0]
    if len(line.strip()) < 6 or _COMMENT.match(line):
        return None
    return "whole", start + len(line) - len(line.lstrip()), start + len(line)


def cursor_span(text: str, start: int, rng: random.Random) -> tuple[str, int, int] | None:
    """Draw a cursor position in the line at `start`, and the end of the suggestion at this position.

    Return (variant, start, end), or None if the line has no suitable position.
    """
    line = text[start:].partition("\n")[0]
    if not line.strip() or (_COMMENT.match(line) and rng.random() < 0.8):
        return None
    draw = rng.random()
    if draw < 0.04:  # an empty blank at the end of a line, so that the model learns to complete nothing
        return "nothing", start + len(line), start + len(line)
    where, column = _column(line, rng)
    if column is None:
        return None
    begin, line_end = start + column, start + len(line)
    if where == "end":
        end = _next_lines(text, start, rng)
        return ("end/block", begin, end) if end > begin + 1 else None
    draw = rng.random()
    if draw < 0.25 and (closing := _CLOSING.search(line, column + 1)) and closing.start() > column:
        return f"{where}/inside", begin, start + closing.start()
    if draw < 0.55:
        end = block_end(text, start)
        if end > line_end:
            return f"{where}/block", begin, end
    return (f"{where}/line", begin, line_end) if text[begin:line_end].strip() else None


def _column(line: str, rng: random.Random) -> tuple[str, int | None]:
    """Draw a variant, and a cursor position of this variant in `line`.

    Return the variant and the column, which is None if the line has no such position.
    """
    indent = len(line) - len(line.lstrip())
    end = len(line.rstrip())
    draw = rng.random()
    if draw < 0.22:
        return "indent", indent
    if draw < 0.34:
        return "end", end
    if draw < 0.62:  # inside a word, because editors send requests while the user types a name
        inner = [at for word in re.finditer(r"\w{3,}", line) for at in range(word.start() + 1, word.end())]
        return "word", rng.choice(inner) if inner else None
    opened = r"[(\[{.,=]\s?|\s" if draw < 0.9 else r"\b"
    after = [match.end() for match in re.finditer(opened, line) if indent < match.end() < end]
    return ("after" if draw < 0.9 else "boundary"), rng.choice(after) if after else None


def block_end(text: str, start: int) -> int:
    """Return the offset of the end of the block that begins with the line at `start`.

    Blocks are found by indentation, because the code of all languages in the corpus is indented. The block contains the
    following lines with more indentation, or, if there are none, the following lines with the same indentation. After
    lines with more indentation, a line that closes a bracket also belongs to the block. The block has at most
    `BLOCK_END_LINES` lines after its first one, and ends before the first blank line.
    """
    lines = text[start:].split("\n", BLOCK_END_LINES + 1)
    own = _indent(lines[0])
    opens = len(lines) > 1 and lines[1].strip() != "" and _indent(lines[1]) > own
    taken = 1
    for line in lines[1 : BLOCK_END_LINES + 1]:
        if not line.strip():
            break
        if opens and _indent(line) <= own:
            taken += line.lstrip()[:1] in ")]}"
            break
        if _indent(line) < own or (not opens and line.lstrip()[:1] in ")]}"):
            break
        taken += 1
    return start + len("\n".join(lines[:taken]))


def _next_lines(text: str, start: int, rng: random.Random) -> int:
    """Return the end of the line after the line at `start`, or the end of the block that this next line begins.

    The choice is random. If the next line is blank, return `start`.
    """
    following = text.find("\n", start) + 1
    if not following or not (line := text[following:].partition("\n")[0]).strip():
        return start
    return following + len(line) if rng.random() < 0.4 else block_end(text, following)


def _chunks(files: Mapping[str, str], wanted: int, rng: random.Random) -> list[Span]:
    blocks: list[tuple[str, int, int]] = []  # path, first line, the line after the last; lines count from 0
    for path, text in files.items():
        count = text.count("\n")
        blocks += [(path, first, min(first + BLOCK_LINES, count)) for first in range(0, count, BLOCK_LINES)]
    blocks = rng.sample(blocks, min(len(blocks), MAX_BLOCKS))
    lines = {path: text.split("\n") for path, text in files.items()}
    texts = ["\n".join(lines[path][first:last]) for path, first, last in blocks]
    poisson = np.random.default_rng(rng.getrandbits(32))
    spans: list[Span] = []
    for number in representatives(texts, wanted, rng.getrandbits(32)):
        path, first, last = blocks[number]
        count = max(1, int(poisson.poisson(3)))
        at = rng.randrange(first, last)
        taken = lines[path][at : at + count]
        start = sum(len(line) + 1 for line in lines[path][:at])
        end = start + len("\n".join(taken))
        start += _indent(taken[0])
        if files[path][start:end].strip():
            spans.append((path, "chunk", f"{len(taken)} lines", start, end))
    return spans


def _functions(files: Mapping[str, str], wanted: int, rng: random.Random) -> list[Span]:
    found = [(path, start, end) for path, text in files.items() for start, end in bodies(path, text)]
    found = rng.sample(found, min(len(found), MAX_BLOCKS))
    texts = [files[path][start:end] for path, start, end in found]
    chosen = representatives(texts, wanted, rng.getrandbits(32))
    return [(path, "function", "body", start, end) for path, start, end in (found[number] for number in chosen)]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
