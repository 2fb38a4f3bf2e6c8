"""What the gateway thinks of its providers, by a clock that the test moves."""

from __future__ import annotations

import pytest

from sentinel_project.gateway.providers.health import MAX_COOLDOWN_SECONDS, Health

START = 1_000_000.0


class Clock:
    """Seconds, at will."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(30, clock)


def fail_trial(health: Health, clock: Clock) -> None:
    clock.now += health.seconds_left("north")
    health.begin("north")
    health.failed("north")


def test_cools_down_for_thirty_seconds_when_a_provider_fails(health: Health, clock: Clock) -> None:
    health.failed("north")
    assert health.is_cooling("north")
    assert not health.is_cooling("south")
    clock.now += 29.9
    assert health.is_cooling("north")
    clock.now += 0.1
    assert not health.is_cooling("north")


def test_doubles_the_cooldown_up_to_five_minutes_when_trials_fail(health: Health, clock: Clock) -> None:
    health.failed("north")
    cooldowns = []
    for _ in range(6):
        cooldowns.append(health.seconds_left("north"))
        fail_trial(health, clock)
    assert cooldowns == [30, 60, 120, 240, MAX_COOLDOWN_SECONDS, MAX_COOLDOWN_SECONDS]


@pytest.mark.parametrize("cooldown_seconds", [0, 1, 30])
def test_goes_on_cooling_down_when_a_provider_has_failed_for_days(clock: Clock, cooldown_seconds: int) -> None:
    health = Health(cooldown_seconds, clock)
    for _ in range(2000):
        fail_trial(health, clock)
    assert health.seconds_left("north") == (MAX_COOLDOWN_SECONDS if cooldown_seconds else 0)


def test_counts_once_when_requests_under_way_fail_together(health: Health, clock: Clock) -> None:
    for _ in range(10):
        health.failed("north")
        clock.now += 0.1
    assert health.seconds_left("north") == pytest.approx(29)


def test_lets_one_request_try_when_the_cooldown_is_over(health: Health, clock: Clock) -> None:
    health.failed("north")
    clock.now += 30
    health.begin("north")
    assert health.is_cooling("north")  # the others wait for its outcome
    health.answered("north")
    assert not health.is_cooling("north")


def test_lets_another_try_when_a_trial_never_ends(health: Health, clock: Clock) -> None:
    health.failed("north")
    clock.now += 30
    health.begin("north")
    clock.now += 10
    assert not health.is_cooling("north")


def test_starts_afresh_when_a_provider_has_recovered(health: Health, clock: Clock) -> None:
    health.failed("north")
    fail_trial(health, clock)
    clock.now += health.seconds_left("north")
    health.answered("north")
    health.failed("north")
    assert health.seconds_left("north") == 30


@pytest.mark.parametrize(("asked", "kept"), [(5, 5), (120, 120), (86_400, 3600)])
def test_honours_retry_after_when_the_provider_sends_it(health: Health, asked: float, kept: float) -> None:
    health.failed("north", retry_after=asked, alive=True)
    assert health.seconds_left("north") == kept


def test_is_lost_when_nothing_was_heard_for_ninety_seconds(health: Health, clock: Clock) -> None:
    health.failed("north")
    for _ in range(30):
        assert not health.is_lost("north")
        clock.now += 3
        health.probed("north", alive=False)
    assert health.is_lost("north")
    health.answered("north")
    assert not health.is_lost("north")


def test_is_not_lost_when_the_last_evidence_is_old(health: Health, clock: Clock) -> None:
    health.failed("north")
    clock.now += 1000
    assert not health.is_lost("north")


def test_is_not_lost_when_it_fails_again_after_a_time_out_of_the_configuration(health: Health, clock: Clock) -> None:
    health.failed("north")
    clock.now += 1000
    health.failed("north")
    assert not health.is_lost("north")


def test_is_not_lost_when_it_flaps(health: Health, clock: Clock) -> None:
    """Down for 5 s, up for 5 s, and every trial falls into the time that it is down."""
    health.failed("north")
    for second in range(1, 600):
        clock.now = START + second
        up = second % 10 >= 5
        if second % 3 == 0:
            health.probed("north", alive=up)
        if not up and not health.is_cooling("north"):
            fail_trial(health, clock)
        assert not health.is_lost("north")


def test_is_not_lost_when_it_only_limits_the_rate(health: Health, clock: Clock) -> None:
    for _ in range(100):
        health.failed("north", retry_after=1, alive=True)
        clock.now += 2
    assert not health.is_lost("north")


def test_takes_over_what_others_know_when_it_is_newer(health: Health, clock: Clock) -> None:
    other = Health(30, clock)
    other.failed("north")
    health.learn("north", other.conditions["north"])
    assert health.is_cooling("north")
    clock.now += 1
    health.answered("north")
    health.learn("north", other.conditions["north"])
    assert not health.is_cooling("north")


def test_tells_of_each_change_when_asked_to(health: Health) -> None:
    told: list[str] = []
    health.on_change = told.append
    health.answered("north")  # it was well: no change
    health.failed("north")
    health.answered("north")
    assert told == ["north", "north"]
    assert health.failing() == []


def test_never_cools_down_when_switched_off(clock: Clock) -> None:
    health = Health(0, clock)
    health.failed("north")
    health.begin("north")
    assert not health.is_cooling("north")
