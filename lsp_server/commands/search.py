"""`repoformer-lsp search`: print the chunks that a completion would retrieve after a given text."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.model import Cursor, shown_path
from lsp_server.commands.index import indexed
from lsp_server.report import hit_report, to_json
from policy.errors import ModelMissing

if TYPE_CHECKING:
    from indexer.model import Hit
    from indexer.snapshot import Snapshot
    from lsp_server.cli import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = subparsers.add_parser(
        "search",
        help="search a folder for code that is similar to a text",
        description="Search a folder for the chunks that are most similar to a text. A completion searches with the "
        "lines before the cursor.",
    )
    parser.add_argument("path", metavar="PATH", type=Path, help="the folder")
    parser.add_argument("--query", required=True, metavar="TEXT", help="the text to search for")
    parser.add_argument("-k", type=int, default=10, metavar="COUNT", help="maximum results (default: %(default)s)")
    parser.add_argument(
        "--embedding",
        type=Path,
        metavar="GGUF",
        help="rank by meaning instead, with this embedding model (MiniLM, UniXcoder, …); the first search of a "
        "folder takes minutes",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the chunks that are found, best first."""
    with indexed(options.path) as index:
        if options.embedding is not None:
            hits = _by_meaning(index.snapshot, options)
        else:
            hits = index.snapshot.query(options.query, options.k)
    if options.json:
        print(to_json([_row(hit) for hit in hits]))
        return 0
    for hit in hits:
        chunk = hit.chunk
        # With an embedding model, the hits are ordered by meaning, but their score is the similarity of the words. This
        # score does not explain the order, so it is not printed.
        score = f"{hit.score:.3f}  " if options.embedding is None else ""
        print(f"{score}{shown_path(chunk.path)}:{chunk.start_line}-{chunk.end_line}  {_title(hit)}")
    if not hits:
        print("nothing found")
    return 0


def _by_meaning(snapshot: Snapshot, options: argparse.Namespace) -> tuple[Hit, ...]:
    # Imported only here, because only this function needs the engine.
    from indexer.retrieval.embedding import EmbeddingRetriever, Vectors
    from lsp_server.core import cache_dir
    from policy.engine.embedding import embedding_model, name_of

    model: Path = options.embedding.absolute()
    if not model.is_file():
        raise ModelMissing(f"no model at {model}")
    # The vectors are in the folder of the saved indexes, so that a user who deletes the indexes also deletes them.
    file = cache_dir() / "index" / "vectors.sqlite3"
    with (
        embedding_model(model, memory=cache_dir() / "engine.json") as embed,
        closing(Vectors(embed, name_of(model), file)) as vectors,
    ):
        return EmbeddingRetriever.of(snapshot, vectors).search(Cursor("", options.query, "", ""), options.k)


def _row(hit: Hit) -> dict[str, object]:
    return {**hit_report(hit), "kind": hit.chunk.kind, "text": hit.chunk.text}


def _title(hit: Hit) -> str:
    lines = hit.chunk.header or hit.chunk.text.strip()
    return lines.splitlines()[0].strip() if lines else ""
