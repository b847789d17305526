"""The results of a run: a CSV file with one line per blank, written as soon as the blank is done.

Texts are stored as JSON strings, so that every blank is one line. Thus two runs can be compared with `diff`, and a run
that is killed loses at most its last line.
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
from policy.gating.gate import Gate, GateInputs, Scope

from . import shown
from .shown import Shown
from .task import EvaluationError

# The outcome of a row's tests is `PASS`, the reason why they fail, or `NOT_RUN` with a colon and the reason.
PASS, NOT_RUN = "pass", "not run"
# Retrieval helped if it lowers -ln P of the truth by at least this many nats, and by at least this share of -ln P
# without retrieval.
HELPED_NATS, HELPED_SHARE = 1.0, 0.04
_TEXTS = frozenset({"truth", "without", "with_", "variant"})
_SHOWN = frozenset({"shown_without", "shown_with"})


def has_helped(nll_without: float, nll_with: float) -> bool:
    """Return whether retrieval made the truth likelier.

    Both arguments are -ln P of the truth, in nats. The decrease has to be at least `HELPED_NATS` nats, and at least the
    share `HELPED_SHARE` of `nll_without`. Edit similarity is not used for this, because it rises by chance at a fifth
    of the blanks.
    """
    return nll_without - nll_with >= max(HELPED_NATS, HELPED_SHARE * nll_without)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The results at one blank, without and with cross-file context.

    `without` and `with_` are the completions, cut to the part that is compared with `truth`. `em_*` (exact match) is 0
    or 1. `es_*` (edit similarity) and `f1_*` (of the identifiers) are in 0–100. `chunks` is the number of chunks in the
    prompt. Columns with `tokens` in their names are numbers of tokens.

    These columns are known before the decision: `p_cc` is P(`<cc>`) over the whole vocabulary (None for a model that
    does not decide). `first_p` and `first_entropy` are the highest probability, and the entropy in nats, of the first
    token that is generated without chunks. `score` and `second` are the similarities of the two best chunks. `names`,
    `overlap` and `match` are as in `policy.gating.evidence.Evidence`. `scope` is "line" or "block", the scope of a
    request at the blank.

    These columns are known after the completions: `surprise` is the mean, and `worst` the maximum, of -ln P in nats
    over the tokens that are generated without chunks. `nll_without` and `nll_with` are -ln P of the truth in nats,
    summed over its `truth_tokens` tokens, which include the end token. `tests_*` is "" without tests, "pass", the
    reason why the tests fail, or "not run: …" if the tests could not run.

    A column with a default may be missing in files of earlier versions. It then has its default.
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
    match: int | None = None
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
    shown_without: Shown | None = None  # what an editor would show
    shown_with: Shown | None = None
    tests_without: str = ""
    tests_with: str = ""

    @property
    def quiet(self) -> bool:
        """Whether the blank is a quiet place. Then only the columns `shown_*` are meaningful."""
        return self.kind == "quiet"

    @property
    def gain(self) -> float:
        """The gain in edit similarity from retrieval, in points."""
        return self.es_with - self.es_without

    @property
    def saved(self) -> float | None:
        """The decrease of -ln P of the truth by retrieval, in nats, or None if it is unknown."""
        return None if self.nll_without is None or self.nll_with is None else self.nll_without - self.nll_with

    @property
    def helped(self) -> bool | None:
        """Whether retrieval made the truth likelier (see `has_helped`), or None if this is unknown."""
        if self.nll_without is None or self.nll_with is None:
            return None
        return has_helped(self.nll_without, self.nll_with)

    @property
    def tested(self) -> bool:
        """Whether the tests ran with both completions."""
        return all(outcome and not outcome.startswith(NOT_RUN) for outcome in (self.tests_without, self.tests_with))

    @property
    def scale(self) -> Scope:
        """The scope whose threshold applies to the blank: `scope`, or, if that is None, the usual scope of the kind."""
        return "block" if (self.scope or self.kind) in {"block", "function"} else "line"

    @property
    def known(self) -> GateInputs:
        """The features from which a gate can decide at this blank."""
        found = None
        if self.second is not None and self.names is not None and self.overlap is not None and self.match is not None:
            found = Evidence(self.score, self.second, self.names, self.overlap, self.match)
        return GateInputs(self.scale, self.p_cc, self.first_p, self.first_entropy, found)


COLUMNS = tuple(field.name.rstrip("_") for field in fields(Row))
_NEEDED = {column for column, field in zip(COLUMNS, fields(Row), strict=True) if field.default is MISSING}


def to_line(row: Row) -> str:
    """Format a row as one line of CSV."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(
        [_cell(field.name, getattr(row, field.name)) for field in fields(Row)]
    )
    return buffer.getvalue()


def read(file: Path) -> list[Row]:
    """Read all rows of a file, except an incomplete last line. Raises `EvaluationError` if it is not a result file.

    Columns are matched by name. Unknown columns are ignored, and missing columns get their default.
    """
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{file} cannot be read: {error}") from error
    lines = text[: text.rfind("\n") + 1].split("\n")[:-1]
    header = lines[0].split(",") if lines else []
    if not set(header) >= _NEEDED:
        raise EvaluationError(f"{file} is not a result of `repoformer-lsp eval` in this version")
    rows = []
    for number, cells in enumerate(csv.reader(lines[1:]), start=2):
        try:
            named = dict(zip(header, cells, strict=True))
            values = {field.name: _value(field.name, str(field.type), named[column])
                      for field, column in zip(fields(Row), COLUMNS, strict=True) if column in named}  # fmt: skip
        except ValueError as error:
            raise EvaluationError(f"{file}:{number}: {error}") from error
        rows.append(Row(**values))
    return rows


def begin(file: Path) -> list[Row]:
    """Prepare a file for appending: create it, or remove its incomplete last line. Return the existing rows.

    Raises `EvaluationError` if rows cannot be appended, for example because the file has other columns.
    """
    if not file.exists():
        file.write_text(",".join(COLUMNS) + "\n", "utf-8")
        return []
    rows = read(file)
    text = file.read_text("utf-8")
    if not text.startswith(",".join(COLUMNS) + "\n"):
        raise EvaluationError(f"{file} was written by another version: specify another --out, or delete that folder")
    if not text.endswith("\n"):
        file.write_text(text[: text.rfind("\n") + 1], "utf-8")
    return rows


def rewrite(file: Path, rows: Iterable[Row]) -> None:
    """Replace `file` by a file with these rows, in one step."""
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
    """Rows, and one metric of all rows, without and with retrieval, as arrays of shape (blanks,)."""

    rows: tuple[Row, ...]
    without: NDArray[np.float64]
    with_: NDArray[np.float64]

    @classmethod
    def of(cls, rows: Iterable[Row], metric: str = "es") -> Table:
        """Create the table of a metric: "es", "em" (percent), "f1", or "ut" for passing unit tests (percent).

        The table of "ut" has only the rows whose tests ran.
        """
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
        """The gain from retrieval at each blank, in units of the metric."""
        return self.with_ - self.without

    def column(self, name: str) -> NDArray[np.float64]:
        """Return a numeric column, with NaN for missing values."""
        return np.array([np.nan if (value := getattr(row, name)) is None else float(value) for row in self.rows])

    def probabilities(self, gate: Gate) -> NDArray[np.float64]:
        """Return the gate's probability that retrieval helps, for each row; NaN for a row that lacks a feature."""
        probabilities = [gate.probability(row.known) for row in self.rows]
        return np.array([np.nan if p is None else p for p in probabilities])

    @property
    def selective(self) -> bool:
        """Whether the model decides itself whether to retrieve, so that all rows have `p_cc`."""
        return bool(self.rows) and all(row.p_cc is not None for row in self.rows)


def groups(rows: Sequence[Row], by: str) -> dict[str, list[Row]]:
    """Return the rows by the value of the column `by`, sorted by these values."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(getattr(row, by)), []).append(row)
    return dict(sorted(found.items()))
