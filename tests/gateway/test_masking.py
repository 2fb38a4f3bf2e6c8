"""The gateway's key for a provider: a provider may repeat it in any way, and no client reads it."""

from __future__ import annotations

import html
import json
import re
import time
from urllib.parse import quote, unquote

import msgspec
import pytest

from sentinel_project.gateway.upstream import masking
from sentinel_project.gateway.upstream.masking import mask, mask_body
from tests.gateway.asgi import ask, chat
from tests.gateway.conftest import provider
from tests.gateway.upstreams import Behaviour, Exchange, Upstream, fails, says

SECRET = "sk-proj/Gx2+9dQv_Lw0=sZp4.RkYt6"
SPELLINGS = {
    "plain": SECRET,
    "slashes": SECRET.replace("/", "\\/"),
    "slashes twice": SECRET.replace("/", "\\\\\\/"),
    "specials": re.sub(r"[^A-Za-z0-9]", lambda found: f"\\u{ord(found[0]):04X}", SECRET),
    "specials twice": re.sub(r"[^A-Za-z0-9]", lambda found: f"\\\\u{ord(found[0]):04x}", SECRET),
    "all": "".join(f"\\u{ord(character):04x}" for character in SECRET),
    "some": SECRET.replace("k", "\\u006B").replace("9", "\\u0039"),
    "javascript": SECRET.replace("+", "\\\\x2b").replace("/", "\\\\u{2f}"),
    "url": quote(SECRET, safe=""),
    "url, small": quote(SECRET, safe="").replace("%2F", "%2f"),
    "url twice": quote(quote(SECRET, safe=""), safe=""),
    "html": SECRET.replace("+", "&#43;").replace("/", "&#x2F;"),
    "html twice": SECRET.replace("+", "&amp;#43;").replace("/", "&amp;#x2F;"),
}
"""The key in texts inside JSON strings, as they are sent."""
spelled = pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)


def unescaped(text: str) -> str:
    """Undo escapes of every kind, so that a key in any of them shows."""
    for _ in range(6):
        text = re.sub(r"\\+(?:u\{?|x)(?:00)?([0-9a-fA-F]{2})\}?", lambda found: chr(int(found[1], 16)), text)
        text = html.unescape(unquote(text.replace("\\/", "/").replace("\\\\", "\\")))
    return text


def assert_masked(text: str) -> None:
    assert SECRET not in unescaped(text), text
    assert masking.MASK in text


@pytest.fixture
def leaky(gateway, north: Upstream) -> Upstream:
    """The gateway over one provider, whose key is `SECRET`."""
    gateway.SENTINEL_PROVIDERS = (msgspec.structs.replace(provider(north), api_key=SECRET),)
    return north


def test_spellings_show_the_key_when_they_are_read() -> None:
    assert [name for name, spelling in SPELLINGS.items() if SECRET not in unescaped(spelling)] == []


@spelled
def test_mask_hides_the_key_in_every_string_of_decoded_json(spelling: str) -> None:
    body = json.loads(f'{{"a": ["x", {{"b{spelling}": "before {spelling} after", "c": [1, true, null, 2.5]}}]}}')
    masked = mask(body, (SECRET,))
    assert_masked(json.dumps(masked))
    assert masked["a"][0] == "x"
    assert [*masked["a"][1].values()] == ["before *** after", [1, True, None, 2.5]]


@spelled
def test_mask_body_hides_the_key_in_json_that_stays_json(spelling: str) -> None:
    masked = mask_body(f'{{"a": "Grüße \\"{spelling}\\"", "b": [1]}}'.encode(), (SECRET,)).decode()
    assert_masked(masked)
    assert json.loads(masked) == {"a": 'Grüße "***"', "b": [1]}


@pytest.mark.parametrize("secrets", [(), ("EMPTY",), ("not-needed", "sk-no-key-required")])
def test_mask_body_changes_nothing_without_a_real_key(secrets: tuple[str, ...]) -> None:
    body = b'{"a": "EMPTY is not-needed, sk-no-key-required \\u0000"}'
    assert mask_body(body, secrets) == body


def test_mask_hides_the_longer_secret_when_one_holds_the_other() -> None:
    assert mask(f"x{SECRET}y{SECRET[:25]}z", (SECRET[:25], SECRET)) == "x***y***z"
    assert mask_body(f"x{SECRET}y{SECRET[:25]}z".encode(), ("EMPTY", SECRET[:25], SECRET)) == b"x***y***z"


@pytest.mark.parametrize(
    ("headers", "query", "secrets"),
    [
        ({}, {}, ()),
        ({"Authorization": f"Basic {SECRET}"}, {}, (SECRET,)),
        ({"X-Org-Token": SECRET}, {"subscription-key": "abc"}, (SECRET, "abc")),
        ({"anthropic-beta": "context-1m-2025-08-07"}, {"api-version": "2025-01-01-preview"}, ()),
    ],
)
def test_secrets_are_the_values_of_headers_and_parameters_with_secret_names(north: Upstream, headers, query, secrets):
    configured = msgspec.structs.replace(provider(north), api_key=None, headers=headers, query=query)
    assert configured.secrets == secrets
    assert msgspec.structs.replace(configured, api_key="key").secrets == ("key", *secrets)


async def test_error_hides_a_configured_header_when_a_provider_repeats_it(gateway, north: Upstream):
    configured = msgspec.structs.replace(provider(north), api_key=None, headers={"X-Org-Token": SECRET})
    gateway.SENTINEL_PROVIDERS = (configured,)
    north.then(fails(400, {"error": {"message": f"X-Org-Token {SECRET} is not valid"}}))
    assert (await ask(chat())).error["message"] == "X-Org-Token *** is not valid"


def test_mask_hides_a_placeholder_in_an_error() -> None:
    assert mask("Bearer EMPTY is wrong", ("EMPTY",)) == "Bearer *** is wrong"


@pytest.mark.parametrize("secret", ["(.*)+[^a]?{2}|$\\d" * 2, "\"'<>&" * 6, "~" * 30, "a" * 30])
def test_mask_treats_the_key_as_text_when_it_has_special_characters(secret: str) -> None:
    assert mask(["x" + secret + "y", "nothing"], (secret,)) == ["x***y", "nothing"]
    assert mask(html.escape(secret), (secret,)) == "***"
    assert mask(quote(secret, safe=""), (secret,)) == "***"


def test_mask_body_costs_little_when_there_is_nothing_to_hide() -> None:
    body = json.dumps({"content": "sk- proj / lorem ipsum \\ & % " * 40_000}).encode()
    started = time.thread_time()
    assert mask_body(body, (SECRET,)) is body
    assert time.thread_time() - started < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("part", ["sk-proj/Gx2", "\\", "%25", "&amp;", "s", "\\u0000"])
def test_mask_body_takes_linear_time_when_a_text_nearly_holds_the_key(part: str) -> None:
    body = (part * 2**18 + "\\u0000").encode()
    started = time.thread_time()
    assert mask_body(body, (SECRET,)) == body
    assert time.thread_time() - started < 3


@spelled
@pytest.mark.parametrize("status", [400, 401, 404, 429, 503])
@pytest.mark.parametrize("stream", [False, True])
async def test_error_hides_the_key_when_a_provider_repeats_it(leaky: Upstream, status: int, stream: bool, spelling):
    fields = ", ".join(f'"{name}": "{spelling}"' for name in ("message", "type", "param", "code"))
    leaky.then(fails(status, f'{{"error": {{{fields}, "more": ["{spelling}"]}}, "detail": "{spelling}"}}'.encode()))
    answer = await ask(chat(stream=stream))
    assert SECRET not in unescaped(f"{answer.body.decode()}{answer.headers}")
    assert answer.status >= 400


@pytest.mark.parametrize(
    "field",
    [f'["{SECRET}"]', f'{{"{SECRET}": 1}}', f'{{"a": [{{"b": "\\u0073{SECRET[1:]}"}}]}}'],
    ids=["list", "name", "deep"],
)
async def test_error_hides_the_key_when_its_fields_have_other_types(leaky: Upstream, field: str):
    leaky.then(fails(400, f'{{"error": {{"message": {field}, "param": {field}, "code": {field}}}}}'.encode()))
    answer = await ask(chat())
    assert_masked(answer.body.decode())


@pytest.mark.parametrize("body", [SECRET, f"<b>{SECRET}</b>", f'"{SECRET}"', f'{{"error": "{SECRET}"}}', f"{{{SECRET}"])
async def test_error_hides_the_key_when_it_is_of_another_shape(leaky: Upstream, body: str):
    leaky.then(fails(500, body.encode()))
    answer = await ask(chat())
    assert SECRET not in unescaped(answer.body.decode())
    assert answer.error["message"] in ("Provider 'north' answered 500", "***")


LEAKS = [SECRET, f"Bearer {SECRET}", quote(SECRET), f'text/plain; x="{SECRET}"', SECRET.replace("/", "\\u002f")]
NAMES = [
    "Retry-After",
    "Retry-After-Ms",
    "X-Request-Id",
    "X-RateLimit-Reset",
    "OpenAI-Model",
    "X-Reasoning-Included",
    "Set-Cookie",
    "Content-Type",
]
EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
COMPLETION = b'{"choices": []}'


def answer_of(stream: bool) -> bytes:
    """Return what a provider answers."""
    return EVENT + DONE if stream else COMPLETION


@pytest.mark.parametrize("status", [200, 401, 429, 503])
@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stream", [False, True])
async def test_headers_hide_the_key_when_a_provider_repeats_it(leaky: Upstream, name, leak, status, stream):
    body = answer_of(stream)
    head = f"HTTP/1.1 {status} {SECRET}\r\n{name}: {leak}\r\nContent-Length: {len(body)}"
    leaky.then(says(head.encode(), body))
    answer = await ask(chat(stream=stream))
    assert (answer.status == 200) is (status == 200)
    shown = unescaped(str(answer.headers))
    assert not [each for each in LEAKS if each in shown or SECRET in shown]


@pytest.mark.parametrize(
    ("value", "passed"),
    [
        ("7", "7"),
        ("0.5", "0.5"),
        ("Wed, 21 Oct 2065 07:28:00 GMT", "Wed, 21 Oct 2065 07:28:00 GMT"),
        ("Wed, 21 Oct 2065 09:28:00 +0200", "Wed, 21 Oct 2065 07:28:00 GMT"),
        (f"Wed, 21 Oct 2065 07:28:00 GMT ({SECRET})", "Wed, 21 Oct 2065 07:28:00 GMT"),
        (f"7 {SECRET}", None),
        (f"7; {SECRET}", None),
        ("9" * 40, None),
        ("-1", None),
        ("", None),
        ("\u0667", None),
        ("soon", None),
    ],
)
async def test_retry_after_is_passed_on_when_it_is_a_number_or_a_date(leaky: Upstream, value: str, passed: str | None):
    leaky.then(fails(429, b"{}", Retry_After=value.encode().decode("latin-1")))
    answer = await ask(chat())
    assert answer.headers.get("retry-after") == passed


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        ("application/json", "application/json"),
        ("Application/JSON; charset=UTF-8", "application/json; charset=utf-8"),
        ("text/event-stream;charset=utf-8", "text/event-stream; charset=utf-8"),
        (f"application/json; charset={SECRET}", "application/json"),
        (f"application/json; profile={SECRET}", "application/json"),
        (f"application/{SECRET.lower()}", None),
        (f"{SECRET}/json", None),
        ("text/html", None),
        ("nonsense", None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_content_type_is_passed_on_when_it_is_a_known_one(leaky: Upstream, sent, passed, stream):
    body = answer_of(stream)
    leaky.then(says(f"HTTP/1.1 200 OK\r\nContent-Type: {sent}\r\nContent-Length: {len(body)}".encode(), body))
    answer = await ask(chat(stream=stream))
    default = "text/event-stream" if stream else "application/json"
    assert answer.headers["content-type"] == (passed or default)


def streams(*chunks: bytes) -> Behaviour:
    """Answer with these chunks of a stream."""

    def behave(exchange: Exchange) -> None:
        exchange.begin()
        for chunk in (*chunks, b""):
            exchange.chunk(chunk)

    return behave


@spelled
@pytest.mark.parametrize("size", [3, 10_000])
async def test_stream_hides_the_key_when_an_event_repeats_it(leaky: Upstream, spelling: str, size: int):
    error = f'data: {{"error": {{"message": "{spelling}"}}}}\n\n'.encode()
    text = EVENT + EVENT.replace(b"hi", spelling.encode()) + error + DONE
    leaky.then(streams(*(text[at : at + size] for at in range(0, len(text), size))))
    answer = await ask(chat(stream=True))
    assert_masked(answer.body.decode())
    assert answer.body.startswith(EVENT + EVENT.replace(b"hi", b"***"))


@spelled
async def test_stream_hides_the_key_when_its_first_event_is_an_error(leaky: Upstream, spelling: str):
    leaky.then(streams(f'data: {{"error": {{"message": "{spelling}"}}}}\n\n'.encode()))
    answer = await ask(chat(stream=True))
    assert answer.status == 502
    assert_masked(answer.body.decode())


@spelled
@pytest.mark.parametrize(("text", "status"), [('{"choices": ["%s"]}', 200), ('{"error": {"message": "%s"}}', 502)])
async def test_answer_hides_the_key_when_it_repeats_it(leaky: Upstream, text: str, status: int, spelling: str):
    leaky.then(fails(200, (text % spelling).encode()))
    answer = await ask(chat())
    assert answer.status == status
    assert_masked(answer.body.decode())
