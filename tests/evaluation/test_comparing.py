"""The comparison of two evaluation runs, and the file of results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from policy.evaluation import comparing, table
from policy.evaluation.task import EvaluationError
from tests.evaluation.masked import row

ROWS = [
    row(number, without=f"a\n«{number}» \u2028,\"'", es_without=50.0, p_cc=0.25, names=number, scope="block")
    for number in range(12)
]


def test_rows_survive_writing_and_reading(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    table.rewrite(file, ROWS)
    assert table.read(file) == ROWS
    # A header line, and one line per blank, even if a text of the blank contains line breaks.
    assert file.read_text("utf-8").count("\n") == len(ROWS) + 1


def test_a_file_of_an_earlier_version_is_read_but_not_appended_to(tmp_path: Path) -> None:
    import csv

    file = tmp_path / "results.csv"
    table.rewrite(file, ROWS)
    lines = list(csv.DictReader(file.read_text("utf-8").split("\n")))
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        kept = [column for column in table.COLUMNS if column not in {"names", "scope"}]
        writer.writerow(["top_p", *kept])
        writer.writerows([["0.5", *(line[column] for column in kept)] for line in lines])
    assert table.read(file) == [replace(each, names=None, scope=None) for each in ROWS]
    with pytest.raises(EvaluationError, match="written by another version"):
        table.begin(file)


def test_an_incomplete_last_line_is_dropped_and_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    table.rewrite(file, ROWS)
    file.write_text(file.read_text("utf-8")[:-30], "utf-8")
    assert table.begin(file) == ROWS[:-1]
    with file.open("a", encoding="utf-8") as stream:
        stream.write(table.to_line(ROWS[-1]))
    assert table.read(file) == ROWS


@pytest.mark.parametrize("text", ["", "id,kind\n1,2\n", "\x00\x01"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "results.csv"
    file.write_text(text, "utf-8")
    with pytest.raises(EvaluationError, match="is not a result"):
        table.read(file)


def test_equal_runs_have_no_differences() -> None:
    difference = comparing.compare(ROWS, ROWS)
    assert not difference.changed
    assert all(change.difference.value == 0 and change.p == 1 for change in difference.changes)
    assert not difference.drops(0.0)


def test_drops_are_listed_first_and_missing_blanks_are_named() -> None:
    after = [replace(each, es_with=40.0, with_="z") if number < 8 else each for number, each in enumerate(ROWS[:-1])]
    after.append(row(99))
    difference = comparing.compare(ROWS, after)
    assert difference.only_before == ("blank 11",)
    assert difference.only_after == ("blank 99",)
    (drop,) = difference.drops(2.0)
    assert drop.figure == "es_with"
    assert drop.difference.value == pytest.approx(-60 * 8 / 11)
    assert drop.p < 0.05
    output = "\n".join(comparing.report_lines(difference, most=3))
    assert "8 completions changed" in output
    assert output.count("→") == 3
    assert "significant" in output


def test_a_small_drop_is_inside_the_band() -> None:
    after = [replace(each, es_with=99.0) for each in ROWS]
    assert not comparing.compare(ROWS, after).drops(2.0)


def test_runs_of_different_data_are_not_compared() -> None:
    with pytest.raises(EvaluationError, match="no blank in common"):
        comparing.compare(ROWS, [row(77)])
    with pytest.raises(EvaluationError, match="different texts at blank 0"):
        comparing.compare(ROWS, [replace(ROWS[0], truth="other")])
