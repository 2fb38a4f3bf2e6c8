"""What the callers of pressure.py noticed of a fault: how long it lasted for them, and that it cost nothing else."""

from __future__ import annotations

from collections import Counter

from tests.faults.pressure import Report, Told

GRACE_SECONDS = 0.5
"""How long before a primary dies it may have acknowledged a write that no replica got: replication takes a moment."""
EDGE_SECONDS = 0.3
"""How long after it begins, and before it is over, an outage surely is noticed."""
WORST_SECONDS = 2.0
"""The longest that one call may take, on a busy machine; the socket timeout is 0.25 s."""
NEVER_TOLD = ("MOVED", "Moved", "AskError", "CROSSSLOT", "CrossSlot", "TRYAGAIN", "TryAgain", "READONLY", "ReadOnly")
"""What clients of Sentinel and Cluster have to understand, and callers never see."""


class Outage:
    """The answers of all processes since a fault began, in `time.monotonic()` seconds."""

    def __init__(self, reports: list[Report], began: float) -> None:
        self._began = began
        self.told = [told for report in reports for told in report.told]
        self.moved = [each for report in reports for each in report.moved]
        self.undone = [at for report in reports for at in report.undone]
        self.logged = sum((report.logged for report in reports), Counter[str]())
        self.refused = [told for told in self.told if told.what in ("degraded", "unavailable")]
        self.lost = [told for told in self.told if told.what == "lost"]
        after = [told for told in self.refused if told.at + told.seconds >= began]
        self.seconds = max((told.at + told.seconds - began for told in after), default=0.0)

    def check(self) -> None:
        """Assert that nothing moved, all ended well, and reads saw all writes but what a dead primary took along."""
        assert not self.moved, self.moved[:5]
        conflicts = [told for told in self.told if told.what == "conflict"]
        assert not conflicts, (conflicts, self.logged)
        assert self.ways_answered() == self.ways_answered(since=self._began + self.seconds)
        early, late = self._began - GRACE_SECONDS, self._began + self.seconds + GRACE_SECONDS
        assert all(early <= told.at <= late for told in self.lost), self.lost
        assert all(early <= at <= late for at in self.undone), self.undone
        assert max(told.seconds for told in self.told) < WORST_SECONDS, sorted(self.told, key=_seconds)[-3:]
        assert not [line for line in self.logged if any(word in line for word in NEVER_TOLD)], self.logged

    def ways_answered(self, since: float = 0.0) -> set[str]:
        """Return the methods that gave a good answer."""
        return {told.method for told in self.told if told.at >= since and told.is_good}

    def during(self, *outcomes: str) -> int:
        """Count the chats with these outcomes from when it must have been noticed until shortly before it was over."""
        first, last = self._began + EDGE_SECONDS, self._began + self.seconds - EDGE_SECONDS
        return sum(told.what in outcomes and first < told.at < last for told in self.told)

    def figures(self) -> dict[str, str]:
        """Return the figures for the report."""
        refused = [told for told in self.refused if told.at + told.seconds >= self._began]
        return {
            "recovery": f"{self.seconds:.1f} s",
            "calls": f"{len(self.told)}",
            "chats during the fault": f"{self.during('hit', 'created')} stored, {self.during('degraded')} from memory",
            "calls refused": f"{sum(told.what == 'unavailable' for told in refused)}",
            "longest call": f"{max(told.seconds for told in self.told) * 1000:.0f} ms",
            "conversations moved": f"{len(self.moved)}",
            "acknowledged writes lost": f"{len(self.lost) + len(self.undone)}",
        }


def _seconds(told: Told) -> float:
    return told.seconds
