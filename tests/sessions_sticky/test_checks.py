from __future__ import annotations

import tempfile

import pytest
from django.core.cache import cache
from django.core.checks import Tags, run_checks

from sessions_sticky import cache_config
from sessions_sticky.conf import DEFAULTS

URL = "redis://127.0.0.1:1/0"
FILES = "django.core.cache.backends.filebased.FileBasedCache"
DJANGOS = "django.core.cache.backends.redis.RedisCache"
LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}


def entry(**changes):
    """A fitting CACHES entry with changes; OPTIONS are merged, and None leaves one out."""
    config = cache_config(URL)
    options = {**config["OPTIONS"], **changes.pop("OPTIONS", {})}
    merged = {**config, **changes, "OPTIONS": {name: value for name, value in options.items() if value is not None}}
    return {name: value for name, value in merged.items() if value is not None}


def messages(*, deploy=False):
    found = run_checks(tags=[Tags.caches], include_deployment_checks=deploy)
    return [message for message in found if message.id.startswith("sessions_sticky.")]


def ids(*, deploy=False):
    return [message.id.removeprefix("sessions_sticky.") for message in messages(deploy=deploy)]


@pytest.mark.parametrize("deploy", [False, True])
@pytest.mark.parametrize("url", [URL, "rediss://:pw@127.0.0.1:1/0", "unix:///nowhere/s?db=0"])
def test_check_is_silent_when_cache_config_made_the_entry(settings, url, deploy):
    settings.CACHES = {"default": cache_config(url)}
    assert messages(deploy=deploy) == []


@pytest.mark.parametrize("value", ["abc", 0, -5, 1.5, "", True, None, 2**31])
def test_check_gives_E001_when_the_ttl_is_bad(settings, value):
    settings.SESSION_TTL_SECONDS = value
    (message,) = messages()
    assert message.id == "sessions_sticky.E001"
    assert message.is_serious()
    assert message.msg.startswith("SESSION_TTL_SECONDS must be a whole number of seconds")


@pytest.mark.parametrize(
    "options", [{"CACHE": "nowhere"}, {"CACHE": ["default"]}, {"ON_STORE_ERROR": "explode"}, {"API_THROTTLE_RATE": "x"}]
)
def test_check_gives_E001_once_when_an_option_is_bad(settings, options):
    settings.SESSIONS_STICKY = options
    assert ids(deploy=True) == ["E001"]


@pytest.mark.parametrize("name", DEFAULTS)
@pytest.mark.parametrize("value", [object(), 5.5, [None], {5: None}], ids=["object", "float", "list", "dict"])
def test_check_gives_E001_and_raises_nothing_for_any_setting(settings, name, value):
    settings.SESSIONS_STICKY = {name: value}
    assert ids(deploy=True) == ["E001"]


def test_check_calls_no_provider_callable(settings):
    """It may use the database, which may not be migrated yet."""
    settings.SESSIONS_STICKY = {"PROVIDERS": lambda: pytest.fail("called")}
    assert ids() == []


def test_check_gives_E001_once_when_the_setting_is_not_a_dict(settings):
    settings.SESSIONS_STICKY = ["CACHE"]
    assert ids(deploy=True) == ["E001"]


def test_check_gives_E002_with_a_suggestion_when_a_key_is_unknown(settings):
    settings.SESSIONS_STICKY = {"ON_STORE_EROR": "raise", "COLOUR": "red"}
    assert [(message.id, message.hint) for message in messages()] == [
        ("sessions_sticky.E002", "Did you mean 'ON_STORE_ERROR'?"),
        ("sessions_sticky.E002", f"Allowed are {', '.join(DEFAULTS)}."),
    ]


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"KEY_FUNCTION": None}, 1),
        ({"KEY_FUNCTION": None, "KEY_PREFIX": "app"}, 1),
        ({"OPTIONS": {"SERIALIZER": None}}, 1),
        ({"OPTIONS": {"SERIALIZER": "django_redis.serializers.json.JSONSerializer"}}, 1),
        ({"OPTIONS": {"COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor"}}, 1),
        ({"KEY_FUNCTION": None, "OPTIONS": {"SERIALIZER": None}}, 2),
    ],
)
def test_check_gives_E003_when_the_cache_changes_keys_or_values(settings, changes, count):
    settings.CACHES = {"default": entry(**changes)}
    assert ids() == ["E003"] * count


def test_check_gives_E004_when_the_cache_keeps_nothing(settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    assert ids(deploy=True) == ["E004"]


@pytest.mark.parametrize(
    "options",
    [
        {"CLIENT_CLASS": "django_redis.client.ShardClient"},
        {"CONNECTION_POOL_KWARGS": {"decode_responses": True}},
    ],
)
def test_check_gives_E005_when_sessions_cannot_use_the_client(settings, options):
    settings.CACHES = {"default": entry(OPTIONS=options)}
    assert ids() == ["E005"]


def test_check_gives_E005_when_the_location_decodes_replies(settings):
    settings.CACHES = {"default": entry(LOCATION="redis://127.0.0.1:1/0?decode_responses=1")}
    assert ids() == ["E005"]


@pytest.mark.parametrize("option", ["SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT"])
@pytest.mark.parametrize("value", [None, 0])
def test_check_gives_W001_when_a_timeout_is_missing(settings, option, value):
    settings.CACHES = {"default": entry(OPTIONS={option: value})}
    assert ids() == ["W001"]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (entry(), ["W007"]),
        (entry(OPTIONS={"SOCKET_TIMEOUT": 30}), ["W002", "W007"]),
        ({"BACKEND": "django_redis.cache.RedisCache", "LOCATION": URL}, ["W002", "W007"]),
        ({"BACKEND": "django_redis.cache.RedisCache", "LOCATION": [URL]}, ["W002", "W007"]),
        ({"BACKEND": DJANGOS, "LOCATION": URL, "KEY_PREFIX": "mine"}, ["W007"]),
        ({"BACKEND": DJANGOS, "LOCATION": "redis://127.0.0.1:1/1"}, []),
        ({"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": URL}, []),
        (entry(LOCATION="redis://127.0.0.1:1/1", OPTIONS={"SOCKET_TIMEOUT": 30}), []),
        (LOCMEM, []),
    ],
)
def test_check_warns_of_another_alias_with_the_same_location(settings, other, expected):
    settings.CACHES = {"default": entry(), "other": other}
    assert ids() == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LOCMEM, ["W003"]),
        ({"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "t"}, ["W004"]),
        (
            {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": tempfile.gettempdir()},
            ["W004"],
        ),
        ({"BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache", "LOCATION": "127.0.0.1:1"}, []),
    ],
)
def test_check_warns_for_deployment_alone_when_the_cache_does_for_development(settings, config, expected):
    if "PyMemcache" in config["BACKEND"]:
        pytest.importorskip("pymemcache")
    settings.CACHES = {"default": config}
    assert ids() == []
    assert ids(deploy=True) == expected


def test_check_gives_W005_when_the_cache_is_on_redis_without_django_redis(settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": URL}}
    assert ids() == ids(deploy=True) == ["W005"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"KEY_PREFIX": "tenant1"}, ["W006"]),
        ({"VERSION": 2}, ["W006"]),
        ({"KEY_PREFIX": "tenant1", "VERSION": 2}, ["W006", "W006"]),
        ({"KEY_PREFIX": "", "VERSION": 1}, []),
        ({"KEY_PREFIX": "tenant1", "KEY_FUNCTION": None}, ["E003"]),
    ],
)
def test_check_warns_of_a_prefix_or_version_that_separates_nothing(settings, fields, expected):
    settings.CACHES = {"default": entry(**fields)}
    assert ids() == expected


def test_check_opens_no_connection(settings):
    settings.CACHES = {"default": cache_config(URL)}
    messages(deploy=True)
    assert cache.client.get_client().connection_pool._created_connections == 0


def test_check_uses_the_configured_alias(settings):
    settings.CACHES = {"default": entry(KEY_FUNCTION=None), "kept": entry(LOCATION="redis://127.0.0.1:1/1")}
    settings.SESSIONS_STICKY = {"CACHE": "kept"}
    assert ids(deploy=True) == []
