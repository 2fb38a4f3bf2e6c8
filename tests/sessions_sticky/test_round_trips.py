"""How often an operation goes to Redis and back, as the server counts it."""

from __future__ import annotations

import asyncio

import pytest

from sessions_sticky import Outcome, sessions
from sessions_sticky.stores import local_cache
from tests.conftest import patient_config
from tests.servers import start_server
from tests.sessions_sticky.calls import MOVE, PROPOSAL, method_of


@pytest.fixture
def counted(program, settings, monkeypatch):
    """Run a coroutine function or a function; return its result and the round trips it took.

    The tests have a separate server. The server counts what it reads: a command, or a pipeline,
    of this size is one read.
    """
    monkeypatch.setattr(local_cache, "CHECK_SECONDS", 60)  # the warm-up checks for a loss
    with start_server(program) as server, server.client() as client:
        settings.CACHES = {"default": patient_config(server.url)}

        def reads():
            return client.info("stats")["total_reads_processed"]

        async def run(function):
            # Connect, say hello, and teach the server the scripts.
            if asyncio.iscoroutinefunction(function):
                await sessions.aresolve("warm-up", **PROPOSAL)
            else:
                sessions.resolve("warm-up", **PROPOSAL)
            before = reads()
            result = function()
            if asyncio.iscoroutine(result):
                result = await result
            return result, reads() - before - 1  # the counting itself is one

        yield run


@pytest.fixture(params=["sync", "async"])
def once(request, counted):
    """Count the round trips of one method, or of its twin."""

    async def run(method, *args, **kwargs):
        if request.param == "sync":
            return await counted(lambda: method_of(sessions, method)(*args, **kwargs))

        async def call():
            return await method_of(sessions, f"a{method}")(*args, **kwargs)

        return await counted(call)

    return run


async def test_resolve_takes_two_round_trips_when_it_binds_and_one_when_it_hits(once):
    (_, outcome), trips = await once("resolve", "conv-123", **PROPOSAL)
    assert (outcome, trips) == (Outcome.CREATED, 2)
    for _ in range(3):
        (_, outcome), trips = await once("resolve", "conv-123", **PROPOSAL)
        assert (outcome, trips) == (Outcome.HIT, 1)


async def test_reading_and_writing_take_one_round_trip(once):
    await once("create", "conv-124", **PROPOSAL)  # teaches the server the script
    session, trips = await once("create", "conv-123", **PROPOSAL)
    assert trips == 1
    assert await once("get", "conv-123") == (session, 1)
    assert await once("touch", "conv-123") == (True, 1)
    await once("rebind", session, **MOVE)  # teaches the server the script
    moved = sessions.get("conv-123")
    _, trips = await once("rebind", moved, **{**MOVE, "provider": "xai"})
    assert trips == 1


@pytest.mark.parametrize(
    ("filters", "trips"), [({}, (2, 1)), ({"provider": "openai"}, (3, 2)), ({"external_id": "user-456"}, (2, 1))]
)
async def test_page_and_count_take_few_round_trips(once, filters, trips):
    sessions.create("conv-123", **PROPOSAL)
    methods = ("page", "count")
    for method in methods:
        await once(method, **filters)  # teaches the server the scripts
    assert tuple([(await once(method, **filters))[1] for method in methods]) == trips
