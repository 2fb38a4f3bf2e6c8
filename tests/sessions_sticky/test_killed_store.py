"""What a chat sees when Redis is killed (-9) after a conversation was moved, and comes back empty."""

from __future__ import annotations

import time

import pytest
from asgiref.sync import async_to_sync

from sessions_sticky import Outcome, SessionManager, cache_config
from sessions_sticky.stores.history import RESTORED
from tests.servers import start_server
from tests.sessions_sticky.calls import PROPOSAL

CALLS = 50


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_moved_conversation_stays_where_it_is_through_a_kill(settings, mode):
    def resolve():
        call = manager.resolve if mode == "sync" else async_to_sync(manager.aresolve)
        return call("conv-1", **PROPOSAL)

    with start_server() as server:
        settings.CACHES = {"default": cache_config(server.url)}
        manager = SessionManager()
        moved = manager.rebind(manager.create("conv-1", **PROPOSAL), provider="mistral", model="large", reason="quota")
        assert manager.resolve("conv-1", **PROPOSAL) == (moved, Outcome.HIT)
        server.kill()
        started = time.monotonic()
        during = [resolve() for _ in range(CALLS)]
        assert time.monotonic() - started < 2  # no call but the first waits for the server
        assert set(during) == {(moved, Outcome.DEGRADED)}
        server.restart()
        assert server.client().dbsize() == 0
        deadline = time.monotonic() + 20  # the breaker asks once a second
        while (found := resolve()).outcome is Outcome.DEGRADED:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert found == (moved, Outcome.CREATED)
        event = manager.history("conv-1")[-1]
        assert (event.kind, event.provider, event.reason) == ("created", "mistral", RESTORED)
