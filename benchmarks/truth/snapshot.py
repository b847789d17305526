"""Make and check the snapshot (`make truth`): the included model's results on the truth set, which CI compares.

Greedy texts are the same in every run on one machine. Another processor adds numbers in another order, so the text can
change where two tokens are almost equally likely. `BAND` and `CHANGED` allow for that. `docs/evaluation.md` has the
measurements.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lsp_server.cli import main as command
from policy.evaluation import comparing, record, table
from policy.evaluation.table import Row
from policy.evaluation.task import EvaluationError
from policy.gating import calibration
from policy.models import locate

HERE = Path(__file__).parent
ARGUMENTS = (
    *("eval", "--dataset", "repoeval", "--data", str(HERE / "blanks.jsonl"), "--repos", str(HERE / "sources")),
    # Two workers on every machine, so that the same blanks run at the same time.
    *("--tokens", "40", "--latency", "0", "--threads", "2"),
)
BAND = 3.0  # allowed decrease of mean edit similarity in points, without or with retrieval
CHANGED = 0.5  # allowed share of changed completions
REMAKE = "If the change is intended, run `make truth`, check its output, and commit benchmarks/truth."


def shipped() -> Path | None:
    """Return the file of the included model, or None if the package includes no model."""
    return next((model.path for model in locate.installed() if model.source == "shipped"), None)


def other_model(model: Path) -> str:
    """Return how `model` differs from the model of the snapshot, or "" if it is the same."""
    before = record.read_run(HERE).get("model", {})
    if before.get("sha256") == (now := calibration.fingerprint(model)):
        return ""
    return (
        f"The snapshot was made with {before.get('file')} (SHA-256 {str(before.get('sha256'))[:12]}…), and "
        f"the model is {model.name} ({now[:12]}…). {REMAKE}"
    )


def evaluate(out: Path, model: Path) -> list[Row]:
    """Complete the truth set with `model`. Store the run in the folder `out`, and return its rows, sorted by id."""
    if command([*ARGUMENTS, "--model", str(model), "--out", str(out)]):
        raise EvaluationError("the truth set could not be evaluated")
    return sorted(table.read(out / record.RESULTS), key=lambda row: row.id)


def failures(before: Sequence[Row], after: Sequence[Row]) -> list[str]:
    """Return a message for each difference that exceeds `BAND` or `CHANGED`, and for rows that only one run has."""
    difference = comparing.compare(before, after)
    found = [
        f"{drop.figure} fell by {-drop.difference.value:.2f} points, more than {BAND:g}"
        for drop in difference.drops(BAND)
    ]
    if (share := len(difference.changed) / (2 * difference.blanks)) > CHANGED:
        found.append(f"{share:.0%} of the completions changed, more than {CHANGED:.0%}")
    if lost := (*difference.only_before, *difference.only_after):
        found.append(f"{len(lost)} blanks are only in one of the two, for example {lost[0]}")
    return found


def main() -> None:
    """Update `results.csv` and `run.json` and print what changed."""
    model = shipped()
    if model is None:
        raise SystemExit("this package includes no model")
    with tempfile.TemporaryDirectory() as folder:
        rows = evaluate(Path(folder), model)
        if (HERE / record.RESULTS).exists():
            print("\n".join(comparing.report_lines(comparing.compare(table.read(HERE / record.RESULTS), rows))))
        # Times are left out, because they differ in every run.
        table.rewrite(HERE / record.RESULTS, [replace(row, retrieval_ms=0.0) for row in rows])
        shutil.copy(Path(folder, record.RUN), HERE / record.RUN)


if __name__ == "__main__":
    main()
