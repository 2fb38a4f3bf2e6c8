from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.contrib.admin.models import LogEntry

from sessions_sticky import sessions
from tests.sessions_sticky.admin.pages import (
    BASE,
    CONFIRMED,
    DELETE,
    MOVE,
    TARGET,
    hidden_fields,
    logged,
    messages_of,
    page_of,
    query,
    selected,
)
from tests.sessions_sticky.indexed import fill

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from django.test import Client

    from sessions_sticky import Session


def test_delete_asks_first_when_sessions_are_selected(ada: Client, chosen: list[Session]) -> None:
    response = ada.post(DELETE, {**selected(chosen), "provider": "openai", "cursor": "x"})
    assert response.status_code == 200
    assert "<strong>3</strong> sessions will be deleted." in response.text
    expected = {**selected(chosen), "provider": ["openai"], "cursor": ["x"]}
    assert hidden_fields(response) == expected
    assert response.context["cancel_url"] == query(provider="openai", cursor="x")
    assert sessions.all().count() == 3
    assert not logged()


def test_delete_unbinds_those_selected_when_confirmed(ada: Client, chosen: list[Session]) -> None:
    response = ada.post(DELETE, {**selected(chosen[:2]), **CONFIRMED, "provider": "openai"})
    assert response.url == query(provider="openai")
    assert messages_of(ada.get(response.url)) == ["2 sessions were deleted."]
    assert [entry.session.id for entry in sessions.all().page().entries] == ["conv-2"]
    assert logged() == {("conv-0", 3, "Deleted"), ("conv-1", 3, "Deleted")}
    assert [event.actor for event in sessions.history("conv-0")] == ["gateway", "ada"]


def test_delete_skips_and_reports_a_session_that_was_moved(ada: Client, chosen: list[Session]) -> None:
    moved = sessions.rebind(chosen[0], provider="mistral", model="<large>", reason="faster")
    sessions.delete("conv-1")
    response = ada.post(DELETE, {**selected(chosen), **CONFIRMED}, follow=True)
    assert messages_of(response) == [
        "1 session was deleted.",
        "Conversation “conv-0” was not changed: it is now bound to mistral, model <large>, and no longer as displayed.",
        "Conversation “conv-1” was not changed: it is no longer bound.",
    ]
    assert "<large>, and" not in response.text
    assert sessions.get("conv-0") == moved
    assert logged() == {("conv-2", 3, "Deleted")}


def test_delete_counts_the_rest_when_many_were_not_changed(ada: Client, session_cache: redis.Redis) -> None:
    shown = fill(sessions, 13)
    sessions.all().delete()
    messages = messages_of(ada.post(DELETE, {**selected(shown), **CONFIRMED}, follow=True))
    assert len(messages) == 11
    assert messages[-1] == "3 more sessions were not changed."


def test_move_asks_where_to_when_sessions_are_selected(ada: Client, chosen: list[Session]) -> None:
    response = ada.post(MOVE, selected(chosen))
    assert "<strong>3</strong> sessions to move" in response.text
    assert hidden_fields(response) == selected(chosen)
    assert '<option value="openai"></option>' in response.text
    assert "errors" not in response.text.partition("<form")[2].partition("sticky-errors")[1]


def test_move_moves_those_selected_when_the_target_is_given(ada: Client, chosen: list[Session]) -> None:
    response = ada.post(MOVE, {**selected(chosen[:2]), **TARGET, "owner": "user-456"})
    assert response.url == query(owner="user-456")
    assert messages_of(ada.get(response.url)) == ["2 sessions were moved to mistral."]
    found = {entry.session.id: (entry.session.provider, entry.session.model) for entry in sessions.all().page().entries}
    assert found == {"conv-0": ("mistral", "large"), "conv-1": ("mistral", "large"), "conv-2": ("openai", "gpt-4")}
    message = "Moved from openai, gpt-4 to mistral, large: openai is being drained"
    assert logged() == {("conv-0", 2, message), ("conv-1", 2, message)}
    last = sessions.history("conv-0")[-1]
    assert (last.actor, last.reason) == ("ada", "openai is being drained")


def test_move_keeps_the_model_when_none_is_given(ada: Client, chosen: list[Session]) -> None:
    ada.post(MOVE, {**selected(chosen[:1]), **TARGET, "to-model": ""})
    assert sessions.get("conv-0").model == "gpt-4"


def test_move_reports_a_session_that_is_already_there(ada: Client, chosen: list[Session]) -> None:
    response = ada.post(MOVE, {**selected(chosen[:1]), **TARGET, "to-provider": "openai", "to-model": ""}, follow=True)
    assert messages_of(response) == ["1 session was already there."]
    assert len(sessions.history("conv-0")) == 1
    assert not logged()


def test_move_skips_and_reports_a_session_that_was_moved(ada: Client, chosen: list[Session]) -> None:
    moved = sessions.rebind(chosen[0], provider="azure", model="gpt-4", reason="faster")
    response = ada.post(MOVE, {**selected(chosen[:1]), **TARGET}, follow=True)
    assert messages_of(response) == [
        "Conversation “conv-0” was not changed: it is now bound to azure, model gpt-4, and no longer as displayed."
    ]
    assert sessions.get("conv-0") == moved
    assert not logged()


@pytest.mark.parametrize(("action", "path", "form"), [("change", MOVE, TARGET), ("delete", DELETE, {})])
def test_conflict_message_hides_the_binding_when_the_user_may_not_view(
    login: Callable[..., Client], chosen: list[Session], action: str, path: str, form: dict[str, str]
) -> None:
    sessions.rebind(chosen[0], provider="azure", model="secret-model", reason="faster")
    client = login(action)
    client.post(path, {**selected(chosen[:1]), **form, **CONFIRMED})
    response = client.get("/admin/password_change/")  # a page that shows messages to every user
    assert messages_of(response) == ["1 more session was not changed."]
    assert "secret-model" not in response.text


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("to-provider", " ", "This field is required."),
        ("to-provider", "x" * 257, "at most 256 characters"),
        ("to-provider", "a\x1bb", "Control characters are not allowed."),
        ("to-provider", "a\x00b", "Null characters are not allowed."),
        ("to-model", "x" * 257, "at most 256 characters"),
        ("to-reason", "", "This field is required."),
        ("to-reason", "x" * 501, "at most 500 characters"),
    ],
)
@pytest.mark.parametrize("all_matching", [False, True])
def test_move_shows_the_form_again_when_a_field_is_wrong(
    ada: Client, chosen: list[Session], field: str, value: str, error: str, all_matching: bool
) -> None:
    which = {"all": "1", "provider": "openai"} if all_matching else selected(chosen)
    response = ada.post(MOVE, {**which, **TARGET, field: value, **CONFIRMED})
    assert response.status_code == 200
    assert error in response.text
    assert 'aria-invalid="true"' in response.text
    assert sessions.filter(provider="openai").count() == 3


def test_move_goes_back_to_the_session_when_it_was_chosen_there(ada: Client, chosen: list[Session]) -> None:
    assert ada.post(MOVE, {**selected(chosen[:1]), **TARGET, "on_detail": "1"}).url == page_of("conv-0")
    asked = ada.post(DELETE, {**selected(chosen[1:2]), "on_detail": "1"})
    assert asked.context["cancel_url"] == page_of("conv-1")
    assert ada.post(DELETE, {**hidden_fields(asked), **CONFIRMED}).url == BASE


@pytest.mark.parametrize("path", [MOVE, DELETE])
def test_action_reports_it_when_nothing_is_selected(ada: Client, chosen: list[Session], path: str) -> None:
    response = ada.post(path, {**TARGET, **CONFIRMED, "provider": "openai"}, follow=True)
    assert response.redirect_chain == [(query(provider="openai"), 302)]
    assert messages_of(response) == ["No session was selected, so nothing was changed."]
    assert sessions.filter(provider="openai").count() == 3


@pytest.mark.parametrize("path", [MOVE, DELETE])
@pytest.mark.parametrize(
    "value", ["", "x", "{}", '{"id":"","provider":"a","model":"b","external_id":"c","created_at":1}', "\x00"]
)
def test_action_answers_400_when_the_selection_is_invalid(
    ada: Client, chosen: list[Session], path: str, value: str
) -> None:
    assert ada.post(path, {"selected": value, **TARGET, **CONFIRMED}).status_code == 400
    assert sessions.filter(provider="openai").count() == 3


@pytest.mark.parametrize("path", [MOVE, DELETE])
def test_action_goes_to_the_front_page_when_the_user_may_not_view(
    login: Callable[..., Client], chosen: list[Session], path: str
) -> None:
    client = login("change", "delete")
    assert client.post(path, {**selected(chosen[:1]), **TARGET, **CONFIRMED}).url == "/admin/"
    assert client.post(path, {}).url == "/admin/"
    assert client.post(page_of("conv-2", "touch")).url == "/admin/"


def test_action_is_done_and_logged_as_an_error_when_the_database_fails(
    ada: Client, chosen: list[Session], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from django.db import DatabaseError

    def fail(*args: object, **kwargs: object) -> None:
        raise DatabaseError("disk full")

    monkeypatch.setattr(LogEntry.objects, "create", fail)
    ada.post(DELETE, {**selected(chosen), **CONFIRMED})
    assert sessions.all().count() == 0
    assert "not recorded, DELETION 'conv-0' by 'ada': 'Deleted': 'disk full'" in caplog.text
