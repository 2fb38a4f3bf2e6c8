"""The pages for bulk changes, operations and events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from sessions_sticky import keys, sessions
from sessions_sticky.admin import events
from sessions_sticky.jobs.job import Plan
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import Filters
from tests.sessions_sticky.admin.pages import BASE, CONFIRMED, DELETE, MOVE, TARGET, hidden_fields, wait_for_jobs
from tests.sessions_sticky.jobs.calls import jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from pytest_django import Settings

MOVE_ALL = {"from_provider": "south", "from_model": "", "provider": "west", "model": "", "reason": "r"}
BULK, BACK, EVENTS, OPERATIONS = (f"{BASE}{name}/" for name in ("bulk", "move-back", "events", "operations"))


@pytest.fixture
def moved(session_cache: redis.Redis) -> redis.Redis:
    """Three sessions on south, of which one came from north."""
    for name in ("one", "two", "three"):
        sessions.create(name, "north" if name == "one" else "south", f"model-{name}", "ann")
    one = sessions.get("one")
    assert one is not None
    sessions.acting_as("eve").rebind(one, provider="south", model="model-one", reason="<planned>")
    return session_cache


def where() -> dict[str, str]:
    return {entry.session.id: entry.session.provider for entry in sessions.all()}


def test_bulk_asks_for_filters_and_counts_the_matches(ada: Client, moved: Any) -> None:
    assert "chosen" not in ada.get(BULK).context
    response = ada.get(BULK, {"moved_from": "north", "moved_since": "1h"})
    assert "<strong>1</strong> session matches." in response.text
    assert hidden_fields(response)["moved_from"] == ["north"]
    assert "Move back…" in response.text
    assert "Move back…" not in ada.get(BULK, {"provider": "south"}).text
    assert "Move…" not in ada.get(BULK, {"provider": "none"}).text


@pytest.mark.parametrize(
    "query",
    [
        {"provider": ""},
        {"idle_for": "soon"},
        {"moved_since": "\x01"},
        {"moved_since": "soon", "provider": "\0"},
        {"operation": "zz"},
        {"operation": "\0", "provider": "north"},
    ],
)
def test_bulk_offers_nothing_without_valid_filters(ada: Client, moved: Any, query: dict[str, str]) -> None:
    assert "chosen" not in ada.get(BULK, query).context


@pytest.mark.parametrize(
    ("query", "english", "german"),
    [
        ({"provider": ""}, "Fill in at least one field", "Füllen Sie mindestens ein Feld aus"),
        ({"idle_for": "soon"}, "“soon” is not a duration.", "„soon“ ist keine Dauer."),
        ({"created_before": "soon"}, "“soon” is not a time.", "„soon“ ist kein Zeitpunkt."),
    ],
)
def test_bulk_names_invalid_filters_in_the_language_of_the_user(
    ada: Client, moved: Any, query: dict[str, str], english: str, german: str
) -> None:
    assert english in ada.get(BULK, query).text
    assert german in ada.get(BULK, query, headers={"accept-language": "de"}).text


def test_bulk_shows_what_an_operation_must_be(ada: Client, moved: Any) -> None:
    refused = "“zz” is not the key of an operation, which has 32 hex digits."
    assert refused in ada.get(BULK, {"operation": "zz"}).text
    assert ada.get(f"{BULK}export/", {"operation": "zz"}).text == refused


def test_bulk_buttons_ask_and_delete_what_was_idle(ada: Client, moved: redis.Redis) -> None:
    moved.expire(keys.session("two"), sessions.ttl_seconds - 7_200)
    fields = hidden_fields(ada.get(BULK, {"idle_for": "1h"}))
    asked = ada.post(DELETE, fields)
    assert "<strong>1</strong> session will be deleted." in asked.text
    assert "3600s" in asked.text
    ada.post(DELETE, {**hidden_fields(asked), **CONFIRMED})
    wait_for_jobs()
    assert sorted(where()) == ["one", "three"]


def test_bulk_buttons_move_what_matches(ada: Client, moved: Any) -> None:
    asked = ada.post(MOVE, {**hidden_fields(ada.get(BULK, {"moved_from": "north"})), **TARGET})
    ada.post(MOVE, {**hidden_fields(asked), **CONFIRMED})
    wait_for_jobs()
    assert where() == {"one": "mistral", "two": "south", "three": "south"}


def test_operation_page_moves_back_what_it_moved(ada: Client, moved: Any) -> None:
    ada.post(f"{BASE}move-all/", MOVE_ALL)
    wait_for_jobs()
    (job,) = jobs.recent()
    page = ada.get(f"{OPERATIONS}{job.key}/")
    assert hidden_fields(page)["operation"] == [job.key]
    asked = ada.post(BACK, hidden_fields(page))
    assert "<strong>3</strong> sessions will move back." in asked.text
    assert where() == {"one": "west", "two": "west", "three": "west"}
    assert "This field is required" in ada.post(BACK, {**hidden_fields(asked), **CONFIRMED, "reason": " "}).text
    done = ada.post(BACK, {**hidden_fields(asked), **CONFIRMED, "reason": "undo"}, follow=True)
    wait_for_jobs()
    assert where() == {"one": "south", "two": "south", "three": "south"}
    assert "where each came from" in done.text
    assert "Move back…" in ada.get(f"{OPERATIONS}{jobs.recent()[0].key}/").text


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize(
    ("move", "title"),
    [
        (Move(None, None, "r"), {"en": "Move sessions back", "de": "Sessions zurückverschieben"}),
        (Move("west", None, "r"), {"en": "Move sessions", "de": "Sessions verschieben"}),
        (None, {"en": "Delete sessions", "de": "Sessions löschen"}),
    ],
)
def test_operation_page_names_its_kind_and_sessions_without_a_named_filter(
    ada: Client, moved: Any, language: str, move: Move | None, title: dict[str, str]
) -> None:
    key = jobs.wait(jobs.start(Plan(Filters(moved_from="north"), move), actor="ada"), 30).key
    page = ada.get(f"{OPERATIONS}{key}/", headers={"accept-language": language}).text
    assert f"<h1>{title[language]}</h1>" in page
    assert f"<dd>{'selected sessions' if language == 'en' else 'ausgewählte Sessions'}</dd>" in page
    assert "<dd></dd>" not in page


def test_move_back_counts_at_most_when_counting_would_take_long(
    ada: Client, moved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = jobs.wait(jobs.start(Plan(Filters("south"), Move("west", None, "r")), actor="ada"), 30).key
    sessions.delete("two")
    asked = {"all": "1", "operation": key}
    assert "<strong>2</strong> sessions will move back." in ada.post(BACK, asked).text
    monkeypatch.setattr("sessions_sticky.admin.actions.MAX_COUNTED", 2)
    assert "At most <strong>3</strong> sessions will move back." in ada.post(BACK, asked).text
    assert "will move back." in ada.post(BACK, {"all": "1", "operation": "0" * 32}).text


def test_move_back_changes_nothing_without_a_filter_of_moves(ada: Client, moved: Any) -> None:
    ada.post(BACK, {"all": "1", "provider": "south", "reason": "r", **CONFIRMED})
    wait_for_jobs()
    assert not jobs.recent()


@pytest.mark.parametrize("posted", [{"idle_for": "soon"}, {"operation": "../x"}, {"moved_since": "x"}])
def test_selection_is_refused_when_a_condition_is_invalid(ada: Client, moved: Any, posted: dict[str, str]) -> None:
    assert ada.post(DELETE, {"all": "1", **posted, **CONFIRMED}).status_code == 400
    assert len(where()) == 3


def test_user_who_may_only_view_gets_no_buttons(login: Callable[..., Client], moved: Any) -> None:
    client = login("view")
    text = client.get(BULK, {"moved_from": "north"}).text
    assert "Move" not in text.partition("sticky-buttons")[2]
    assert client.post(BACK, {"all": "1", "moved_from": "north"}).status_code == 403


def test_export_has_a_line_for_each_match(ada: Client, moved: Any) -> None:
    answer = ada.get(f"{BULK}export/", {"moved_from": "north"})
    (exported,) = map(json.loads, answer.content.splitlines())
    assert (exported["id"], exported["owner"], exported["expires_in"] > 0) == ("one", "ann", True)
    assert "attachment" in answer["Content-Disposition"]
    assert ada.get(f"{BULK}export/", {"idle_for": "soon"}).status_code == 400


def test_operations_show_end_actor_and_reason(ada: Client, moved: Any) -> None:
    assert "None in the last day." in ada.get(OPERATIONS).text
    sessions.create("more", "east", "m", "ann")
    jobs.run(Plan(Filters("east"), Move("west", None, "a reason")), actor="cli:ann", progress=lambda *_: None)
    jobs.run(
        Plan(Filters(moved_from="east"), Move(None, None, "back")),
        actor="cli:ann",
        progress=lambda *_: None,
    )
    text = ada.get(OPERATIONS).text
    assert "cli:ann" in text
    assert "a reason" in text
    assert "Move back: sessions last moved from <bdi>east</bdi>" in text


@pytest.mark.parametrize("language", ["en", "de"])
def test_operations_and_events_name_what_a_move_back_undoes(ada: Client, moved: Any, language: str) -> None:
    ada.defaults["HTTP_ACCEPT_LANGUAGE"] = language
    ada.post(f"{BASE}move-all/", MOVE_ALL)
    wait_for_jobs()
    (job,) = jobs.recent()
    asked = ada.post(BACK, hidden_fields(ada.get(f"{OPERATIONS}{job.key}/")))
    ada.post(BACK, {**hidden_fields(asked), **CONFIRMED, "reason": "undo"})
    wait_for_jobs()
    title, back = {"en": ("Move back", "where each came from"), "de": ("Zurückverschieben", "dorthin, woher jede kam")}[
        language
    ]
    for path in (OPERATIONS, f"{BASE}move-all/"):
        assert f"{title}: <bdi>south</bdi> → <bdi>west</bdi>" in ada.get(path).text
    assert f">{back}</span>" in ada.get(EVENTS).text


def test_operations_name_only_what_a_move_back_undoes(ada: Client, moved: Any) -> None:
    ada.post(f"{BASE}move-all/", MOVE_ALL)
    wait_for_jobs()
    (job,) = jobs.recent()
    jobs.wait(jobs.start(Plan(Filters(operation=job.key), None), actor="ada"), 30)
    assert "Delete: selected sessions" in ada.get(OPERATIONS).text


def test_recent_actions_lead_to_the_operation(ada: Client, moved: Any) -> None:
    ada.post(f"{BASE}move-all/", MOVE_ALL)
    wait_for_jobs()
    entry = LogEntry.objects.get()
    assert entry.object_repr == "move sessions of provider 'south' to 'west': r"
    assert entry.change_message == f"Started, 3 sessions expected: {entry.object_repr} (operation {entry.object_id})"
    url = entry.get_admin_url()
    assert url is not None
    assert ada.get(url)["Location"] == f"{OPERATIONS}{entry.object_id}/"
    assert ada.get(f"{BASE}{'0' * 32}/change/").status_code == 404


def test_changes_are_recorded_in_the_language_of_the_user(ada: Client, moved: Any) -> None:
    ada.defaults["HTTP_ACCEPT_LANGUAGE"] = "de"
    ada.post(f"{BASE}one/touch/")
    ada.post(f"{BASE}move-all/", {**MOVE_ALL, "from_model": "model-two"})
    wait_for_jobs()
    asked = ada.post(BACK, hidden_fields(ada.get(f"{OPERATIONS}{jobs.recent()[0].key}/")))
    ada.post(BACK, {**hidden_fields(asked), **CONFIRMED, "reason": "undo"})
    wait_for_jobs()
    ada.post(DELETE, {**hidden_fields(ada.get(BULK, {"provider": "south"})), **CONFIRMED})
    wait_for_jobs()
    touched, moved_all, moved_back, deleted = LogEntry.objects.order_by("pk")
    assert touched.change_message == "Leerlaufzeit zurückgesetzt"
    assert moved_all.object_repr == "Sessions von Anbieter 'south', Modell 'model-two' zu 'west' verschieben: r"
    assert moved_all.change_message.startswith("Begonnen, 1 Session erwartet: Sessions von")
    assert moved_back.object_repr == "Sessions von Anbieter 'west' zurückverschieben: undo"
    assert moved_back.change_message.startswith("Begonnen: Sessions von")
    assert deleted.object_repr == "Sessions von Anbieter 'south' löschen"


def test_page_of_a_conversation_is_no_operation_without_an_index(ada: Client, moved: Any, settings: Settings) -> None:
    settings.SESSIONS_STICKY = {"INDEX": False}
    assert ada.get(f"{BASE}{'0' * 32}/change/").status_code == 404


def test_events_are_listed_newest_first(ada: Client, moved: Any) -> None:
    rows = ada.get(EVENTS).context["rows"]
    assert [(event.kind, event.conversation_id) for event, *_ in rows][:2] == [("rebound", "one"), ("created", "three")]
    assert "&lt;planned&gt;" in ada.get(EVENTS).text


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ({"kind": "rebound"}, 1),
        ({"provider": "north"}, 2),
        ({"actor": "eve"}, 1),
        ({"moved_since": "1h"}, 4),
        ({"moved_since": "2000-01-01T00:00Z", "kind": "created"}, 3),
        ({"kind": "deleted"}, 0),
    ],
)
def test_events_are_filtered(ada: Client, moved: Any, query: dict[str, str], number: int) -> None:
    assert len(ada.get(EVENTS, query).context["rows"]) == number


def test_events_name_an_invalid_time(ada: Client, moved: Any) -> None:
    page = ada.get(EVENTS, {"moved_since": "<x>"})
    assert "Since: “&lt;x&gt;” is not a time. Enter one with a zone, such as" in page.text
    assert page.context["rows"] == []
    assert "No recent event" not in page.text
    german = ada.get(EVENTS, {"moved_since": "soon"}, headers={"accept-language": "de"}).text
    assert "Seit: „soon“ ist kein Zeitpunkt." in german


def test_events_are_cut_off(ada: Client, moved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_SHOWN", 1)
    monkeypatch.setattr(events, "MAX_PAGE", 4)
    text = ada.get(EVENTS).text
    assert "3 more events are not shown." in text
    assert "Only 1,000 events were read." in text
    assert "None of the last 1,000 events matches" in ada.get(EVENTS, {"provider": "unknown"}).text
    monkeypatch.undo()
    assert "No recent event matches" in ada.get(EVENTS, {"provider": "unknown"}).text


def test_event_shows_the_beginning_of_a_long_id(ada: Client, session_cache: redis.Redis) -> None:
    sessions.create("a" * 100, "openai", "gpt-4", "user-456")
    (row,) = ada.get(EVENTS).context["rows"]
    assert row.name == "a" * 59 + "…"
    assert row.url.endswith(f"{'a' * 100}/change/")


def test_bulk_operation_is_one_event_with_a_link(ada: Client, moved: redis.Redis) -> None:
    ada.post(f"{BASE}move-all/", MOVE_ALL)
    wait_for_jobs()
    (job,) = jobs.recent()
    event, *_, url = ada.get(EVENTS).context["rows"][0]
    assert (event.sessions, url) == (3, f"{OPERATIONS}{job.key}/")
    moved.xadd(keys.history(), {"id": "", "event": '{"kind":"deleted","sessions":5,"operation":"../x"}'})
    event, *_, url = ada.get(EVENTS).context["rows"][0]
    assert (event.sessions, url) == (5, "")
