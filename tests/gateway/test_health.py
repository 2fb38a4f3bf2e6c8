"""The state of providers, by a clock that the test moves."""

from __future__ import annotations

import pytest

from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.slots import (
    ACCOUNT_SECONDS,
    MAX_COOLDOWN_SECONDS,
    MAX_ERROR_LENGTH,
    PROVIDER,
    Failure,
    model_slot,
)

START = 1_000.0
DOWN = Failure(Cools.PROVIDER)
MODEL = "model-a"


class Clock:
    """Seconds, at will."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def provider(name: str, *models: str, account: str = "") -> Provider:
    url = f"https://{name}.invalid/v1"
    return Provider(name=name, base_url=url, api_key=None, models=models or (MODEL,), weight=1, account=account)


def doubt(conversation: str, **fields: float) -> Failure:
    return Failure(Cools.OUTLIER, conversation=conversation, **fields)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def providers() -> list[Provider]:
    return [provider("north"), provider("south")]


@pytest.fixture
def health(clock: Clock, providers: list[Provider]) -> Health:
    return Health(30, lambda: providers, clock)


def fail_trial(health: Health, clock: Clock) -> None:
    clock.now += health.seconds_left("north")
    health.begin("north", MODEL)
    health.failed("north", MODEL, DOWN)


def cooling(health: Health, *names: str) -> set[str]:
    return {name for name in names or ("north", "south") if health.is_cooling(name, MODEL)}


def test_provider_cools_down_for_thirty_seconds_when_it_cannot_be_reached(health: Health, clock: Clock) -> None:
    health.failed("north", MODEL, DOWN)
    assert cooling(health) == {"north"}
    clock.now += 29.9
    assert cooling(health) == {"north"}
    clock.now += 0.1
    assert not cooling(health)


@pytest.mark.parametrize(("has_content", "expected"), [(True, 0), (False, 60)])
def test_one_broken_answer_extends_an_outage_unless_it_had_begun(
    health: Health, clock: Clock, has_content: bool, expected: float
) -> None:
    health.failed("north", MODEL, DOWN)
    clock.now += 30
    health.failed("north", MODEL, doubt("conv-1"), has_content=has_content)
    assert health.seconds_left("north", MODEL) == expected


def test_cooldown_doubles_up_to_five_minutes_when_trials_fail(health: Health, clock: Clock) -> None:
    health.failed("north", MODEL, DOWN)
    cooldowns = []
    for _ in range(6):
        cooldowns.append(health.seconds_left("north"))
        fail_trial(health, clock)
    assert cooldowns == [30, 60, 120, 240, MAX_COOLDOWN_SECONDS, MAX_COOLDOWN_SECONDS]


@pytest.mark.parametrize("cooldown_seconds", [0, 1, 30])
def test_cooldown_stays_bounded_when_a_provider_has_failed_for_days(clock: Clock, cooldown_seconds: int) -> None:
    health = Health(cooldown_seconds, lambda: [provider("north")], clock)
    for _ in range(2000):
        fail_trial(health, clock)
    assert health.seconds_left("north") == (MAX_COOLDOWN_SECONDS if cooldown_seconds else 0)


def test_failures_count_once_when_requests_under_way_fail_together(health: Health, clock: Clock) -> None:
    for _ in range(10):
        health.failed("north", MODEL, DOWN)
        clock.now += 0.1
    assert health.seconds_left("north") == pytest.approx(29)


def test_one_request_tries_when_the_cooldown_is_over(health: Health, clock: Clock) -> None:
    health.failed("north", MODEL, DOWN)
    clock.now += 30
    begun = health.begin("north", MODEL)
    assert cooling(health) == {"north"}  # the others wait for its outcome
    health.answered("north", MODEL, begun)
    assert not cooling(health)


def test_another_request_tries_when_a_trial_never_ends(health: Health, clock: Clock) -> None:
    health.failed("north", MODEL, DOWN)
    clock.now += 30
    health.begin("north", MODEL)
    clock.now += 10
    assert not cooling(health)


def test_trial_does_not_hide_the_recovery_that_another_process_has_met(health: Health, clock: Clock) -> None:
    health.failed("north", MODEL, DOWN)
    other = Health(30, lambda: [provider("north"), provider("south")], clock)
    other.states = {name: dict(slots) for name, slots in health.states.items()}
    clock.now += 30
    health.answered("north", MODEL, health.begin("north", MODEL))
    clock.now += 0.1
    other.begin("north", MODEL)
    for slot, state in other.states["north"].items():
        health.merge("north", slot, state)
    assert not cooling(health)


def test_cooldown_is_not_shortened_when_a_request_is_sent_anyway(health: Health) -> None:
    health.failed("north", MODEL, DOWN)
    health.begin("north", MODEL)
    assert health.seconds_left("north") == 30


def test_cooldown_stays_when_a_request_from_before_it_is_answered(health: Health, clock: Clock) -> None:
    begun = health.begin("north", MODEL)
    clock.now += 1
    health.failed("north", MODEL, Failure(Cools.MODEL, retry_after=30))
    clock.now += 1
    health.answered("north", MODEL, begun)
    assert cooling(health) == {"north"}


def test_cooldowns_start_at_the_default_when_a_provider_has_recovered(health: Health, clock: Clock) -> None:
    health.failed("north", MODEL, DOWN)
    fail_trial(health, clock)
    clock.now += health.seconds_left("north")
    health.answered("north", MODEL, clock.now)
    health.failed("north", MODEL, DOWN)
    assert health.seconds_left("north") == 30


@pytest.mark.parametrize("cools", [Cools.MODEL, Cools.OUTLIER])
@pytest.mark.parametrize(("stated", "kept"), [(0.5, 0.5), (5, 5), (120, 120), (86_400, 3600)])
def test_model_alone_cools_down_for_the_time_that_its_provider_states(
    clock: Clock, cools: Cools, stated: float, kept: float
) -> None:
    health = Health(30, lambda: [provider("north", MODEL, "model-b")], clock)
    health.failed("north", MODEL, Failure(cools, retry_after=stated, is_alive=True, conversation="one"))
    assert health.seconds_left("north", MODEL) == kept
    assert health.has_stated_time("north", MODEL)
    assert not health.is_cooling("north", "model-b")


def test_time_is_not_stated_when_the_provider_states_none(health: Health) -> None:
    health.failed("north", MODEL, Failure(Cools.MODEL))
    assert health.seconds_left("north", MODEL) == 30
    assert not health.has_stated_time("north", MODEL)


def test_all_providers_of_an_account_cool_down_for_a_minute_doubling(clock: Clock) -> None:
    providers = [provider("eu", account="acme"), provider("us", "model-b", account="acme"), provider("other")]
    health = Health(30, lambda: providers, clock)
    cooldowns = []
    for _ in range(4):
        health.failed("eu", MODEL, Failure(Cools.ACCOUNT, is_alive=True))
        cooldowns.append(health.seconds_left("us", "model-b"))
        assert not health.is_cooling("other", MODEL)
        clock.now += health.seconds_left("eu")
        health.begin("eu", MODEL)
    assert cooldowns == [ACCOUNT_SECONDS, 120, 240, MAX_COOLDOWN_SECONDS]
    health.answered("us", "model-b", clock.now)
    assert health.failing() == []


@pytest.mark.parametrize("failures", [3, 30])
def test_provider_does_not_cool_down_when_one_conversation_makes_it_fail(health: Health, failures: int) -> None:
    for _ in range(failures):
        health.failed("north", MODEL, doubt("poison"))
    assert not cooling(health)


def test_provider_cools_down_when_three_requests_of_two_conversations_fail_in_a_row(health: Health) -> None:
    health.failed("north", MODEL, doubt("one"))
    health.failed("north", MODEL, doubt("one"))
    assert not cooling(health)
    health.failed("north", MODEL, doubt("two"))
    assert cooling(health) == {"north"}


def test_provider_does_not_cool_down_when_answers_come_between_few_failures(health: Health, clock: Clock) -> None:
    for number in range(50):
        health.failed("north", MODEL, doubt(f"conv-{number}"))
        for _ in range(2):
            health.answered("north", MODEL, clock.now)
        clock.now += 0.1
    assert not cooling(health)


@pytest.mark.parametrize(("pause", "cools"), [(0.5, True), (3.0, False)])
def test_provider_cools_down_when_half_of_ten_requests_fail_in_ten_seconds(
    health: Health, clock: Clock, pause: float, cools: bool
) -> None:
    for number in range(5):
        health.answered("north", MODEL, clock.now)
        health.failed("north", MODEL, doubt(f"conv-{number % 2}"))
        clock.now += pause
    assert cooling(health) == ({"north"} if cools else set())


@pytest.mark.parametrize(("configured", "allowed"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_at_most_half_of_a_models_providers_cool_down_by_the_outlier_rule(
    clock: Clock, configured: int, allowed: int
) -> None:
    names = [f"p{number}" for number in range(configured)]
    health = Health(30, lambda: [provider(name) for name in names], clock)
    for name in names:
        for number in range(10):
            health.failed(name, MODEL, doubt(f"conv-{number}"))
    assert len(cooling(health, *names)) == allowed


def test_only_provider_of_another_model_stays_when_it_is_an_outlier(clock: Clock) -> None:
    health = Health(30, lambda: [provider("north", MODEL, "only-north"), provider("south")], clock)
    for number in range(3):
        health.failed("north", MODEL, doubt(f"conv-{number}"))
    assert cooling(health) == {"north"}
    assert not health.is_cooling("north", "only-north")
    assert set(health.states["north"]) == {model_slot(MODEL)}


def test_only_provider_of_an_api_stays_when_it_is_an_outlier(clock: Clock) -> None:
    both = Provider(name="n", base_url=None, api_key=None, models=(MODEL,), weight=1, apis=("chat", "messages"))
    health = Health(30, lambda: [both, provider("south")], clock)
    for number in range(3):
        health.failed("n", MODEL, doubt(f"conv-{number}"))
    assert not health.is_cooling("n", MODEL)


@pytest.mark.parametrize("trial", ["one", "three"])
def test_trial_of_an_outlier_counts_by_itself_when_it_fails(health: Health, clock: Clock, trial: str) -> None:
    for conversation in ("one", "two", "three"):
        health.failed("north", MODEL, doubt(conversation))
    clock.now += 30
    health.begin("north", MODEL)
    health.failed("north", MODEL, doubt(trial))
    assert health.seconds_left("north") == 60


@pytest.mark.parametrize("left", [[], [provider("north", "another-model")]], ids=["provider", "model"])
def test_trial_ends_when_its_provider_or_model_left_the_file_during_it(
    health: Health, clock: Clock, providers: list[Provider], left: list[Provider]
) -> None:
    health.failed("north", MODEL, DOWN)
    clock.now += 30
    health.begin("north", MODEL)
    providers[:] = [*left, provider("south")]
    health.failed("north", MODEL, doubt("one"))
    assert health.seconds_left("north") == 60


def test_provider_is_lost_when_it_gave_no_sign_of_life_for_ninety_seconds(health: Health, clock: Clock) -> None:
    health.failed("north", MODEL, DOWN)
    for _ in range(30):
        assert not health.is_lost("north")
        clock.now += 3
        health.record_probe("north", is_alive=False)
    assert health.is_lost("north")
    health.answered("north", MODEL, clock.now)
    assert not health.is_lost("north")


def test_provider_is_not_lost_when_the_last_evidence_is_old(health: Health, clock: Clock) -> None:
    health.failed("north", MODEL, DOWN)
    clock.now += 1000
    assert not health.is_lost("north")
    health.failed("north", MODEL, DOWN)  # it was not configured in the meantime
    assert not health.is_lost("north")


def test_provider_is_not_lost_when_it_flaps(health: Health, clock: Clock) -> None:
    """Down for 5 s, up for 5 s, and every trial falls into the time that it is down."""
    health.failed("north", MODEL, DOWN)
    for second in range(1, 600):
        clock.now = START + second
        up = second % 10 >= 5
        if second % 3 == 0:
            health.record_probe("north", is_alive=up)
        if not up and not health.is_cooling("north", MODEL):
            fail_trial(health, clock)
        assert not health.is_lost("north")


@pytest.mark.parametrize("cools", [Cools.MODEL, Cools.ACCOUNT])
def test_provider_is_not_lost_when_it_only_refuses(health: Health, clock: Clock, cools: Cools) -> None:
    for _ in range(100):
        health.failed("north", MODEL, Failure(cools, retry_after=1, is_alive=True))
        clock.now += 2
    assert not health.is_lost("north")


def test_merge_takes_over_what_is_newer(health: Health, clock: Clock, providers: list[Provider]) -> None:
    other = Health(30, lambda: providers, clock)
    other.failed("north", MODEL, DOWN)
    state = other.states["north"][PROVIDER]
    health.merge("north", PROVIDER, state)
    assert cooling(health) == {"north"}
    clock.now += 1
    health.answered("north", MODEL, clock.now)
    health.merge("north", PROVIDER, state)
    assert not cooling(health)


def test_on_change_is_called_for_each_change(health: Health, clock: Clock) -> None:
    changes: list[None] = []
    health.on_change = lambda: changes.append(None)
    health.answered("north", MODEL, clock.now)  # it was well: no change
    health.failed("north", MODEL, DOWN)
    health.record_probe("north", is_alive=False)  # not for others
    health.answered("north", MODEL, clock.now)
    assert len(changes) == 2
    assert health.failing() == []


@pytest.mark.parametrize("cools", [Cools.PROVIDER, Cools.MODEL, Cools.ACCOUNT])
def test_nothing_cools_down_when_cooldowns_are_switched_off(clock: Clock, cools: Cools) -> None:
    health = Health(0, lambda: [provider("north")], clock)
    health.failed("north", MODEL, Failure(cools))
    health.begin("north", MODEL)
    assert not health.is_cooling("north", MODEL)


def test_provider_is_unanswered_until_an_answer_whatever_happens_in_between(health: Health, clock: Clock) -> None:
    health.failed("north", MODEL, DOWN._replace(error="upstream_unreachable"))
    for _ in range(3):
        clock.now += health.seconds_left("north") + 500  # no chats
        assert health.unanswered_since("north") == START
        health.begin("north", MODEL)
        health.record_probe("north", is_alive=True)
        health.failed("north", MODEL, DOWN._replace(error="x" * 1_000))
    assert health.unanswered_since("north") == START
    assert health.last_error("north") == "x" * MAX_ERROR_LENGTH
    health.answered("north", MODEL, clock.now)
    assert (health.unanswered_since("north"), health.last_error("north")) == (None, "")


@pytest.mark.parametrize(
    ("failure", "is_unanswered"),
    [
        (Failure(Cools.PROVIDER), True),
        (Failure(Cools.ACCOUNT, is_alive=True), True),
        (Failure(Cools.OUTLIER, retry_after=9), True),
        (Failure(Cools.MODEL, retry_after=9, is_alive=True), False),
    ],
)
def test_provider_that_reached_a_limit_is_not_unanswered(health: Health, failure: Failure, is_unanswered: bool) -> None:
    health.failed("north", MODEL, failure._replace(error="HTTP 429"))
    assert (health.unanswered_since("north") is not None) is is_unanswered
    assert health.last_error("north") == "HTTP 429"
    assert health.unanswered_since("south") is None


@pytest.mark.parametrize(
    ("failure", "begins", "ends"),
    [
        (
            Failure(Cools.PROVIDER, error="upstream_unreachable"),
            "provider 'north' cools down for 30 s: upstream_unreachable; concerns the provider, at once",
            "provider 'north' answers again, 40 s after its last cooldown began",
        ),
        (
            Failure(Cools.MODEL, retry_after=7, error="HTTP 429"),
            "model:model-a of provider 'north' cools down for 7 s: HTTP 429; concerns the model at this provider",
            "model:model-a of provider 'north' answers again, 40 s after its last cooldown began",
        ),
        (
            Failure(Cools.ACCOUNT, error="HTTP 401"),
            "account of provider 'north' cools down for 60 s: HTTP 401; concerns all providers of the account",
            "account of provider 'north' answers again, 40 s after its last cooldown began",
        ),
    ],
)
def test_cooldown_and_its_end_are_logged_once(health, clock, caplog, failure, begins, ends):
    caplog.set_level("INFO", "sentinel_project")
    health.failed("north", MODEL, failure)
    health.failed("north", MODEL, failure)  # it was under way
    assert caplog.messages == [begins]
    clock.now += 40
    health.answered("north", MODEL, clock.now)
    health.answered("north", MODEL, clock.now)
    assert caplog.messages == [begins, ends]


def test_nothing_is_logged_when_the_failures_do_not_count(clock, caplog):
    caplog.set_level("INFO", "sentinel_project")
    dropped = Health(0, lambda: (), clock)
    dropped.failed("north", MODEL, Failure(Cools.MODEL, retry_after=7))
    dropped.answered("north", MODEL, clock.now)
    assert not caplog.messages
