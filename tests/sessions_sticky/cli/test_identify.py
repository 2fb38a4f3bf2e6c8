from __future__ import annotations

import io
import json
import re

import pytest

from tests.sessions_sticky.cli.conftest import run
from tests.sessions_sticky.identity.requests import BODIES, CHAT, identity

HEADERS = {"X-Session-Affinity": "ses_1", "Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def options(settings):
    settings.SESSIONS_STICKY = {"IDENTITY": {"key": "a key of the tests"}}


@pytest.fixture
def identify(tmp_path):
    """Run the command on a file of JSON, or of these bytes."""

    def start(document, *args):
        file = tmp_path / "request.json"
        file.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        return run("identify", str(file), *args)

    return start


def entry(url, headers, body):
    """Return the entry of a HAR file."""
    listed = [{"name": name, "value": value} for name, value in headers.items()]
    return {"request": {"method": "POST", "url": url, "headers": listed, "postData": {"text": json.dumps(body)}}}


def test_identify_prints_the_conversation_of_a_request(identify):
    found = identify({"headers": HEADERS, "body": {"model": "gpt-5"}}, "--owner", "acme")
    assert found.code == 0
    assert [line.split("  ")[0] for line in found.out.splitlines()] == [
        "FIELD",
        "source",
        "sent by",
        "client id",
        "session id",
        "ranking id",
        "api",
        "model",
        "reason",
    ]
    assert "header.x-session-affinity" in found.out
    assert "OpenCode, Crush, pi" in found.out
    assert "f3bfbf0c2e55:ses_1@gpt-5" in found.out


def test_identify_prints_json(identify):
    document = json.loads(identify({"headers": HEADERS}, "--json", "--owner", "acme", "--model", "gpt-5").out)
    assert document == {
        **identity({"x-session-affinity": "ses_1"})._asdict(),
        "api": "chat",
        "model": "gpt-5",
        "sent_by": ["OpenCode", "Crush", "pi"],
        "ignored": [],
        "reason": "an id that clients send for other purposes: one session per owner and model",
    }


@pytest.mark.parametrize(
    ("body", "source", "reason"),
    [
        ({"conversation_id": "trip"}, "body.conversation_id", "a named id"),
        (CHAT, "content", "no id: recognized by the beginning of the conversation"),
        ({"messages": CHAT["messages"][:2]}, "content", "no id and no assistant turn yet: only ranked"),
        ({}, "none", "no id and no content"),
    ],
)
def test_identify_prints_the_reason(identify, body, source, reason):
    document = json.loads(identify({"body": body}, "--json").out)
    assert document["source"] == source
    assert document["sent_by"] == []
    assert document["reason"].startswith(reason)


NO_MODEL = "The body names no model, but the ids depend on it: add --model if the path names one\n"


@pytest.mark.parametrize(
    ("document", "args", "warning"),
    [
        ({"headers": HEADERS}, [], NO_MODEL),
        ({"body": {"messages": CHAT["messages"]}}, [], NO_MODEL),
        ({"headers": HEADERS}, ["--model", "gpt-5"], ""),
        ({"headers": HEADERS, "body": {"model": "gpt-5"}}, [], ""),
        ({"body": {"conversation_id": "trip"}}, [], ""),
        ({"body": {}}, [], ""),
    ],
)
def test_identify_warns_when_an_id_lacks_its_model(identify, document, args, warning):
    found = identify(document, *args)
    assert (found.code, found.err) == (0, warning)


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/responses?stream=true", "responses"),
        ("/v1/messages/count_tokens?beta=true", "messages"),
        ("/v1/completions", "completions"),
        ("/v1/embeddings", "embeddings"),
        ("", "chat"),
    ],
)
def test_identify_takes_the_api_from_the_url(identify, path, api):
    document = {"url": path and f"https://gateway.example{path}", "body": BODIES.get(api, {})}
    found = json.loads(identify(document, "--json").out)
    assert (found["api"], found["source"]) == (api, "content" if api in BODIES else "none")
    assert json.loads(identify(document, "--json", "--api", "embeddings").out)["source"] == "none"


def test_identify_knows_the_apis_of_the_project(identify, settings):
    class Talk:
        name, path = "talk", "/v2/talk"

        def prompt(self, body):
            return (), [{"role": "user", "content": body["say"]}]

    settings.SESSIONS_STICKY = {"IDENTITY": {"key": "a key of the tests", "apis": [Talk()]}}
    document = {"url": "https://gateway.example/v2/talk", "body": {"say": "hello"}}
    found = json.loads(identify(document, "--json").out)
    assert (found["api"], found["source"]) == ("talk", "content")
    assert json.loads(identify(document, "--json", "--api", "talk").out) == found
    assert identify(document, "--api", "chat").err.startswith("--api must be one of talk, not 'chat'")


def test_identify_reads_an_entry_of_a_har_file(identify):
    entries = [entry("http://g/v1/messages", HEADERS, {"model": f"m{number}"}) for number in range(2)]
    for document, args in (
        ({"log": {"version": "1.2", "entries": entries}}, ["--entry", "2"]),
        ({"log": {"entries": entries[1:]}}, []),
        (entries[1], []),
    ):
        found = json.loads(identify(document, "--json", *args).out)
        assert (found["api"], found["model"], found["client_id"]) == ("messages", "m1", "ses_1")


def test_identify_reads_standard_input_and_a_body_as_text(monkeypatch):
    document = {"headers": {}, "body": json.dumps({"session_id": "s"})}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(document).encode())))
    assert json.loads(run("identify", "--json").out)["source"] == "body.session_id"


@pytest.mark.parametrize(
    ("document", "args", "message"),
    [
        (b"{", [], "Invalid request: Input data was truncated"),
        (b"\xff", [], "Invalid request: "),
        ([], [], "Invalid request: Expected `object`, got `array`"),
        ({"headers": {"x-session-id": 5}}, [], "Invalid request: Expected `str`, got `int` - at"),
        ({"body": []}, [], "Invalid request: Expected `str | object`, got `array`"),
        ({"body": "text"}, [], "Invalid request: JSON is malformed"),
        ({"log": {"entries": []}}, [], "--entry must be a number from 1 to 0, not None"),
        ({"log": {"entries": [entry("u", {}, {})] * 2}}, [], "--entry must be a number from 1 to 2, not None"),
        ({"log": {"entries": [entry("u", {}, {})]}}, ["--entry", "2"], "--entry must be a number from 1 to 1, not 2"),
        ({"body": {"conversation_id": ""}}, [], "Invalid body.conversation_id: A conversation id has 1 to 256"),
    ],
)
def test_identify_reports_a_request_that_cannot_be_read(identify, document, args, message):
    found = identify(document, *args)
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith(message)


def test_identify_reports_a_file_that_cannot_be_read(tmp_path):
    found = run("identify", str(tmp_path / "absent"))
    assert (found.code, found.err) == (2, f"{tmp_path / 'absent'} cannot be read: No such file or directory")


def test_identify_uses_the_configured_arguments(identify, settings):
    settings.SESSIONS_STICKY = {"IDENTITY": {"named": ["header.x-session-affinity"], "scope": "shared"}}
    assert json.loads(identify({"headers": HEADERS}, "--json").out)["session_id"] == "ses_1"
    settings.SESSIONS_STICKY = {"IDENTITY": {"sources": ["cookie.sid"]}}
    found = identify({"headers": HEADERS})
    assert found.code == 2
    assert re.match(r"source must be header\.NAME .*, not 'cookie\.sid'", found.err)


def test_identify_prints_the_sources_that_come_later_in_the_order(identify):
    document = {"headers": HEADERS | {"X-Session-Id": "ses_1", "X-Chat-Id": ""}, "body": {"session_id": "s"} | CHAT}
    assert json.loads(identify(document, "--json").out)["ignored"] == ["header.x-session-id", "body.session_id"]
    assert "ignored     header.x-session-id, body.session_id\n" in identify(document).out


def test_identify_escapes_what_a_terminal_would_obey(identify):
    assert "\\x1b[31mred" in identify({"headers": {"x-session-id": "\x1b[31mred"}}).out
