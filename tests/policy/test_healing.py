"""Token healing: which text the model must generate again, and which tokens it may use for this text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.engine.worker.decoding import start_of
from policy.prompting.healing import PieceIndex, left_to_write, split_last_word
from policy.prompting.prompt import Prompt


@pytest.mark.parametrize(
    ("prefix", "word"),
    [
        ("", ""),
        ("x = 1\n", ""),
        ("x = fo", " fo"),
        ("foo.ba", ".ba"),
        ("foo_bar", "_bar"),
        ("if a:\n    ", "    "),
        ("x = ", " "),
        ("f(a, ", " "),
        ("f(", "("),
        ("a ==", " =="),
        ("x = [1, 23", "3"),
        ("naïve", "naïve"),
        ("变量", "变量"),
        ("a\r\n\t\tre", "\tre"),
    ],
)
def test_the_last_word_on_the_line(prefix: str, word: str) -> None:
    assert split_last_word(prefix) == (prefix.removesuffix(word), word)


@given(st.text(alphabet="ab1_ .(\n\té\ud7ff", max_size=100))
def test_nothing_is_lost_and_no_line_break_is_healed(prefix: str) -> None:
    whole, word = split_last_word(prefix)
    assert whole + word == prefix
    assert "\n" not in word
    assert word or prefix[-1:] in ("", "\n")


def test_a_run_without_end_is_healed_in_part() -> None:
    for run in ("a" * 10_000, " " * 10_000, "=" * 10_000):
        assert 0 < len(split_last_word(run)[1]) <= 34


PIECES = [b"", b"re", b"return", b"ret", b"r", b" re", b"turn", b"\xc3", b"\xc3\xa9", b"\xa9", b"x"]


@given(st.binary(min_size=1, max_size=6) | st.sampled_from([piece for piece in PIECES if piece]))
def test_agreeing_tokens_are_those_of_a_plain_search(expected: bytes) -> None:
    logits = np.arange(len(PIECES), dtype=np.float32)
    agreeing = {
        token
        for token, piece in enumerate(PIECES)
        if piece and (piece.startswith(expected) or expected.startswith(piece))
    }
    masked = PieceIndex(PIECES).mask(logits, expected)
    if agreeing:
        assert {token for token in range(len(PIECES)) if masked[token] > -np.inf} == agreeing
    else:
        assert masked is logits


def test_what_is_left_to_write() -> None:
    assert left_to_write(b"return", b"re") == b"turn"
    assert left_to_write(b"re", b"return") == b""
    assert left_to_write(b"re", b"re") == b""


class Vocabulary:
    index = PieceIndex(PIECES)

    def piece(self, token: int) -> bytes:
        return PIECES[token]


def likeliest(token: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    logits = np.zeros(len(PIECES), np.float32)
    logits[token] = 1.0
    return logits


def test_a_word_that_the_model_writes_alike_stays_as_it_is() -> None:
    prompt = Prompt((7, 8), healed=(1, 6), healed_text="return")
    start = start_of(prompt, [likeliest(1), likeliest(6), likeliest(10)], Vocabulary())
    assert (start.base, start.expected) == ((7, 8, 1, 6), b"")
    assert int(start.logits.argmax()) == 10


def test_generation_starts_where_the_model_writes_another_token() -> None:
    prompt = Prompt((7, 8), healed=(1, 6), healed_text="return")
    start = start_of(prompt, [likeliest(2), likeliest(6), likeliest(10)], Vocabulary())
    assert (start.base, start.expected) == ((7, 8), b"return")


def test_a_token_that_disagrees_with_the_word_does_not_count() -> None:
    prompt = Prompt((7, 8), healed=(1, 6), healed_text="return")
    start = start_of(prompt, [likeliest(10), likeliest(6), likeliest(10)], Vocabulary())
    assert start.base == (7, 8, 1, 6)
