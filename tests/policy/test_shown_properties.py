"""A part of a valid file is removed, and any text is generated there. Accepting it adds no error to the file."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.shown import errors
from indexer.languages import LANGUAGES
from policy.completion.shaping.repetition import is_closing
from policy.completion.shaping.scan import scan
from tests.policy.accepting import accept
from tests.policy.snippets import SNIPPETS

PIECES = [
    *"()[]{}\"'`;:,.=+#\\$ \n\t",
    "\n    ",
    "end",
    "fi",
    "else",
    "x",
    "0",
    "/*",
    "*/",
    "//",
    '"""',
    "${",
    "<a>",
    "</a>",
    "/>",
    "é",
    "\r\n",
]


def test_there_is_a_snippet_of_every_grammar() -> None:
    assert set(SNIPPETS) == {row.id for row in LANGUAGES.values() if row.grammar}


@pytest.mark.parametrize("language", SNIPPETS)
def test_the_snippets_are_valid(language: str) -> None:
    text = SNIPPETS[language]
    state = scan(text, language)
    assert (errors(text, language), state.missing, state.extra) == (0, 0, 0)


def writings(text: str, start: int, end: int) -> st.SearchStrategy[str]:
    """Return a strategy for texts that a model could generate in place of `text[start:end]`."""
    truth, after = text[start:end], text[end:]
    truncated = st.integers(0, len(truth)).map(lambda size: truth[:size])
    continued = st.integers(0, min(200, len(after))).map(lambda size: truth + after[:size])
    elsewhere = st.tuples(st.integers(0, len(text) - 1), st.integers(1, 120)).map(lambda at: text[at[0] : sum(at)])
    garbage = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)
    noisy = st.builds(str.__add__, truncated, garbage)
    following = next((line for line in after.split("\n") if line.strip()), "x") + "\n"
    repeated = st.builds(str.__mul__, st.sampled_from([truth, following, truth + "\n"]), st.integers(1, 5))
    indented = st.builds(with_indentation, continued, st.sampled_from(["", " ", "  ", "        ", "\t"]), st.booleans())
    return st.one_of(truncated, continued, elsewhere, garbage, noisy, repeated, indented)


def with_indentation(text: str, unit: str, begun: bool) -> str:
    """Return `text` with `unit` for every two spaces at the beginning of a line. `begun` leaves out the first line."""
    lines = text.split("\n")
    changed = [unit * ((len(line) - len(line.lstrip(" "))) // 2) + line.lstrip(" ") for line in lines]
    return "\n".join([lines[0], *changed[1:]] if begun else changed)


@pytest.mark.parametrize("language", SNIPPETS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_accepting_leaves_a_file_no_worse(language: str, data: st.DataObject) -> None:
    text = SNIPPETS[language] * data.draw(st.sampled_from([1, 1, 8]), label="copies")  # long files are parsed in part
    start = data.draw(st.integers(0, len(text) - 1), label="start")
    end = data.draw(st.integers(start, min(len(text), start + 150)), label="end")
    written = data.draw(writings(text, start, end), label="written")
    prefix, suffix = text[:start], text[end:]
    accepted = accept(
        f"{prefix}‸{suffix}", written, language, complete=data.draw(st.booleans()), bodies=data.draw(st.booleans())
    )
    if not accepted.shown:
        return
    assert errors(accepted.text, language) <= errors(prefix + suffix, language)
    before, after = scan(prefix + suffix, language), scan(accepted.text, language)
    assert after.extra <= before.extra
    assert after.missing <= before.missing
    following = next((line.strip() for line in suffix.partition("\n")[2].split("\n") if line.strip()), "")
    if following and not is_closing(following):
        own = accepted.shown.split("\n")[1:-1]  # the first and the last line may be incomplete
        assert following not in map(str.strip, own)


def test_errors_that_are_left_near_the_cursor_are_those_of_a_parse_from_scratch() -> None:
    text = SNIPPETS["java"] * 8
    prefix, suffix = text[:2_939], text[3_071:]
    accepted = accept(f"{prefix}‸{suffix}", "            } else {\n", "java")
    assert errors(accepted.text, "java") <= errors(prefix + suffix, "java")


def test_a_stray_end_is_not_exchanged_for_a_syntax_error() -> None:
    """Ruby's grammar reads an `end` that closes nothing as a name.

    A shown `do` before this `end` would be closed by it, which would add an error.
    """
    text = SNIPPETS["ruby"]
    prefix, suffix = text[:58], text[125:]
    accepted = accept(f"{prefix}‸{suffix}", "      @items.each do |item|\n", "ruby", complete=False, bodies=False)
    assert errors(accepted.text, "ruby") <= errors(prefix + suffix, "ruby")
