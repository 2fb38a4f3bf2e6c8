from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError, transaction

from sessions_sticky import SessionManager, audit, sessions
from tests.sessions_sticky.api.calls import BASE, CALLS, PROPOSAL

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from rest_framework.test import APIClient

CHANGES = ("create", "touch", "rebind", "delete")
ROWS = {
    "create": ("conv-2", ADDITION, "Bound to anthropic, claude"),
    "touch": ("conv-1", CHANGE, "Idle time reset"),
    "rebind": ("conv-1", CHANGE, "Moved from openai, gpt-4 to mistral, large: openai is being drained"),
    "delete": ("conv-1", DELETION, "Deleted"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_change_is_recorded_with_the_user_when_it_was_made(
    bound: bytes, make_user: Callable[..., User], by_token: Callable[[User], APIClient], name: str
) -> None:
    user = make_user("view", "add", "change", "delete", name="ann")
    assert CALLS[name].by(by_token(user)).status_code < 300
    (row,) = LogEntry.objects.all()
    assert (row.object_id, row.action_flag, row.change_message) == ROWS[name]
    assert (row.user, row.object_repr, row.get_change_message()) == (user, row.object_id, row.change_message)
    assert row.content_type == ContentType.objects.get(app_label="sessions_sticky", model="session")


def test_change_names_a_user_whose_name_is_not_text(
    bound: bytes, api: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(User, "get_username", lambda user: 4711)
    assert CALLS["rebind"].by(api).status_code == 200
    assert sessions.history("conv-1")[-1].actor == "4711"


@pytest.mark.parametrize("name", [*CHANGES, "retrieve", "list", "stats", "history", "put"])
def test_nothing_is_recorded_when_nothing_was_changed(api: APIClient, session_cache: redis.Redis, name: str) -> None:
    if name == "create":
        sessions.create("conv-2", "p", "m", "o")
    CALLS[name].by(api)
    assert not LogEntry.objects.exists()


def test_nothing_is_recorded_when_the_user_may_not(
    bound: bytes, make_user: Callable[..., User], by_token: Callable[[User], APIClient]
) -> None:
    client = by_token(make_user("view"))
    assert [CALLS[name].by(client).status_code for name in CHANGES] == [403] * 4
    assert not LogEntry.objects.exists()


def test_record_cuts_the_name_when_the_id_is_longer_than_the_column(api: APIClient, session_cache: redis.Redis) -> None:
    assert api.post(BASE, PROPOSAL | {"id": "😀" * 256}, format="json").status_code == 201
    (row,) = LogEntry.objects.all()
    assert (row.object_id, row.object_repr) == ("😀" * 256, "😀" * 200)


@pytest.mark.parametrize("object_id", [None, "0" * 32])
def test_record_shows_the_text_that_was_given_instead_of_the_id(
    make_user: Callable[..., User], rf: Any, object_id: str | None
) -> None:
    request = rf.get("/")
    request.user = make_user()
    audit.record(request, audit.Flag.DELETION, object_id, "Deleted 5 sessions", object_repr=300 * "x")
    (row,) = LogEntry.objects.all()
    assert (row.object_id, row.object_repr) == (object_id, audit.MAX_REPR_LENGTH * "x")


@pytest.mark.parametrize("name", CHANGES)
def test_change_is_answered_and_logged_as_an_error_when_the_database_fails(
    api: APIClient, bound: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    def fail(**fields: Any) -> None:
        raise DatabaseError("disk full")

    monkeypatch.setattr(LogEntry.objects, "create", fail)
    assert CALLS[name].by(api).status_code == CALLS[name].status
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert all(part in record.getMessage() for part in (*ROWS[name][::2], "user", "disk full"))


def test_record_spoils_no_transaction_when_the_database_refuses(
    make_user: Callable[..., User], rf: Any, caplog: pytest.LogCaptureFixture
) -> None:
    request = rf.get("/")
    request.user = make_user()
    with transaction.atomic():  # as with ATOMIC_REQUESTS
        audit.record(request, audit.Flag.CHANGE, "conv-1", None)  # type: ignore[arg-type]
        assert User.objects.count() == 1
    assert "NOT NULL" in caplog.text
    assert not LogEntry.objects.exists()


def test_nothing_is_recorded_when_the_admin_is_not_installed(
    api: APIClient, bound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit.apps, "is_installed", lambda name: False)
    assert CALLS["delete"].by(api).status_code == 204
    assert not LogEntry.objects.exists()


def test_history_names_the_user_when_a_session_is_changed(
    bound: bytes, make_user: Callable[..., User], by_token: Callable[[User], APIClient]
) -> None:
    client = by_token(make_user(name="ann", is_superuser=True))
    for name in ("rebind", "delete", "create"):
        assert CALLS[name].by(client).status_code < 300
    assert [(event.kind, event.actor) for event in sessions.history("conv-1")] == [
        ("created", "gateway"),
        ("rebound", "ann"),
        ("deleted", "ann"),
    ]
    assert [(event.kind, event.actor) for event in sessions.history("conv-2")] == [("created", "ann")]
    sessions.create("conv-3", "p", "m", "o")
    assert sessions.history("conv-3")[0].actor == "gateway"


def test_touch_is_recorded_when_the_session_goes_right_afterwards(
    api: APIClient, bound: bytes, session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch = SessionManager.touch
    monkeypatch.setattr(
        SessionManager, "touch", lambda self, id: touch(self, id) and session_cache.delete(f"sentinel:session:{id}")
    )
    assert CALLS["touch"].by(api).status_code == 404
    assert LogEntry.objects.count() == 1


def test_record_reveals_no_owner_when_a_session_is_made(api: APIClient, session_cache: redis.Redis) -> None:
    CALLS["create"].by(api)
    assert not LogEntry.objects.filter(change_message__contains="user-7").exists()


def test_change_is_answered_when_the_user_has_no_row(
    api: APIClient, bound: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(User, "pk", "from elsewhere")
    assert CALLS["delete"].by(api).status_code == 204
    assert "not recorded" in caplog.text
