"""Two projects with a prefix each on one Redis never meet."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.cache import caches

import sentinel_project
import sessions_sticky
from sentinel_project.gateway.providers import health_sync
from sentinel_project.gateway.providers.config import ECHO
from sentinel_project.gateway.routing import objects
from sentinel_project.gateway.routing.objects import StoredObject
from sessions_sticky import keys, sessions
from sessions_sticky.api.throttling import SessionThrottle
from sessions_sticky.jobs.job import Plan
from sessions_sticky.jobs.service import Jobs
from sessions_sticky.queries import doctor
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import Filters
from tests.sessions_sticky.calls import MOVE, OTHER, PROPOSAL
from tests.sessions_sticky.indexed import forget_refreshes, on_real
from tests.sessions_sticky.test_trail import turn

MINE, THEIRS = "mine:", "theirs:"


def run_job(move):
    jobs = Jobs()
    return jobs.wait(jobs.start(Plan(Filters(), move, everything=True), actor="ann"), 10)


def write_unreadable():
    caches["default"].client.get_client().set(keys.session("junk"), "junk", ex=60)
    sessions.delete("junk")


OPERATIONS = {
    "resolve": lambda: sessions.resolve("conv-1", **OTHER),
    "bind": lambda: sessions.resolve("another", **OTHER),
    "touch": lambda: (forget_refreshes(sessions), sessions.touch("conv-1")),
    "create": lambda: sessions.create("conv-1", **OTHER, replace=True),
    "rebind": lambda: sessions.rebind(sessions.get("conv-1"), **MOVE),
    "delete": lambda: sessions.delete("conv-1"),
    "delete nothing": lambda: sessions.delete("nothing"),
    "delete unreadable": write_unreadable,
    "pages": lambda: (sessions.all().page(), sessions.search("conv"), sessions.stats(), sessions.recent()),
    "delete many": lambda: sessions.filter(owner=PROPOSAL["owner"]).delete(),
    "rebind many": lambda: sessions.all().rebind(to_provider="p", reason="a test"),
    "job": lambda: (run_job(Move("p", None, "a test")), run_job(None), Jobs().recent()),
    "turn": lambda: (sessions.record_turn(turn("conv-1")), sessions.trail("conv-1"), sessions.usage()),
    "reindex": sessions.reindex,
    "doctor": doctor.examine,
    "health": lambda: health_sync.write(ECHO[0], {}, 0),
    "objects": lambda: objects._write("resp_1", StoredObject("p", "o")),
}


def fill():
    for number in range(3):
        sessions.create(f"conv-{number}", **PROPOSAL)
    sessions.rebind(sessions.get("conv-1"), **MOVE)
    sessions.delete("conv-2")
    run_job(Move("p", None, "a test"))


def keys_of(raw, prefix):
    """Return the keys of a prefix with their bytes."""
    dumps = {key: raw.dump(key) for key in raw.scan_iter()}
    return {key: dump for key, dump in dumps.items() if key.startswith(prefix.encode())}


@on_real
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_leaves_the_keys_of_another_prefix_as_they_are(manager, raw, settings, operation):
    for prefix in (THEIRS, MINE):
        settings.SESSIONS_STICKY = {"PREFIX": prefix}
        fill()
    theirs = keys_of(raw, THEIRS)
    assert len(theirs) > 8
    OPERATIONS[operation]()
    assert keys_of(raw, THEIRS) == theirs
    assert all(key.startswith((b"mine:", b"theirs:")) for key in raw.scan_iter())
    settings.SESSIONS_STICKY = {"PREFIX": THEIRS}
    assert sessions.all().count() == 2
    assert sessions.reindex() == 2


@on_real
def test_reading_sees_only_the_keys_of_its_prefix(manager, raw, settings):
    settings.SESSIONS_STICKY = {"PREFIX": THEIRS}
    fill()
    settings.SESSIONS_STICKY = {"PREFIX": MINE}
    assert sessions.get("conv-0") is None
    assert (sessions.all().count(), sessions.reindex(), sessions.recent(), sessions.history("conv-1")) == (0, 0, [], [])
    assert (list(sessions.all()), Jobs().recent(), sessions.stats().routes) == ([], [], [])
    assert not any("sampled sessions" in finding.message and "3" in finding.message for finding in doctor.examine())


def test_throttle_counts_below_the_prefix(settings, rf):
    settings.SESSIONS_STICKY = {"PREFIX": MINE}
    request = rf.get("/")
    request.user = type("User", (), {"pk": 7})
    assert SessionThrottle().get_cache_key(request, None) == "mine:throttle:7"


@pytest.mark.parametrize(("package", "default"), [(sessions_sticky, "conf.py"), (sentinel_project, "settings.py")])
def test_no_module_but_that_of_the_default_writes_the_prefix(package, default):
    (root,) = package.__path__
    literal = '"sentinel:'
    found = [path.name for path in Path(root).rglob("*.py") if literal in path.read_text()]
    assert found == [default]
