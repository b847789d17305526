"""The operations of `indexer.arrays`, which work block by block, return the same results as those of numpy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer import arrays


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "BLOCK", 4)
        yield


@given(st.lists(st.integers(0, 11), max_size=40))
def test_repeat_and_cumsum(counts: list[int]) -> None:
    lengths, values = np.array(counts, np.int32), np.arange(len(counts), dtype=np.uint64)
    repeated = arrays.repeat(values, lengths)
    assert repeated.tolist() == np.repeat(values, lengths).tolist()
    assert repeated.dtype == values.dtype
    assert arrays.cumsum(lengths).tolist() == np.cumsum(lengths).tolist()
