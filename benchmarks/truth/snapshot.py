"""Make and check the snapshot: the results of the built-in model on the truth set.

`make truth` makes the snapshot, and CI compares new results with it. On one machine, the generated texts are the same
in every run. Another processor may add numbers in another order, so a text can differ where two tokens are almost
equally probable. `BAND` and `CHANGED` are the limits of such differences. `docs/evaluation.md` has measurements of
them.
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
    # Two threads on every machine, because the default depends on the machine.
    *("--tokens", "40", "--latency", "0", "--threads", "2"),
)
BAND = 3.0  # the largest accepted decrease of the mean edit similarity in points, without or with retrieval
CHANGED = 0.5  # the largest accepted share of changed completions
REMAKE = "If the change is intended, run `make truth`, check its output, and commit benchmarks/truth."


def shipped() -> Path | None:
    """Return the file of the built-in model, or None if the package includes no model."""
    return next((model.path for model in locate.installed() if model.source == "shipped"), None)


def other_model(model: Path) -> str:
    """Return a message if `model` is not the model of the snapshot, or "" if it is."""
    before = record.read_run(HERE).get("model", {})
    if before.get("sha256") == (now := calibration.fingerprint(model)):
        return ""
    return (
        f"The snapshot was made with {before.get('file')} (SHA-256 {str(before.get('sha256'))[:12]}…), and "
        f"the model is {model.name} ({now[:12]}…). {REMAKE}"
    )


def evaluate(out: Path, model: Path) -> list[Row]:
    """Evaluate `model` on the truth set, and write the run to the folder `out`. Return the results, sorted by id."""
    if command([*ARGUMENTS, "--model", str(model), "--out", str(out)]):
        raise EvaluationError("the truth set could not be evaluated")
    return sorted(table.read(out / record.RESULTS), key=lambda row: row.id)


def failures(before: Sequence[Row], after: Sequence[Row]) -> list[str]:
    """Return a message for each difference above `BAND` or `CHANGED`, and one if a run lacks blanks of the other."""
    difference = comparing.compare(before, after)
    found = [
        f"{drop.figure} fell by {-drop.difference.value:.2f} points, more than {BAND:g}"
        for drop in difference.drops(BAND)
    ]
    if (share := len(difference.changed) / (2 * difference.blanks)) > CHANGED:
        found.append(f"{share:.0%} of the completions changed, more than {CHANGED:.0%}")
    if lost := (*difference.only_before, *difference.only_after):
        found.append(f"{len(lost)} blanks are in only one of the two runs, for example {lost[0]}")
    return found


def main() -> None:
    """Evaluate the built-in model, print what changed, and update `results.csv` and `run.json`."""
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
