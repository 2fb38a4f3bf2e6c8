from __future__ import annotations

import json
from unittest.mock import Mock

import pytest
from django.core.cache import caches, close_caches
from django.core.management import call_command

from sessions_sticky import Outcome, cache_config, keys, sessions
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


@pytest.mark.parametrize(
    ("url", "kind"), [(None, "NoneType"), (b"redis://:hunter2@h", "bytes"), (["redis://h"], "list")]
)
def test_cache_config_refuses_what_is_no_string(url, kind):
    with pytest.raises(ValueError, match=f"^The Redis URL must be a string, not {kind}$"):
        cache_config(url)


@pytest.mark.parametrize("scheme", ["redis://:hunter2@h", "rediss://h", "redis+sentinel://:hunter2@h:1,i:2"])
@pytest.mark.parametrize("path", ["/abc", "/1/2", "/-1", "/0x1", "/hunter2", "/ 1", "/%61"])
def test_cache_config_refuses_a_database_that_is_not_a_number(scheme, path):
    with pytest.raises(ValueError, match="the number of a database") as caught:
        cache_config(f"{scheme}{path}?service=s")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("socket_timeot=3", "unknown parameter 'socket_timeot'; did you mean 'socket_timeout'?"),
        ("db=1&max_conections=3", "unknown parameter 'max_conections'; did you mean 'max_connections'?"),
        ("hunter2@host=", "unknown parameter"),
        ("self=1", "unknown parameter"),
        ("decode_responses=1", "decode_responses is not possible, because sessions are read as bytes"),
        ("socket_timeout=soon", "Invalid value for 'socket_timeout' in connection URL."),
        ("db=first", "Invalid value for 'db' in connection URL."),
    ],
)
@pytest.mark.parametrize(
    "url", ["redis://h/0?", "rediss://h?", "unix:///run/r.sock?", "redis+cluster://h?", "redis+sentinel://h?service=s&"]
)
def test_cache_config_refuses_a_parameter_that_redis_py_does_not_take(url, parameters, expected):
    with pytest.raises(ValueError, match="Invalid Redis URL") as caught:
        cache_config(url + parameters)
    assert str(caught.value) == f"Invalid Redis URL: {expected}"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "redis://h",
            "redis://h/",
            "redis://h/15",
            "redis://u:p@h:1/0?socket_timeout=0.5&max_connections=3&protocol=3",
        ),
        *("rediss://h/0?ssl_cert_reqs=none&ssl_ca_certs=/ca.pem", "unix:///run/r.sock?db=3&password=x&username=y"),
        *("redis+sentinel://h/2?service=s&sentinel_password=x&health_check_interval=9", "redis+cluster://h,i/0"),
        "rediss+cluster://h?ssl_check_hostname=false&client_name=me",
    ],
)
def test_cache_config_accepts_urls_that_redis_py_accepts(url):
    assert cache_config(url)["BACKEND"] == "django_redis.cache.RedisCache"


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


def test_cache_config_is_independent_of_the_connection_factory_of_the_project(valkey_url, settings):
    settings.DJANGO_REDIS_CONNECTION_FACTORY = "django_redis.pool.SentinelConnectionFactory"
    settings.CACHES = {"default": cache_config(valkey_url)}
    call_command("check")
    assert sessions.resolve("conv-123", **PROPOSAL).outcome is not Outcome.DEGRADED


def test_end_of_a_request_closes_no_connection_when_the_project_closes_its_own(valkey_url, settings):
    settings.DJANGO_REDIS_CLOSE_CONNECTION = True
    settings.CACHES = {"default": cache_config(valkey_url)}
    connection = caches["default"].client.get_client().connection_pool.get_connection()
    close_caches()  # as `request_finished` does
    assert connection._sock is not None


@pytest.mark.parametrize("store_name", ["valkey", "cluster"], indirect=True)
def test_new_connection_reads_no_package_metadata(call, monkeypatch):
    monkeypatch.setattr("redis.utils.get_lib_version", Mock(side_effect=AssertionError))
    assert call("stats").sessions == 0
