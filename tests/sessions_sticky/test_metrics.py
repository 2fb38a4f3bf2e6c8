from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest

from sessions_sticky import Price, SessionStoreUnavailable, Turn, Usage, metrics, sessions
from sessions_sticky.testing import store_down
from tests.sessions_sticky.calls import PROPOSAL

if TYPE_CHECKING:
    import redis
    from pytest_django import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = """
import sys
from django.conf import settings
from tests.sessions_sticky.calls import MOVE, PROPOSAL
settings.configure(
    CACHES={{"default": {{"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}}},
    SESSIONS_STICKY={{"METRICS": {on}}},
)
from sessions_sticky import sessions
for _ in range(3):
    sessions.resolve("conv-123", **PROPOSAL)
print("prometheus_client" in sys.modules)
if {on}:
    from prometheus_client import generate_latest
    print(generate_latest().decode())
"""


def run(*, on: bool) -> str:
    """Run a separate program, without a folder for several processes; return its output."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM.format(on=on)]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_prometheus_client_is_not_imported_when_metrics_are_off():
    assert run(on=False) == "False\n"


@pytest.mark.slow
def test_resolutions_are_counted_and_timed_when_metrics_are_on():
    exported = run(on=True)
    assert 'sessions_sticky_resolutions_total{outcome="created",provider="openai"} 1.0' in exported
    assert 'sessions_sticky_resolutions_total{outcome="hit",provider="openai"} 2.0' in exported
    assert "sessions_sticky_resolve_seconds_count 3.0" in exported
    assert "sessions_sticky_breaker_open 0.0" in exported
    assert "user-456" not in exported
    assert "conv-123" not in exported


def test_labels_become_other_when_there_are_too_many() -> None:
    values = [f"provider-{number}" for number in range(metrics.MAX_LABELS + 50)]
    exported = [metrics._bounded("provider", value) for value in values]
    assert exported == values[: metrics.MAX_LABELS] + 50 * ["other"]
    assert metrics._bounded("provider", "provider-7") == "provider-7"  # one that it knows
    assert metrics._bounded("reason", "another label") == "another label"


@pytest.mark.parametrize(
    ("actor", "label"), [("gateway", "prompt cache expired"), ("ada", "operator"), ("cli", "operator")]
)
def test_rebinds_are_counted_without_an_operators_words(
    session_cache: redis.Redis, settings: Settings, actor: str, label: str
) -> None:
    settings.SESSIONS_STICKY = {"METRICS": True}
    manager = sessions.acting_as(actor)
    reason = "prompt cache expired" if actor == "gateway" else f"{actor} asked for Ann's sessions, ticket OPS-4711"

    def count(each: str) -> float:
        by = "gateway" if each != "operator" else "operator"
        moves = (("openai", "mistral"), ("mistral", "openai"))
        return sum(metrics._metrics().rebinds.labels(each, by, *move)._value.get() for move in moves)

    before = count(label)
    bound = manager.create("conv-1", **PROPOSAL)
    manager.rebind(bound, provider="mistral", model="large", reason=reason)
    assert manager.filter(provider="mistral").rebind(to_provider="openai", reason=reason) == 1
    assert count(label) == before + 2
    assert "OPS-4711" not in generate_latest().decode()


def test_turns_tokens_and_money_are_counted(session_cache, settings):
    settings.SESSIONS_STICKY = {"METRICS": True}
    sessions.create("conv-123", **PROPOSAL)
    price = Price(input=2.0, cached_input=1.0, cache_write=4.0)
    route = {"provider": "warm", "model": "m"}
    for at, usage in enumerate((Usage(5_000, written=2_000), Usage(6_000, read=3_000), Usage(7_000, read=4_000))):
        provider = {"provider": "cold"} if at == 2 else {}
        fields = {**route, **provider, "usage": usage, "price": price, "first_byte_ms": 70}
        sessions.record_turn(Turn(conversation_id="conv-123", at=at, outcome="hit", owner="ann", **fields))
    exported = generate_latest().decode()
    assert 'sessions_sticky_turns_total{model="m",outcome="hit",provider="warm"} 2.0' in exported
    for kind, number in (("input", 11_000), ("read", 3_000), ("written", 2_000), ("expected", 2_000)):
        assert f'sessions_sticky_tokens_total{{kind="{kind}",model="m",provider="warm"}} {float(number)}' in exported
    assert 'sessions_sticky_money_total{kind="overspent",model="m",provider="warm"} 0.004' in exported
    assert 'sessions_sticky_money_total{kind="saved",model="m",provider="warm"} 0.003' in exported
    assert 'sessions_sticky_tokens_total{kind="lost",model="m",provider="cold"} 1888.0' in exported
    assert 'sessions_sticky_money_total{kind="lost",model="m",provider="cold"} 0.001888' in exported
    assert 'sessions_sticky_first_byte_seconds_bucket{le="0.1",model="m",provider="warm"} 2.0' in exported


def test_metrics_count_no_turn_that_was_not_recorded(session_cache, settings):
    settings.SESSIONS_STICKY = {"METRICS": True}
    for conversation_id in ("conv-123", None):
        turn = Turn(conversation_id=conversation_id, at=1, provider="lone", model="m", outcome="hit")
        with store_down(), pytest.raises(SessionStoreUnavailable):
            sessions.record_turn(turn)
    assert 'provider="lone"' not in generate_latest().decode()
