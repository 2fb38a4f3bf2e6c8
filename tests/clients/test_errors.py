"""Errors reach the user of a client as the client's own errors."""

from __future__ import annotations

import pytest

from tests.clients.clients import ClientError
from tests.clients.conftest import Connect
from tests.clients.http_api import ApiError
from tests.clients.matrix import AGENT_PROGRAMS, ALL, CLAUDE_CODE, CODEX, Kind
from tests.clients.upstream import Upstream

SDKS = [kind for kind in ALL if kind not in AGENT_PROGRAMS]
TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    429: "RateLimitError",
}
RETRIES = 2
"""How often each SDK tries again after a 429, by default."""

sdks = pytest.mark.parametrize("kind", SDKS, ids=lambda kind: kind.name)
one_of_each_api = pytest.mark.parametrize(
    "kind",
    [kind for kind in SDKS if "stream" not in kind.name and "conversation" not in kind.name],
    ids=lambda kind: kind.name,
)
agents = pytest.mark.parametrize("kind", AGENT_PROGRAMS, ids=lambda kind: kind.name)


def failure(connect: Connect, kind: Kind, **options: str) -> ClientError:
    """Return the error of a first turn."""
    client = connect(kind, **options)
    with pytest.raises(ClientError) as caught:
        client.say("hello")
    return caught.value


def check(error: ClientError, kind: Kind, status: int) -> None:
    """Check the type of an error."""
    assert error.status == status, error
    assert (kind.error_type or TYPES[status]) in error.types, error


@one_of_each_api
def test_sdk_raises_authentication_error_when_the_key_is_wrong(kind: Kind, connect: Connect) -> None:
    error = failure(connect, kind, key="sk-wrong")
    check(error, kind, 401)
    assert "API key is not valid" in str(error)


@one_of_each_api
def test_sdk_raises_not_found_when_no_provider_serves_the_model(kind: Kind, connect: Connect) -> None:
    error = failure(connect, kind, model="gpt-0")
    check(error, kind, 404)
    assert "gpt-0" in str(error)


@sdks
def test_sdk_raises_bad_request_when_the_provider_refuses_the_request(
    kind: Kind, connect: Connect, upstreams: dict[str, Upstream]
) -> None:
    for upstream in upstreams.values():
        upstream.fail_turns(ApiError(400, "temperature is too high", param="temperature"))
    error = failure(connect, kind)
    check(error, kind, 400)
    assert "temperature is too high" in str(error)
    assert sum(len(upstream.turns()) for upstream in upstreams.values()) == 1


@one_of_each_api
def test_sdk_raises_rate_limit_error_when_all_providers_are_rate_limited(
    kind: Kind, connect: Connect, upstreams: dict[str, Upstream]
) -> None:
    for upstream in upstreams.values():
        upstream.fail_turns(*(1 + RETRIES) * [ApiError(429, "Rate limit reached", headers={"retry-after": "1"})])
    check(failure(connect, kind), kind, 429)


@agents
def test_agent_shows_what_is_wrong_when_the_key_is_wrong(kind: Kind, connect: Connect) -> None:
    assert "API key is not valid" in str(failure(connect, kind, key="sk-wrong"))


@agents
def test_agent_shows_what_is_wrong_when_the_provider_refuses_the_request(
    kind: Kind, connect: Connect, upstreams: dict[str, Upstream]
) -> None:
    for upstream in upstreams.values():
        upstream.fail_turns(*8 * [ApiError(400, "no such effort")])  # Claude Code asks for less, again and again
    assert "no such effort" in str(failure(connect, kind))


@agents
def test_agent_waits_and_continues_when_all_providers_are_rate_limited_once(
    kind: Kind, connect: Connect, upstreams: dict[str, Upstream]
) -> None:
    for upstream in upstreams.values():
        upstream.fail_turns(ApiError(429, "Rate limit reached", headers={"retry-after": "1"}))
    assert " as " in connect(kind).say("hello")


@pytest.mark.parametrize("kind", [CLAUDE_CODE, CODEX], ids=lambda kind: kind.name)
def test_agent_asks_again_when_the_stream_breaks(kind: Kind, connect: Connect, upstreams: dict[str, Upstream]) -> None:
    for upstream in upstreams.values():
        upstream.fail_turns(8)  # after the first words
    assert " as " in connect(kind).say("hello")
    assert sum(len(upstream.turns()) for upstream in upstreams.values()) == 2
