"""What the callers of pressure.py noticed of a fault: how long it lasted for them, and that it cost nothing else."""

from __future__ import annotations

from collections import Counter

from tests.faults.pressure import CallResult, Report

GRACE_SECONDS = 0.5
"""How long before its death a primary may have acknowledged writes that no replica received."""
EDGE_SECONDS = 0.3
"""Time after which an outage has certainly been noticed."""
WORST_SECONDS = 2.0
"""The longest that one call may take, on a busy machine; the socket timeout is 0.25 s."""
INTERNAL_ERRORS = (
    "MOVED",
    "Moved",
    "AskError",
    "CROSSSLOT",
    "CrossSlot",
    "TRYAGAIN",
    "TryAgain",
    "READONLY",
    "ReadOnly",
)
"""What clients of Sentinel and Cluster have to understand, and callers never see."""


OPERATORS_METHODS = {"page", "count", "stats", "history"}
"""What `pressure` calls as operators do; they have connections of their own, and wait up to 5 s for a reply."""


class Outage:
    """The answers of all processes since a fault began, in `time.monotonic()` seconds."""

    def __init__(self, reports: list[Report], began: float) -> None:
        self._began = began
        self.calls = [call for report in reports for call in report.calls]
        self.chats = [call for call in self.calls if call.method.removeprefix("a") not in OPERATORS_METHODS]
        self.moved = [each for report in reports for each in report.moved]
        self.undone = [at for report in reports for at in report.undone]
        self.logged = sum((report.logged for report in reports), Counter[str]())
        self.refused = [call for call in self.calls if call.what in ("degraded", "unavailable")]
        self.lost = [call for call in self.calls if call.what == "lost"]
        after = [call for call in self.refused if call.at + call.seconds >= began]
        self.seconds = max((call.at + call.seconds - began for call in after), default=0.0)

    def check(self) -> None:
        """Assert that nothing moved, all ended well, and reads saw all writes but what a dead primary took along."""
        assert not self.moved, self.moved[:5]
        conflicts = [call for call in self.calls if call.what == "conflict"]
        assert not conflicts, (conflicts, self.logged)
        last = {call.method: call for call in sorted(self.calls, key=lambda call: call.at)}
        assert all(call.is_good for call in last.values()), last
        early, late = self._began - GRACE_SECONDS, self._began + self.seconds + GRACE_SECONDS
        assert all(early <= call.at <= late for call in self.lost), self.lost
        assert all(early <= at <= late for at in self.undone), self.undone
        assert max(call.seconds for call in self.chats) < WORST_SECONDS, sorted(self.chats, key=_seconds)[-3:]
        assert not [line for line in self.logged if any(word in line for word in INTERNAL_ERRORS)], self.logged

    def during(self, *outcomes: str) -> int:
        """Count the chats with these outcomes from when it must have been noticed until shortly before it was over."""
        first, last = self._began + EDGE_SECONDS, self._began + self.seconds - EDGE_SECONDS
        return sum(call.what in outcomes and first < call.at < last for call in self.calls)

    def figures(self) -> dict[str, str]:
        """Return the figures for the report."""
        refused = [call for call in self.refused if call.at + call.seconds >= self._began]
        return {
            "recovery": f"{self.seconds:.1f} s",
            "calls": f"{len(self.calls)}",
            "chats during the fault": f"{self.during('hit', 'created')} stored, {self.during('degraded')} from memory",
            "calls refused": f"{sum(call.what == 'unavailable' for call in refused)}",
            "longest call": f"{max(call.seconds for call in self.chats) * 1000:.0f} ms",
            "conversations moved": f"{len(self.moved)}",
            "acknowledged writes lost": f"{len(self.lost) + len(self.undone)}",
        }


def _seconds(call: CallResult) -> float:
    return call.seconds
