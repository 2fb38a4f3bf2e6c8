"""The estimate of what a move loses of prompt caches."""

from __future__ import annotations

import time

import pytest

from sessions_sticky import Price, Turn, Usage, sessions
from sessions_sticky.jobs.job import Plan
from sessions_sticky.jobs.service import Jobs
from sessions_sticky.queries import move_cost
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import Filters
from sessions_sticky.queries.move_cost import MoveCost

PRICE = Price(input=3.0, cached_input=1.0)
AWAY = Move("mistral", None, "maintenance")
OPENAI = Filters("openai")
WARM = 10_240


def chat(conversation_id: str, provider: str = "openai", *, ago: float = 0, tokens: int = WARM, read: int = 0) -> None:
    """Record a turn that leaves this number of tokens in the provider's cache."""
    route = {"provider": provider, "model": "gpt-4", "outcome": "hit", "price": PRICE}
    turn = Turn(conversation_id=conversation_id, at=time.time() - ago, usage=Usage(tokens, read=read), **route)
    sessions.record_turn(turn)


def cost(move: Move | None = AWAY, filters: Filters = OPENAI) -> MoveCost | None:
    return Jobs().cost(Plan(filters, move, filters == Filters()))


@pytest.fixture(autouse=True)
def bound(session_cache: object) -> None:
    """Two sessions on openai and one elsewhere."""
    for conversation_id, provider in (("a", "openai"), ("b", "openai"), ("c", "xai")):
        sessions.create(conversation_id, provider, "gpt-4", "user-1")


def test_cost_is_what_caches_hold_of_the_sessions_that_move() -> None:
    assert cost() == (0, 0, 0.0, True)
    assert cost(filters=Filters("missing")) == (0, 0, 0.0, True)
    chat("a")
    chat("b", tokens=2_048)
    chat("c", "xai")
    assert cost() == (2, WARM + 2_048, 0.0, True)  # the prices are not known yet
    assert cost(filters=Filters()) == (3, 2 * WARM + 2_048, 0.0, True)


def test_cost_has_the_money_that_reading_from_the_cache_saves() -> None:
    chat("a", ago=10)
    chat("a", read=1_000)
    assert cost() == (1, WARM, pytest.approx(WARM * 2 / 1e6), True)


def test_cost_leaves_out_caches_that_have_expired() -> None:
    chat("a", ago=400)
    chat("b", ago=200)
    assert cost() == (1, WARM, 0.0, True)


@pytest.mark.parametrize(
    ("move", "lost"),
    [
        (AWAY, WARM - 2_048),
        (Move("xai", None, "maintenance"), WARM),
        (Move("openai", "gpt-5", "another model"), WARM),
        (Move("openai", None, "stays"), 0),
    ],
)
def test_cost_is_reduced_by_what_the_target_has_warm(move: Move, lost: int) -> None:
    chat("a", "mistral", tokens=2_048)
    chat("a")
    assert cost(move) == (int(lost > 0), lost, 0.0, True)


def test_cost_is_of_the_most_recently_active_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move_cost, "MAX_PAGE", 1)
    found = cost()
    assert found is not None
    assert not found.is_complete


def test_cost_is_unknown_for_other_plans_than_moves_by_route_or_owner() -> None:
    chat("a")
    assert cost(None) is None
    assert cost(AWAY, Filters(idle_for=10)) is None
    assert cost(Move(None, None, "back"), Filters(moved_from="openai")) is None
