"""Read JSONL data sets. An invalid line becomes a problem with its line number, and the other lines are still read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .task import EvaluationError, Problem


class BadRow(Exception):
    """A row that is not a valid task. `item` is its id, if it has one."""

    def __init__(self, reason: str, item: str = "") -> None:
        super().__init__(reason)
        self.item = item


def rows(file: Path, problems: list[Problem]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ("FILE:LINE", object) for each line that is a JSON object, and add each other line to `problems`.

    Raises `EvaluationError` if the file cannot be read.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise EvaluationError(f"{file} cannot be read: {error.strerror}") from error
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        item = f"{file.name}:{number}"
        try:
            row = json.loads(line.decode("utf-8"))
        except ValueError as error:
            cut_off = number == len(lines)
            problems.append(Problem(item, "the file ends inside this line" if cut_off else f"not JSON: {error}"))
            continue
        if isinstance(row, dict):
            yield item, row
        else:
            problems.append(Problem(item, "not a JSON object"))


def text_of(row: Mapping[str, Any], name: str, item: str = "") -> str:
    """Return the text in the field `name`. Raises `BadRow`, with the id `item`, if the field has no text."""
    value = row.get(name)
    if not isinstance(value, str):
        raise BadRow(f"`{name}` is {'missing' if value is None else 'not a text'}", item)
    return value
