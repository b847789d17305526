"""Which brackets and quotes are open at an offset. The result is the same if a text is read in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.completion.shaping.files import ParsedFiles
from policy.completion.shaping.reader import Scan
from policy.completion.shaping.scan import as_balanced, opened_after, reads_apart, scan
from tests.policy.snippets import SNIPPETS

SIGNS = st.lists(
    st.sampled_from(
        [*"()[]{}\"'`/*#\\\n$<-~ ar", '"""', "/*", "*/", "//", "${", 'r#"', '"#', "<<EOF", "<a", "</a>", ">"]
    )
)
TEXTS = st.one_of(st.sampled_from(sorted(SNIPPETS.values())), SIGNS.map("".join))
LANGUAGES = st.sampled_from(sorted(SNIPPETS))


@pytest.mark.parametrize(
    ("language", "text", "stack"),
    [
        ("rust", 'let s = r#"a "b" (', ('raw "#',)),
        ("rust", 'let s = r#"a "b" ("#; f(', ("(",)),
        ("rust", 'let s = r"\\"; f(', ("(",)),
        ("cpp", 'auto s = R"x(a)" (', ('raw )x"',)),
        ("cpp", 'auto s = R"x(a)" ()x"; f(', ("(",)),
        ("lua", "s = [==[a ]] (", ("raw ]==]",)),
        ("lua", "--[[ it's ]] f(", ("(",)),
        ("lua", "-- it's [[\nf(", ("(",)),
        ("swift", 'let s = #"a " ("# + f(', ("(",)),
        ("bash", "cat <<EOF | sort\nit's (\n", ("heredoc EOF",)),
        ("bash", "cat <<'EOF' | sort\nit's (\nEOF\n(", ("(",)),
        ("bash", "cat <<A - <<B\nit's\nA\n(", ("heredoc B",)),
        ("bash", "x=$((1 << n))\n(", ("(",)),
        ("bash", 'cat <<< "it is"\n(', ("(",)),
        ("ruby", "f(<<~SQL)\n  it's (\n", ("heredoc SQL",)),
        ("ruby", "f(<<~SQL, (\n  it's (\n  SQL\n", ("(", "(")),
        ("ruby", "class << self\n  list <<item\n  (", ("(",)),
        ("php", "<?php\n$s = <<<'X'\nit's (\n  X . f(", ("(",)),
        ("tsx", "const a = <b c='\\\\' d={", ("tag b", "{")),
        ("tsx", "return (\n  <a.b>\n    it's (<c />{", ("(", "element a.b", "{")),
        ("tsx", "a(<>b", ("(", "element ")),
        ("tsx", "a(<b-c", ("(", "name b-c")),
        ("tsx", "a(<b></b", ("(", "element b", "name /b")),
        ("tsx", "a(<b>{c}</b>", ("(",)),
        ("tsx", "a((<b>", ("(", "(", "element b")),
        ("tsx", "{ a(<b>c } d(", ("(",)),  # the element is cut off
        ("tsx", "a(b <c", ("(",)),
        ("tsx", "const f = <T,>(", ("(",)),
        ("typescript", "x = (<a>b", ("(",)),
        ("python", "x = f'{a\n(", ("(",)),  # a string of one line ends with the line, even within braces
    ],
)
def test_what_is_open(language: str, text: str, stack: tuple[str, ...]) -> None:
    assert scan(text, language).stack == stack


@given(LANGUAGES, TEXTS, st.data())
def test_what_is_open_in_a_file_that_grows(language: str, text: str, data: st.DataObject) -> None:
    lines = text.splitlines(keepends=True)
    files = ParsedFiles()
    for number in data.draw(st.lists(st.integers(0, len(lines)), max_size=4)):
        beginning = "".join(lines[:number])
        assert files.opened("a", language, beginning) == opened_after(beginning, language)


@given(LANGUAGES, TEXTS, st.data())
def test_a_text_of_two_parts(language: str, text: str, data: st.DataObject) -> None:
    middle = data.draw(st.integers(0, len(text)))
    left, right = text[:middle], text[middle:]
    first, whole = scan(left, language), scan(text, language)
    if reads_apart(left, right, language, ()):
        second = scan(right, language, first.stack)
        assert _errors(whole) == (first.extra + second.extra, first.unclosed + second.unclosed, second.stack)


def _errors(state: Scan) -> tuple[int, int, tuple[str, ...]]:
    return state.extra, state.unclosed, state.stack


@given(LANGUAGES, TEXTS, SIGNS.map("".join), SIGNS.map("".join))
def test_a_text_below_two_others(language: str, text: str, one: str, other: str) -> None:
    stack, other_stack = scan(one, language).stack, scan(other, language).stack
    below, other_below = scan(text, language, stack), scan(text, language, other_stack)
    expected = below.extra <= other_below.extra and below.missing <= other_below.missing
    assert as_balanced(text, language, stack, other_stack) == expected


def test_a_bracket_in_a_pattern_of_the_shell_closes_nothing() -> None:
    text = "case $a in\n  *]*) echo\nesac\n"
    assert (scan(text, "bash").extra, scan(text, "bash").missing) == (0, 0)
