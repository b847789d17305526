"""What the disk tells of, and what it does not."""

from __future__ import annotations

import time
from pathlib import Path

from indexer.watching import Watcher


def test_reading_is_no_event_and_writing_is(tmp_path: Path) -> None:
    """Else listing the folders after a queue of events ran over would make it run over again, without end."""
    for number in range(50):
        (tmp_path / f"d{number}").mkdir()
        (tmp_path / f"d{number}" / "f.py").write_text("x = 1\n")
    seen: list[str] = []
    watcher = Watcher(seen.extend)
    assert watcher.start([tmp_path]) == ""
    try:
        for _ in range(3):
            assert len([path.read_text() for path in sorted(tmp_path.rglob("*.py"))]) == 50
        (tmp_path / "d7" / "f.py").write_text("x = 2\n")
        end = time.monotonic() + 20
        while not seen and time.monotonic() < end:
            time.sleep(0.02)
        assert set(seen) == {str(tmp_path / "d7" / "f.py")}
    finally:
        watcher.stop()
