"""The page of a bulk operation: its progress, stopping, resuming."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from sessions_sticky import cache_config, keys, sessions
from sessions_sticky.admin.job import Mark
from sessions_sticky.jobs.job import Job
from sessions_sticky.jobs.records import Records
from tests.conftest import patient_config
from tests.servers import start_server
from tests.sessions_sticky.admin.pages import BASE, wait_for_jobs
from tests.sessions_sticky.jobs.calls import (
    DELETE,
    MOVE_ALL,
    abandoned,
    fill,
    finished,
    gate,
    jobs,
    no_threads,
    quick_ticks,
    start,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from pytest_django import Settings

__all__ = ["quick_ticks"]

pytestmark = pytest.mark.usefixtures("quick_ticks")


def page_of(key: str, ending: str = "") -> str:
    return f"{BASE}operations/{key}/{ending}"


def buttons(response: Any) -> list[str]:
    return re.findall(r"<button class=[^>]*>(Stop|Continue)<", response.text)


def mark_of(response: Any) -> str:
    (mark,) = re.findall(r'data-live-mark="([^"]*)"', response.text)
    return str(mark)


def test_progress_is_complete_when_there_was_nothing_to_do(ada: Client, session_cache: redis.Redis) -> None:
    job = finished(start(DELETE).key)
    page = ada.get(page_of(job.key))
    assert "Done: 0 of 0 sessions (100%)" in page.text
    assert '<progress class="sticky-progress" max="1" value="1"' in page.text
    assert "0 of 0" in ada.get(f"{BASE}move-all/").text


@pytest.mark.slow
def test_page_shows_progress_and_stops_and_resumes_on_request(ada: Client, session_cache: redis.Redis) -> None:
    fill(1_200)
    with gate(500):
        job = start(MOVE_ALL)
        with gate(1) as held:
            assert held.reached.wait(30)
        page = ada.get(page_of(job.key))
        assert "500 of 1,200 sessions (41%)" in page.text
        assert '<progress class="sticky-progress" max="1200" value="500"' in page.text
        assert buttons(page) == ["Stop"]
        assert ada.post(page_of(job.key, "stop/")).url == page_of(job.key)
    wait_for_jobs()
    stopped = ada.get(page_of(job.key))
    assert "Stopped: 500 of 1,200 sessions" in stopped.text
    assert buttons(stopped) == ["Continue"]
    assert sessions.filter(provider="openai").count() == 700
    assert ada.post(page_of(job.key, "resume/")).url == page_of(job.key)
    finished(job.key)
    done = ada.get(page_of(job.key))
    assert "Done: 1,200 of 1,200 sessions (100%)" in done.text
    assert buttons(done) == []
    recorded = list(LogEntry.objects.order_by("pk").values_list("change_message", flat=True))
    assert [message.partition(":")[0] for message in recorded] == [
        "Stopped, 500 of 1200 sessions done",
        "Resumed, 500 of 1200 sessions done",
    ]


def test_page_does_not_change_an_orphaned_operation_but_resume_does(ada: Client, session_cache: redis.Redis) -> None:
    fill(3)
    key = abandoned()
    assert ada.get(page_of(key)).status_code == 200
    assert no_threads()
    assert ada.post(f"{page_of(key)}resume/").status_code == 302
    wait_until(lambda: jobs.get(key).state == "done")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"updated_at": -1}, "Measuring the rate"),
        (
            {"updated_at": -7},
            "Its worker has not reported for 7 s. If it has stopped, another one continues within 15 s.",
        ),
        (
            {"updated_at": -7, "started_at": -7},
            "Waiting for a worker: each server process runs one operation at a time.",
        ),
        ({"updated_at": -7, "in_foreground": True}, "Its command has not reported for 7 s."),
        ({"updated_at": -7, "state": "stopped"}, "Sessions already changed stay changed."),
    ],
)
def test_page_reports_a_silent_worker(
    ada: Client, session_cache: redis.Redis, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], text: str
) -> None:
    now = int(time.time())
    monkeypatch.setattr("sessions_sticky.admin.job.time.time", lambda: now)
    job = Job.begin("ab" * 16, MOVE_ALL, actor="alice", expected=9)
    changes = {"started_at": -60} | changes
    times = {name: now + changes.pop(name) for name in ("started_at", "updated_at")}
    records = Records(sessions._store)
    records.write(msgspec.structs.replace(job, **times, **changes))
    records.lease(job.key, "token", 10)
    shown = ada.get(page_of(job.key)).text
    assert text in shown
    assert shown.count("has not reported") == text.count("has not reported")


def test_page_gives_the_reason_when_an_operation_has_failed(ada: Client, session_cache: redis.Redis) -> None:
    fill(1)
    key = abandoned(state="failed")
    page = ada.get(page_of(key))
    assert "Failed:" in page.text
    assert buttons(page) == ["Continue"]


def test_page_ends_at_a_whole_bar_when_nothing_was_left_to_do(ada: Client, session_cache: redis.Redis) -> None:
    fill(2)
    key = abandoned(state="done")
    assert '<progress class="sticky-progress" max="2" value="2"' in ada.get(page_of(key)).text
    assert "(100\u00a0%)" in ada.get(page_of(key), headers={"accept-language": "de"}).text


def test_figures_are_a_part_of_the_page_when_requested_separately(ada: Client, session_cache: redis.Redis) -> None:
    fill(1)
    page = ada.get(page_of(abandoned(state="stopped")), {"fragment": "1"})
    assert "<html" not in page.text
    assert 'data-part="progress"' in page.text
    assert 'data-live-seconds="5"' in page.text


@pytest.mark.slow
def test_figures_show_rate_and_time_left_on_the_second_read(ada: Client, session_cache: redis.Redis) -> None:
    fill(1_200)
    with gate(500):
        job = start(MOVE_ALL)
        with gate(1) as held:
            assert held.reached.wait(30)
        first = ada.get(page_of(job.key))
        assert "Measuring the rate" in first.text
        last = Mark.read(mark_of(first))
        assert last is not None
        assert last.done == 500
        ten_seconds_ago = str(Mark(0, last.at - 10, 0))
        again = ada.get(page_of(job.key), {"fragment": "1", "mark": ten_seconds_ago})
        assert again.context["rate"] == pytest.approx(50, rel=0.3)
        assert re.search(r"\d+ sessions a second, about 1\d s left", again.text)


NONSENSE = (
    *("", "x", "1_2", "1_2_3_4", "nan_nan_nan", "9_99999999999_1"),
    *("1_inf_0", "0_nan_nan", "0_1_nan", "500_1_1e-320", "9" * 99),
)
"""Marks in the address of the page that it did not write."""


def test_figures_are_shown_when_the_mark_is_nonsense(ada: Client, session_cache: redis.Redis) -> None:
    fill(600)
    with gate(1) as held:
        job = start(MOVE_ALL)
        assert held.reached.wait(30)
        for mark in NONSENSE:
            page = ada.get(page_of(job.key), {"fragment": "1", "mark": mark})
            assert page.status_code == 200, mark
            assert "Running:" in page.text, mark
            assert "nan" not in mark_of(page), mark


@pytest.mark.parametrize("what", ["", "stop/", "resume/"])
def test_page_reports_an_unknown_operation(ada: Client, session_cache: redis.Redis, what: str) -> None:
    path = page_of("ab" * 16, what)
    response = ada.post(path, follow=True) if what else ada.get(path)
    assert response.status_code == 404
    assert "No such operation" in response.text


def test_conversation_keeps_its_page_when_it_is_named_operations(ada: Client, session_cache: redis.Redis) -> None:
    sessions.create("operations", "openai", "gpt-4", "user-456")
    assert ada.get(f"{BASE}operations/change/").context["conversation_id"] == "operations"


@pytest.mark.parametrize(
    ("plan", "actions", "may"),
    [
        (MOVE_ALL, ("view",), False),
        (MOVE_ALL, ("view", "delete"), False),
        (MOVE_ALL, ("view", "change"), True),
        (DELETE, ("view",), False),
        (DELETE, ("view", "change"), False),
        (DELETE, ("view", "delete"), True),
    ],
)
def test_buttons_are_shown_and_work_when_the_user_may_begin_the_operation(
    login: Callable[..., Client], session_cache: redis.Redis, plan: Any, actions: tuple[str, ...], may: bool
) -> None:
    fill(1)
    key, client = abandoned(plan, state="stopped"), login(*actions)
    page = client.get(page_of(key))
    assert page.status_code == 200
    assert buttons(page) == (["Continue"] if may else [])
    assert client.post(page_of(key, "resume/")).status_code == (302 if may else 403)
    assert (finished(key).state == "done") is may
    assert LogEntry.objects.exists() is may


@pytest.mark.parametrize("what", ["stop/", "resume/"])
def test_button_is_refused_when_the_request_is_forged_or_no_post(
    ada: Client, session_cache: redis.Redis, what: str
) -> None:
    fill(1)
    key = abandoned(state="stopped")
    forged = Client(enforce_csrf_checks=True)
    forged.cookies = ada.cookies
    assert forged.post(page_of(key, what)).status_code == 403
    assert ada.get(page_of(key, what)).url == page_of(key)
    assert jobs.get(key).state == "stopped"  # type: ignore[union-attr]


def test_page_needs_the_permission_to_view(login: Callable[..., Client], session_cache: redis.Redis) -> None:
    assert login("change", "delete").get(page_of("ab" * 16)).status_code == 403


@pytest.mark.slow
def test_page_reports_it_when_the_store_is_down_and_works_again(ada: Client, settings: Settings) -> None:
    with start_server() as server:
        settings.CACHES = {"default": patient_config(server.url)}
        fill(1)
        key = abandoned(state="stopped")
        server.stop()
        impatient = cache_config(server.url.removesuffix("?db=0"))  # one location is one pool, with its first timeouts
        settings.CACHES = {"default": impatient}
        down = [ada.get(page_of(key)), ada.get(page_of(key), {"fragment": "1"}), ada.post(page_of(key, "resume/"))]
        server.cont()
        settings.CACHES = {"default": patient_config(server.url)}
        assert ada.get(page_of(key)).status_code == 200
    assert [response.status_code for response in down] == [503, 503, 503]


def test_page_shows_an_operation_when_another_program_broke_the_count(ada: Client, session_cache: redis.Redis) -> None:
    fill(1)
    key = abandoned(state="stopped")
    session_cache.set(f"{keys.job(key)}:done", 7)
    assert "7 of 7 sessions" in ada.get(page_of(key)).text
