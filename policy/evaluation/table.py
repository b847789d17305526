"""The results: a line of CSV a blank, written as soon as it is known, readable by anything.

Texts are JSON strings inside their cells, so that a blank is one line whatever it holds: two runs can be compared with
`diff`, and a run that was killed loses at most the line it was writing.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.gating.evidence import Evidence
from policy.gating.gate import Gate, Known, Scope

from . import shown
from .shown import Shown
from .task import EvaluationError

# What a row's tests say: that they pass, or (at the beginning of it) that they could not be run.
PASS, NOT_RUN = "pass", "not run"
HELPED_NATS, HELPED_SHARE = 1.0, 0.04  # least fall of the cost of the truth that counts as help
_TEXTS = frozenset({"truth", "without", "with_", "variant"})
_SHOWN = frozenset({"shown_without", "shown_with"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What happened at one blank, without and with cross-file context.

    `without` and `with_` are the completions as scored; `es_*`, `f1_*` in 0–100. What is known when the decision is
    due: `p_cc`, P(`<cc>`) as the softmax has it (None for a model that makes no decision); `first_p`, the top
    probability, and `first_entropy` (nats) of the first token generated without context; what retrieval says of itself
    (`policy.gating.evidence`): `score` and `second`, the greatest similarities of a chunk, `names`, how many names of
    the cursor's lines the chunks define, and `overlap`, which share of what stands just before the cursor they hold;
    `scope`, "line" or "block", as a request there is served. Known afterwards: `surprise` is the mean -ln P (nats) of
    the tokens generated without context, `worst` the largest; `nll_without` and `nll_with` what the `truth_tokens`
    tokens of the truth cost (nats, the ending token included). Counts are of tokens. `shown_*` is what an editor would
    show of a completion (`shown.Shown`). `tests_*` are "" where no tests were asked for, else "pass" or why not;
    "not run: …" where they could not be run.

    What has a default may be missing in files of earlier versions, and is None then.
    """

    id: str
    kind: str
    variant: str
    repository: str
    path: str
    language: str
    truth: str
    without: str
    with_: str
    em_without: int
    em_with: int
    es_without: float
    es_with: float
    f1_without: float
    f1_with: float
    p_cc: float | None
    cc_is_top: bool
    first_p: float | None = None
    first_entropy: float | None = None
    score: float
    second: float | None = None
    names: int | None = None
    overlap: float | None = None
    scope: str | None = None
    surprise: float
    worst: float
    chunks: int
    prompt_tokens: int
    context_tokens: int
    tokens_without: int
    tokens_with: int
    retrieval_ms: float
    nll_without: float | None = None
    nll_with: float | None = None
    truth_tokens: int | None = None
    shown_without: Shown | None = None
    shown_with: Shown | None = None
    tests_without: str = ""
    tests_with: str = ""

    @property
    def quiet(self) -> bool:
        """Whether nothing is to be suggested there: what is shown counts, similarity to nothing says nothing."""
        return self.kind == "quiet"

    @property
    def gain(self) -> float:
        """What retrieval adds, in edit similarity."""
        return self.es_with - self.es_without

    @property
    def helped(self) -> bool | None:
        """Whether retrieval made the truth likelier by `HELPED_NATS` and `HELPED_SHARE`; None where that is not known.

        Edit similarity rises by luck in every fifth blank; what the truth costs does not.
        """
        if self.nll_without is None or self.nll_with is None:
            return None
        return self.nll_without - self.nll_with >= max(HELPED_NATS, HELPED_SHARE * self.nll_without)

    @property
    def tested(self) -> bool:
        """Whether the tests were run with both completions."""
        return all(said and not said.startswith(NOT_RUN) for said in (self.tests_without, self.tests_with))

    @property
    def scale(self) -> Scope:
        """Which threshold belongs to it, as it would be served (by its kind where `scope` is not known)."""
        return "block" if (self.scope or self.kind) in {"block", "function"} else "line"

    @property
    def known(self) -> Known:
        """What a gate could look at."""
        found = None
        if self.second is not None and self.names is not None and self.overlap is not None:
            found = Evidence(self.score, self.second, self.names, self.overlap)
        return Known(self.scale, self.p_cc, self.first_p, self.first_entropy, found)


COLUMNS = tuple(field.name.rstrip("_") for field in fields(Row))
_NEEDED = {column for column, field in zip(COLUMNS, fields(Row), strict=True) if field.default is MISSING}


def to_line(row: Row) -> str:
    """One line of CSV, with its end."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(
        [_cell(field.name, getattr(row, field.name)) for field in fields(Row)]
    )
    return buffer.getvalue()


def read(file: Path) -> list[Row]:
    """All rows of a file, but for a last line that was cut off. Raises `EvaluationError` for any other file.

    Columns go by their names: one that is not known any more is left out, one that was not known yet has its default.
    """
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{file} cannot be read: {error}") from error
    lines = text[: text.rfind("\n") + 1].split("\n")[:-1]
    header = lines[0].split(",") if lines else []
    if not set(header) >= _NEEDED:
        raise EvaluationError(f"{file} is not a result of `repoformer-lsp eval` (or of another version of it)")
    rows = []
    for number, cells in enumerate(csv.reader(lines[1:]), start=2):
        try:
            told = dict(zip(header, cells, strict=True))
            values = {field.name: _value(field.name, str(field.type), told[column])
                      for field, column in zip(fields(Row), COLUMNS, strict=True) if column in told}  # fmt: skip
        except ValueError as error:
            raise EvaluationError(f"{file}:{number}: {error}") from error
        rows.append(Row(**values))
    return rows


def begin(file: Path) -> list[Row]:
    """Make a file ready to append to: its rows so far, a line that was cut off taken away.

    Raises `EvaluationError` where it cannot be appended to, as a file with other columns.
    """
    if not file.exists():
        file.write_text(",".join(COLUMNS) + "\n", "utf-8")
        return []
    rows = read(file)
    text = file.read_text("utf-8")
    if not text.startswith(",".join(COLUMNS) + "\n"):
        raise EvaluationError(f"{file} was written by another version: name another --out, or delete that folder")
    if not text.endswith("\n"):
        file.write_text(text[: text.rfind("\n") + 1], "utf-8")
    return rows


def rewrite(file: Path, rows: Iterable[Row]) -> None:
    """Replace a file by one with these rows, whole or not at all."""
    temporary = file.with_suffix(".new")
    temporary.write_text(",".join(COLUMNS) + "\n" + "".join(map(to_line, rows)), "utf-8")
    temporary.replace(file)


def _cell(name: str, value: object) -> object:
    if name in _TEXTS:
        return json.dumps(value)
    if isinstance(value, Shown):
        return json.dumps(value.to_json())
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    return f"{value:.7g}" if isinstance(value, float) else value


def _value(name: str, kind: str, cell: str) -> Any:
    if name in _TEXTS:
        return json.loads(cell)
    if name in _SHOWN:
        return shown.from_json(json.loads(cell)) if cell else None
    if kind.endswith(" | None"):
        kind = kind.removesuffix(" | None")
        if not cell:
            return None
    return {"int": int, "float": float, "bool": lambda text: bool(int(text)), "str": str}[kind](cell)  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as columns, for arithmetic. All arrays have shape (blanks,)."""

    rows: tuple[Row, ...]
    without: NDArray[np.float64]
    with_: NDArray[np.float64]

    @classmethod
    def of(cls, rows: Iterable[Row], metric: str = "es") -> Table:
        """The table of a metric: "es", "em" (as per cent), "f1", or "ut" for passing unit tests (as per cent)."""
        kept = tuple(rows)
        if metric == "ut":
            kept = tuple(row for row in kept if row.tested)
            pair = [(100.0 * (row.tests_without == PASS), 100.0 * (row.tests_with == PASS)) for row in kept]
        else:
            factor = 100.0 if metric == "em" else 1.0
            pair = [
                (factor * getattr(row, f"{metric}_without"), factor * getattr(row, f"{metric}_with")) for row in kept
            ]
        array = np.array(pair, float).reshape(-1, 2)
        return cls(kept, array[:, 0], array[:, 1])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def gain(self) -> NDArray[np.float64]:
        """What retrieval adds, blank by blank."""
        return self.with_ - self.without

    def column(self, name: str) -> NDArray[np.float64]:
        """A number of each row; NaN where it has none."""
        return np.array([np.nan if (value := getattr(row, name)) is None else float(value) for row in self.rows])

    def probabilities(self, gate: Gate) -> NDArray[np.float64]:
        """What a gate says of each row; NaN where it cannot say anything."""
        said = [gate.probability(row.known) for row in self.rows]
        return np.array([np.nan if p is None else p for p in said])

    @property
    def selective(self) -> bool:
        """Whether the model makes decisions of its own."""
        return bool(self.rows) and all(row.p_cc is not None for row in self.rows)


def groups(rows: Sequence[Row], by: str) -> dict[str, list[Row]]:
    """Rows by the value of a column, values in order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(getattr(row, by)), []).append(row)
    return dict(sorted(found.items()))
