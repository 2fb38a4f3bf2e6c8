"""The settings, all from the environment: the allowed values, and the line with which an invalid one ends the start."""

from __future__ import annotations

import os
import re
import runpy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sessions_sticky.setting_values import ALLOWED_TTL
from tests.gateway.live import ROOT, environment, manage

PROVIDER = '[[provider]]\nname = "one"\nbase_url = "https://host/v1"\nmodels = ["m"]\n'


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Reload the settings with an environment, in this process."""

    def load(**variables: str) -> dict[str, Any]:
        monkeypatch.setattr(os, "environ", {})
        for name, value in {**environment(tmp_path), **variables}.items():
            os.environ[name] = value
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
        return runpy.run_path(str(ROOT / "sentinel_project" / "settings.py"))

    return load


@pytest.fixture
def refused(load):
    """Return the line that ends the start."""

    def refused(**variables: str) -> str:
        with pytest.raises(SystemExit) as caught:
            load(**variables)
        assert isinstance(caught.value.code, str)
        assert "\n" not in caught.value.code
        return caught.value.code

    return refused


TTLS = ["abc", "0", "-5", "1.5", "", "99999999999999999999", "2147483648", " 5", "1e3", "٣", "1_000"]


@pytest.mark.parametrize("value", TTLS)
def test_start_is_refused_when_the_ttl_cannot_be_used(refused, value):
    assert refused(SESSION_TTL_SECONDS=value) == (
        f"SESSION_TTL_SECONDS must be a whole number of seconds from 1 to 2147483647, not {value!r}"
    )


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("DEBUG", "maybe", "true or false"),
        ("DEBUG", "", "true or false"),
        ("SENTINEL_HTTPS", "2", "true or false"),
        ("ALLOWED_HOSTS", "", "host names"),
        ("ALLOWED_HOSTS", "https://gw.example.org", "host names"),
        ("SENTINEL_CONVERSATION_SCOPE", "x", "shared or owner"),
        ("SENTINEL_CONVERSATION_SCOPE", "", "shared or owner"),
        ("SENTINEL_MAX_BODY_BYTES", "-1", "a whole number from 1024"),
        ("SENTINEL_MAX_BODY_BYTES", "20MB", "a whole number from 1024"),
        ("SENTINEL_UPSTREAM_TIMEOUT_SECONDS", "0", "a whole number from 1"),
        ("SENTINEL_DRAIN_SECONDS", "-1", "a whole number from 0"),
        ("SENTINEL_CONVERSATION_ID_SOURCES", "user", "body.session_id"),
        ("SENTINEL_CONVERSATION_ID_SOURCES", "", "body.session_id"),
        ("SENTINEL_CONVERSATION_ID_SOURCES", "body.", "body.session_id"),
        ("SENTINEL_CONVERSATION_ID_SOURCES", "header.Authorization", "no header of a key"),
        ("SENTINEL_CONVERSATION_ID_SOURCES", "header.x-session-id,header.x-api-key", "no header of a key"),
        ("SENTINEL_PINNING_SOURCES", "content", "body.conversation_id"),
        ("SENTINEL_PINNING_SOURCES", "header.cookie", "no header of a key"),
        ("SENTINEL_ID_KEY", "", "a secret text"),
        ("SENTINEL_ID_KEY", " ", "a secret text"),
        ("SENTINEL_CONTENT_TTL_SECONDS", "0", ALLOWED_TTL),
        ("SENTINEL_OBJECT_TTL_SECONDS", "0", ALLOWED_TTL),
        ("SENTINEL_ON_STORE_ERROR", "ignore", "degrade or raise"),
    ],
)
def test_start_is_refused_when_a_value_cannot_be_used(refused, name, value, allowed):
    line = refused(**{name: value})
    assert line.startswith((f"{name} must be ", f"Invalid {name}: "))
    assert line.endswith(f", not {value!r}")
    assert allowed in line


@pytest.mark.parametrize(
    ("name", "url", "allowed"),
    [
        ("REDIS_URL", "http://user:secret@host", "redis://host:6379/0"),
        ("REDIS_URL", "http://[secret", "redis://host:6379/0"),
        ("REDIS_URL", "", "redis://host:6379/0"),
        ("REDIS_URL", "redis://:secret@host:port/0", "redis://host:6379/0"),
        ("REDIS_URL", "redis://:secret@host:99999/0", "redis://host:6379/0"),
        ("REDIS_URL", "redis+cluster://:a/secret@host", "redis+cluster://"),
        ("REDIS_URL", "redis://user:a?secret=1@host", "redis://host:6379/0"),
        ("REDIS_URL", "redis+sentinel://:secret@host:26379/0", "redis+sentinel://host1,host2,host3/0?service=NAME"),
        ("REDIS_URL", "redis+cluster://:secret@host:7000/1", "redis+cluster://host1,host2 (with TLS rediss"),
        ("DATABASE_URL", "nonsense://user:secret@x", "postgres://"),
        ("DATABASE_URL", "postgis://user:secret@host/name", "postgres://"),
        ("DATABASE_URL", "", "postgres://"),
        ("DATABASE_URL", "mysql://user:secret@host/name", "postgres://"),
        ("DATABASE_URL", "oracle://user:secret@host/name", "postgres://"),
        ("DATABASE_URL", "spatialite:///name", "postgres://"),
        ("DATABASE_URL", "postgres://user:secret@host:port/name", "postgres://"),
        ("DATABASE_URL", "//user:secret@host/name", "postgres://"),
    ],
)
def test_start_is_refused_without_the_password_when_a_url_cannot_be_used(refused, recwarn, name, url, allowed):
    line = refused(**{name: url})
    assert line.startswith((f"{name} must be ", f"Invalid {name}: "))
    assert allowed in line
    assert "secret" not in f"{line}{[str(warning.message) for warning in recwarn]}"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://:secret@host/0?socket_timeot=3", "unknown parameter 'socket_timeot'; did you mean 'socket_timeout'?"),
        ("redis://host/abc", "its path must be the number of a database, such as /0"),
        ("redis+sentinel://:secret@host/0", "it needs ?service=, the name that the Sentinels watch"),
        ("redis+cluster://user:secret@host/3", "database '3'; a Redis Cluster has 0 only"),
    ],
)
def test_start_is_refused_with_the_reason_when_a_redis_url_cannot_be_used(refused, url, reason):
    line = refused(REDIS_URL=url)
    assert line.endswith(f": Invalid Redis URL: {reason}")
    assert "secret" not in line


PROVIDER_FILES = {
    "not toml [": "",
    "": "provider",
    "provider = []": "provider",
    PROVIDER.replace("models", "modles"): "modles",
    PROVIDER + 'region = "eu"': "region",
    PROVIDER + PROVIDER: '"one"',
    PROVIDER + 'api_key_env = "NOT_SET"': "NOT_SET",
    PROVIDER + 'api_key_env = "EMPTY"': "EMPTY",
    PROVIDER.replace("https://host/v1", "ftp://host/v1"): "ftp://host/v1",
    PROVIDER.replace("https://host/v1", "host/v1"): "host/v1",
    PROVIDER.replace("https://host/v1", "https:///v1"): "https:///v1",
    PROVIDER.replace("https://host/v1", "https://host/v1?key=x"): "https://host/v1",
    PROVIDER.replace("https://host/v1", "https://[host/v1"): "base_url",
    PROVIDER.replace("https://host/v1", "https://host:port/v1"): "base_url",
    **{
        PROVIDER.replace("//host/", f"//{host}/"): "base_url"
        for host in ("a b", "host%2e", "%68ost", "a\u200bb", "meta\u00addata", "ho*st")
    },
    **{
        PROVIDER.replace("//host/", f"//{host}/"): "a cloud's own services"
        for host in (
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]",
            "0xa9fea9fe",
            "METADATA.GOOGLE.INTERNAL.",
            "\uff11\uff16\uff19\u3002254.169.②⑤④",
        )
    },
    PROVIDER.replace('["m"]', "[]"): "models",
    PROVIDER.replace('["m"]', '"m"'): "models",
    PROVIDER.replace('["m"]', '["a b"]'): "models",
    PROVIDER.replace('"one"', '""'): "name",
    PROVIDER.replace('"one"', '"é"'): "name",
    PROVIDER + "weight = -1": "weight",
    PROVIDER + "weight = inf": "weight",
    PROVIDER + "weight = nan": "weight",
    PROVIDER + 'weight = "1"': "weight",
}


@pytest.mark.parametrize(("text", "named"), PROVIDER_FILES.items())
def test_start_is_refused_when_the_file_of_providers_is_wrong(refused, tmp_path, text, named):
    file = tmp_path / "providers.toml"
    file.write_text(text)
    line = refused(SENTINEL_PROVIDERS=str(file), EMPTY="")
    assert re.match(rf"Invalid SENTINEL_PROVIDERS: {re.escape(str(file))}(, line \d+)?: ", line)
    assert named in line


def test_start_is_refused_without_the_password_when_a_providers_url_cannot_be_used(refused, tmp_path):
    file = tmp_path / "providers.toml"
    file.write_text(PROVIDER.replace("https://host/v1", "https://user:secret@host/v1"))
    line = refused(SENTINEL_PROVIDERS=str(file))
    assert "'https://...@host/v1'" in line
    assert "secret" not in line


@pytest.mark.parametrize("path", ["/nowhere/providers.toml", "", "."])
def test_start_is_refused_when_there_is_no_file_of_providers(refused, path):
    line = refused(SENTINEL_PROVIDERS=path)
    assert line.startswith(f"Invalid SENTINEL_PROVIDERS: {path}")
    assert "directory" in line


def test_start_is_refused_when_the_file_of_providers_is_not_utf8(refused, tmp_path):
    file = tmp_path / "providers.toml"
    file.write_bytes(b'[[provider]]\nname = "\xff"\n')
    assert refused(SENTINEL_PROVIDERS=str(file)).startswith(f"Invalid SENTINEL_PROVIDERS: {file}, line 2: ")


@pytest.mark.parametrize("name", ["SENTINEL_DATA_DIR", "PROMETHEUS_MULTIPROC_DIR"])
@pytest.mark.parametrize("path", ["file", "file/data"])
def test_start_is_refused_when_a_folder_cannot_be_made(refused, tmp_path, name, path):
    (tmp_path / "file").touch()
    assert refused(**{name: str(tmp_path / path)}).startswith(f"{name} must be a directory that can be created, not ")


def test_providers_are_read_when_the_file_is_right(load, tmp_path):
    file = tmp_path / "providers.toml"
    file.write_text(
        '[[provider]]\nname = "one"\nbase_url = "https://host/v1/"\nmodels = ["m", "org/m:free"]\n'
        'api_key_env = "ONE_KEY"\nweight = 0.5\n[[provider]]\nname = "two"\nbase_url = "http://[::1]:8080"\n'
        'models = ["m"]\n'
    )
    one, two = load(SENTINEL_PROVIDERS=str(file), ONE_KEY="sk-1")["SENTINEL_PROVIDERS"]
    assert (one.name, one.base_url, one.models, one.weight) == ("one", "https://host/v1", ("m", "org/m:free"), 0.5)
    assert (one.api_key, two.api_key) == ("sk-1", None)
    assert (two.base_url, two.weight) == ("http://[::1]:8080", 1)
    assert "sk-1" not in f"{one!r} {one}"


def test_settings_are_those_for_a_first_run_when_nothing_is_set(load):
    found = load()
    assert found["DEBUG"] is False
    assert found["SESSION_TTL_SECONDS"] == 86_400
    assert found["ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]"]
    assert {provider.name for provider in found["SENTINEL_PROVIDERS"]} == {"echo-one", "echo-two", "echo-three"}
    assert all(provider.base_url is None for provider in found["SENTINEL_PROVIDERS"])
    assert found["SENTINEL_CONVERSATION_SCOPE"] == "shared"
    assert found["CACHES"]["default"]["BACKEND"] == "django_redis.cache.RedisCache"


def test_settings_follow_the_environment_when_it_is_set(load):
    found = load(
        SESSION_TTL_SECONDS="2147483647",
        DEBUG="1",
        ALLOWED_HOSTS="a.example, b.example",
        REDIS_URL="rediss://:p@host:6380/2",
        DATABASE_URL="postgres://user:pass@host:5433/name",
        SENTINEL_CONVERSATION_ID_SOURCES="body.thread.id, header.x-*-id",
        SENTINEL_MAX_BODY_BYTES="1024",
        SENTINEL_HTTPS="yes",
    )
    assert found["SESSION_TTL_SECONDS"] == 2_147_483_647
    assert found["DEBUG"] is True
    assert found["ALLOWED_HOSTS"] == ["a.example", "b.example"]
    assert found["CACHES"]["default"]["LOCATION"] == "rediss://:p@host:6380/2"
    database = found["DATABASES"]["default"]
    assert (database["ENGINE"], database["HOST"], database["PORT"]) == ("django.db.backends.postgresql", "host", 5433)
    assert found["SENTINEL_CONVERSATION_ID_SOURCES"] == ["body.thread.id", "header.x-*-id"]
    assert found["DATA_UPLOAD_MAX_MEMORY_SIZE"] == 1024
    assert found["SECURE_SSL_REDIRECT"] is True
    asked_by_address = ["healthz", "readyz", "metrics"]
    exempt = "|".join(found["SECURE_REDIRECT_EXEMPT"])
    assert [path for path in (*asked_by_address, "admin/", "x/metrics") if re.search(exempt, path)] == asked_by_address
    assert found["CSRF_TRUSTED_ORIGINS"] == ["https://a.example", "https://b.example"]


@pytest.mark.parametrize(("query", "seconds"), [("", 5), ("?timeout=30", 30)])
def test_sqlite_waits_for_locks_and_readers_do_not_when_nothing_else_is_set(load, tmp_path, query, seconds):
    options = load(DATABASE_URL=f"sqlite:///{tmp_path}/db.sqlite3{query}")["DATABASES"]["default"]["OPTIONS"]
    assert int(options["timeout"]) == seconds
    assert options["transaction_mode"] == "IMMEDIATE"
    assert "journal_mode = WAL" in options["init_command"]


def test_other_databases_get_no_options_of_sqlite(load):
    assert "OPTIONS" not in load(DATABASE_URL="postgres://user:pass@host:5433/name")["DATABASES"]["default"]


BAD = [
    {"SESSION_TTL_SECONDS": "abc"},
    {"REDIS_URL": "http://user:secret@host"},
    {"SENTINEL_PROVIDERS": "/nowhere/providers.toml"},
]


@pytest.mark.slow
def test_commands_end_with_one_line_when_a_value_cannot_be_used(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda bad: manage("check", env=environment(tmp_path, **bad)), BAD))
    for bad, done in zip(BAD, runs, strict=True):
        (name,) = bad
        assert done.returncode == 1
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith((f"{name} must be ", f"Invalid {name}: "))
        assert "secret" not in line


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost", "10.0.0.7", "192.168.1.2", "[fd12::1]", "[::1]", "vllm", "1.2.3"]
)
def test_start_accepts_a_provider_on_a_private_network(load, tmp_path, host):
    file = tmp_path / "providers.toml"
    file.write_text(PROVIDER.replace("//host/", f"//{host}/"))
    (provider,) = load(SENTINEL_PROVIDERS=str(file))["SENTINEL_PROVIDERS"]
    assert provider.base_url == f"https://{host}/v1"
