from __future__ import annotations

import pytest

from sessions_sticky import breaker
from sessions_sticky.breaker import RETRY_SECONDS, Breaker


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(breaker, "time", clock)
    return clock


def test_admits_everybody_when_the_store_answers(clock: Clock):
    closed = Breaker()
    assert all(closed.admit() for _ in range(10))
    closed.answered()
    assert closed.admit()


def test_admits_nobody_for_a_while_when_the_store_has_failed(clock: Clock):
    opened = Breaker()
    opened.failed()
    assert not opened.admit()
    clock.now += RETRY_SECONDS - 0.001
    assert not opened.admit()


def test_admits_one_in_each_interval_when_open(clock: Clock):
    opened = Breaker()
    opened.failed()
    for _ in range(3):  # also when none of them ever comes back
        clock.now += RETRY_SECONDS
        assert [opened.admit() for _ in range(5)] == [True, False, False, False, False]


def test_admits_everybody_when_the_trial_is_answered(clock: Clock):
    opened = Breaker()
    opened.failed()
    clock.now += RETRY_SECONDS
    assert opened.admit()
    opened.answered()
    assert all(opened.admit() for _ in range(5))


def test_waits_a_whole_interval_again_when_the_trial_fails(clock: Clock):
    opened = Breaker()
    opened.failed()
    clock.now += RETRY_SECONDS
    assert opened.admit()
    clock.now += 0.25
    opened.failed()
    clock.now += RETRY_SECONDS - 0.001
    assert not opened.admit()
    clock.now += 0.001
    assert opened.admit()
