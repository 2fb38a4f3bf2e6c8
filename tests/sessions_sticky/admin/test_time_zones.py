"""Times on the pages are those of the current time zone, which the pages name, with and without USE_TZ."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from sessions_sticky import Turn, sessions
from tests.sessions_sticky.admin.pages import BASE, page_of, wait_for_jobs

if TYPE_CHECKING:
    import redis
    from django.test import Client
    from pytest_django import Settings

NAME = "Asia/Kolkata"


@pytest.fixture(params=[True, False], ids=["USE_TZ", "without USE_TZ"])
def pages(
    request: pytest.FixtureRequest, ada: Client, session_cache: redis.Redis, settings: Settings
) -> dict[str, str]:
    """The pages of a moved conversation with a turn, by name, in a project in India."""
    settings.USE_TZ, settings.TIME_ZONE = request.param, NAME
    sessions.create("conv-1", "openai", "gpt-4", "ann")
    sessions.record_turn(Turn(conversation_id="conv-1", at=1_700_000_000, provider="b", model="m", outcome="hit"))
    move = {"all": "1", "provider": "openai", "confirmed": "1", "to-provider": "azure", "to-reason": "test"}
    operation = ada.post(f"{BASE}move/", move)["Location"]
    wait_for_jobs()
    paths = {"list": BASE, "detail": page_of("conv-1"), "operation": operation, "progress": f"{operation}?fragment=1"}
    paths |= {name: f"{BASE}{name}/" for name in ("events", "operations", "overview")}
    return {name: ada.get(path).text for name, path in {**paths, "figures": f"{BASE}overview/?fragment=1"}.items()}


def test_pages_show_times_of_the_zone_that_they_name(pages: dict[str, str]) -> None:
    (created_at,) = re.findall(r'<dd><time datetime="([^"]+)"', pages["detail"])[:1]
    created = datetime.fromisoformat(created_at).astimezone(UTC)
    hour = created.replace(minute=0).astimezone(ZoneInfo(NAME))  # hours of UTC begin at half past in India
    for name in ("list", "detail", "operations", "events"):
        times = re.findall(r'<time datetime="([^"]+)"', pages[name])
        assert times, name
        assert [each for each in times if not each.endswith("+05:30")] == [], name
    for name in ("list", "detail", "events", "overview", "figures"):
        assert NAME in pages[name], name
    for name in ("overview", "figures"):
        assert f">{hour:%Y-%m-%d %H:%M}</time></th>" in pages[name], name
    for name in ("operation", "progress"):
        finished = re.findall(r"Finished: (.+) IST", pages[name])
        assert [datetime.fromisoformat(f"{each}+05:30") - created < timedelta(minutes=1) for each in finished] == [True]
