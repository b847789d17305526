"""Where blanks begin and end, which files enter the corpus, and which rows the package lists accept."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from policy.training import blanks, corpus, fetch
from policy.training.blanks import Blank, RetrievedChunk
from policy.training.clusters import representatives
from policy.training.functions import bodies
from policy.training.manifest import TrainingError


def _line(text: str) -> tuple[str, int]:
    """Return the text without the mark `‸`, and the offset at which the marked line begins."""
    at = text.index("‸")
    return text.replace("‸", ""), text.rfind("\n", 0, at) + 1


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("a = 1\n‸if a:\n    b()\n    c()\nd()\n", "if a:\n    b()\n    c()"),
        ("‸call(\n    one,\n    two,\n)\nnext()\n", "call(\n    one,\n    two,\n)"),
        ("void f() {\n  ‸one();\n  two();\n}\n", "  one();\n  two();"),
        ("    ‸x = 1\n    y = 2\n\n    z = 3\n", "    x = 1\n    y = 2"),
        ("‸last", "last"),
        ("‸if x {\n\ta()\n} else {\n\tb()\n}\n", "if x {\n\ta()\n} else {"),
    ],
)
def test_where_a_block_ends(text: str, block: str) -> None:
    source, start = _line(text)
    assert source[start : blanks.block_end(source, start)] == block


def test_a_block_has_a_maximum_length() -> None:
    text = "def f():\n" + "    x = 1\n" * 100
    assert text[: blanks.block_end(text, 0)].count("\n") == blanks.BLOCK_END_LINES


def test_cursor_blanks_start_and_end_where_an_editor_would_complete() -> None:
    text = "def total(first, second):\n    result = combine(first, [second])\n    return result\n\n\nother = 1\n"
    rng = random.Random(0)
    seen = {span for _ in range(800) if (span := blanks.cursor_span(text, text.index("    result"), rng))}
    found = {(variant, text[:start].rpartition("\n")[2] + "‸" + text[start:end]) for variant, start, end in seen}
    assert ("word/line", "    resu‸lt = combine(first, [second])") in found
    assert ("word/inside", "    result = combine(first, [sec‸ond") in found
    assert ("after/line", "    result = combine(‸first, [second])") in found
    assert ("indent/block", "    ‸result = combine(first, [second])\n    return result") in found
    assert ("end/block", "    result = combine(first, [second])‸\n    return result") in found
    assert ("nothing", "    result = combine(first, [second])‸") in found
    assert {variant.partition("/")[0] for variant, *_ in seen} == {
        "word", "after", "indent", "end", "nothing", "boundary",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "/*\n * Licensed to you.\n */\n\n‸package a;\n",
        "# Copyright\n\n‸import os\n# why\n",
        "‸x = 1\n",
        "# nothing else\n‸",
    ],
)
def test_where_code_starts(text: str) -> None:
    assert blanks.code_start(text.replace("‸", "")) == text.index("‸")


def test_comments_and_empty_lines_are_not_line_blanks() -> None:
    rng = random.Random(0)
    assert blanks.line_span("# a comment that is long\n", 0, rng) is None
    assert blanks.line_span("   \n", 0, rng) is None
    assert blanks.line_span("  value = compute()\nnext", 0, rng) == ("whole", 2, 19)


@pytest.mark.parametrize(
    ("path", "text", "body"),
    [
        ("a.py", "def f(x):\n    é = x\n    return é\n", "é = x\n    return é"),
        ("a.ts", "function f(x: number) {\n  const y = x;\n  return y;\n}\n", "const y = x;\n  return y;"),
        ("a.go", "package a\n\nfunc f(x int) int {\n\ty := x\n\treturn y\n}\n", "y := x\n\treturn y"),
        ("a.rs", "fn f(x: u8) -> u8 {\n    let y = x;\n    y\n}\n", "let y = x;\n    y"),
    ],
)
def test_function_bodies(path: str, text: str, body: str) -> None:
    assert [text[start:end] for start, end in bodies(path, text)] == [body]


def test_a_span_drawn_twice_is_one_blank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "def area(width, height):\n    return width * height\n"
    (tmp_path / "a.py").write_text(text)
    start = text.index("return")
    drawn = [("a.py", kind, "", start, len(text) - 1) for kind in ("cursor", "function")]
    monkeypatch.setattr(blanks, "draw_spans", lambda files, wanted, rng: drawn)
    assert [blank.kind for blank in blanks.draw(tmp_path, 2, 0.0, 0)] == ["cursor"]


def _blank(number: int, repository: str = "train/a", **values: Any) -> Blank:
    known: dict[str, Any] = {"kind": "line", "oracle": False, "hits": (RetrievedChunk("b.py", 1, 2, 0.5),)}
    return Blank(f"a:{number}", repository, "a.py", "python", variant="", start=0, end=9, **known | values)


def test_blanks_with_oracle_retrieval_are_not_labeled() -> None:
    twins = [_blank(1, oracle=True), _blank(1, kind="function"), _blank(2), _blank(2, kind="function"), _blank(3)]
    chosen = blanks.eligible(twins, 0, 0)
    assert sorted(blank.id for blank in chosen) == ["a:1", "a:2", "a:3"]
    assert not any(blank.oracle for blank in chosen)


def test_labeled_blanks_are_drawn_from_all_repositories(tmp_path: Path) -> None:
    from policy.training import finetune
    from policy.training.label import Label

    def write(name: str, rows: list[Any]) -> Path:
        (tmp_path / name).write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
        return tmp_path / name

    known = [_blank(number, f"train/{number // 10}") for number in range(40)]
    rows = [Label(blank.id, "line", 50.0, 60.0, 9.0, 5.0, 4, 0.5, 1.0, 0.5) for blank in known[:30]]
    # A file of an earlier version may have two labels for a blank. The first one is used.
    labels = write("labels.jsonl", [*rows, replace(rows[0], es_with=0.0)])
    files = write("blanks.jsonl", [replace(known[0], oracle=True), *known]), labels
    every, some = finetune.labeled_blanks(*files, 0, 7), finetune.labeled_blanks(*files, 9, 7)
    assert some == every[:9]
    assert {entry.blank.repository for entry in some} == {"train/0", "train/1", "train/2"}
    assert {entry.blank.id for entry in every} == {label.id for label in rows}
    assert {entry.label.gain for entry in every} == {10.0}, "a later label of a blank is used"
    assert not any(entry.blank.oracle for entry in every)


def test_one_representative_per_cluster() -> None:
    alike = [f"import os, sys, re number{n % 3}" for n in range(40)]
    others = ["class Shape: area width height", "while queue: pop push node", "return sqrt cos sin angle"]
    chosen = representatives(alike + others, 8, seed=0)
    assert len(chosen) <= 8
    assert len(set(chosen)) == len(chosen)
    assert sum(number >= 40 for number in chosen) >= 2
    assert representatives([], 8, seed=0) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("pkg/_vendor/six.py", "import os\n" * 50),
        ("lib/jquery.min.js", "var a = 1;\n" * 50),
        ("src/types.d.ts", "declare const a: number;\n" * 50),
        ("a.py", "# Code generated by protoc. DO NOT EDIT.\n" + "x = 1\n" * 50),
        ("a.py", "x = '" + "a" * 600 + "'\n" + "y = 2\n" * 50),
        ("a.py", "0, 1, 2, " * 9 + "\n" + "++++ ,,,, ----\n" * 60),
        ("a.py", "x = 1\n"),
    ],
)
def test_files_that_are_not_hand_written_are_left_out(path: str, text: str) -> None:
    assert corpus.decode_source(path, text.encode()) is None


def test_hand_written_source_is_kept() -> None:
    text = "import os\n\n\ndef path_of(name):\n    return os.path.join('a', name)\n" * 5
    assert corpus.decode_source("pkg/a.py", text.encode()) == text
    assert corpus.decode_source("pkg/a.py", text.replace("\n", "\r\n").encode()) == text


def test_near_duplicates_are_detected() -> None:
    seen = corpus.NearDuplicates()
    text = "\n".join(f"def function_{n}(value): return value + {n} * other_{n % 7}" for n in range(60))
    assert seen.add(text)
    assert not seen.add(text.replace("function_30", "renamed"))
    assert seen.add("\n".join(f"class Type{n}(Base{n % 5}): field_{n} = {n}" for n in range(60)))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("train,pypi,diffusers,1.0,MIT", "RepoEval"),
        ("train,cargo,serde,1.0,MIT", "unknown split or registry"),
        ("train,pypi,a", "needs split"),
        ("train,pypi,a,1.0,MIT\ntest,pypi,a,1.0,MIT", "listed twice"),
    ],
)
def test_invalid_lists_are_refused(tmp_path: Path, row: str, reason: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text("split,registry,name,version,license\n" + row + "\n")
    with pytest.raises(TrainingError, match=reason):
        fetch.read_list(path)


def test_the_included_list_is_valid() -> None:
    packages = fetch.read_list(corpus.LIST)
    assert len(packages) >= 100
    assert not [package.name for package in packages if "GPL" in package.license and " OR " not in package.license]


def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    corpus._write_files(tmp_path / "a", {"../b.py": "x", "/c.py": "x", "ok.py": "x"})
    assert [path.name for path in tmp_path.rglob("*.py")] == ["ok.py"]
