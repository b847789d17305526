"""The common prefix of two sequences."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policy.common_prefix import common_prefix


@given(st.text("ab", max_size=12), st.text("ab", max_size=12), st.text("ab", max_size=12))
def test_the_length_is_that_of_the_longest_common_prefix(shared: str, left: str, right: str) -> None:
    left, right = shared + left, shared + right
    length = max(length for length in range(len(left) + 1) if right.startswith(left[:length]))
    assert common_prefix(left, right) == length
    assert common_prefix(left.encode(), right.encode()) == length
    assert common_prefix([*left.encode()], [*right.encode()]) == length
