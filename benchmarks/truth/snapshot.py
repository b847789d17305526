"""The snapshot (`make truth`): what the model that ships makes of the truth set, kept beside it and compared in CI.

Greedy texts are the same from run to run on one machine. Another processor sums in another order, and where two tokens
are all but equally likely the text goes on differently. `BAND` and `CHANGED` are wider than that:
`docs/evaluation.md` has what was measured.
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
    # Two workers on any machine, so that the same blanks stand side by side.
    *("--tokens", "40", "--latency", "0", "--threads", "2"),
)
BAND = 3.0  # points of mean edit similarity, without or with retrieval, that may be lost
CHANGED = 0.5  # share of the completions that may be other ones
REMAKE = "If that is meant, run `make truth`, look at what it says, and commit benchmarks/truth."


def shipped() -> Path | None:
    """The model that comes with the package."""
    return next((model.path for model in locate.installed() if model.source == "shipped"), None)


def other_model(model: Path) -> str:
    """How `model` differs from the one of the snapshot; empty where it is that one."""
    before = record.read_run(HERE).get("model", {})
    if before.get("sha256") == (now := calibration.fingerprint(model)):
        return ""
    return (
        f"The snapshot is of {before.get('file')} (SHA-256 {str(before.get('sha256'))[:12]}…), and {model.name} "
        f"({now[:12]}…) ships. {REMAKE}"
    )


def evaluate(out: Path, model: Path) -> list[Row]:
    """Complete the truth set with `model`; leaves a run in `out` and returns its rows by id."""
    if command([*ARGUMENTS, "--model", str(model), "--out", str(out)]):
        raise EvaluationError("the truth set could not be evaluated")
    return sorted(table.read(out / record.RESULTS), key=lambda row: row.id)


def verdict(before: Sequence[Row], after: Sequence[Row]) -> list[str]:
    """What is worse than a change of processor accounts for; empty where nothing is."""
    difference = comparing.compare(before, after)
    said = [
        f"{drop.figure} fell by {-drop.difference.value:.2f} points, more than {BAND:g}"
        for drop in difference.drops(BAND)
    ]
    if (share := len(difference.changed) / (2 * difference.blanks)) > CHANGED:
        said.append(f"{share:.0%} of the completions changed, more than {CHANGED:.0%}")
    if lost := (*difference.only_before, *difference.only_after):
        said.append(f"{len(lost)} blanks are in one of the two only, {lost[0]} for one")
    return said


def main() -> None:
    """Write `results.csv` and `run.json` anew, and say what changed."""
    model = shipped()
    if model is None:
        raise SystemExit("no model comes with this package")
    with tempfile.TemporaryDirectory() as folder:
        rows = evaluate(Path(folder), model)
        if (HERE / record.RESULTS).exists():
            print("\n".join(comparing.report_lines(comparing.compare(table.read(HERE / record.RESULTS), rows))))
        # Times are no part of it: they would change each time.
        table.rewrite(HERE / record.RESULTS, [replace(row, retrieval_ms=0.0) for row in rows])
        shutil.copy(Path(folder, record.RUN), HERE / record.RUN)


if __name__ == "__main__":
    main()
