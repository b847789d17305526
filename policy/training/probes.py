"""Step 4b, `train probes`: draw more decision positions, with labels that need no model.

A label from completions takes seconds per blank, and a few hundred labels are too few to learn a decision. Retrieved
chunks help mainly if they contain a name that the completion needs and that the prompt does not show otherwise: on 88
validation blanks, chunks with such a name lowered -ln P of the truth by 13.7 nats, and other chunks by 0.3 nats.
Whether chunks contain such a name can be computed without a model. Each training blank therefore gets *probes*:
positions before the blank in the same file. The label of a probe says whether the chunks retrieved at this position
contain an identifier of the next lines that is not visible before or after the position.

L is the text before the cursor, and R the text after it. In layouts that end with `L <eof>`, a probe adds one token to
a sequence instead of a whole sequence: an extra `<eof>` that attends to R and to L up to the position of the probe
(`loss.hidden_with_probes`). The label is only an approximation of whether retrieval raises edit similarity. Therefore
gates and thresholds are fitted on edit similarity itself.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from indexer.model import Cursor, Hit
from indexer.snapshot import Snapshot

from . import manifest
from .blanks import HITS, Blank, eligible, load, read_repository

LINES = 18  # lines before the blank in which probes are drawn
NEXT_LINES = 3  # lines that are searched for needed names: the rest of the probe's line and the two lines after it
# Characters of L, of R and of the chunks that a prompt shows, at about 3.5 characters per token.
LEFT, RIGHT, CONTEXT = 900, 340, 900
_IDENTIFIER = re.compile(r"[^\W\d]\w{2,}")
# Positions at which a token always ends: before white space, and before a word that follows an opening bracket, a dot,
# a comma or an equals sign.
_TOKEN_BORDERS = re.compile(r"(?<=\S)(?=\s)|(?<=[(\[{.,=])(?=\w)")

Probe = tuple[int, bool]  # the offset in the file, and whether the retrieved chunks contain a needed name


def run(out: Path, corpus: Path, blanks: Path, limit: int = 0, each: int = 6, seed: int = 0) -> None:
    """Draw up to `each` probes for each of `limit` training blanks (0: all).

    An interrupted run resumes after the last finished repository.
    """
    corpus = corpus.resolve()  # the search excludes the blank's own file by its absolute path
    manifest.begin(out, "probes", {"corpus": corpus, "blanks": blanks}, {"limit": limit, "each": each, "seed": seed})
    if manifest.read(out)["done"]:
        return
    by_repository: dict[str, list[Blank]] = defaultdict(list)
    for blank in eligible(load(blanks / "train.jsonl"), limit, seed):
        by_repository[blank.repository].append(blank)
    parts = out / "parts"
    parts.mkdir(exist_ok=True)
    for repository, own in tqdm(sorted(by_repository.items()), desc="probes", unit="repository"):
        part = parts / (repository.replace("/", "~") + ".jsonl")
        if not part.exists():
            rows = draw(corpus / repository, own, each, seed)
            temporary = part.with_suffix(".new")
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
            temporary.replace(part)
    text = "".join(part.read_text("utf-8") for part in sorted(parts.glob("*.jsonl")))
    (out / "train.jsonl").write_text(text, "utf-8")
    found = [helpful for probes in read(out / "train.jsonl").values() for _, helpful in probes]
    manifest.finish(out, probes=len(found), positive=sum(found) / max(len(found), 1))


def read(path: Path) -> dict[str, list[Probe]]:
    """Return the probes in a file, by the id of their blank."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {row["id"]: [(int(at), bool(helpful)) for at, helpful in row["probes"]] for row in rows}


def draw(folder: Path, blanks: Sequence[Blank], each: int, seed: int) -> list[dict[str, object]]:
    """Draw probes for blanks of the repository at the absolute path `folder`.

    Return a row for each blank: its `id`, and its `probes` as pairs [offset, whether the chunks have a needed name].
    """
    files = read_repository(folder)
    snapshot = Snapshot.of(files.items(), root=str(folder))
    rows: list[dict[str, object]] = []
    for blank in blanks:
        rng = random.Random(f"{seed} {blank.id}")
        text = files[blank.path]
        positions = _positions(text, blank.start)
        chosen = sorted(rng.sample(positions, min(each, len(positions))))
        probes = [[at, _helpful(snapshot, str(folder / blank.path), blank.language, text, at)] for at in chosen]
        rows.append({"id": blank.id, "probes": probes})
    return rows


def needed(before: str, missing: str, after: str) -> set[str]:
    """Return the identifiers of `missing` that a prompt does not show before or after the cursor.

    The prompt shows the last `LEFT` characters of `before` and the first `RIGHT` characters of `after`.
    """
    visible = {*_IDENTIFIER.findall(before[-LEFT:]), *_IDENTIFIER.findall(after[:RIGHT])}
    return set(_IDENTIFIER.findall(missing)) - visible


def _positions(text: str, end: int) -> list[int]:
    start = end
    for _ in range(LINES):
        start = max(0, text.rfind("\n", 0, start))
    return [match.start() for match in _TOKEN_BORDERS.finditer(text, start, end)]


def _helpful(snapshot: Snapshot, path: str, language: str, text: str, at: int) -> bool:
    stop = at
    for _ in range(NEXT_LINES):
        stop = text.find("\n", stop + 1)
        if stop < 0:
            stop = len(text)
            break
    wanted = needed(text[:at], text[at:stop], text[stop:])
    if not wanted:
        return False
    return bool(wanted & _shown(snapshot.search(Cursor(path, text[:at], text[stop:], language), HITS)))


def _shown(hits: Sequence[Hit]) -> set[str]:
    return set(_IDENTIFIER.findall("\n".join(hit.chunk.text for hit in hits)[:CONTEXT]))
