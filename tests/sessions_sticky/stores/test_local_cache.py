from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sessions_sticky import Outcome, SessionManager, sessions
from sessions_sticky.stores.local_cache import LastSeen
from sessions_sticky.testing import advance_time, valkey
from tests.conftest import patient_config
from tests.servers import start_server
from tests.sessions_sticky.calls import OTHER, PROPOSAL, sample

TTL = 60


def remembered(size: int, *ids: str) -> LastSeen:
    seen = LastSeen()
    for at, each in enumerate(ids):
        seen.remember(sample(each), float(at), TTL, size)
    return seen


def known(seen: LastSeen, *ids: str) -> list[str]:
    return [each for each in ids if seen.recall(each, 0.0)]


def test_recall_gives_what_was_remembered_last():
    seen = remembered(10, "a", "b")
    seen.remember(sample("a", provider="mistral"), 5.0, TTL, 10)
    assert seen.recall("a", 0.0) == sample("a", provider="mistral")
    assert seen.recall("c", 0.0) is None


def test_recall_gives_nothing_when_the_session_may_have_expired():
    seen = remembered(10, "a", "b")
    assert seen.recall("b", 1.0 + TTL) == sample("b")
    assert seen.recall("b", 1.001 + TTL) is None


def test_remember_forgets_the_least_recently_used_beyond_its_size():
    seen = remembered(3, "a", "b", "c", "a", "d")
    assert known(seen, "a", "b", "c", "d") == ["a", "c", "d"]
    assert known(remembered(0, "a"), "a") == []


def test_forget_drops_a_session_and_accepts_a_missing_one():
    seen = remembered(3, "a", "b")
    seen.forget("a")
    seen.forget("never seen")
    assert known(seen, "a", "b") == ["b"]


def test_size_is_kept_when_threads_remember_together():
    seen = LastSeen()

    def work(thread: int) -> None:
        for number in range(500):
            seen.remember(sample(f"{thread}-{number}"), 0.0, TTL, 50)
            seen.recall(f"{thread}-{number - 1}", 0.0)
            seen.forget(f"{thread}-{number - 2}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(known(seen, *(f"{thread}-{number}" for thread in range(8) for number in range(500)))) <= 50


def test_conversation_beyond_the_size_uses_the_proposal_when_the_store_is_down(settings):
    with start_server() as server:
        settings.CACHES = {"default": patient_config(server.url)}
        settings.SESSIONS_STICKY = {"LAST_SEEN_SIZE": 1}
        manager = SessionManager()
        for each in ("conv-1", "conv-2"):
            manager.resolve(each, **PROPOSAL)
        server.kill()
        assert manager.resolve("conv-2", **OTHER).session.provider == PROPOSAL["provider"]
        assert manager.resolve("conv-1", **OTHER) == (manager.resolve("conv-1", **OTHER).session, Outcome.DEGRADED)
        assert manager.resolve("conv-1", **OTHER).session.provider == OTHER["provider"]


def test_rebound_session_is_the_one_remembered_when_the_store_goes_down(settings):
    with start_server() as server:
        settings.CACHES = {"default": patient_config(server.url)}
        manager = SessionManager()
        bound = manager.resolve("conv-1", **PROPOSAL).session
        moved = manager.rebind(bound, provider="mistral", model="large", reason="a test")
        server.restart()
        assert manager.resolve("conv-1", **PROPOSAL) == (moved, Outcome.CREATED)
        server.kill()
        assert manager.resolve("conv-1", **PROPOSAL) == (moved, Outcome.DEGRADED)


def test_expired_session_stays_expired_when_it_was_moved_shortly_before():
    """Moving is not a use: otherwise the session would be restored with a full idle time as if it had been lost."""
    with valkey():
        bound = sessions.resolve("conv-1", **PROPOSAL).session
        advance_time(sessions.ttl_seconds - 60)
        sessions.rebind(bound, provider="mistral", model="large", reason="a test")
        advance_time(61)
        session, outcome = sessions.resolve("conv-1", **PROPOSAL)
    assert (session.provider, outcome) == (PROPOSAL["provider"], Outcome.CREATED)
