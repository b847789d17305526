"""The schedule of scans: one scan at a time for each workspace folder, and regular scans of folders without events."""

from __future__ import annotations

# The reason why a folder that does not exist has no events. Regular scans find out when the folder exists again.
MISSING = "it does not exist"
SHARE = 10  # the pause after a scan of a folder without events is at least this many times as long as the scan


class ScanSchedule:
    """The running scans, and the scans that are due. All times are in seconds of a monotonic clock.

    If a scan of a folder is requested while another scan of it runs, the new scan starts after the running one, which
    may already have passed the changed file. At most one scan of a folder waits, however slow the disk is.
    """

    def __init__(self, poll_seconds: float) -> None:
        self._poll_seconds = poll_seconds
        self._started: dict[str, float] = {}
        self._again: set[str] = set()
        self._polls: dict[str, float] = {}

    def request(self, root: str, now: float) -> bool:
        """Return whether to start a scan of a folder now. If one is running, remember that another one must follow."""
        if root in self._started:
            self._again.add(root)
            return False
        self._started[root] = now
        self._polls.pop(root, None)
        return True

    def finish(self, root: str, now: float, *, has_events: bool) -> bool:
        """Record the end of a scan, and return whether to request another one.

        If the folder's events are incomplete (`has_events` is False), the folder is due again after some time.
        """
        started = self._started.pop(root, now)
        again = root in self._again
        self._again.discard(root)
        if not has_events:
            self._polls[root] = now + max(self._poll_seconds, SHARE * (now - started))
        return again

    def due(self) -> float:
        """Return the time at which the next folder is due, or infinity if every folder has events."""
        return min(self._polls.values(), default=float("inf"))

    def take(self, now: float) -> list[str]:
        """Remove the folders that are due from the schedule, and return them."""
        due = [root for root, at in self._polls.items() if at <= now]
        for root in due:
            del self._polls[root]
        return due

    def remove(self, root: str) -> None:
        """Remove a folder that left the workspace."""
        self._started.pop(root, None)
        self._again.discard(root)
        self._polls.pop(root, None)
