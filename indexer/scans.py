"""When workspace folders are compared with the disk: one scan a folder at a time, and how often without events."""

from __future__ import annotations

MISSING = "it is not there"  # why a folder has no events, and has to be looked for from time to time
SHARE = 10  # a folder without events is compared at most a tenth of the time


class ScanSchedule:
    """The scans that run, and those that are due. Times are passed in, in seconds of a monotonic clock.

    A request while a scan runs is kept until that scan ends: the scan may already have passed what changed. So there
    is never more than one scan of a folder waiting, however slow the disk is.
    """

    def __init__(self, poll_seconds: float) -> None:
        self._poll_seconds = poll_seconds
        self._started: dict[str, float] = {}
        self._again: set[str] = set()
        self._polls: dict[str, float] = {}

    def request(self, root: str, now: float) -> bool:
        """Tell whether to start a scan of a folder now; if one runs, note that another one must follow."""
        if root in self._started:
            self._again.add(root)
            return False
        self._started[root] = now
        self._polls.pop(root, None)
        return True

    def finish(self, root: str, now: float, *, has_events: bool) -> bool:
        """Take down that a scan has ended; tell whether to request another one.

        A folder whose events are not complete is due again after some time.
        """
        started = self._started.pop(root, now)
        again = root in self._again
        self._again.discard(root)
        if not has_events:
            self._polls[root] = now + max(self._poll_seconds, SHARE * (now - started))
        return again

    def due(self) -> float:
        """Return when the next folder is to be compared; infinite if every folder has events."""
        return min(self._polls.values(), default=float("inf"))

    def take(self, now: float) -> list[str]:
        """Return the folders that are due, and forget that they were."""
        due = [root for root, at in self._polls.items() if at <= now]
        for root in due:
            del self._polls[root]
        return due

    def remove(self, root: str) -> None:
        """Forget a folder that left the workspace."""
        self._started.pop(root, None)
        self._again.discard(root)
        self._polls.pop(root, None)
