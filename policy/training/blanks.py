"""Step 2, `train blanks`: where in the corpus a model is asked to fill in, and what retrieval finds for it.

Three families. *Chunk* and *function* blanks are the paper's (section 4.1): blocks (or functions) are clustered over
TF-IDF so that boilerplate does not win by number, one is taken a cluster, and a Poisson number of lines (or the body)
is cut out. *Cursor* blanks are what an editor asks for and the paper does not have: they begin at a character (a
half-typed word, after an open bracket, at the indentation of a new line, at the end of a line) and end where a person
would want the suggestion to end: with the line, before the bracket that the editor has closed already, or with the
block. *Line* blanks are RepoEval's whole lines.

A blank is stored by offsets, its retrieved chunks by line numbers: 100,000 blanks are some megabytes, and the corpus
stays the one copy of the text. Output: `OUT/<split>.jsonl` and a manifest.
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
HITS = 6
BLOCK_LINES = 10
MAX_BLOCKS = 3000  # of a repository, before clustering
BLOCK_END_LINES = 10  # the longest block that a cursor blank asks for
_COMMENT = re.compile(r"\s*(#|//|/\*|\*|\"\"\"|'''|<!--)")
_CLOSING = re.compile(r"[)\]}>'\";:,\s{]+$")


@dataclass(frozen=True, slots=True)
class Found:
    """A retrieved chunk by place; its text is in the corpus. `header` as in `indexer.model.Chunk`."""

    path: str
    start_line: int
    end_line: int
    score: float
    header: str = ""


@dataclass(frozen=True, slots=True)
class Blank:
    """Characters `start` to `end` of a file, taken out. `oracle`: the hits were found with the blank's own text."""

    id: str
    repository: str
    path: str
    language: str
    kind: BlankKind
    variant: str
    start: int
    end: int
    oracle: bool
    hits: tuple[Found, ...]


def run(out: Path, corpus: Path, per_repository: int = 300, oracle_share: float = 0.5, seed: int = 0) -> None:
    """Draw up to `per_repository` blanks of each repository, half of the training ones with oracle retrieval.

    Resumable by repository. Validation and test blanks are never retrieved with their own text.
    """
    corpus = corpus.resolve()  # a file is known to be a blank's own by its absolute path
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
    """The blanks of one split."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Blank(**{**row, "hits": tuple(Found(**hit) for hit in row["hits"])}) for row in rows]


def eligible(data: Sequence[Blank], limit: int, seed: int) -> list[Blank]:
    """Blanks that can be labelled, in a fixed random order."""
    found = [blank for blank in data if blank.hits and not blank.oracle and blank.end > blank.start]
    random.Random(seed).shuffle(found)
    return unique(found)[: limit or None]


def unique(data: Iterable[Blank]) -> list[Blank]:
    """The first blank of each id: one span can be drawn as several kinds, and labels go by the id."""
    found: dict[str, Blank] = {}
    for blank in data:
        found.setdefault(blank.id, blank)
    return list(found.values())


def draw(folder: Path, wanted: int, oracle_share: float, seed: int) -> list[Blank]:
    """Blanks of the repository in the absolute `folder`, about `wanted` of them, in no order."""
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
            Found(hit.chunk.path, hit.chunk.start_line, hit.chunk.end_line, round(hit.score, 4), hit.chunk.header)
            for hit in hits
        )
        name = f"{folder.name}:{path}:{start}:{end}"
        blanks.append(Blank(name, repository, path, cursor.language, kind, variant, start, end, oracle, found))
    return unique(blanks)


def read_repository(folder: Path) -> dict[str, str]:
    """Every text of a repository of the corpus, by relative path."""
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in sorted(folder.rglob("*.*"))
            if path.is_file()}  # fmt: skip


def oracle_hits(snapshot: Snapshot, cursor: Cursor, blank: str) -> Sequence[Hit]:
    """What retrieval would find if it knew the answer (paper, section 4.1): the blank's text is part of the query.

    Half of the training blanks get it, so that reading context pays often enough to be learned.
    """
    lines = 10
    query = last_lines(cursor.prefix, lines) + blank + first_lines(cursor.suffix, lines)
    return snapshot.query(query, HITS, exclude=cursor.path)


Span = tuple[str, BlankKind, str, int, int]


def draw_spans(files: Mapping[str, str], wanted: int, rng: random.Random) -> list[Span]:
    """(path, kind, variant, start, end) of each blank, at most one of a kind in the same place."""
    wanted = min(wanted, sum(text.count("\n") for text in files.values()) // 12)
    first = {path: code_start(text) for path, text in files.items()}
    spans: list[Span] = []
    spans += _chunks(files, round(wanted * SHARES["chunk"]), rng)
    spans += _functions(files, round(wanted * SHARES["function"]), rng)
    for kind, place in (("line", line_span), ("cursor", cursor_span)):
        spans += _places(files, kind, place, round(wanted * SHARES[kind]), rng)  # type: ignore[index,arg-type]
    return sorted({span for span in spans if span[3] >= first[span[0]]})


def code_start(text: str) -> int:
    """Offset of the first line that is neither empty nor a comment: nobody completes a licence header."""
    at = 0
    for line in text.splitlines(keepends=True):
        if line.strip() and not _COMMENT.match(line):
            return at
        at += len(line)
    return at


def _places(
    files: Mapping[str, str],
    kind: BlankKind,
    place: Callable[[str, int, random.Random], tuple[str, int, int] | None],
    wanted: int,
    rng: random.Random,
) -> Iterator[Span]:
    """Lines drawn with the length of their file, but no file more than a few times."""
    paths = list(files)
    weights = [min(text.count("\n"), 400) for text in files.values()]
    made = 0
    for path in rng.choices(paths, weights, k=wanted * 4):
        text = files[path]
        starts = [0, *(match.end() for match in re.finditer("\n", text))]
        if span := place(text, rng.choice(starts), rng):
            yield path, kind, *span
            if (made := made + 1) == wanted:
                return


def line_span(text: str, start: int, rng: random.Random) -> tuple[str, int, int] | None:
    """The whole line at `start` without its indentation: RepoEval's line task."""
    line = text[start:].partition("\n")[0]
    if len(line.strip()) < 6 or _COMMENT.match(line):
        return None
    return "whole", start + len(line) - len(line.lstrip()), start + len(line)


def cursor_span(text: str, start: int, rng: random.Random) -> tuple[str, int, int] | None:
    """A place in the line at `start` where an editor would ask, and where the suggestion should end."""
    line = text[start:].partition("\n")[0]
    if not line.strip() or (_COMMENT.match(line) and rng.random() < 0.8):
        return None
    draw = rng.random()
    if draw < 0.04:  # nothing is missing: the model should say so
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
    """How the cursor stands in the line, and its column."""
    indent = len(line) - len(line.lstrip())
    end = len(line.rstrip())
    draw = rng.random()
    if draw < 0.22:
        return "indent", indent
    if draw < 0.34:
        return "end", end
    if draw < 0.62:  # half a word: editors ask while a name is being typed
        inner = [at for word in re.finditer(r"\w{3,}", line) for at in range(word.start() + 1, word.end())]
        return "word", rng.choice(inner) if inner else None
    opened = r"[(\[{.,=]\s?|\s" if draw < 0.9 else r"\b"
    after = [match.end() for match in re.finditer(opened, line) if indent < match.end() < end]
    return ("after" if draw < 0.9 else "boundary"), rng.choice(after) if after else None


def block_end(text: str, start: int) -> int:
    """Where the block that begins with the line at `start` ends: its deeper lines, or the rest of its own level.

    Judged by indentation alone, which all languages of the corpus share; a closing line at the opening line's own
    level belongs to the block. At most `BLOCK_END_LINES` lines, and up to the first blank line on its own level.
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
    """End of the next line, or of the block it begins, for a cursor at the end of the line at `start`."""
    following = text.find("\n", start) + 1
    if not following or not (line := text[following:].partition("\n")[0]).strip():
        return start
    return following + len(line) if rng.random() < 0.4 else block_end(text, following)


def _chunks(files: Mapping[str, str], wanted: int, rng: random.Random) -> list[Span]:
    blocks: list[tuple[str, int, int]] = []  # path, first line, one past the last
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
