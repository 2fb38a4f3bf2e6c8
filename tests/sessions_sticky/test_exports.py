from __future__ import annotations

import subprocess
import sys

import pytest

import sessions_sticky

PUBLIC = {
    *("Session", "SessionManager", "sessions", "Outcome", "Resolution", "Entry", "rendezvous", "keys", "cache_config"),
    *("SessionError", "InvalidConversationId", "InvalidSession", "SessionOwnerMismatch", "SessionConflict"),
    "SessionQuery",
    "UnknownProvider",
    *("SessionStoreUnavailable", "SessionNotSupported", "InvalidCursor", "Page", "Stats", "RouteStats", "Event"),
    *("HourStats", "Activity", "MinuteMoves", "MinuteTurns", "OwnerUsage", "RouteUsage", "SpillOver", "UsageReport"),
    *("Attempt", "Price", "PromptCache", "RecordedTurn", "Trail", "Turn", "TurnTotals", "Usage"),
    *("session_created", "session_rebound", "session_deleted"),
}


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter that has imported nothing."""
    root = sessions_sticky.__path__[0].rpartition("sessions_sticky")[0]
    environment = {"PYTHONPATH": root, "PYTHONWARNINGS": "error"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def test_all_lists_the_public_names():
    assert set(sessions_sticky.__all__) == PUBLIC
    assert len(sessions_sticky.__all__) == len(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_name_is_importable_and_listed(name):
    assert getattr(sessions_sticky, name) is not None
    assert name in dir(sessions_sticky)


def test_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = sessions_sticky.nonsense


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "unloaded"),
    [
        ("import sessions_sticky", ("django", "redis", "rest_framework", "msgspec", "sessions_sticky.manager")),
        ("from sessions_sticky import keys, rendezvous", ("django", "redis", "rest_framework")),
        ("from sessions_sticky import Session, cache_config", ("django", "redis", "rest_framework")),
        ("from sessions_sticky import *", ("rest_framework", "sentinel_project")),
    ],
)
def test_import_loads_no_more_than_it_needs(code, unloaded):
    ran = run_python(f"{code}\nimport sys\nprint([name for name in {unloaded!r} if name in sys.modules])")
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")


@pytest.mark.slow
def test_import_reads_no_settings_and_opens_nothing_before_the_first_call():
    ran = run_python(
        """
from sessions_sticky import *
from django.conf import settings
assert not settings.configured
assert Session("c", "p", "m", "o", 1).id == "c"
settings.configure(CACHES={"default": cache_config("redis://127.0.0.1:1/0")})
assert keys.session("c") == "sentinel:session:c"
try:
    sessions.get("c")
except SessionStoreUnavailable:
    print("asked the store")
"""
    )
    assert (ran.stdout, ran.stderr) == ("asked the store\n", "")
