"""What a chat sees when Redis is killed (-9) after a conversation was moved, and comes back empty."""

from __future__ import annotations

import pytest
from asgiref.sync import async_to_sync

from sessions_sticky import Outcome, SessionManager
from sessions_sticky.stores.history import RESTORED
from tests.conftest import patient_config
from tests.servers import start_server
from tests.sessions_sticky.calls import PROPOSAL
from tests.waiting import stopwatch, wait_until

CALLS = 50


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_moved_conversation_stays_where_it_is_through_a_kill(settings, mode):
    def resolve():
        call = manager.resolve if mode == "sync" else async_to_sync(manager.aresolve)
        return call("conv-1", **PROPOSAL)

    with start_server() as server:
        settings.CACHES = {"default": patient_config(server.url)}
        manager = SessionManager()
        moved = manager.rebind(manager.create("conv-1", **PROPOSAL), provider="mistral", model="large", reason="quota")
        assert manager.resolve("conv-1", **PROPOSAL) == (moved, Outcome.HIT)
        server.kill()
        took = stopwatch()
        during = [resolve() for _ in range(CALLS)]
        assert took() < 2  # no call but the first waits for the server
        assert set(during) == {(moved, Outcome.DEGRADED)}
        server.restart()
        assert server.client().dbsize() == 0
        # The breaker asks once a second.
        found = wait_until(lambda: (found := resolve()).outcome is not Outcome.DEGRADED and found)
        assert found == (moved, Outcome.CREATED)
        event = manager.history("conv-1")[-1]
        assert (event.kind, event.provider, event.reason) == ("created", "mistral", RESTORED)
