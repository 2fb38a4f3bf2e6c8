"""The owner's name in 0.1, `external_id`, is accepted with a warning."""

from __future__ import annotations

import inspect

import pytest
from asgiref.sync import iscoroutinefunction

from sessions_sticky import SessionManager, SessionOwnerMismatch, Turn, sessions
from sessions_sticky.queries.usage import OwnerUsage
from sessions_sticky.turns import TurnTotals
from tests.sessions_sticky.calls import PROPOSAL

FORMER = {"provider": "openai", "model": "gpt-4", "external_id": "user-456"}
WARNING = "The argument external_id is deprecated: it is owner now"


def test_create_and_resolve_accept_the_former_name(call):
    with pytest.warns(DeprecationWarning, match=WARNING):
        session = call("create", "conv-1", **FORMER)
    assert session.owner == session.external_id == "user-456"
    with pytest.warns(DeprecationWarning, match=WARNING):
        assert call("resolve", "conv-1", **FORMER).session == session
    with pytest.warns(DeprecationWarning, match=WARNING), pytest.raises(SessionOwnerMismatch):
        call("resolve", "conv-1", **{**FORMER, "external_id": "eve"})


@pytest.mark.parametrize("name", ["create", "resolve"])
def test_owner_and_its_former_name_together_are_an_error(name):
    with pytest.raises(TypeError, match="external_id"):
        getattr(sessions, name)("conv-1", **FORMER, owner="eve")


def test_owner_is_accepted_without_a_warning(call, recwarn):
    assert call("create", "conv-1", "openai", "gpt-4", "user-456").owner == "user-456"
    call("resolve", "conv-1", **PROPOSAL)
    assert not recwarn.list


@pytest.mark.parametrize("name", ["create", "acreate", "resolve", "aresolve"])
def test_method_shows_only_the_new_name(name):
    method = getattr(SessionManager, name)
    assert "owner" in inspect.signature(method).parameters
    assert "external_id" not in inspect.signature(method).parameters
    assert iscoroutinefunction(method) == name.startswith("a")
    with pytest.raises(TypeError, match="owner"):
        getattr(sessions, name.removeprefix("a"))("conv-1", provider="p", model="m")


def test_turn_accepts_the_former_name():
    fields = {"conversation_id": None, "at": 1, "provider": "p", "model": "m", "outcome": "hit"}
    with pytest.warns(DeprecationWarning, match=WARNING):
        turn = Turn(**fields, external_id="ann")
    assert turn.owner == "ann"
    assert Turn(**fields, owner="ann").owner == "ann"
    assert OwnerUsage("ann", TurnTotals()).external_id == "ann"
