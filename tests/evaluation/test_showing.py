"""The shown part of a generation, quiet places (where no text is missing), and the figures of the shown texts."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from indexer.model import Cursor
from policy.engine.messages import Completed
from policy.evaluation import figures, report, showing, table
from policy.evaluation.quiet import quiet_spans
from policy.evaluation.resample import draw
from policy.evaluation.shown import Shown, shown_of
from policy.evaluation.table import Row
from policy.evaluation.task import Repository, Task
from policy.gating.gate import UNCALIBRATED
from policy.gating.keep import FEATURES, Keep
from policy.training import keep as fitting
from policy.training.manifest import TrainingError
from tests.evaluation.masked import row


def of(marked: str, written: str, truth: str = "") -> Shown:
    """Return what is shown of the generation `written` at the cursor `‸`. Each character is one token."""
    prefix, _, suffix = marked.partition("‸")
    task = Task("t", "line" if truth else "quiet", "r", "a.py", Cursor("/r/a.py", prefix, suffix, "python"), truth)
    ends = tuple(range(1, len(written) + 1))
    return shown_of(task, Completed(written, len(written), False, (0.5,) * len(written), ends), ())


def test_right_to_the_end_of_the_line() -> None:
    whole = of("x = ‸\ny = 2\n", "f(1)\nz", "f(1)")
    assert (whole.text, whole.right, whole.kept, whole.breaks) == ("f(1)", True, 4, False)
    other = of("x = ‸\ny = 2\n", "f(2)\nz", "f(1)")
    assert (other.text, other.right, other.kept) == ("f(2)", False, 2)
    assert whole.values.keys() == set(FEATURES)
    assert whole.values["mean"] == 0.5


def test_the_rest_of_the_line_counts() -> None:
    assert of("f(‸)\n", "a, b)\n", "a, b").right
    assert not of("f(‸, c)\n", "a\n", "a, b").right


def test_where_nothing_belongs_nothing_is_right() -> None:
    some = of("x = 1‸\ny = 2\n", " + 1\n")
    assert some.text
    assert (some.right, some.kept) == (False, 0)


def test_quiet_places_lack_nothing() -> None:
    source = "import os\n\n# A comment\nx = f(1, 2)\nif x:\n    y = [\n        1,\n    ]\nz = x\n" * 3
    found = quiet_spans({"a.py": source}, 12, random.Random(0))
    assert {variant for _, _, variant, _, _ in found} == {"statement", "comment", "before"}
    for _, kind, variant, start, end in found:
        assert kind == "quiet"
        assert start == end
        line, rest = source[:end].rpartition("\n")[2], source[end:].partition("\n")[0]
        if variant == "before":
            assert rest.strip()
        else:
            assert not rest
            assert line.startswith("#") == (variant == "comment")
            assert not line.endswith((":", "[", ","))


def test_quiet_places_are_drawn_as_a_kind() -> None:
    source = "import os\n\n# A comment\n" + "".join(f"x_{n} = f({n}, 2)\n" for n in range(40))
    tasks = draw("r", Repository("/r", {"a.py": source}), 3, ("quiet",), 0)
    assert len(tasks) == 3
    assert all(task.truth == "" and task.cursor.prefix + task.cursor.suffix == source for task in tasks)


def shown(number: int, *, right: bool, text: str = "f(1)", mean: float = 0.1) -> Shown:
    values = dict.fromkeys(map(str, FEATURES), 0.0) | {"mean": mean}
    return Shown(text, right, len(text) if right else 0, False, values if text else {})


def results() -> list[Row]:
    """Return results in which texts with a low surprise are right, and those with a high surprise are wrong.

    Every fourth result is of a quiet place.
    """
    rows = []
    for number in range(80):
        right, quiet = number % 2 == 0, number % 4 == 3
        mean = round((0.2 if right else 2.0) + 0.01 * (number % 7), 5)
        text = shown(number, right=right and not quiet, mean=mean)
        rows.append(row(number, kind="quiet" if quiet else "line", repository=f"r{number % 5}",
                        shown_without=text, shown_with=text))  # fmt: skip
    return rows


KEEP = Keep({"mean": -4.0}, 4.0, 0.5, 0.95)


def test_levels_say_how_much_is_shown_and_how_much_of_it_is_right() -> None:
    found = showing.compute(results(), [UNCALIBRATED], KEEP)
    assert found is not None
    eager, balanced, _ = found.levels
    assert (found.places, found.quiet_places) == (80, 20)
    assert (eager.shown, eager.precision.value, eager.found, eager.quiet) == (1.0, 0.5, 1.0, 0.0)
    assert (balanced.precision.value, balanced.found, balanced.quiet, balanced.kept) == (1.0, 1.0, 1.0, 1.0)
    assert found.curve[39] == (0.5, 1.0)
    assert found.curve[-1] == (1.0, 0.5)
    assert showing.to_csv(found).count("\n") == 81


def test_results_without_shown_texts_have_no_such_figures() -> None:
    assert showing.compute([row()], [UNCALIBRATED], KEEP) is None


def test_the_report_has_them(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = results()
    judged = [each for each in rows if not each.quiet]
    found = showing.compute(rows, [UNCALIBRATED], KEEP)
    report.write(tmp_path, judged, figures.compute(judged, [UNCALIBRATED]), {}, (), found)
    assert "## What is shown" in (tmp_path / "report.md").read_text("utf-8")
    assert (tmp_path / "shown.csv").read_text("utf-8").startswith("shown,precision\n")
    assert (tmp_path / "shown.png").stat().st_size > 0
    assert "nothing in 100% of the places where nothing belongs" in " ".join(report.shown_findings(found))


def test_a_table_keeps_what_was_shown(tmp_path: Path) -> None:
    table.rewrite(tmp_path / "results.csv", [*results(), row(99)])
    assert table.read(tmp_path / "results.csv") == [*results(), row(99)]


def test_an_estimate_is_fitted_and_judged_on_other_repositories(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    table.rewrite(run / "results.csv", results())
    worth = fitting.run(tmp_path / "keep", [run])
    assert worth["auc"] == 1.0
    assert worth["settings"]["eager"]["precision"] == 0.5
    assert worth["settings"]["balanced"]["precision"] == 1.0
    assert worth["settings"]["balanced"]["found"] >= 0.6
    assert "balanced" in "\n".join(fitting.lines(worth))
    assert fitting.fit(fitting.examples(results())).weights["mean"] < 0


def test_too_few_results_are_refused(tmp_path: Path) -> None:
    table.rewrite(tmp_path / "results.csv", results()[:8])
    with pytest.raises(TrainingError, match="too few results"):
        fitting.run(tmp_path / "keep", [tmp_path])


def test_texts_that_are_the_same_count_once() -> None:
    text = shown(0, right=True)
    both = row(0, shown_without=text, shown_with=replace(text, text="g()", right=False))
    assert len(fitting.examples([both])) == 2
    assert len(fitting.examples([replace(both, shown_with=text)])) == 1
