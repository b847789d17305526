"""Judge what an editor would show of a generation.

The generation is shaped like an automatic completion. The shown text is compared with the original file: whether the
text is exactly correct to the end of its line, how many of its characters the user would keep, and whether it adds a
syntax error. The features from which `policy.gating.keep` estimates whether the user keeps the text are recorded too,
so that estimates can be fitted and compared without running the model again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from indexer.languages import parser_for
from indexer.model import Cursor, Hit
from policy.common_prefix import common_prefix
from policy.completion.shape import Shaper
from policy.engine.messages import Completed, Surprise
from policy.gating import keep

from .task import Task

LARGEST = 200_000  # the syntax is not checked if there are more characters than this before or after the cursor


@dataclass(frozen=True, slots=True)
class Shown:
    """The part of a generated text that an editor would show (`text`), which is empty if the editor shows nothing.

    `right` says whether the file with `text` is the same as the original file, from the cursor to the end of the first
    line that is not blank. `kept` is the number of leading characters of `text` that are the same in the original file.
    `breaks` says whether the file has more syntax errors with `text` than without it. `values` has the features of
    `policy.gating.keep` by name, and is empty if the editor shows nothing.
    """

    text: str
    right: bool
    kept: int
    breaks: bool
    values: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON-compatible values, with rounded numbers."""
        return {**asdict(self), "values": {name: round(value, 5) for name, value in self.values.items()}}


def from_json(told: Mapping[str, Any]) -> Shown:
    """Return the `Shown` with the fields in `told`, a result of `to_json`."""
    return Shown(**told)


def shown_of(task: Task, completed: Completed, hits: Sequence[Hit]) -> Shown:
    """Return what an editor would show of the generation `completed`, whose prompt contained the chunks of `hits`."""
    cursor, written = task.cursor, completed.text
    text = Shaper(cursor, bodies=False).finish(written, complete=completed.ended).text
    if not text:
        return Shown("", False, 0, False, {})
    surprises = [Surprise(*each) for each in zip(completed.ends, completed.surprises, strict=False)]
    if completed.ended:
        surprises.pop()  # the surprise of the end token, which has no text
    values = keep.features(
        cursor,
        text,
        keep.aligned(written, text, surprises),
        hits,
        shortened=keep.is_shortened(written, text),
    )
    truth = task.truth + cursor.suffix
    right = bool(task.truth.strip()) and _line(text + cursor.suffix) == _line(truth)
    kept = common_prefix(text, truth) if task.truth else 0
    named = {str(name): value for name, value in (values or {}).items()}
    return Shown(text, right, kept, _breaks(cursor, text), named)


def _line(text: str) -> str:
    """Return `text` up to the end of its first line that is not blank."""
    at = len(text) - len(text.lstrip())
    return text[:at] + text[at:].partition("\n")[0].rstrip()


def _breaks(cursor: Cursor, text: str) -> bool:
    parser = parser_for(cursor.language)
    if parser is None or max(len(cursor.prefix), len(cursor.suffix)) > LARGEST:
        return False
    before, after = (
        parser.parse(whole.encode("utf-8", "replace"))
        for whole in (cursor.prefix + cursor.suffix, cursor.prefix + text + cursor.suffix)
    )
    return _errors(after.root_node) > _errors(before.root_node)


def _errors(root: Any) -> int:
    """Return the number of `ERROR` and `MISSING` nodes in the syntax tree below `root`."""
    count, stack = 0, [root]
    while stack:
        node = stack.pop()
        count += node.is_error or node.is_missing
        stack += [child for child in node.children if child.has_error]
    return count
