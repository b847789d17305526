"""Token healing: leave the last word before the cursor out of the prompt, and have the model write it again.

A cursor may be inside what the tokenizer makes one token: behind `.app` in `.append`, behind four spaces of an
indentation whose next token takes the last space along. A model that reads those tokens as they are has never seen
what follows them, and repeats the word or adds a space. So the prompt ends before the word, and the first generated
tokens are limited to those whose bytes agree with it. The generation may then choose `.append` for `.app`.

The unit is the pre-token: the longest text that byte-pair tokenizers of code models (GPT-2, Qwen2, StarCoder) never
join with what precedes it. The price is a few tokens more to read for each keystroke, and a step of decoding where
the model writes the word in other tokens.
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

LONGEST_WORD = 32  # characters that are healed at most; a longer run of signs or letters is no word
# Letters with one sign or space before them; a digit; signs with a space before them; spaces. Never a line break.
_SPACE = r"[^\S\r\n]"
_SIGN = r"(?:[^\w\s]|_)"
_LAST_WORD = re.compile(
    rf"(?:(?:{_SPACE}|{_SIGN})?[^\W\d_]{{1,{LONGEST_WORD}}}|\d|{_SPACE}?{_SIGN}{{1,8}}|{_SPACE}{{1,{LONGEST_WORD}}})\Z"
)


def split_last_word(prefix: str) -> tuple[str, str]:
    """`prefix` without its last word on the cursor's line, and that word; it is empty at the start of a line."""
    tail = prefix[-2 * LONGEST_WORD - 2 :]
    found = _LAST_WORD.search(tail[tail.rfind("\n") + 1 :])
    word = found.group() if found else ""
    return prefix[: len(prefix) - len(word)], word


class PieceIndex:
    """The tokens of a vocabulary, found by the bytes that they stand for.

    `pieces` has the bytes of each token id; a token without any (a marker) is never found.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        order = sorted((token for token, piece in enumerate(pieces) if piece), key=pieces.__getitem__)
        self._pieces = [pieces[token] for token in order]
        self._tokens = np.array(order, dtype=np.int64)
        self._agreeing = lru_cache(maxsize=256)(self._find)

    def mask(self, logits: NDArray[np.float32], expected: bytes) -> NDArray[np.float32]:
        """`logits`, shape (n_vocab,), with minus infinity for each token that disagrees with the bytes `expected`.

        A token agrees if it begins with them or they begin with it. Without `expected` the same array is returned.
        """
        if not expected:
            return logits
        agreeing = self._agreeing(expected)
        if not len(agreeing):  # no tokenizer of bytes lacks one, but a vocabulary may
            return logits
        masked = np.full_like(logits, -np.inf)
        masked[agreeing] = logits[agreeing]
        return masked

    def _find(self, expected: bytes) -> NDArray[np.int64]:
        start = bisect_left(self._pieces, expected)
        end = bisect_left(self._pieces, expected + b"\xff" * 256, start)  # no piece is as long
        found = [self._tokens[start:end]]
        for length in range(1, len(expected)):
            at = bisect_left(self._pieces, expected[:length])
            while at < len(self._pieces) and self._pieces[at] == expected[:length]:
                found.append(self._tokens[at : at + 1])
                at += 1
        return np.concatenate(found)


def left_to_write(expected: bytes, piece: bytes) -> bytes:
    """The bytes of `expected` that remain after `piece` was written."""
    return expected[len(piece) :] if expected.startswith(piece) else b""
