"""A Redis user with exactly the documented rights, and one with a right less."""

from __future__ import annotations

import re
import shutil
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sessions_sticky import SessionManager, Turn, cache_config, sessions, stores
from sessions_sticky.jobs.job import Plan
from sessions_sticky.jobs.service import Jobs
from sessions_sticky.queries import doctor
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import Filters
from sessions_sticky.queries.server_info import Level
from sessions_sticky.stores import rights
from tests.faults import methods
from tests.servers import VALKEY, Server, program_version, start_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

DOC = (Path(__file__).parents[3] / "docs" / "how-to" / "redis-user.md").read_text()
DOCUMENTED = re.findall(r"'?(\+[a-z|]+)'?", DOC.partition("```console")[2].partition("```")[0])
FOR_DOCTOR_ONLY = {"+info", "+config|get"}
NEEDED = [right for right in DOCUMENTED if right not in FOR_DOCTOR_ONLY]
KEYS = "~sentinel:*"
PROGRAMS = [program for program in (VALKEY, shutil.which("redis-server")) if program]


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda program: Path(program).name)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with start_server(request.param, tcp=True) as server:
        yield server


@pytest.fixture
def root(server: Server) -> Iterator[redis.Redis]:
    with server.client() as client:
        client.flushall()
        client.acl_log_reset()
        yield client


@pytest.fixture
def grant(server: Server, root: redis.Redis, settings: Any) -> Iterator[Callable[..., None]]:
    """The function that makes sessions use a user with the given rights."""

    def use(*granted: str) -> None:
        root.execute_command("ACL", "DELUSER", "gateway")
        named = ["+client|setinfo"] if program_version(server.program) >= (7, 2) else []
        root.execute_command("ACL", "SETUSER", "gateway", "on", ">secret", "resetchannels", "-@all", *named, *granted)
        url = f"redis://gateway:secret@127.0.0.1:{server.port}/0"
        settings.CACHES = {"default": cache_config(url)}
        settings.SESSIONS_STICKY = {}

    yield use
    store: Any = stores.for_alias("default")
    for each in (store, store.operators):
        each._servers._pool.disconnect()


def findings() -> dict[str, Any]:
    return {finding.subject: finding for finding in doctor.examine()}


def test_documented_rights_are_those_that_doctor_checks() -> None:
    checked = [*rights.ON_KEYS, *rights.WITHOUT_KEY]
    assert sorted(NEEDED) == sorted(f"+{right}" for right in checked)
    on_cluster = re.search(r"On a Redis Cluster add `(.*)`", DOC)
    assert on_cluster
    assert on_cluster[1].replace("'", "").split() == [f"+{right}" for right in rights.ON_CLUSTER]


def test_rights_are_the_commands_that_the_source_sends() -> None:
    app = Path(rights.__file__).parents[1]
    lua = (re.findall(r"\bp?call\('([A-Z]+)'", path.read_text()) for path in app.rglob("*.lua"))
    python = (re.findall(r"Command[^\n(]*\(\(\s*\"([A-Z]+)\"", path.read_text()) for path in app.rglob("*.py"))
    sent = {name.lower() for name in chain(*lua, *python)} | {"evalsha"}
    known = {right.partition("|")[0].lstrip("+") for right in (*DOCUMENTED, *rights.ON_CLUSTER)}
    assert known - sent == {"mget", "select"}
    assert sent - known == set()


@pytest.mark.slow
def test_every_method_works_when_the_user_has_exactly_the_documented_rights(grant: Any, root: redis.Redis) -> None:
    grant(*DOCUMENTED, KEYS)
    manager = SessionManager()
    for mode in methods.MODES:
        for method in methods.EVERY_METHOD:
            session = manager.create("conv-1", **methods.BOUND, replace=True)
            manager.record_turn(Turn(conversation_id="conv-1", at=1_700_000_000.0, outcome="hit", **methods.BOUND))
            answer = methods.invoke(manager, mode, method, session)
            assert not isinstance(answer, Exception), (mode, method, answer)
    for move in (Move("azure", None, "test"), None):
        root.flushdb()
        sessions.create("conv-2", **methods.BOUND)
        jobs = Jobs()
        job = jobs.wait(jobs.start(Plan(Filters(provider="openai"), move), actor="ann"), 10)
        assert (job.state, job.done) == ("done", 1)
    found = findings()
    assert found["rights"].level is Level.OK
    assert not [each for each in found.values() if "not checked" in each.message]
    assert root.acl_log() == []


@pytest.mark.parametrize("right", NEEDED)
def test_doctor_names_the_right_when_it_is_missing(grant: Any, right: str) -> None:
    grant(*DOCUMENTED, f"-{right[1:]}", KEYS)
    errors = [each for each in doctor.examine() if each.level is Level.ERROR]
    assert errors
    assert all("docs/how-to/redis-user.md" in error.hint for error in errors)
    assert any(re.search(rf"(\+|'){re.escape(right[1:])}\b", error.message) for error in errors), errors


def test_doctor_names_all_missing_rights_when_it_cannot_even_read(grant: Any) -> None:
    grant(*DOCUMENTED, "-get", "-zadd", KEYS)
    assert findings()["rights"].message.endswith("lacks +get +zadd")
    assert "'get'" in findings()["reachable"].message


@pytest.mark.parametrize("family", rights.FAMILIES)
def test_doctor_names_the_keys_when_the_user_may_not_use_them(grant: Any, family: str) -> None:
    others = [f"~sentinel:{other}*" for other in rights.FAMILIES if other != family]
    grant(*DOCUMENTED, *others)
    assert findings()["rights"].message.endswith(f"lacks ~sentinel:{family}*")


def test_doctor_names_the_prefix_when_the_user_has_another_ones_keys(grant: Any) -> None:
    grant(*DOCUMENTED, "~other:*")
    assert findings()["rights"].message.endswith("lacks ~sentinel:*")


@pytest.mark.slow
def test_doctor_reports_what_it_could_not_check_when_the_user_may_not_see_the_server(grant: Any) -> None:
    grant(*NEEDED, KEYS)
    found = findings()
    assert found["rights"].level is Level.OK
    assert found["server"].level is Level.NOTE
    assert "'info'" in found["server"].message
