"""The prompts that are sent to a generating server as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.model import Chunk, Cursor
from policy.generators.text import FAMILIES, MAX_PIECES, TextPrompts
from policy.prompting.prompt import Budgets

CURSOR = Cursor("/w/main.py", "x = area(", ")\n", "python")
CHUNK = Chunk("/w", "geo.py", 1, 2, "def area(w, h):\n    return w * h\n", "function")
HEAD = "\n\n# Here are some relevant code fragments from other files of the repo:\n\n"
COMMENTED = HEAD + "# the below code fragment can be found in:\n# geo.py\n# def area(w, h):\n#     return w * h\n\n"
PLAIN = "# geo.py\ndef area(w, h):\n    return w * h\n\n"


@pytest.mark.parametrize(
    ("family", "plain", "retrieved"),
    [
        ("suffix", "x = area(", COMMENTED + "x = area("),
        (
            "starcoder",
            "<fim_prefix>x = area(<fim_suffix>)\n<fim_middle>",
            f"<fim_prefix>{COMMENTED}x = area(<fim_suffix>)\n<fim_middle>",
        ),
        (
            "qwen",
            "<|fim_prefix|>x = area(<|fim_suffix|>)\n<|fim_middle|>",
            "<|repo_name|>w\n<|file_sep|>geo.py\ndef area(w, h):\n    return w * h\n<|file_sep|>main.py\n"
            "<|fim_prefix|>x = area(<|fim_suffix|>)\n<|fim_middle|>",
        ),
        ("codellama", "<PRE> x = area( <SUF>)\n <MID>", f"<PRE> {COMMENTED}x = area( <SUF>)\n <MID>"),
        ("codestral", "[SUFFIX])\n[PREFIX]x = area(", f"[SUFFIX])\n[PREFIX]{PLAIN}x = area("),
        (
            "repoformer",
            "<fim_prefix>x = area(<fim_suffix>)\n<eof><fim_middle>",
            f"<fim_prefix>x = area(<fim_suffix>)\n<eof><cc>{COMMENTED}<fim_middle>",
        ),
        (
            "repoformer-spm",
            "<fim_suffix>)\n<fim_prefix>x = area(<eof><fim_middle>",
            f"<fim_suffix>)\n<cc>{PLAIN}<fim_prefix>x = area(<eof><fim_middle>",
        ),
    ],
)
def test_each_family_gets_its_prompt(family: str, plain: str, retrieved: str) -> None:
    prompts = TextPrompts(family, Budgets())
    assert prompts.generate(CURSOR, None).text == plain
    written = prompts.generate(CURSOR, [CHUNK])
    assert written.text == retrieved
    assert written.suffix == (")\n" if family == "suffix" else None)
    assert written.prompt.chunks == (CHUNK,)


def test_some_families_decide() -> None:
    deciding = {family for family in FAMILIES if TextPrompts(family, Budgets()).selective}
    assert deciding == {"repoformer", "repoformer-spm", "repoformer-spm-tail"}
    assert TextPrompts("repoformer", Budgets()).decide(CURSOR).text == "<fim_prefix>x = area(<fim_suffix>)\n<eof>"


def test_a_server_gets_at_most_four_stops() -> None:
    for family in FAMILIES:
        assert len(TextPrompts(family, Budgets()).stops) <= 4
    assert TextPrompts("qwen", Budgets()).stops[0] == "<|file_sep|>", "the marker that ends a file is no stop"


@given(st.text())
def test_pieces_are_the_text(text: str) -> None:
    prompts = TextPrompts("suffix", Budgets())
    assert prompts._text(prompts.encode(text)) == text


def test_budgets_hold() -> None:
    left = "".join(f"value_{number} = compute({number})\n" for number in range(500))
    prompt = TextPrompts("suffix", Budgets(left=100, right=20, context=50)).generate(
        Cursor("", left, left, "python"), None
    )
    assert prompt.prompt.left_tokens <= 100 and prompt.prompt.right_tokens <= 20
    assert left.endswith(prompt.text) and prompt.suffix and left.startswith(prompt.suffix)


def test_pieces_are_not_kept_for_ever() -> None:
    prompts = TextPrompts("qwen", Budgets())
    for number in range(300):
        names = " ".join(f"v{number}x{other}q{number * other}" for other in range(300))
        written = prompts.generate(Cursor("/w/a.py", names, "", "python"), None).text
        assert names[-50:] in written
        assert len(prompts._pieces) < 2 * MAX_PIECES
