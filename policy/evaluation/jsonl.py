"""Reading JSONL that others wrote: a bad line costs that line, with its number, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .task import EvaluationError, Problem


class BadRow(Exception):
    """A row that is no task; `item` is its id, where it has one."""

    def __init__(self, reason: str, item: str = "") -> None:
        super().__init__(reason)
        self.item = item


def rows(file: Path, problems: list[Problem]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(`FILE:LINE`, object) of each line. What is no JSON object is added to `problems`.

    Raises `EvaluationError` when the file cannot be read at all.
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
            problems.append(Problem(item, "the file ends inside this line" if cut_off else f"no JSON: {error}"))
            continue
        if isinstance(row, dict):
            yield item, row
        else:
            problems.append(Problem(item, "not a JSON object"))


def text_of(row: Mapping[str, Any], name: str, item: str = "") -> str:
    """The text in a field. Raises `BadRow` where there is none."""
    value = row.get(name)
    if not isinstance(value, str):
        raise BadRow(f"`{name}` is {'missing' if value is None else 'not a text'}", item)
    return value
