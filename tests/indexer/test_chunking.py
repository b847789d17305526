"""The borders of chunks. In the texts of the tests, a line `┄ kind` marks where a chunk of this kind must begin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.chunking import Chunking, chunk
from indexer.languages import LANGUAGES

SMALL = Chunking(max_lines=8, merge_lines=3)


def check_cuts(language: str, marked: str, chunking: Chunking = SMALL) -> None:
    lines: list[str] = []
    expected: list[tuple[int, str]] = []
    for line in marked.strip("\n").split("\n"):
        if line.startswith("┄"):
            expected.append((len(lines) + 1, line[1:].strip()))
        else:
            lines.append(line)
    found = chunk("\n".join(lines), LANGUAGES[language], root="/r", path="f", chunking=chunking)
    assert [(c.start_line, c.kind) for c in found] == expected


def test_definitions_imports_and_comments_stay_together() -> None:
    check_cuts(
        "python",
        """
┄ imports
import a
from b import c

┄ function
# what it documents
@decorated
def first():
    return a

┄ class
class Small:
    field = 1

    def method(self):
        return c
""",
    )


def test_a_long_class_is_cut_into_head_and_members() -> None:
    check_cuts(
        "java",
        """
┄ class
class Large {
    int a;
    int b;
    int c;
┄ function
    int first() {
        return a;
    }

┄ function
    int second() {
        return b;
    }
}
""",
    )


def test_a_long_function_is_cut_between_statements_with_headers() -> None:
    body = "\n".join(f"        if x > {n}:\n            y = {n}\n            z = {n}" for n in range(4))
    text = f"class A(B):\n    def long(self, x):\n{body}\n"
    parts = chunk(text, LANGUAGES["python"], root="/r", path="f", chunking=SMALL)
    assert [part.text.split("\n")[0].strip() for part in parts[2:]] == ["if x > 2:"]
    assert parts[2].header == "class A(B):\n    def long(self, x):"
    assert parts[1].header == "class A(B):"
    assert parts[1].symbols == ("long",)


def test_broken_source_gives_chunks_where_it_parses() -> None:
    broken = "class Broken(:\n" + "    def m(self) return 1\n" * 20
    text = f"def good():\n    return 1\n\n\n{broken}\n\ndef also_good():\n    return 2\n"
    found = chunk(text, LANGUAGES["python"], root="/r", path="f", chunking=SMALL)
    assert "good" in found[0].symbols
    assert "also_good" in {symbol for c in found for symbol in c.symbols}


@pytest.mark.parametrize(
    ("language", "text", "symbols"),
    [
        ("javascript", "export const f = (a) => {\n  return a\n}\nclass A { m() {} }", {"f", "A", "m"}),
        (
            "typescript",
            "interface I { x: number }\ntype T = I\nfunction g(): T {}",
            {"I", "x", "T", "g"},
        ),
        ("tsx", "export function View() { return <div/> }", {"View"}),
        ("java", "class A { int f; void m() {} }\nenum E { X }", {"A", "f", "m", "E", "X"}),
        ("csharp", "namespace N { class A { int P { get; } void M() {} } }", {"N", "A", "P", "M"}),
        ("go", "package p\ntype T struct { X int }\nfunc (t T) M() {}\nfunc F() {}", {"T", "X", "M", "F"}),
        ("rust", "struct S { x: i32 }\nimpl S { fn m(&self) {} }\nfn f() {}", {"S", "x", "m", "f"}),
        ("c", "#define N 1\nstruct S { int x; };\nint *f(void) { return 0; }", {"N", "S", "x", "f"}),
        (
            "cpp",
            "namespace n { class C { int m() { return 1; } }; }\nint n::C::k() { return 2; }",
            {"n", "C", "m", "n::C::k"},
        ),
        ("ruby", "module M\n  class A\n    X = 1\n    def m\n    end\n  end\nend", {"M", "A", "X", "m"}),
        ("php", "<?php\nclass A { const X = 1; function m() {} }\nfunction f() {}", {"A", "X", "m", "f"}),
        ("kotlin", "class A { val x = 1\n fun m() {} }\nfun f() = 1", {"A", "x", "m", "f"}),
        ("swift", "class A { var x = 1\n func m() {} }\nfunc f() {}", {"A", "x", "m", "f"}),
        ("scala", "object O { def m = 1 }\nclass A { val x = 1 }", {"O", "m", "A", "x"}),
        ("lua", "local x = 1\nfunction f() end\nlocal function g() end", {"x", "f", "g"}),
        ("bash", "X=1\nfoo() {\n  echo\n}", {"X", "foo"}),
    ],
)
def test_each_language_finds_its_definitions(language: str, text: str, symbols: set[str]) -> None:
    found = chunk(text, LANGUAGES[language], root="/r", path="f")
    assert {symbol for c in found for symbol in c.symbols} == symbols


FRAGMENTS = (
    "class A:", "    def f(self):", "        return 1", "", "import a", "def g(", "):", "{", "}", "fn f() {", "'",
    '"""', "# c", "/* c", "*/", "\ttab", "@d", "if x:", "é ∑ 🙂", "\x0c", "#[a]", "<?php",
)  # fmt: skip


@given(
    language=st.sampled_from(sorted(LANGUAGES)),
    lines=st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=20)), max_size=60),
    end=st.sampled_from(["", "\n", "\r\n"]),
    maximum=st.integers(1, 12),
)
def test_every_line_is_in_exactly_one_structural_chunk(language: str, lines: list[str], end: str, maximum: int) -> None:
    text = "\n".join(lines) + end
    chunks = chunk(
        text, LANGUAGES[language], root="/r", path="f", chunking=Chunking(max_lines=maximum, merge_lines=maximum)
    )
    total = text.replace("\r\n", "\n")
    count = total.count("\n") + (not total.endswith("\n")) if total else 0
    covered = [line for c in chunks for line in range(c.start_line, c.end_line + 1)]
    if LANGUAGES[language].grammar:
        assert covered == list(range(1, count + 1))
    else:
        assert set(covered) == set(range(1, count + 1))


def test_deep_nesting_does_not_overflow() -> None:
    text = "x = " + "\n(" * 50_000 + "\n)" * 50_000
    chunks = chunk(text, LANGUAGES["python"], root="/r", path="f")
    assert sum(c.end_line - c.start_line + 1 for c in chunks) == 100_001
    nested = "".join("  " * depth + "if x:\n" for depth in range(400)) + "  " * 400 + "y\n"
    assert chunk(nested, LANGUAGES["python"], root="/r", path="f")[-1].end_line == 401


def test_windows_overlap_by_half() -> None:
    text = "\n".join(map(str, range(45)))
    found = chunk(text, None, root="/r", path="f")
    assert [(c.start_line, c.end_line) for c in found] == [(1, 20), (11, 30), (21, 40), (31, 45)]
