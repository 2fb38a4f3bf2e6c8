"""Secrets of the whole project, and security headers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management.utils import get_random_secret_key
from django.test import Client

from sentinel_project.gateway import model_list
from sentinel_project.gateway.handler import UNKNOWN_BYTES
from sentinel_project.http_protocol import HEAD_SECONDS
from sentinel_project.http_request import MAX_HEAD_BYTES, MAX_HEADERS
from sentinel_project.http_timers import STUCK_SECONDS
from tests import programs
from tests.gateway.live import environment, manage
from tests.programs import ROOT
from tests.servers import VALKEY, Server

PASSWORDS = {"REDIS_URL": "redis-7f3a91", "UPSTREAM_KEY": "sk-upstream-9be1"}
PROVIDER = '[[provider]]\nname = "one"\nbase_url = "https://host/v1"\napi_key_env = "UPSTREAM_KEY"\nmodels = ["m"]\n'


def policy(response) -> str:
    return str(response.headers["Content-Security-Policy"])


@pytest.mark.parametrize("path", ["/admin/login/", "/nothing", "/api/schema/", "/healthz", "/api/sessions/"])
def test_page_may_load_only_what_the_server_serves_when_it_is_answered(client: Client, db: None, path: str) -> None:
    response = client.get(path)
    assert policy(response).startswith("default-src 'self';")
    assert "frame-ancestors 'none'" in policy(response)
    assert "unsafe" not in policy(response)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["Referrer-Policy"] == "same-origin"


def test_documentation_allows_inline_styles_but_no_inline_scripts(client: Client) -> None:
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy(client.get("/api/docs/")).split(";"))
    assert rules["default-src"] == "'self'"
    assert rules["style-src"] == "'self' 'unsafe-inline'"
    assert "script-src" not in rules


@pytest.mark.slow
def test_cookies_are_http_only_after_a_login(client: Client, db: None) -> None:
    User.objects.create_superuser("root", password="a long password")
    client.post("/admin/login/", {"username": "root", "password": "a long password"})
    cookie = client.cookies["sessionid"]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
    assert client.cookies["csrftoken"]["samesite"] == "Lax"


@pytest.mark.parametrize("is_logged_in", [True, False])
def test_form_without_a_csrf_token_is_refused_with_advice(admin_user: User, is_logged_in: bool) -> None:
    client = Client(enforce_csrf_checks=True, headers={"accept-language": "de"})
    if is_logged_in:
        client.force_login(admin_user)
    refused = client.post("/admin/sessions_sticky/session/move/")
    assert refused.status_code == 403
    assert "laden Sie die Seite neu" in refused.text
    assert 'href="/admin/"' in refused.text


@pytest.mark.parametrize("password", ["short-one-1", "password1234", "administrator-root"])
def test_password_is_refused_when_it_is_weak(db: None, password: str) -> None:
    from django.contrib.auth.password_validation import validate_password

    with pytest.raises(ValidationError):
        validate_password(password, User(username="administrator-root"))


def test_admin_shows_no_tokens_when_all_permissions_are_there(admin_client: Client) -> None:
    assert "oken" not in re.sub("csrfmiddlewaretoken", "", admin_client.get("/admin/all/").text)
    assert admin_client.get("/admin/authtoken/tokenproxy/").status_code == 404


def secret_environment(folder: Path) -> dict[str, str]:
    file = folder / "providers.toml"
    file.write_text(PROVIDER)
    return environment(
        folder,
        REDIS_URL=f"redis://user:{PASSWORDS['REDIS_URL']}@127.0.0.1:1/0",
        SENTINEL_PROVIDERS=str(file),
        UPSTREAM_KEY=PASSWORDS["UPSTREAM_KEY"],
        SECRET_KEY=get_random_secret_key(),
    )


REPORT = """
import os, django
os.environ["DJANGO_SETTINGS_MODULE"] = "sentinel_project.settings"
django.setup()
from django.conf import settings
from django.test import RequestFactory
from django.views.debug import ExceptionReporter
request = RequestFactory().get("/", headers={"Authorization": "Bearer sk-sentinel-x77", "Cookie": "sessionid=c00k1e"})
request.META |= {**os.environ, "DATABASE_URL": "postgres://user:database-55c02e@host/name"}
try:
    1 / 0
except ZeroDivisionError as exc:
    reporter = ExceptionReporter(request, type(exc), exc, exc.__traceback__)
    print(reporter.get_traceback_html(), reporter.get_traceback_text(), settings.SENTINEL_PROVIDERS)
"""


@pytest.mark.slow
@pytest.mark.parametrize("debug", ["0", "1"])
def test_error_page_hides_every_secret_when_a_view_fails(tmp_path: Path, debug: str) -> None:
    env = {**secret_environment(tmp_path), "DEBUG": debug}
    done = programs.run("-c", REPORT, env=env)
    assert "ZeroDivisionError" in done.stdout, done.stderr
    assert "SENTINEL_PROVIDERS" in done.stdout
    for secret in (*PASSWORDS.values(), env["SECRET_KEY"], "sk-sentinel-x77", "database-55c02e"):
        assert secret not in done.stdout, secret


@pytest.mark.slow
@pytest.mark.parametrize("command", [("check",), ("sessions", "doctor"), ("sessions", "list"), ("createkey", "ann")])
def test_command_prints_no_secret_when_nothing_can_be_reached(tmp_path: Path, command: tuple[str, ...]) -> None:
    env = {**secret_environment(tmp_path), "DATABASE_URL": f"sqlite:///{tmp_path}/none/db"}
    done = manage(*command, env=env)
    assert done.stdout + done.stderr
    for secret in (*PASSWORDS.values(), env["SECRET_KEY"]):
        assert secret not in done.stdout + done.stderr


@pytest.mark.slow
def test_doctor_reveals_no_password_when_the_store_refuses_it(tmp_path: Path) -> None:
    with Server(VALKEY, "--requirepass", "right-4ac1", tcp=True) as server:
        url = server.url.replace("redis://", "redis://:wrong-7be2@")
        done = manage("sessions", "doctor", "--json", env=environment(tmp_path, REDIS_URL=url))
    findings = json.loads(done.stdout)
    assert findings
    assert "7be2" not in done.stdout + done.stderr


def test_log_line_is_printable_when_a_view_fails_on_a_hostile_path(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, client: Client
) -> None:
    async def fail(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(model_list, "authenticate", fail)
    assert client.get("/v1/models/a%1b[2J%0dforged").status_code == 500
    lines = [record.getMessage() for record in caplog.records if "forged" in record.getMessage()]
    assert lines
    assert all(line.isprintable() for line in lines)


def test_threat_model_names_existing_tests() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    named = set(re.findall(r"`(tests/[a-z_/]+\.py)`", text))
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).is_file()] == []
    for row in re.findall(r"^\| .*\|$", text.partition("## Who can")[2].partition("\n## ")[0], re.MULTILINE)[2:]:
        assert re.search(r"`tests/", row.split("|")[4]), row


def test_limits_match_the_page(settings) -> None:
    text = (ROOT / "SECURITY.md").read_text()
    assert f"{MAX_HEAD_BYTES // 1024} KiB, {MAX_HEADERS} headers" in text
    assert f"first ones | {HEAD_SECONDS} s |" in text
    assert f"without a valid key | {UNKNOWN_BYTES // 1024} KiB |" in text
    assert f"| {STUCK_SECONDS} s without progress |" in text
    assert f"`SENTINEL_MAX_CONNECTIONS`, {settings.SENTINEL_MAX_CONNECTIONS} |" in text
    assert f"`SENTINEL_REQUEST_SECONDS`, {settings.SENTINEL_REQUEST_SECONDS} s |" in text
    assert f"`SENTINEL_MAX_BODY_BYTES`, {settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 2**20} MiB |" in text
