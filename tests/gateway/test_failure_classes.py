"""Each failure is the fault of the request, the model, the account or the provider, and only that one cools down."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from sentinel_project.gateway.apis.chat import CHAT
from sentinel_project.gateway.providers import failures
from sentinel_project.gateway.providers.failures import Fault
from sentinel_project.gateway.providers.slots import ACCOUNT, model_slot
from sentinel_project.gateway.routing import process
from sentinel_project.gateway.upstream import errors
from sessions_sticky import sessions
from tests.gateway.asgi import outcome_of, say
from tests.gateway.conftest import NORTH_KEY, provider
from tests.gateway.upstreams import fails

if TYPE_CHECKING:
    from pytest_django import Settings

    from tests.gateway.upstreams import Upstream


DOCS = Path(__file__).parents[2] / "docs" / "reference" / "failover.md"
NO_CREDIT = {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}}
NO_QUOTA = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
BAD_KEY = {"error": {"message": "Your API key has been disabled", "type": "permission_error"}}
GOOGLES_BAD_KEY = {"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}
NO_MODEL = {"error": {"message": "The model `model-a` does not exist", "code": "model_not_found"}}
ACCOUNT_FAULTS = {
    "401": fails(401),
    "402": fails(402),
    "refused key": fails(403, BAD_KEY),
    "refused key, as Google says it": fails(400, GOOGLES_BAD_KEY),
    "out of quota": fails(429, NO_QUOTA),
    "out of credit": fails(400, NO_CREDIT),
}
MODEL_FAULTS = {"rate limit": fails(429), "unknown model": fails(404, NO_MODEL), "unknown path": fails(404)}


@pytest.mark.parametrize("fault", ACCOUNT_FAULTS)
async def test_account_cools_down_and_nothing_moves_when_it_is_at_fault(
    bound_to_north: str, gateway: Settings, north: Upstream, south: Upstream, fault: str
) -> None:
    same = msgspec.structs.replace(provider(north), name="north-2", account="north")
    gateway.SENTINEL_PROVIDERS = (provider(north), same, provider(south))
    north.then(ACCOUNT_FAULTS[fault], fails(500))
    assert outcome_of(await say(bound_to_north)) == (200, "spilled", "south")
    asked = len(north.exchanges)
    assert outcome_of(await say(bound_to_north, model="model-b")) == (200, "spilled", "south")
    assert {outcome_of(await say(f"new-{number}"))[2] for number in range(20)} == {"south"}
    assert len(north.exchanges) == asked
    assert process.health.seconds_left("north") > 55
    assert (await sessions.aget(bound_to_north)).provider == "north"
    assert len(await sessions.ahistory(bound_to_north)) == 1


@pytest.mark.parametrize("fault", MODEL_FAULTS)
async def test_model_cools_down_and_nothing_moves_when_it_is_at_fault(
    bound_to_north: str, north: Upstream, fault: str
) -> None:
    north.then(MODEL_FAULTS[fault])
    assert outcome_of(await say(bound_to_north)) == (200, "spilled", "south")
    assert outcome_of(await say(bound_to_north)) == (200, "spilled", "south")
    assert len(north.exchanges) == 1
    assert not process.health.is_cooling("north", "model-b")
    assert (await sessions.aget(bound_to_north)).provider == "north"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "2000"}, 2),
        ({"Retry-After": "9", "retry-after-ms": "1500"}, 1.5),
        ({"Retry-After": lambda: formatdate(time.time() + 20, usegmt=True)}, 20),
        ({"Retry-After": "soon"}, 30),
        ({"Retry-After": "-1"}, 30),
    ],
)
async def test_model_cools_down_for_the_time_stated_by_its_provider(
    bound_to_north: str, north: Upstream, headers: dict[str, object], seconds: float
) -> None:
    began = time.monotonic()
    north.then(fails(429, **{name: value() if callable(value) else value for name, value in headers.items()}))
    await say(bound_to_north)
    left, took = process.health.seconds_left("north", "model-a"), time.monotonic() - began
    assert left == pytest.approx(seconds, abs=(1.1 if seconds > 3 else 0.3) + took)


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_cools_down_when_one_request_is_above_the_limit_of_every_provider(
    bound_to_north: str, north: Upstream, south: Upstream, stream: bool
) -> None:
    """One prompt above the tokens a minute of the account; other conversations have no part in it."""
    message = (
        "Request too large for model-a in organization org-1 on tokens per min (TPM): Limit 30000, Requested 61337."
    )
    too_large = fails(429, {"error": {"message": message, "code": "rate_limit_exceeded"}}, Retry_After="60")
    for _ in range(4):
        north.then(too_large)
        south.then(too_large)
        answered = await say(bound_to_north, stream=stream)
        assert (answered.status, answered.error["message"]) == (429, message)
    assert not process.health.failing()
    assert outcome_of(await say(bound_to_north, stream=stream)) == (200, "hit", "north")
    north.then(too_large)
    assert outcome_of(await say(bound_to_north, stream=stream)) == (200, "spilled", "south")


MODERATION = {"error": {"message": "Your input was flagged", "code": 403, "metadata": {"reasons": ["x"]}}}
NO_IMAGES = {"error": {"message": "No endpoints found that support image input", "code": 404}}
REQUEST_FAULTS = [(400, {"error": {"message": "no"}}), (403, MODERATION), (404, NO_IMAGES), (413, {}), (422, {})]


@pytest.mark.parametrize(("status", "body"), REQUEST_FAULTS)
async def test_request_is_not_repeated_and_nothing_cools_when_it_is_at_fault(
    bound_to_north: str, north: Upstream, south: Upstream, status: int, body: dict[str, object]
) -> None:
    north.then(fails(status, body))
    answered = await say(bound_to_north)
    assert answered.status == status
    if body:
        assert json.loads(answered.body) == body
    assert south.exchanges == []
    assert not process.health.failing()
    assert (await sessions.aget(bound_to_north)).provider == "north"


@pytest.mark.parametrize("status", [408, 409, 425, 204, 302])
async def test_request_spills_when_a_failure_is_transient(bound_to_north: str, north: Upstream, status: int) -> None:
    north.then(fails(status))
    assert outcome_of(await say(bound_to_north)) == (200, "spilled", "south")
    assert not process.health.failing()


def documented() -> list[tuple[str, ...]]:
    """Return the rows of the table in docs/reference/failover.md."""
    section = DOCS.read_text().partition("## Failures of providers")[2]
    lines = [line for line in section.partition("An error in a stream")[0].splitlines() if line.startswith("| ")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]


def row(each: failures.FailureClass, status: str) -> tuple[str, ...]:
    words = ", ".join(f"`{pattern}`" if pattern else "none" for pattern in each.words)
    return status, ", ".join(f"`{code}`" for code in sorted(each.codes)), words, each.fault, each.cools


def test_classes_are_those_of_the_docs() -> None:
    rows = []
    for each in failures.CLASSES:
        first, last = each.statuses
        rows.append(row(each, str(first) if first == last else f"{first} to {last}"))
    rows.append(row(failures.UNREACHABLE, "no connection"))
    rows.append(row(failures.BROKEN, "no answer: out of time, reset, broken off, status 200 without an answer"))
    assert documented() == rows


@pytest.mark.parametrize(
    ("status", "code", "message", "fault"),
    [
        (400, "context_length_exceeded", "maximum context length is 8192 tokens", Fault.REQUEST),
        (403, "content_filter", "Your input was flagged", Fault.REQUEST),
        (404, "", "No endpoints found that support image input", Fault.REQUEST),
        (404, "", "File file-1 not found", Fault.REQUEST),
        (404, "not_found_error", "model: claude-9", Fault.MODEL),
        (404, "DeploymentNotFound", "The API deployment for this resource does not exist.", Fault.MODEL),
        (404, "", "Not Found", Fault.MODEL),
        (400, "model_not_found", "", Fault.MODEL),
        (403, "PERMISSION_DENIED", "Permission denied on resource", Fault.ACCOUNT),
        (429, "insufficient_quota", "You exceeded your current quota", Fault.ACCOUNT),
        (429, "rate_limit_exceeded", "Rate limit reached", Fault.MODEL),
        (429, "rate_limit_exceeded", "Request too large for gpt-4o on tokens per min", Fault.MODEL),
        (400, "invalid_request_error", "Your credit balance is too low to access the API", Fault.ACCOUNT),
        (400, "invalid_request_error", "x" * 100_000, Fault.REQUEST),
        (529, "overloaded_error", "Overloaded", Fault.PROVIDER),
        (302, "", "", Fault.PROVIDER),
    ],
)
def test_classify_returns_the_party_at_fault(status: int, code: str, message: str, fault: Fault) -> None:
    assert failures.classify(status, frozenset({code}), message).fault is fault


def test_codes_of_errors_with_status_200_are_those_of_the_docs() -> None:
    section = DOCS.read_text().partition("has in this table")[2].partition("After any failure")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert rows[2:] == [
        [str(status), ", ".join(f"`{code}`" for code in sorted(codes))]
        for status, codes in failures.CODES_BY_STATUS.items()
    ]


STREAM_ERRORS = {
    "Google's own API": ({"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}, Fault.REQUEST),
    "OpenRouter, moderation": ({"code": 403, "message": "Your input was flagged"}, Fault.REQUEST),
    "LiteLLM, status as text": ({"code": "400", "message": "no", "type": "None"}, Fault.REQUEST),
    "Responses, prompt": ({"code": "invalid_prompt", "message": "no"}, Fault.REQUEST),
    "Responses, image": ({"code": "image_too_large", "message": "no"}, Fault.REQUEST),
    "in capitals": ({"type": "INVALID_REQUEST_ERROR", "message": "no"}, Fault.REQUEST),
    "too long": ({"code": "context_length_exceeded", "message": "no"}, Fault.REQUEST),
    "moderate load": ({"code": "slow_down", "message": "no"}, Fault.MODEL),
    "Google's limit": ({"code": 429, "message": "no", "status": "RESOURCE_EXHAUSTED"}, Fault.MODEL),
    "model": ({"code": "model_not_found", "type": "invalid_request_error", "message": "no"}, Fault.MODEL),
    "key": ({"code": "invalid_api_key", "type": "invalid_request_error", "message": "no"}, Fault.ACCOUNT),
    "country": ({"code": "unsupported_country_region_territory", "message": "no"}, Fault.ACCOUNT),
    "overload": ({"code": "server_is_overloaded", "type": "invalid_request_error", "message": "no"}, Fault.PROVIDER),
    "no known name": ({"code": "new_code", "message": "no"}, Fault.PROVIDER),
    "no status": ({"code": 1400, "status": True, "message": "no"}, Fault.PROVIDER),
}


@pytest.mark.parametrize("name", STREAM_ERRORS)
def test_stream_error_is_the_fault_of_what_its_fields_name(north: Upstream, name: str) -> None:
    fields, fault = STREAM_ERRORS[name]
    failed = errors.stream_error(provider(north), CHAT, json.dumps({"error": fields}).encode())
    if fault is Fault.REQUEST:
        assert failed.is_of_request
    else:
        assert (failed.is_of_request, failed.failure_class.fault) == (False, fault)


@pytest.mark.parametrize(
    ("error", "slot"),
    [
        ({"message": "Slow down", "type": "rate_limit_error"}, model_slot("model-a")),
        ({"message": "Slow down", "code": 429}, model_slot("model-a")),
        ({"message": "No quota", "code": "insufficient_quota"}, ACCOUNT),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_error_with_status_200_cools_down_what_its_fields_name(
    bound_to_north: str, north: Upstream, error: dict[str, object], slot: str, stream: bool
) -> None:
    body = json.dumps({"error": error}).encode()
    events = fails(200, b"data: %b\n\n" % body, content_type="text/event-stream")
    north.then(events if stream else fails(200, body))
    assert outcome_of(await say(bound_to_north, stream=stream)) == (200, "spilled", "south")
    assert set(process.health.states["north"]) == {slot}


async def test_error_with_status_200_is_not_a_fault_of_the_request(
    bound_to_north: str, north: Upstream, south: Upstream
) -> None:
    body = {"error": {"message": "Bad input", "type": "invalid_request_error", "code": 400}}
    north.then(fails(200, body))
    assert outcome_of(await say(bound_to_north)) == (200, "spilled", "south")
    assert not process.health.failing()


SHAPES = [
    (b'{"detail": "maximum context length is 8192"}', "application/json"),
    (b'{"message": "maximum context length is 8192"}', "application/json"),
    (b'{"object": "error", "message": "maximum context length is 8192", "code": 400}', "application/json"),
    (b'{"error": "maximum context length is 8192"}', "application/json"),
    (b'[{"error": {"code": 400, "message": "maximum context length is 8192"}}]', "application/json; charset=UTF-8"),
    (b"maximum context\n length is 8192\n", "text/plain; charset=utf-8"),
]


@pytest.mark.parametrize(("body", "content_type"), SHAPES)
async def test_words_of_the_provider_reach_the_client_whatever_their_shape(
    bound_to_north: str, north: Upstream, body: bytes, content_type: str
) -> None:
    north.then(fails(400, body, content_type=content_type))
    answered = await say(bound_to_north)
    assert (answered.status, answered.error["message"]) == (400, "maximum context length is 8192")


async def test_account_is_at_fault_when_gemini_refuses_the_key_in_a_list(bound_to_north: str, north: Upstream) -> None:
    message = "API key not valid. Please pass a valid API key."
    error = {"code": 400, "message": message, "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}
    north.then(fails(400, json.dumps([{"error": error}]).encode()))
    assert outcome_of(await say(bound_to_north)) == (200, "spilled", "south")
    assert process.health.states["north"].keys() == {ACCOUNT}


async def test_plain_text_error_is_passed_on_without_the_gateways_key(bound_to_north: str, north: Upstream) -> None:
    north.then(fails(400, f"bad request with {NORTH_KEY} {'x' * 5000}".encode(), content_type="text/plain"))
    message = (await say(bound_to_north)).error["message"]
    assert message.startswith("bad request with ***")
    assert len(message) == 1000


@pytest.mark.parametrize(
    ("code", "message", "seconds", "header"),
    [
        ("rate_limit_exceeded", "Limit 30000, Used 29000. Please try again in 1.2s. Visit our site.", 1.2, "2"),
        ("rate_limit_exceeded", "Please try again in 20ms.", 0.02, "1"),
        ("rate_limit_exceeded", "Please try again in 1m2.5s.", 62.5, "63"),
        ("rate_limit_exceeded", "Please try again in 0s.", None, "0"),
        ("rate_limit_exceeded", "Please try again in a while.", None, None),
        ("server_is_overloaded", "Please try again in 3s.", None, None),
    ],
)
def test_stream_error_has_the_wait_that_a_rate_limit_states(north: Upstream, code, message, seconds, header):
    fields = {"code": code, "message": message}
    failed = errors.stream_error(provider(north), CHAT, json.dumps({"error": fields}).encode())
    assert (failed.retry_after, failed.headers.get("retry-after")) == (seconds, header)
