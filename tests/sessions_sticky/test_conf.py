from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.cache import cache, caches
from django.core.exceptions import ImproperlyConfigured

from sessions_sticky import SessionManager, sessions, stores
from sessions_sticky.conf import conf, unknown_options
from sessions_sticky.setting_values import ALLOWED_TTL, MAX_TTL_SECONDS, parse_ttl_seconds
from tests.sessions_sticky.calls import PROPOSAL

LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
BAD_TTLS = ["abc", "60", "", 0, -5, 1.5, 60.0, True, False, None, MAX_TTL_SECONDS + 1, 10**30, [60], b"60"]


@pytest.fixture
def two_caches(settings):
    settings.CACHES = {name: {"BACKEND": LOCMEM, "LOCATION": f"conf-{name}"} for name in ("default", "other")}


def test_ttl_seconds_is_a_day_when_not_set(settings):
    del settings.SESSION_TTL_SECONDS
    assert conf.ttl_seconds == sessions.ttl_seconds == 86_400


@pytest.mark.parametrize("value", [1, 60, MAX_TTL_SECONDS])
def test_ttl_seconds_follows_the_setting_at_once(settings, value):
    settings.SESSION_TTL_SECONDS = value
    assert conf.ttl_seconds == sessions.ttl_seconds == value
    assert SessionManager(ttl_seconds=5).ttl_seconds == 5


@pytest.mark.parametrize("value", BAD_TTLS, ids=repr)
def test_ttl_seconds_raises_with_value_and_what_is_allowed_when_the_setting_is_bad(settings, value):
    settings.SESSION_TTL_SECONDS = value
    with pytest.raises(ImproperlyConfigured) as caught:
        _ = conf.ttl_seconds
    assert str(caught.value) == f"SESSION_TTL_SECONDS must be {ALLOWED_TTL}, not {value!r}"


@pytest.mark.parametrize("value", [value for value in BAD_TTLS if value is not None], ids=repr)
def test_manager_raises_when_its_ttl_seconds_is_bad(value):
    with pytest.raises(ValueError, match=r"^ttl_seconds must be "):
        SessionManager(ttl_seconds=value)


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("86400", 86_400), ("007", 7), (str(MAX_TTL_SECONDS), MAX_TTL_SECONDS)]
)
def test_parse_ttl_seconds_reads_whole_numbers(text, value):
    assert parse_ttl_seconds(text) == value


@pytest.mark.parametrize(
    "text", ["abc", "", " ", "0", "-5", "1.5", "1e3", "+5", "0x10", "1_000", "٣", "60 ", "2147483648", "9" * 5000]
)
def test_parse_ttl_seconds_raises_in_one_line_when_the_text_is_bad(text):
    with pytest.raises(
        ValueError, match=r"^SESSION_TTL_SECONDS must be a whole number of seconds from 1 to \d+, not .*$"
    ):
        parse_ttl_seconds(text)


@pytest.mark.parametrize(
    ("name", "option", "good", "bad"),
    [
        ("cache", "CACHE", ["default"], ["nowhere", "", None, 7, ["default"], {}]),
        ("on_store_error", "ON_STORE_ERROR", ["degrade", "raise"], ["", "RAISE", None, True, ["raise"]]),
        ("index", "INDEX", [True, False], [None, 0, 1, "True", []]),
        ("history_length", "HISTORY_LENGTH", [0, 1, 2**31 - 1], [-1, 2**31, 1.0, "10", None, True]),
        ("trail_length", "TRAIL_LENGTH", [0, 1, 1_000], [-1, 1_001, 1.0, "10", None, True]),
        ("last_seen_size", "LAST_SEEN_SIZE", [0, 1, 2**31 - 1], [-1, 2**31, 1.0, "10", None, True]),
        (
            "api_throttle_rate",
            "API_THROTTLE_RATE",
            ["1/s", "600/min", "5/hour", "10000/day", None],
            ["", "600", "0/min", "600/", "600/fortnight", "-1/s", "1.5/s", 600, "600/min\n"],
        ),
    ],
)
def test_option_accepts_allowed_values_and_names_them_otherwise(settings, name, option, good, bad):
    for value in good:
        settings.SESSIONS_STICKY = {option: value}
        assert getattr(conf, name) == value
    for value in bad:
        settings.SESSIONS_STICKY = {option: value}
        with pytest.raises(ImproperlyConfigured) as caught:
            getattr(conf, name)
        assert str(caught.value).startswith(f"SESSIONS_STICKY['{option}'] must be ")
        assert str(caught.value).endswith(f", not {value!r}")


@pytest.mark.parametrize("value", [None, [], "CACHE"])
def test_option_raises_when_the_setting_is_not_a_dict(settings, value):
    settings.SESSIONS_STICKY = value
    with pytest.raises(ImproperlyConfigured, match=r"SESSIONS_STICKY must be a dict, not "):
        _ = conf.cache
    assert unknown_options() == {}


def test_option_has_its_default_when_not_set(settings):
    del settings.SESSIONS_STICKY
    assert (conf.cache, conf.on_store_error, conf.api_throttle_rate) == ("default", "degrade", "600/min")


def test_unknown_options_suggests_a_similar_name(settings):
    settings.SESSIONS_STICKY = {"CACHE": "default", "cache": "x", "ON_STORE_EROR": "raise", "COLOUR": 1, 7: 2}
    assert unknown_options() == {"cache": "CACHE", "ON_STORE_EROR": "ON_STORE_ERROR", "COLOUR": None, 7: None}


def test_manager_follows_the_cache_alias_at_once(settings, two_caches):
    settings.SESSIONS_STICKY = {"CACHE": "other"}
    sessions.create("conv-123", **PROPOSAL)
    assert SessionManager("other").get("conv-123") is not None
    assert SessionManager("default").get("conv-123") is None
    assert SessionManager(caches["other"]).get("conv-123") is not None
    assert SessionManager(cache).get("conv-123") is None  # a proxy of the default one, and no `BaseCache`
    settings.SESSIONS_STICKY = {}
    assert sessions.get("conv-123") is None


@pytest.mark.parametrize("value", [5, b"default", {}])
def test_manager_raises_when_its_cache_is_invalid(value):
    with pytest.raises(
        ValueError, match=re.escape(f"cache must be a Django cache or an alias in CACHES, not {value!r}")
    ):
        SessionManager(value)


@pytest.mark.parametrize("location", ["conf-a", "conf-b"])
def test_manager_follows_caches_at_once(settings, location):
    settings.CACHES = {"default": {"BACKEND": LOCMEM, "LOCATION": "conf-first"}}
    sessions.create("conv-123", **PROPOSAL, replace=True)
    settings.CACHES = {"default": {"BACKEND": LOCMEM, "LOCATION": location}}
    assert sessions.get("conv-123") is None


def test_identity_derives_its_key_from_the_secret_key_when_not_set(settings):
    settings.SESSIONS_STICKY = {}
    settings.SECRET_KEY = "one"
    assert conf.identity == {}
    first = conf.identity_arguments
    assert {name: len(value) for name, value in first.items()} == {"key": 32}
    settings.SECRET_KEY = "two"
    assert conf.identity_arguments != first


@pytest.mark.parametrize("key", ["é", "é".encode()])
def test_identity_returns_the_arguments_that_are_set(settings, key):
    options = {"key": key, "named": ["body.id"], "sources": ("content",), "scope": "owner"}
    settings.SESSIONS_STICKY = {"IDENTITY": options}
    assert conf.identity == conf.identity_arguments == options | {"key": "é".encode()}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"SESSIONS_STICKY\['IDENTITY'\] must be a dict, not NoneType"),
        ({"key": "secret", "keys": 1}, r"\['IDENTITY'\] has the unknown key 'keys'; did you mean 'key'\?$"),
        (
            {"key": "secret", "foo": 1},
            r"\['IDENTITY'\] has the unknown key 'foo'; allowed are apis, key, named, scope, sources$",
        ),
        ({1: "secret"}, r"\['IDENTITY'\] has the unknown key 1; allowed are "),
        ({"scope": "tenant"}, r"\['IDENTITY'\]\['scope'\] must be 'shared' or 'owner', not 'tenant'"),
        ({"named": "body.id"}, r"\['IDENTITY'\]\['named'\] must be a list of strings, not 'body.id'"),
        ({"sources": ["content", 1]}, r"\['IDENTITY'\]\['sources'\] must be a list of strings, not \['content', 1\]"),
        ({"apis": "chat"}, r"\['IDENTITY'\]\['apis'\] must be a list of ContentApi objects, not 'chat'"),
        ({"apis": ["chat"]}, r"\['IDENTITY'\]\['apis'\] must be a list of ContentApi objects, not \['chat'\]"),
        ({"key": ""}, r"\['IDENTITY'\]\['key'\] must be a non-empty string, not str"),
        ({"key": ["secret"]}, r"\['IDENTITY'\]\['key'\] must be a non-empty string, not list"),
    ],
)
def test_identity_raises_without_showing_the_key_when_an_argument_is_bad(settings, value, message):
    settings.SESSIONS_STICKY = {"IDENTITY": value}
    with pytest.raises(ImproperlyConfigured, match=message) as caught:
        _ = conf.identity
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", ["", ":", "sentinel", "a:b:", "a b:", "{a}:", "a*:", "x" * 65 + ":", b"a:", None])
def test_prefix_raises_with_value_and_what_is_allowed_when_the_setting_is_bad(settings, value):
    settings.SESSIONS_STICKY = {"PREFIX": value}
    with pytest.raises(ImproperlyConfigured) as caught:
        _ = conf.prefix
    assert str(caught.value).startswith("SESSIONS_STICKY['PREFIX'] must be 1 to 64 letters")


def test_first_threads_share_one_store(monkeypatch):
    make = stores._store

    def make_slowly(get_cache):
        time.sleep(0.05)
        return make(get_cache)

    monkeypatch.setattr(stores, "_store", make_slowly)
    stores._stores.clear()
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: SessionManager("default")._store, range(4)))
    assert len(set(map(id, made))) == 1


def test_manager_has_a_repr_when_the_settings_are_wrong(settings):
    settings.SESSIONS_STICKY = {"CACHE": "nowhere"}
    assert repr(SessionManager(ttl_seconds=60)) == "<SessionManager on the cache 'not configured', idle time 60 s>"
