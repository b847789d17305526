"""The prompts of every layout, compared with golden texts, because serving must use exactly the format of the training.

The tests use a tokenizer with one token per character. So budgets count characters, and a prompt is readable as a text,
in which `⟨role⟩` is a marker.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.model import Chunk, Cursor
from policy.prompting.prompt import (
    LAYOUTS,
    LINE_GRAIN,
    MAX_TOKEN_LENGTH,
    ROLES,
    TAIL_LINES,
    Budgets,
    Prompt,
    PromptBuilder,
    Vocabulary,
    left_cut,
    tail_cut,
)
from policy.prompting.truncation import truncate

_MARKERS = {role: 0x110000 + number for number, role in enumerate(ROLES)}
_ROLE_OF = {token: role for role, token in _MARKERS.items()}


class Characters:
    """A tokenizer with one token per character."""

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]


def shown(prompt: Prompt) -> str:
    """Return the prompt as text. `¦` precedes the healed word, which the model generates again."""
    tokens = [*prompt.tokens, *map(ord, "¦" if prompt.healed else ""), *prompt.healed]
    return "".join(f"⟨{_ROLE_OF[token]}⟩" if token in _ROLE_OF else chr(token) for token in tokens)


def builder(layout: str, budgets: Budgets | None = None, *, heal: bool = True, **without: None) -> PromptBuilder:
    ids = {role: token for role, token in _MARKERS.items() if role not in without}
    return PromptBuilder(LAYOUTS[layout], Vocabulary(ids), Characters(), budgets, heal=heal)


AREA = Chunk("/w", "shapes/geo.py", 3, 5, "def area(w, h):\n    # both in metres\n    return w * h\n", "function")
METHOD = Chunk("/w", "app.ts", 9, 9, "  return this.w;\n", "block", header="class Box { width(): number {")
CURSOR = Cursor("/w/main.py", "from geo import area\n\nprint(area(", "))\n", "python")

GOLDENS = {
    "repoformer": (
        "⟨prefix⟩from geo import area\n\nprint(area(⟨suffix⟩))\n⟨eof⟩",
        "⟨prefix⟩from geo import area\n\nprint(area(⟨suffix⟩))\n⟨eof⟩⟨middle⟩",
        "⟨prefix⟩from geo import area\n\nprint(area(⟨suffix⟩))\n⟨eof⟩⟨cc⟩"
        "\n\n# Here are some relevant code fragments from other files of the repo:\n\n"
        "# the below code fragment can be found in:\n# shapes/geo.py\n"
        "# def area(w, h):\n#     # both in metres\n#     return w * h\n\n"
        "# the below code fragment can be found in:\n# app.ts\n"
        "# class Box { width(): number {\n#   return this.w;\n\n⟨middle⟩",
    ),
    "repoformer-spm": (
        "⟨suffix⟩))\n⟨prefix⟩from geo import area\n\nprint(area(⟨eof⟩",
        "⟨suffix⟩))\n⟨prefix⟩from geo import area\n\nprint(area(⟨eof⟩⟨middle⟩",
        "⟨suffix⟩))\n⟨cc⟩"
        "# shapes/geo.py\ndef area(w, h):\n    # both in metres\n    return w * h\n\n"
        "# app.ts\nclass Box { width(): number {\n  return this.w;\n\n"
        "⟨prefix⟩from geo import area\n\nprint(area(⟨eof⟩⟨middle⟩",
    ),
    "repoformer-spm-tail": (
        "⟨suffix⟩))\n⟨prefix⟩from geo import area\n\nprint(area(⟨eof⟩",
        "⟨suffix⟩))\n⟨prefix⟩from geo import area\n\nprint(area(⟨eof⟩⟨middle⟩",
        "⟨suffix⟩))\n⟨prefix⟩from geo import area\n\nprint(area(⟨eof⟩⟨cc⟩"
        "# shapes/geo.py\ndef area(w, h):\n    # both in metres\n    return w * h\n\n"
        "# app.ts\nclass Box { width(): number {\n  return this.w;\n\n"
        "⟨middle⟩\nprint(area(",
    ),
    "fim-psm": (
        None,
        "⟨bos⟩⟨prefix⟩from geo import area\n\nprint(area⟨suffix⟩))\n⟨middle⟩¦(",
        "⟨bos⟩⟨prefix⟩"
        "\n\n# Here are some relevant code fragments from other files of the repo:\n\n"
        "# the below code fragment can be found in:\n# shapes/geo.py\n"
        "# def area(w, h):\n#     # both in metres\n#     return w * h\n\n"
        "# the below code fragment can be found in:\n# app.ts\n"
        "# class Box { width(): number {\n#   return this.w;\n\n"
        "from geo import area\n\nprint(area⟨suffix⟩))\n⟨middle⟩¦(",
    ),
    "fim-psm-files": (
        None,
        "⟨bos⟩⟨prefix⟩from geo import area\n\nprint(area⟨suffix⟩))\n⟨middle⟩¦(",
        "⟨bos⟩⟨repo⟩w\n"
        "⟨file_sep⟩shapes/geo.py\ndef area(w, h):\n    # both in metres\n    return w * h\n"
        "⟨file_sep⟩app.ts\nclass Box { width(): number {\n  return this.w;\n"
        "⟨file_sep⟩main.py\n⟨prefix⟩from geo import area\n\nprint(area⟨suffix⟩))\n⟨middle⟩¦(",
    ),
    "fim-spm": (  # the prefix has fewer lines than a step, so nothing of it comes before the suffix
        None,
        "⟨bos⟩⟨prefix⟩⟨suffix⟩))\n⟨middle⟩from geo import area\n\nprint(area¦(",
        "⟨bos⟩⟨prefix⟩"
        "# shapes/geo.py\ndef area(w, h):\n    # both in metres\n    return w * h\n\n"
        "# app.ts\nclass Box { width(): number {\n  return this.w;\n\n"
        "⟨suffix⟩))\n⟨middle⟩from geo import area\n\nprint(area¦(",
    ),
    "fim-spm-middle": (
        None,
        "⟨bos⟩⟨prefix⟩⟨suffix⟩))\n⟨middle⟩from geo import area\n\nprint(area¦(",
        "⟨bos⟩⟨prefix⟩⟨suffix⟩))\n⟨middle⟩"
        "# shapes/geo.py\ndef area(w, h):\n    # both in metres\n    return w * h\n\n"
        "# app.ts\nclass Box { width(): number {\n  return this.w;\n\n"
        "from geo import area\n\nprint(area¦(",
    ),
    "fim-spm-commented": (
        None,
        "⟨bos⟩⟨prefix⟩⟨suffix⟩))\n⟨middle⟩from geo import area\n\nprint(area¦(",
        "⟨bos⟩⟨prefix⟩⟨suffix⟩))\n⟨middle⟩"
        "\n\n# Here are some relevant code fragments from other files of the repo:\n\n"
        "# the below code fragment can be found in:\n# shapes/geo.py\n"
        "# def area(w, h):\n#     # both in metres\n#     return w * h\n\n"
        "# the below code fragment can be found in:\n# app.ts\n"
        "# class Box { width(): number {\n#   return this.w;\n\n"
        "from geo import area\n\nprint(area¦(",
    ),
    "fim-spm-behind": (
        None,
        "⟨bos⟩⟨prefix⟩⟨suffix⟩))\n⟨middle⟩from geo import area\n\nprint(area¦(",
        "⟨bos⟩⟨prefix⟩⟨suffix⟩))\n"
        "# shapes/geo.py\ndef area(w, h):\n    # both in metres\n    return w * h\n\n"
        "# app.ts\nclass Box { width(): number {\n  return this.w;\n\n"
        "⟨middle⟩from geo import area\n\nprint(area¦(",
    ),
    "fim-spm-files": (
        None,
        "⟨bos⟩⟨prefix⟩⟨suffix⟩))\n⟨middle⟩from geo import area\n\nprint(area¦(",
        "⟨bos⟩⟨repo⟩w\n"
        "⟨file_sep⟩shapes/geo.py\ndef area(w, h):\n    # both in metres\n    return w * h\n"
        "⟨file_sep⟩app.ts\nclass Box { width(): number {\n  return this.w;\n"
        "⟨file_sep⟩main.py\n⟨prefix⟩⟨suffix⟩))\n⟨middle⟩from geo import area\n\nprint(area¦(",
    ),
    "prefix-only": (
        None,
        "⟨bos⟩from geo import area\n\nprint(area¦(",
        "⟨bos⟩"
        "\n\n# Here are some relevant code fragments from other files of the repo:\n\n"
        "# the below code fragment can be found in:\n# shapes/geo.py\n"
        "# def area(w, h):\n#     # both in metres\n#     return w * h\n\n"
        "# the below code fragment can be found in:\n# app.ts\n"
        "# class Box { width(): number {\n#   return this.w;\n\n"
        "from geo import area\n\nprint(area¦(",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_golden(layout: str) -> None:
    decide, abstain, retrieve = GOLDENS[layout]
    build = builder(layout)
    if decide is None:
        with pytest.raises(ValueError, match="has no decision"):
            build.decide(CURSOR)
    else:
        assert shown(build.decide(CURSOR)) == decide
    assert shown(build.without_context(CURSOR)) == abstain
    assert shown(build.with_context(CURSOR, (AREA, METHOD))) == retrieve


@pytest.mark.parametrize("layout", [name for name, row in LAYOUTS.items() if row.selective])
def test_an_abstention_continues_the_decision_prompt(layout: str) -> None:
    build = builder(layout)
    decide = build.decide(CURSOR).tokens
    assert build.without_context(CURSOR).tokens[: len(decide)] == decide


def test_comments_follow_the_language() -> None:
    cursor = Cursor("/w/a.ts", "f(", ")", "typescript")
    assert "// def area(w, h):\n" in shown(builder("fim-psm").with_context(cursor, (AREA,)))


@pytest.mark.parametrize("layout", ["fim-psm", "repoformer"])
def test_a_language_without_line_comments_gets_block_comments(layout: str) -> None:
    prompt = shown(builder(layout).with_context(Cursor("/w/a.ml", "let b = ", "\n", "ocaml"), (AREA,)))
    context = [line for line in prompt.splitlines() if "area(w, h)" in line or "geo.py" in line]
    assert len(context) == 2
    assert all(line.startswith("(* ") and line.endswith(" *)") for line in context)
    assert "//" not in prompt


def test_without_bos_where_the_model_has_none() -> None:
    assert shown(builder("prefix-only", bos=None).without_context(CURSOR)).replace("¦", "") == CURSOR.prefix


def test_an_empty_file_is_an_empty_line() -> None:
    assert shown(builder("prefix-only", bos=None).without_context(Cursor("", "", "", "python"))) == "\n"


def test_a_missing_marker_is_named_in_the_error() -> None:
    with pytest.raises(ValueError, match=r"'repoformer' needs tokens that this model lacks: cc"):
        builder("repoformer", cc=None)


def test_retrieving_no_chunks_leaves_the_context_empty() -> None:
    assert shown(builder("repoformer-spm").with_context(CURSOR, ())) == (
        "⟨suffix⟩))\n⟨cc⟩⟨prefix⟩from geo import area\n\nprint(area(⟨eof⟩⟨middle⟩"
    )


def test_special_tokens_in_the_text_stay_text() -> None:
    cursor = Cursor("", "x = '<eof>", "'\n", "python")
    assert "<eof>" in shown(builder("repoformer").decide(cursor))


def test_budgets_do_not_depend_on_the_branch() -> None:
    """If they did, a model in training could derive the label from the length of the prompt (paper, section 4.2)."""
    cursor = Cursor("", "x = 1\n" * 100, "y = 2\n" * 100, "python")
    build = builder("repoformer", Budgets(left=60, right=30, context=90))
    plain, retrieved = build.without_context(cursor), build.with_context(cursor, (AREA,))
    assert (plain.left_tokens, plain.right_tokens) == (retrieved.left_tokens, retrieved.right_tokens)
    assert plain.left_trimmed and plain.right_trimmed


def test_a_chunk_that_does_not_fit_is_cut_where_a_statement_ends() -> None:
    text = "def f():\n    a = 1\n    b = g(\n        2,\n        3,\n    )\n    c = 4\n"
    chunk = Chunk("/w", "a.py", 1, 7, text, "function")
    prompt = builder("repoformer-spm", Budgets(context=70)).with_context(CURSOR, (chunk,))
    assert prompt.chunks[0].text == "def f():\n    a = 1\n    b = g(\n        2,\n        3,\n    )\n"
    assert prompt.chunks[0].end_line == 6


def test_chunks_are_used_best_first_within_the_budget() -> None:
    chunks = [Chunk("/w", f"{name}.py", 1, 1, f"{name} = 1\n", "block") for name in "abcdef"]
    prompt = builder("repoformer-spm", Budgets(context=50)).with_context(CURSOR, chunks)
    assert [chunk.path for chunk in prompt.chunks] == ["a.py", "b.py", "c.py"]


def _characters(line: str) -> int:
    return len(line)


def test_left_cut_stays_put_while_a_line_is_typed() -> None:
    text = "".join(f"value_{number} = {number}\n" for number in range(200))
    cuts = {left_cut(text[:end], 400, 8, _characters) for end in range(2000, 2100)}
    assert len(cuts) <= 2


@given(
    st.text(st.sampled_from("ab \n"), max_size=600),
    st.integers(1, 200),
    st.sampled_from([1, 2, 4, 8]),
)
def test_left_cut_is_a_line_start_within_the_budget(prefix: str, budget: int, step: int) -> None:
    cut = left_cut(prefix, budget, step, _characters)
    assert cut == 0 or prefix[cut - 1] == "\n"
    last_line = prefix[prefix.rfind("\n") + 1 :]
    assert len(prefix) - cut <= max(budget, len(last_line))
    # The cut moves in steps of several lines, which may leave out at most half of the lines that fit. The length of the
    # last line is rounded up.
    earlier = prefix.rfind("\n", 0, max(0, cut - 1)) + 1
    rounded = budget - LINE_GRAIN
    if cut and len(prefix) - earlier <= rounded:
        assert step > 1
        kept = prefix[cut:].count("\n") + 1
        fitting = prefix[max(0, len(prefix) - rounded) :].count("\n") + 1
        assert kept >= fitting - max(1, fitting // 2) - 1


@pytest.mark.parametrize("above", [3, 40, 200])
def test_left_cut_does_not_move_while_a_line_grows_and_shrinks(above: int) -> None:
    text = "".join(f"value_{number} = {number}\n" for number in range(above))
    assert len({left_cut(text + "x" * typed, 400, 8, _characters) for typed in range(LINE_GRAIN + 1)}) == 1


def test_the_head_of_the_left_context_is_in_the_prefix() -> None:
    lines = [f"v{number} = {number}\n" for number in range(13)]
    cursor = Cursor("/w/main.py", "".join(lines) + "print(", ")\n", "python")
    build = builder("fim-spm")
    head, tail = "".join(lines[:8]), "".join(lines[8:]) + "print"
    assert shown(build.without_context(cursor)) == f"⟨bos⟩⟨prefix⟩{head}⟨suffix⟩)\n⟨middle⟩{tail}¦("
    assert shown(build.with_context(cursor, (AREA,))) == (
        "⟨bos⟩⟨prefix⟩# shapes/geo.py\ndef area(w, h):\n    # both in metres\n    return w * h\n\n"
        f"{head}⟨suffix⟩)\n⟨middle⟩{tail}¦("
    )


@given(st.text(st.sampled_from("ab\n"), max_size=200), st.sampled_from([1, 2, 4, 8]))
def test_the_tail_begins_at_a_step_and_is_long_enough(prefix: str, step: int) -> None:
    cut = tail_cut(prefix, step)
    assert prefix[:cut].count("\n") % step == 0 and (cut == 0 or prefix[cut - 1] == "\n")
    lines = prefix[cut:].count("\n") + 1
    assert lines < TAIL_LINES + step
    assert cut == 0 or lines >= TAIL_LINES


def test_the_left_context_does_not_move_with_the_length_of_the_healed_word() -> None:
    text = "".join(f"value_{number} = {number}\n" for number in range(60))
    starts = set()
    for budget in range(300, 332):  # one of these budgets is just enough for one more line
        build = builder("fim-spm", Budgets(left=budget))
        prompts = [
            shown(build.without_context(Cursor("", text + typed, "", ""))) for typed in ("a", "a_long", "a_long_name")
        ]
        starts |= {len({prompt[:60] for prompt in prompts})}
    assert starts == {1}


@given(st.text(st.sampled_from("ab \n"), max_size=200), st.text(st.sampled_from("ab "), max_size=20))
def test_a_keystroke_in_a_line_only_appends(prefix: str, typed: str) -> None:
    build = builder("fim-spm", heal=False)
    before, after = (build.without_context(Cursor("", text, "c\n", "")).tokens for text in (prefix, prefix + typed))
    assert after[: len(before)] == before


@pytest.mark.parametrize("layout", ["repoformer-spm", "fim-spm"])
@given(st.text(st.sampled_from("ab \n"), max_size=300), st.text(st.sampled_from("ab \n"), max_size=300))
def test_budgets_hold(layout: str, prefix: str, suffix: str) -> None:
    prompt = builder(layout, Budgets(60, 30, 80)).with_context(Cursor("", prefix, suffix, ""), (AREA, METHOD))
    assert prompt.left_tokens <= 60
    assert prompt.right_tokens <= 30
    assert prompt.context_tokens <= 80


@pytest.mark.parametrize("layout", ["repoformer", "fim-spm"])
@given(
    st.text(st.sampled_from("ab \n"), max_size=600),
    st.text(st.sampled_from("ab \n"), max_size=100),
    st.integers(1, 12),
    st.sampled_from([1, 2, 3, 4, 8, 12]),
)
def test_truncated_text_changes_no_prompt(layout: str, prefix: str, suffix: str, left: int, step: int) -> None:
    budgets = Budgets(left, 3, 80, step)
    build = builder(layout, budgets)
    cursor = Cursor("/w/main.py", prefix, suffix, "python")
    near = truncate(cursor, budgets)
    assert build.with_context(near, (AREA,)) == build.with_context(cursor, (AREA,))
    assert len(near.prefix) <= (left + 2) * MAX_TOKEN_LENGTH + 1
    assert len(near.suffix) <= 3 * MAX_TOKEN_LENGTH + 1


def test_budgets_shrink_in_proportion() -> None:
    assert Budgets(1024, 512, 512).fit(1024) == Budgets(512, 256, 256)
    assert Budgets(100, 50, 50).fit(1000) == Budgets(100, 50, 50)
