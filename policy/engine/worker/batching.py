"""Divide prompts into batches so that the result does not depend on how many tokens were in the KV cache.

ggml evaluates the rows (tokens) of a batch with different kernels, which round sums differently. For example, it
multiplies with repacked weights of type Q4_K in groups of four rows, and the remaining one to three rows singly. So the
result of a row can depend on the size of its batch, and the KV cache would contain the difference.

A *block* is a number of rows such that only rows after the last whole block of a batch are evaluated in another way.
Every batch of a prompt begins at a multiple of the block, and all batches but the last have a multiple of this size.
Then the result depends only on the prompt. The cost is that up to one block of cached tokens is evaluated again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from policy.common_prefix import common_prefix

MIN_ROWS = 2  # a batch of one row differs from all others, so no prompt is evaluated in such a batch
MULTIPLE = 8  # the sizes of all batches but the last are multiples of this, because other sizes take more time per row

_START = 32  # tokens of the sample before those that are compared
# For each block, the sizes of batches to compare with one large batch. There are many small batches, because a
# difference in the last bit of a sum does not change the cells of every row.
_DIVISIONS = {1: (2, 3, 2, 5, 4), 4: (4,) * 4, 8: (8,) * 2, 16: (16,)}
_COMPARED = 16  # the sum of each division
BLOCKS = (*_DIVISIONS, 32)  # the last is for a model that agrees with none of the divisions
_SAMPLE = """def parse_header(line: bytes, limit=8192):
    # Return (name, value) of one header field, or None for an empty line.
    if not line.strip():
        return None
    name, _, value = line.decode("latin-1").partition(":")
    if len(value) > limit or any(ord(c) < 32 for c in name):
        raise ValueError(f"invalid header {name!r}: {len(line)} bytes")
    return name.lower().replace("_", "-"), value.strip(" \\t")
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One token to evaluate, at position `pos` of sequence `seq`. `logits` requests the logits after it."""

    token: int
    pos: int
    seq: int
    logits: bool = False


class Context(Protocol):
    """What `block_of` needs of a loaded model, see `policy.engine.worker.llama.Llama`."""

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text`."""
        ...

    def decode(self, rows: Sequence[Row]) -> str:
        """Evaluate `rows`."""
        ...

    def truncate(self, seq: int, length: int) -> bool:
        """Keep only the first `length` positions of `seq`."""
        ...

    def state(self, seq: int) -> memoryview:
        """Return the cells of `seq`."""
        ...


def prompt_rows(
    seq: int, start: int, tokens: Sequence[int], grain: int, wanted: int = MIN_ROWS, block: int = 1
) -> Iterator[list[Row]]:
    """Yield batches of at most `grain` rows that append `tokens` to sequence `seq`, from position `start` on.

    `start` is a multiple of `block`. The last `wanted` rows have logits and are in the same batch. The sizes of all
    batches but the last are multiples of `block` and `MULTIPLE`, and `grain` is rounded up to such a multiple. With two
    or more tokens, no batch is a single row.
    """
    multiple = max(block, MULTIPLE)
    grain = -(-grain // multiple) * multiple
    done = 0
    while (left := len(tokens) - done) > 0:
        size = left if left <= grain else min(grain, (left - wanted) // multiple * multiple) or left
        yield [Row(tokens[at], start + at, seq, logits=at >= len(tokens) - wanted) for at in range(done, done + size)]
        done += size


def whole_blocks(tokens: int, block: int) -> int:
    """Return the number of tokens in the whole blocks of a prompt of `tokens` tokens."""
    return tokens // block * block


def reusable(held: list[int], read: int, prompt: list[int], block: int) -> int:
    """Return the number of the first tokens of `prompt` whose cells in a sequence can be used again.

    The sequence has the tokens `held`. The first `read` of them were evaluated as a prompt. The others were generated,
    so llama.cpp evaluated each of them alone. Only the cells of whole blocks are used.
    """
    return whole_blocks(min(common_prefix(held, prompt), read), block)


def block_of(llama: Context) -> int:
    """Return the smallest block with which cells of the KV cache are equal bit for bit. `llama` has an empty cache.

    The function evaluates a short prompt in one batch, and then its end in several batches. This takes as long as
    reading 70 to 110 tokens. A rule that does not measure would have to know the kernels of every library, for every
    type of weights and every processor.
    """
    tokens = llama.encode(_SAMPLE)[: _START + _COMPARED]
    assert len(tokens) == _START + _COMPARED, "the sample is too short"
    _append(llama, tokens, 0, len(tokens))
    ends = {_START + sum(sizes[:count]) for sizes in _DIVISIONS.values() for count in range(1, len(sizes) + 1)}
    expected: dict[int, bytes] = {}
    for end in sorted(ends, reverse=True):
        llama.truncate(0, end)
        expected[end] = llama.state(0).tobytes()
    try:
        agreeing = (block for block, sizes in _DIVISIONS.items() if _agrees(llama, tokens, sizes, expected))
        return next(agreeing, BLOCKS[-1])
    finally:
        llama.truncate(0, 0)


def _agrees(llama: Context, tokens: Sequence[int], sizes: Sequence[int], expected: Mapping[int, bytes]) -> bool:
    """Return whether the cells are as expected after each batch, if the compared tokens have batches of these sizes."""
    llama.truncate(0, _START)
    end = _START
    for size in sizes:
        _append(llama, tokens, end, end + size)
        end += size
        if llama.state(0).tobytes() != expected[end]:
            return False
    return True


def _append(llama: Context, tokens: Sequence[int], start: int, end: int) -> None:
    llama.decode([Row(tokens[at], at, 0, logits=at == end - 1) for at in range(start, end)])
