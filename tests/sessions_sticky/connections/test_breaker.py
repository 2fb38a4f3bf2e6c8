from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from sessions_sticky import SessionStoreUnavailable
from sessions_sticky.connections import breaker
from sessions_sticky.connections.breaker import RETRY_SECONDS, Breaker


def admits(asked: Breaker) -> bool:
    try:
        asked.admit()
    except SessionStoreUnavailable:
        return False
    return True


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(breaker, "time", clock)
    return clock


def test_breaker_admits_all_when_the_store_answers(clock: Clock):
    closed = Breaker()
    assert all(admits(closed) for _ in range(10))
    closed.record()
    assert admits(closed)


def test_breaker_admits_none_for_a_while_when_the_store_has_failed(clock: Clock):
    opened = Breaker()
    opened.record(RedisConnectionError("gone"))
    assert not admits(opened)
    clock.now += RETRY_SECONDS - 0.001
    assert not admits(opened)


def test_admits_one_in_each_interval_when_open(clock: Clock):
    opened = Breaker()
    opened.record(RedisConnectionError("gone"))
    for _ in range(3):  # also when none of them ever comes back
        clock.now += RETRY_SECONDS
        assert [admits(opened) for _ in range(5)] == [True, False, False, False, False]


def test_breaker_admits_all_when_the_trial_is_answered(clock: Clock):
    opened = Breaker()
    opened.record(RedisConnectionError("gone"))
    clock.now += RETRY_SECONDS
    assert admits(opened)
    opened.record()
    assert all(admits(opened) for _ in range(5))


def test_waits_a_whole_interval_again_when_the_trial_fails(clock: Clock):
    opened = Breaker()
    opened.record(RedisConnectionError("gone"))
    clock.now += RETRY_SECONDS
    assert admits(opened)
    clock.now += 0.25
    opened.record(RedisConnectionError("gone"))
    clock.now += RETRY_SECONDS - 0.001
    assert not admits(opened)
    clock.now += 0.001
    assert admits(opened)
