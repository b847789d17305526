"""A valid file of every language that has a grammar, by the id of the language."""

from __future__ import annotations

from pathlib import Path

SNIPPETS = {path.stem: path.read_text("utf-8") for path in sorted(Path(__file__).parent.glob("*.txt"))}
