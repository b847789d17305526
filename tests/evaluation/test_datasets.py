"""The formats of data sets: which rows become tasks, and how invalid rows are reported."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from policy.evaluation import crosscode, repoeval, resample
from policy.evaluation.task import Data, EvaluationError, Task, spread
from tests.evaluation.masked import SHOP, repoeval_row, unpack, write_jsonl


def load_repoeval(tmp_path: Path, rows: list[Any], name: str = "line_level.test.jsonl") -> Data:
    return repoeval.load(write_jsonl(tmp_path / name, rows), tmp_path / "repos")


@pytest.fixture
def blanks(tmp_path: Path) -> list[tuple[str, str, str, str]]:
    return unpack(SHOP, tmp_path / "repos" / "acme_shop")


def test_repoeval_recovers_the_right_context(tmp_path: Path, blanks: list[tuple[str, str, str, str]]) -> None:
    data = load_repoeval(tmp_path, [repoeval_row(blanks[0], "acme_shop", 0)])
    (task,) = data.tasks
    assert not data.problems
    assert (task.cursor.prefix, task.truth, task.cursor.suffix) == blanks[0][1:]
    assert (task.kind, task.cursor.language, task.repository) == ("line", "python", "acme_shop")
    assert set(data.repositories["acme_shop"].files) == {"shop/geometry.py", "shop/order.py"}


@pytest.mark.parametrize("off_by", [0, 1])
def test_repoeval_accepts_lines_counted_from_0_or_1(
    tmp_path: Path, blanks: list[tuple[str, str, str, str]], off_by: int
) -> None:
    line = blanks[0][1].count("\n") + off_by
    data = load_repoeval(tmp_path, [repoeval_row(blanks[0], "acme_shop", 0, line_no=line)])
    assert [task.cursor.suffix for task in data.tasks] == [blanks[0][3]]


def test_repoeval_whole_lines_and_a_shortened_prompt(tmp_path: Path) -> None:
    (blank,) = unpack(SHOP.replace("«", "").replace("»", "").replace("    base = 3\n", "«    base = 3\n»"),
                      tmp_path / "repos" / "acme_shop")  # fmt: skip
    path, prefix, truth, suffix = blank
    row = repoeval_row((path, prefix, truth.rstrip("\n"), suffix), "acme_shop", 0, context_start_lineno=2)
    row["prompt"] = "\n".join(prefix.split("\n")[2:])
    (task,) = load_repoeval(tmp_path, [row]).tasks
    assert task.cursor.prefix == row["prompt"]
    assert task.cursor.suffix == "\n" + suffix


def test_repoeval_functions(tmp_path: Path) -> None:
    plain = SHOP.replace("«", "").replace("»", "")
    body = plain.replace("    base = 3", "«    base = 3").replace("return total\n", "return total»\n")
    (blank,) = unpack(body, tmp_path / "repos" / "acme_shop")
    signature = blank[1].count("\n") - 1
    row = repoeval_row(blank, "acme_shop", 0, function_name="price_of", lineno=signature)
    del row["metadata"]["line_no"]
    (task,) = load_repoeval(tmp_path, [row], "function_level.test.jsonl").tasks
    assert task.kind == "function"
    assert task.truth.startswith("    base = 3\n")
    assert task.truth.endswith("return total")
    assert task.cursor.suffix == "\n"


def broken(row: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    changed = json.loads(json.dumps(row))
    changed["metadata"] |= {"task_id": "broken", **metadata}
    return dict(changed)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"fpath_tuple": ["acme_shed", "shed.py"]}, "the repository acme_shed is not in"),
        ({"fpath_tuple": ["..", "repos", "acme_shop", "shop", "order.py"]}, "the repository .. is not in"),
        ({"fpath_tuple": ["acme_shop", "shop", "gone.py"]}, "shop/gone.py is not among the sources"),
        ({"fpath_tuple": "acme_shop/shop/order.py"}, "`fpath_tuple` is not a list"),
        ({"line_no": 3}, "line 3 of shop/order.py does not match"),
        ({"line_no": 4000}, "line 4000 of shop/order.py does not match"),
        ({"line_no": None}, "the row has neither `line_no` nor `lineno`"),
        ({"ground_truth": None}, "`ground_truth` is missing"),
        ({"task_id": "acme_shop/0"}, "the id occurs more than once"),
    ],
)
def test_an_invalid_row_does_not_affect_the_others(
    tmp_path: Path, blanks: list[tuple[str, str, str, str]], metadata: dict[str, Any], reason: str
) -> None:
    good = repoeval_row(blanks[0], "acme_shop", 0)
    data = load_repoeval(tmp_path, [good, broken(good, **metadata)])
    assert [task.id for task in data.tasks] == ["acme_shop/0"]
    (problem,) = data.problems
    assert problem.reason.startswith(reason)
    assert problem.item in {"broken", "acme_shop/0"}


def test_a_truncated_file_and_invalid_json_lines(tmp_path: Path, blanks: list[tuple[str, str, str, str]]) -> None:
    good = json.dumps(repoeval_row(blanks[0], "acme_shop", 0))
    file = tmp_path / "line.jsonl"
    file.write_bytes(f"{good}\n[1, 2]\n\n{{no json\n".encode() + b'{"prompt": "\xff"}\n' + good[:60].encode())
    data = repoeval.load(file, tmp_path / "repos")
    assert len(data.tasks) == 1
    assert [problem.item for problem in data.problems] == [f"line.jsonl:{number}" for number in (2, 4, 5, 6)]
    assert data.problems[-1].reason == "the file ends inside this line"


def test_a_missing_file_or_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="cannot be read"):
        crosscode.load(tmp_path / "none.jsonl")
    with pytest.raises(EvaluationError, match="is not a folder"):
        load_repoeval(tmp_path, [])


def crosscode_row(**changes: Any) -> dict[str, Any]:
    return {
        "prompt": "from shop.geometry import area_of\n\ntotal = ",
        "groundtruth": "area_of(2, 3)",
        "right_context": "\nprint(total)\n",
        "metadata": {"task_id": "python/1", "repository": "acme_shop", "file": "shop/main.py"},
        "crossfile_context": {
            "text": "# Here are some relevant code fragments",
            "list": [
                {"retrieved_chunk": "def area_of(w, h):\n    return 1", "filename": "shop/geometry.py", "score": 0.4},
                {"retrieved_chunk": "SIZE = 3", "filename": "shop/sizes.py", "score": 0.1},
            ],
        },
        **changes,
    }  # fmt: skip


def test_crosscodeeval_rows_contain_chunks(tmp_path: Path) -> None:
    (task,) = crosscode.load(write_jsonl(tmp_path / "line_completion.jsonl", [crosscode_row()])).tasks
    assert task.given is not None
    assert [(chunk.path, chunk.end_line) for chunk in task.given] == [("shop/geometry.py", 2), ("shop/sizes.py", 1)]
    assert (task.truth, task.cursor.suffix, task.cursor.language) == ("area_of(2, 3)", "\nprint(total)\n", "python")


def test_crosscodeeval_with_sources_uses_our_retrieval(tmp_path: Path, blanks: list[tuple[str, str, str, str]]) -> None:
    file = write_jsonl(tmp_path / "line_completion.jsonl", [crosscode_row()])
    data = crosscode.load(file, tmp_path / "repos")
    assert data.tasks[0].given is None
    assert "shop/geometry.py" in data.repositories["acme_shop"].files


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"groundtruth": None}, "`groundtruth` is missing"),
        ({"right_context": 3}, "`right_context` is not a text"),
        ({"metadata": "python/1"}, "the row has no `metadata`"),
        ({"crossfile_context": {"text": ""}}, "`crossfile_context` has no `list`"),
        ({"crossfile_context": {"list": ["text"]}}, "`crossfile_context.list` contains an item"),
    ],
)
def test_an_invalid_crosscodeeval_row(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    data = crosscode.load(write_jsonl(tmp_path / "line.jsonl", [crosscode_row(**changes)]))
    assert not data.tasks
    assert data.problems[0].reason.startswith(reason)


@pytest.mark.parametrize(("name", "kind"), [("python/line_completion.jsonl", "line"),
    ("crosscodelongeval_chunk.jsonl", "chunk"), ("crosscodelongeval_function.jsonl", "function")])  # fmt: skip
def test_the_kind_from_a_file_name(name: str, kind: str) -> None:
    assert crosscode.kind_by_name(Path(name)) == kind


def test_resampling_is_seeded_and_preserves_the_source(workspace: Path) -> None:
    data, again = (resample.workspace(workspace, 25, seed=3) for _ in range(2))
    assert data.tasks == again.tasks
    assert {task.kind for task in data.tasks} >= {"line", "cursor", "api"}
    (files,) = data.repositories.values()
    for task in data.tasks:
        assert task.cursor.prefix + task.truth + task.cursor.suffix == files.files[task.path]
        assert bool(task.truth.strip()) == (task.kind != "quiet"), "not only quiet places have no truth"
    assert resample.workspace(workspace, 25, seed=4).tasks != data.tasks


def test_api_blanks_call_what_another_file_defines(workspace: Path) -> None:
    data = resample.workspace(workspace, 12, ("api",), seed=1)
    (files,) = data.repositories.values()
    assert data.tasks
    for task in data.tasks:
        others = "".join(text for path, text in files.files.items() if path != task.path)
        assert re.search(
            rf"(def|class|function|const|interface) {task.variant}\b|^  (async )?{task.variant}\(", others, re.M
        )
        assert f"{task.variant}(" in task.truth


def test_a_folder_of_repositories_with_one_without_code(tmp_path: Path, workspace: Path) -> None:
    shutil.copytree(workspace, tmp_path / "repos" / "library")
    (tmp_path / "repos" / "papers").mkdir()
    (tmp_path / "repos" / "papers" / "notes.txt").write_text("nothing to see")
    data = resample.load(tmp_path / "repos", 5, ("line",))
    assert {task.repository for task in data.tasks} == {"library"}
    assert [problem.item for problem in data.problems] == ["papers"]
    with pytest.raises(EvaluationError, match="too little source code"):
        resample.workspace(tmp_path / "repos" / "papers", 5)


def test_a_limit_is_distributed_over_repositories_and_kinds() -> None:
    tasks = [Task(f"{repository}{number}", "line", repository, "", None, "")  # type: ignore[arg-type]
             for repository in "ab" for number in range(5)]  # fmt: skip
    assert [task.id for task in spread(tasks, 4)] == ["a0", "a1", "b0", "b1"]
    assert spread(tasks, 0) == tasks
