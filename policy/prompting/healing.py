"""Token healing: leave the last word before the cursor out of the prompt, and have the model generate it again.

The cursor may be inside a text that the tokenizer encodes as one token: after `.app` in `.append`, or after an
indentation whose last space belongs to the token of the next word. If the prompt ends with the tokens of the partial
word, the model reads a sequence that is rare in its training data, and repeats the word or adds a space. So the prompt
ends before the word, and the first generated tokens are restricted to those whose bytes agree with the word. The model
can then generate `.append` for `.app`.

The word is one pre-token: before the byte-pair tokenizers of code models (GPT-2, Qwen2, StarCoder) look for tokens,
they split a text into pre-tokens, so no token crosses the beginning of the word. The cost of healing is a few more
tokens to evaluate for each keystroke, and one decoding step for each token of the generated word.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_WORD_LENGTH = 32  # characters; only the last 32 of a longer sequence of letters or spaces are healed
# The last word is one of: letters, with an optional space or punctuation character before them; one digit; punctuation,
# with an optional space before it; or spaces. It contains no line break.
_SPACE = r"[^\S\r\n]"
_SIGN = r"(?:[^\w\s]|_)"
_LAST_WORD = re.compile(
    rf"(?:(?:{_SPACE}|{_SIGN})?[^\W\d_]{{1,{MAX_WORD_LENGTH}}}|\d|{_SPACE}?{_SIGN}{{1,8}}|{_SPACE}{{1,{MAX_WORD_LENGTH}}})\Z"
)


def split_last_word(prefix: str) -> tuple[str, str]:
    """Return `prefix` without its last word, and that word.

    The word is on the cursor's line. It is empty if the cursor is at the start of a line.
    """
    tail = prefix[-2 * MAX_WORD_LENGTH - 2 :]
    found = _LAST_WORD.search(tail[tail.rfind("\n") + 1 :])
    word = found.group() if found else ""
    return prefix[: len(prefix) - len(word)], word


class PieceIndex:
    """An index of the tokens of a vocabulary by their bytes.

    `pieces[id]` has the bytes of the token `id`. A token without bytes (a marker) is never found.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        order = sorted((token for token, piece in enumerate(pieces) if piece), key=pieces.__getitem__)
        self._pieces = [pieces[token] for token in order]
        self._tokens = np.array(order, dtype=np.int64)
        self._agreeing = lru_cache(maxsize=256)(self._find)

    def mask(self, logits: NDArray[np.float32], expected: bytes) -> NDArray[np.float32]:
        """Return `logits` with minus infinity for all tokens that disagree with the bytes `expected`.

        `logits` has the shape (n_vocab,) and is not changed. A token agrees if its bytes begin with `expected`, or if
        `expected` begins with its bytes. If `expected` is empty or no token agrees, the result is `logits` itself.
        """
        if not expected:
            return logits
        agreeing = self._agreeing(expected)
        if not len(agreeing):  # this cannot happen with a vocabulary that has a token for every byte
            return logits
        masked = np.full_like(logits, -np.inf)
        masked[agreeing] = logits[agreeing]
        return masked

    def _find(self, expected: bytes) -> NDArray[np.int64]:
        start = bisect_left(self._pieces, expected)
        # This key sorts after every piece that begins with `expected`.
        end = bisect_left(self._pieces, expected + b"\xff" * 256, start)
        found = [self._tokens[start:end]]
        for length in range(1, len(expected)):
            at = bisect_left(self._pieces, expected[:length])
            while at < len(self._pieces) and self._pieces[at] == expected[:length]:
                found.append(self._tokens[at : at + 1])
                at += 1
        return np.concatenate(found)


def left_to_write(expected: bytes, piece: bytes) -> bytes:
    """Return the bytes of `expected` that the model still has to generate after it has generated `piece`."""
    return expected[len(piece) :] if expected.startswith(piece) else b""
