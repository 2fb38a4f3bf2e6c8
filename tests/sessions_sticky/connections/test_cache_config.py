from __future__ import annotations

import json

import pytest
from django.core.cache import caches

from sessions_sticky import cache_config, keys, sessions
from sessions_sticky.connections.cache_config import verbatim_reverse_key
from tests.sessions_sticky.calls import PROPOSAL, sample


@pytest.mark.parametrize(
    "url", ["redis://localhost:6379/0", "rediss://:secret@redis.example:6380/1", "unix:///run/redis.sock?db=2"]
)
def test_cache_config_gives_an_entry_with_timeouts_when_the_scheme_is_known(url):
    entry = cache_config(url)
    assert entry["BACKEND"] == "django_redis.cache.RedisCache"
    assert entry["LOCATION"] == url
    assert 0 < entry["OPTIONS"]["SOCKET_TIMEOUT"] <= 1
    assert 0 < entry["OPTIONS"]["SOCKET_CONNECT_TIMEOUT"] <= 1


@pytest.mark.parametrize(
    "url",
    [
        *("http://:hunter2@redis/0", "memcached://:hunter2@host", "hunter2", "", "//:hunter2@redis/0"),
        *("REDIS://:hunter2@redis/0", " redis://:hunter2@redis/0", "redis::hunter2@redis", "unix:/hunter2"),
    ],
)
def test_cache_config_names_the_schemes_but_no_password_when_the_scheme_is_unknown(url):
    with pytest.raises(ValueError, match="redis://, rediss://, unix://") as caught:
        cache_config(url)
    assert "hunter2" not in str(caught.value)


def test_cache_get_gives_the_fields_when_a_session_is_stored(session_cache):
    session = sessions.create("conv-123", **PROPOSAL)
    assert caches["default"].get(keys.session("conv-123")) == json.loads(session.to_json())


@pytest.mark.parametrize("as_value", [lambda session: session, lambda session: json.loads(session.to_json())])
def test_cache_set_writes_the_wire_format(session_cache, as_value):
    session = sample("conv-é😀", model="\x1f")
    caches["default"].set(keys.session(session.id), as_value(session), 60)
    assert session_cache.get("sentinel:session:conv-é😀") == session.to_json()
    assert sessions.get(session.id) == session


def test_cache_keys_are_the_redis_keys(session_cache):
    sessions.create("conv-123", **PROPOSAL)
    assert session_cache.keys("sentinel:session:*") == [b"sentinel:session:conv-123"]
    assert caches["default"].keys("sentinel:session:*") == ["sentinel:session:conv-123"]
    assert verbatim_reverse_key("a:1:b") == "a:1:b"
