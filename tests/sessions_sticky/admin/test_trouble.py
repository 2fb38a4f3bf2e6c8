"""The pages when the store is down, cannot do it, or has nothing to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.core.cache import cache

from sessions_sticky import cache_config, sessions
from tests.conftest import patient_config
from tests.servers import start_server
from tests.sessions_sticky.admin.pages import BASE, PROPOSED, TARGET, binding, listed, messages_of, page_of
from tests.sessions_sticky.calls import sample

if TYPE_CHECKING:
    import redis
    from django.test import Client
    from pytest_django import Settings

SHOWN = binding(sample("conv-1"))
CALLS = {
    "list": ("get", BASE, {}),
    "search": ("get", f"{BASE}search/", {"q": "conv-1"}),
    "detail": ("get", f"{BASE}conv-1/change/", {}),
    "touch": ("post", f"{BASE}conv-1/touch/", {}),
    "move": ("post", f"{BASE}move/", {"selected": SHOWN, **TARGET}),
    "move all": ("post", f"{BASE}move/", {"all": "1", "provider": "a", **TARGET, "confirmed": "1"}),
    "delete": ("post", f"{BASE}delete/", {"selected": SHOWN, "confirmed": "1"}),
    "ask to delete all": ("post", f"{BASE}delete/", {"all": "1", "provider": "a"}),
}


@pytest.mark.parametrize("name", CALLS)
def test_page_gives_advice_when_the_store_is_down(ada: Client, settings: Settings, name: str) -> None:
    method, path, fields = CALLS[name]
    with start_server() as server:
        settings.CACHES = {"default": cache_config(server.url)}
        server.kill()
        response = getattr(ada, method)(path, fields)
    assert response.status_code == 503
    assert "Session store unavailable" in response.text
    assert "manage.py sessions doctor" in response.text
    assert ("It is unknown whether your change was made" in response.text) is (method == "post")
    assert ("Try again" in response.text) is (method == "get")
    for misleading in ("There are no sessions", "no session", "Traceback", server.url.partition("?")[0]):
        assert misleading not in response.text


@pytest.mark.slow
def test_page_gives_advice_when_the_store_stalls_and_recovers(ada: Client, settings: Settings) -> None:
    with start_server() as server:
        settings.CACHES = {"default": cache_config(server.url)}
        sessions.create("conv-1", **PROPOSED)
        server.stop()
        assert ada.get(BASE).status_code == 503
        server.cont()
        settings.CACHES = {"default": patient_config(server.url)}
        assert listed(ada.get(BASE)) == ["conv-1"]


@pytest.fixture
def portable(settings: Settings) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    cache.clear()


@pytest.mark.parametrize("name", ["list", "move", "move all", "ask to delete all"])
def test_page_answers_501_when_the_cache_cannot_do_it(ada: Client, portable: None, name: str) -> None:
    method, path, fields = CALLS[name]
    sessions.create("conv-1", **PROPOSED)
    response = getattr(ada, method)(path, fields)
    assert response.status_code == 501
    assert "The session store does not support this" in response.text
    assert "django-redis can" in response.text
    assert "manage.py sessions doctor" in response.text


def test_list_answers_501_when_there_is_no_index(ada: Client, session_cache: redis.Redis, settings: Settings) -> None:
    settings.SESSIONS_STICKY = {"INDEX": False}
    response = ada.get(BASE)
    assert response.status_code == 501
    assert "SESSIONS_STICKY[&#x27;INDEX&#x27;] is False" in response.text


def test_one_session_is_viewed_and_deleted_when_the_cache_has_no_index(ada: Client, portable: None) -> None:
    session = sessions.create("conv-1", **PROPOSED)
    assert 'role="search"' in ada.get(BASE).text  # the way to a session, without a list
    assert ada.get(f"{BASE}search/", {"q": "conv-1"}).url == page_of("conv-1")
    response = ada.get(page_of("conv-1"))
    assert response.status_code == 200
    assert "No history: this cache" in response.text
    assert "unknown" in response.text
    assert "data-sticky-left" not in response.text
    assert ada.post(page_of("conv-1", "touch")).status_code == 302
    asked = ada.post(f"{BASE}delete/", {"selected": binding(session)})
    assert asked.status_code == 200
    done = ada.post(f"{BASE}delete/", {"selected": binding(session), "confirmed": "1"})
    assert done.status_code == 302
    assert sessions.get("conv-1") is None
    assert messages_of(ada.get(page_of("conv-1"))) == ["1 session was deleted."]


@pytest.mark.parametrize("name", ["move", "move all"])
def test_page_names_a_full_redis_when_it_refuses_a_change(ada: Client, session_cache: redis.Redis, name: str) -> None:
    session = sessions.create("conv-1", **PROPOSED)
    method, path, fields = CALLS[name]
    session_cache.config_set("maxmemory", 1)
    try:
        response = getattr(ada, method)(path, {**fields, "selected": binding(session)})
    finally:
        session_cache.config_set("maxmemory", 0)
    assert response.status_code == 503
    assert "<h1>Redis is full</h1>" in response.text
    assert "Raise maxmemory" in response.text
    assert "Try again" not in response.text
    assert sessions.get("conv-1") is not None
