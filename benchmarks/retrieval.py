"""Measure retrieval quality without a model: how many of the names that a completion needs are in the retrieved text.

    python -m benchmarks.retrieval REPOSITORY… [--json] [--blanks N] [--jobs N]

The benchmark removes texts of 1 to 10 lines, the *blanks*, from files of real repositories. The lengths follow the
distribution Poisson(3), as in the paper's training data. The *missing* identifiers of a blank are those that occur
nowhere else in its file. The *recall* of a blank is the share of its missing identifiers that the retrieved text
contains. This text is formatted as in the prompt, with paths and comment signs, and has at most 512 tokens.

The benchmark prints the mean recall of the blanks for each method of retrieval, with a 95% interval from resampling
whole repositories. The measure needs no model, so it is exact and fast, but it does not show how well a model uses the
retrieved text.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.machine import describe
from indexer.chunking import Chunking
from indexer.languages import language_of, parser_for
from indexer.model import Chunk, Cursor, Hit
from indexer.reading import decode
from indexer.retrieval import RetrieverName
from indexer.retrieval.embedding import EmbeddingRetriever, Vectors
from indexer.rules import Rules
from indexer.settings import IndexSettings
from indexer.snapshot import Snapshot
from indexer.words import words
from policy.engine.embedding import embedding_model

BUDGET = 512  # the largest number of tokens in the retrieved text
TOP = 10  # the number of hits of a search
_PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d|[^\w\s]+|_|\n\s*")
_NAME_NODES = re.compile(r"(?:.*_)?identifier|constant|name|word|variable_name")


@dataclass(frozen=True, slots=True)
class Blank:
    """A cursor, and the text that was removed there.

    `missing` has the identifiers of the text that occur nowhere else in its file. `reachable` has those missing
    identifiers that occur in another file of the repository.
    """

    repository: str
    cursor: Cursor
    text: str
    missing: frozenset[str]
    reachable: frozenset[str]


def tokens(text: str) -> int:
    """Return an estimate of the number of tokens in code.

    On seven repositories of five languages, it differs by at most 12% from the number of SmolLM2's tokens.
    """
    return sum(
        1 if piece.isspace() else 1 + (len(piece) - 1) // (7 if piece[0].isalpha() else 3)
        for piece in _PIECE.findall(text)
    )


def rendered(chunks: Iterable[Chunk], comment: str, budget: int = BUDGET) -> str:
    """Return the text of `chunks`, formatted as in a prompt, with as many whole lines as fit into `budget` tokens."""
    lines = [f"{comment}Here are some relevant code fragments from other files of the repo:", ""]
    for chunk in chunks:
        lines.append(f"{comment}the below code fragment can be found in:")
        lines.append(comment + chunk.path)
        lines.extend(comment + line for line in chunk.text.split("\n"))
        lines.append("")
    spent = 0
    for number, line in enumerate(lines):
        spent += tokens(line + "\n")
        if spent > budget:
            return "\n".join(lines[:number])
    return "\n".join(lines)


def recall(blank: Blank, hits: Sequence[Hit]) -> float:
    """Return the share, in [0, 1], of a blank's missing identifiers that the text of `hits` contains."""
    language = language_of(blank.cursor.path)
    found = words(rendered((hit.chunk for hit in hits), language.comment if language else "# "))
    return len(blank.missing & found) / len(blank.missing)


def files_of(repository: Path) -> dict[str, str]:
    """Return the text of each file that the index of a repository would contain, by path."""
    files = {}
    for entry in Rules(repository, IndexSettings()).walk():
        text = decode((repository / entry.path).read_bytes())
        if isinstance(text, str):
            files[entry.path] = text.replace("\r\n", "\n")
    return dict(sorted(files.items()))


def identifiers(text: str, language_id: str, first: int, last: int) -> frozenset[str]:
    """Return the identifiers in the rows of a text from `first` up to, but not including, `last`.

    Rows are zero-based. Identifiers are found in the syntax tree, so words in comments and strings do not count.
    """
    parser = parser_for(language_id)
    if parser is None:
        return frozenset()
    found: set[str] = set()
    source = text.encode()
    todo = [parser.parse(source).root_node]
    while todo:
        node = todo.pop()
        if node.end_point.row < first or node.start_point.row >= last:
            continue
        if node.child_count:
            todo.extend(node.children)
        elif _NAME_NODES.fullmatch(node.type) and node.start_point.row >= first:
            found.update(words(source[node.start_byte : node.end_byte].decode()))
    return frozenset(name for name in found if len(name) > 1 and not name.isdigit())


def cut_blanks(name: str, files: Mapping[str, str], count: int, seed: int = 0) -> list[Blank]:
    """Return up to `count` random blanks, each with a missing identifier, and at most eight per file.

    The blanks are the same for the same repository and `seed`.
    """
    rng = random.Random(f"{seed} {name}")
    where: dict[str, int] = {}
    sets = {path: words(text) for path, text in files.items()}
    for held in sets.values():
        for word in held:
            where[word] = where.get(word, 0) + 1
    candidates = [p for p, t in files.items() if t.count("\n") >= 20 and (at := language_of(p)) and at.grammar]
    blanks: list[Blank] = []
    taken: dict[str, int] = {}
    for _ in range(60 * count):
        if len(blanks) >= count or not candidates:
            break
        path = rng.choice(candidates)
        blank = _blank(name, path, files[path], rng)
        if blank is None or taken.get(path, 0) >= 8:
            continue
        # `where` is the number of files with the word. One of them is the file of the blank.
        reachable = frozenset(word for word in blank.missing if where[word] > 1)
        taken[path] = taken.get(path, 0) + 1
        blanks.append(Blank(name, blank.cursor, blank.text, blank.missing, reachable))
    return blanks


def _blank(name: str, path: str, text: str, rng: random.Random) -> Blank | None:
    lines = text.split("\n")
    first = rng.randrange(3, len(lines) - 1)
    length = max(1, min(10, sum(rng.random() < 0.1 for _ in range(30))))  # approximately Poisson(3)
    last = min(first + length, len(lines) - 1)
    cut = "\n".join(lines[first:last])
    if not cut.strip():
        return None
    prefix, suffix = "\n".join(lines[:first]) + "\n", "\n" + "\n".join(lines[last:])
    language = language_of(path)
    missing = identifiers(text, language.id if language else "", first, last) - words(prefix) - words(suffix)
    if not missing:
        return None
    return Blank(
        name, Cursor(f"/{name}/{path}", prefix, suffix, language.id if language else ""), cut, missing, missing
    )


def aligned(snapshot: Snapshot, hits: Sequence[Hit]) -> list[Hit]:
    """Replace each hit by the chunk after it in its file. The Repoformer paper and RepoCoder do this.

    They call it fragment alignment.
    """
    return [Hit(snapshot.following(hit.chunk) or hit.chunk, hit.score) for hit in hits]


@dataclass(frozen=True, slots=True)
class Method:
    """A method of retrieval: how files are cut into chunks, and how chunks are ranked.

    `aligned` says whether fragment alignment replaces each hit by the chunk after it.
    """

    name: str
    chunking: Chunking
    retriever: RetrieverName
    aligned: bool = False

    def hits(self, snapshot: Snapshot, blank: Blank) -> Sequence[Hit]:
        """Return the hits at the cursor of a blank."""
        hits = replace(snapshot, retriever=self.retriever).search(blank.cursor, TOP)
        return aligned(snapshot, hits) if self.aligned else hits


@dataclass(frozen=True, slots=True)
class ByVectors:
    """A method that ranks chunks by the cosine similarity of embeddings.

    This method is slow, so it is measured only with the option `--embedding`.
    """

    name: str
    chunking: Chunking


_CHUNKINGS = {
    "window 20/10": Chunking(style="window"),
    "window 50/25": Chunking(style="window", window_lines=50, window_stride=25),
    "structure": Chunking(),
}
_RETRIEVERS: tuple[RetrieverName, ...] = ("jaccard", "bm25", "weighted_ngram", "proximity")
PAPER = Method("window 20/10, jaccard, aligned", _CHUNKINGS["window 20/10"], "jaccard", aligned=True)
METHODS = (
    PAPER,
    Method("window 50/25, jaccard, aligned", _CHUNKINGS["window 50/25"], "jaccard", aligned=True),
    *(
        Method(f"{name}, {retriever}", _CHUNKINGS[name], retriever)
        for name in ("window 20/10", "structure")
        for retriever in _RETRIEVERS
    ),
)


BY_VECTORS = tuple(ByVectors(f"{name}, embedding", _CHUNKINGS[name]) for name in ("window 20/10", "structure"))


def measure(repository: Path, count: int, embedding: Path | None = None) -> dict[str, list[float]]:
    """Return the recall of each blank of a repository, by the name of the method.

    The name "reachable" has the highest possible recall of each blank. `embedding` is the GGUF file of an embedding
    model, or None.
    """
    files = files_of(repository)
    blanks = cut_blanks(repository.name, files, count)
    recalls: dict[str, list[float]] = {"reachable": [len(b.reachable) / len(b.missing) for b in blanks]}
    for chunking in _CHUNKINGS.values():
        snapshot = Snapshot.of(files.items(), chunking, root=f"/{repository.name}")
        for method in METHODS:
            if method.chunking == chunking:
                recalls[method.name] = [recall(blank, method.hits(snapshot, blank)) for blank in blanks]
        for by_vectors in BY_VECTORS:
            if embedding is not None and by_vectors.chunking == chunking:
                recalls[by_vectors.name] = _measure_vectors(embedding, snapshot, blanks)
    return recalls


def _measure_vectors(model: Path, snapshot: Snapshot, blanks: Sequence[Blank]) -> list[float]:
    with embedding_model(model) as embed, closing(Vectors(embed, model.name)) as vectors:
        retriever = EmbeddingRetriever.of(snapshot, vectors)
        return [recall(blank, retriever.search(blank.cursor, TOP)) for blank in blanks]


# For each blank of a repository: the recall of a method, and the recall of the paper's method.
Pairs = Sequence[tuple[float, float]]


def interval(values: Sequence[Pairs], statistic: Callable[[Sequence[Pairs]], float]) -> list[float]:
    """Return the 95% interval [low, high] of a statistic, from resampling repositories.

    `values` has an entry for each repository.
    """
    rng = random.Random(0)
    drawn = sorted(statistic(rng.choices(values, k=len(values))) for _ in range(1_000))
    return [round(drawn[25], 4), round(drawn[974], 4)]


def summarize(results: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """Return the mean recall of each method, and its relative gain over the paper's method, both with 95% intervals.

    `results` has the return value of `measure` for each repository.
    """
    methods = {}
    names = [*(method.name for method in METHODS), *(method.name for method in BY_VECTORS)]
    for name in [name for name in names if all(name in of for of in results.values())]:
        pairs = [list(zip(of[name], of[PAPER.name], strict=True)) for of in results.values() if of[PAPER.name]]
        gain = _gain(pairs)
        methods[name] = {
            "recall": round(fmean(mine for repository in pairs for mine, _ in repository), 4),
            "interval": interval(pairs, lambda drawn: fmean(mine for repository in drawn for mine, _ in repository)),
            "gain": round(gain, 4),
            "gain_interval": interval(pairs, _gain),
        }
    reachable = [value for of in results.values() for value in of["reachable"]]
    return {
        "blanks": len(reachable),
        "repositories": len(results),
        "reachable": round(fmean(reachable), 4),
        "methods": methods,
    }


def _gain(pairs: Sequence[Pairs]) -> float:
    mine = fmean(value for repository in pairs for value, _ in repository)
    return mine / max(fmean(value for repository in pairs for _, value in repository), 1e-9) - 1


def table(result: dict[str, Any]) -> str:
    """Return the figures as a text of several lines."""
    lines = [
        f"{result['blanks']} blanks of {result['repositories']} repositories, {BUDGET} tokens, top {TOP}; "
        f"{result['reachable']:.1%} of the missing identifiers occur elsewhere in the repository",
        f"{'':34}{'recall':>8}   95% interval    against the paper's",
    ]
    for name, figures in result["methods"].items():
        low, high = figures["interval"]
        worse, better = figures["gain_interval"]
        gain = f"{figures['gain']:+.1%} ({worse:+.1%} to {better:+.1%})"
        lines.append(f"{name:34}{figures['recall']:8.4f}   {low:.4f}-{high:.4f}   {gain}")
    return "\n".join([*lines, f"{result['machine']}; {result['seconds']} s"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("repositories", nargs="+", type=Path, metavar="REPOSITORY")
    parser.add_argument("--blanks", type=int, default=100, help="blanks per repository (default: 100)")
    parser.add_argument("--jobs", type=int, default=1, help="repositories to measure in parallel")
    parser.add_argument("--embedding", type=Path, metavar="GGUF", help="also rank with this embedding model (slow)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        paths = [path.absolute() for path in options.repositories]
        measured = pool.map(measure, paths, repeat(options.blanks), repeat(options.embedding))
        results = {path.name: recalls for path, recalls in zip(paths, measured, strict=True)}
    result = summarize(results) | {"machine": describe(), "seconds": round(time.perf_counter() - started)}
    print(json.dumps(result) if options.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
