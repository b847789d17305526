"""Step 4b, `train probes`: many more places to judge, from a label that needs no model.

A label by completing costs seconds a blank, and a decision learned from a few hundred of them is hardly one. But what
retrieved code gives a completion is, above all, the names that it needs and cannot see: on 88 validation blanks it
raised the likelihood of those for which it held such a name by 13.7 nats, and of the others by 0.3. Whether it holds
one can be looked up. So each training blank gets *probes*: places in the left context of the same file, with the
answer to "do the chunks that retrieval finds here hold an identifier of what comes next that stands neither before nor
after the cursor within reach?".

In layouts that end with `L <eof>` the probes of a blank cost a token each, not a sequence: a probe is one more `<eof>`
that sees R and L up to its place (`loss.hidden_states`). The label is a proxy. It teaches where to look; thresholds
and calibration are fitted on edit similarity all the same.
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

LINES = 18  # how far before the blank a probe may stand
NEXT_LINES = 3  # what comes next: the rest of the line and the two after it
# What a prompt shows, in characters: about three and a half a token.
LEFT, RIGHT, CONTEXT = 900, 340, 900
_IDENTIFIER = re.compile(r"[^\W\d]\w{2,}")
# Places that are the border of a token however a line is tokenised: before white space, and behind a bracket or a dot.
_PLACES = re.compile(r"(?<=\S)(?=\s)|(?<=[(\[{.,=])(?=\w)")

Probe = tuple[int, bool]  # offset in the file; whether retrieval holds a name that is needed there


def run(out: Path, corpus: Path, blanks: Path, limit: int = 0, each: int = 6, seed: int = 0) -> None:
    """Draw up to `each` probes for each of `limit` training blanks (0: all), resumable by repository."""
    corpus = corpus.resolve()  # a file is known to be a blank's own by its absolute path
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
    """Probes by the id of their blank."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {row["id"]: [(int(at), bool(helpful)) for at, helpful in row["probes"]] for row in rows}


def draw(folder: Path, blanks: Sequence[Blank], each: int, seed: int) -> list[dict[str, object]]:
    """Rows (id, probes) for blanks of the repository in the absolute `folder`."""
    files = read_repository(folder)
    snapshot = Snapshot.of(files.items(), root=str(folder))
    rows: list[dict[str, object]] = []
    for blank in blanks:
        rng = random.Random(f"{seed} {blank.id}")
        text = files[blank.path]
        places = _places(text, blank.start)
        chosen = sorted(rng.sample(places, min(each, len(places))))
        probes = [[at, _helpful(snapshot, str(folder / blank.path), blank.language, text, at)] for at in chosen]
        rows.append({"id": blank.id, "probes": probes})
    return rows


def needed(before: str, missing: str, after: str) -> set[str]:
    """Identifiers of `missing` that stand neither in `before` nor in `after` as far as a prompt shows them."""
    visible = {*_IDENTIFIER.findall(before[-LEFT:]), *_IDENTIFIER.findall(after[:RIGHT])}
    return set(_IDENTIFIER.findall(missing)) - visible


def _places(text: str, end: int) -> list[int]:
    start = end
    for _ in range(LINES):
        start = max(0, text.rfind("\n", 0, start))
    return [match.start() for match in _PLACES.finditer(text, start, end)]


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
