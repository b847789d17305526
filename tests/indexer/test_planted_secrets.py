"""No chunk of the index contains a planted secret."""

from __future__ import annotations

import pytest

from indexer.snapshot import Snapshot
from tests.planted_secrets import COUNT, KINDS, planted


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_planted_secret_is_shown(kind: str) -> None:
    missed = []
    for seed in range(COUNT):
        path, text, value = planted(seed)
        if path == kind:
            assert value in text
            shown = "\n".join(f"{chunk.header}\n{chunk.text}" for chunk in Snapshot.of([(path, text)]).all_chunks())
            if value in shown or value[2:-2] in shown:
                missed.append([line for line in text.split("\n") if value in line])
    assert not missed
