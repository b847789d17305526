"""The block of a model: which sizes of batches have equal results."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from policy.engine.worker.batching import BLOCKS, Row, block_of


class StandIn:
    """Evaluates rows. A cell has the row's position and the kernel that evaluated the row."""

    def __init__(self, kernel: Callable[[int, int], int]) -> None:
        self._kernel = kernel
        self.cells: list[tuple[int, int]] = []

    def encode(self, text: str) -> list[int]:
        return [*text.encode()]

    def decode(self, rows: Sequence[Row]) -> str:
        self.cells += [(row.pos, self._kernel(number, len(rows))) for number, row in enumerate(rows)]
        return "ok"

    def truncate(self, seq: int, length: int) -> bool:
        del self.cells[length:]
        return True

    def state(self, seq: int) -> memoryview:
        return np.array(self.cells, np.int64).data


def groups_of_four(number: int, size: int) -> int:
    return int(number >= size // 4 * 4)


def tiles_from_eight(_number: int, size: int) -> int:
    return int(size < 8)


def tiles_from_32(_number: int, size: int) -> int:
    return int(size < 32)


def singly(_number: int, size: int) -> int:
    return int(size == 1)


@pytest.mark.parametrize(
    ("kernel", "block"),
    [(singly, 1), (groups_of_four, 4), (tiles_from_eight, 8), (tiles_from_32, 32), (lambda _number, size: size, 32)],
)
def test_the_block_is_measured(kernel: Callable[[int, int], int], block: int) -> None:
    llama = StandIn(kernel)
    assert block_of(llama) == block
    assert block in BLOCKS
    assert llama.cells == [], "the cache is empty again"
