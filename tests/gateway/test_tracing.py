"""Spans of OpenTelemetry, in a process that has them on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sentinel_project.gateway import tracing
from sentinel_project.gateway.routing.planner import plan_request
from sentinel_project.gateway.upstream import client, headers
from tests.servers import start_server

ROOT = Path(__file__).resolve().parent.parent.parent
SERVE = "import django; django.setup(); from tests.gateway.traced import main; main()"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python with spans on."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SENTINEL_")}
    environment |= {"DJANGO_SETTINGS_MODULE": "sentinel_project.settings", "SENTINEL_TRACES": "1", **variables}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The spans of some requests, and what the provider of the first one was sent."""
    with start_server() as store:
        variables = {"REDIS_URL": store.url, "SENTINEL_DATA_DIR": str(tmp_path_factory.mktemp("traced"))}
        done = run("-c", SERVE, f"00-{TRACE}-{PARENT}-01", **variables)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def requests(traced: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the spans of the requests in their order, each with those below it."""
    spans = traced["spans"]
    found = [span for span in spans if span["kind"] == "SpanKind.SERVER"]
    for request in found:
        own = [span for span in spans if span["parent_id"] == request["context"]["span_id"]]
        request["below"] = sorted(own, key=lambda span: span["start_time"])
    assert len(spans) == len(found) + sum(len(request["below"]) for request in found)
    return sorted(found, key=lambda request: request["start_time"])


def named(request: dict[str, Any]) -> list[tuple[str, str]]:
    """Return name and provider of the spans below a request."""
    return [(span["name"], span["attributes"].get("sentinel.provider", "")) for span in request["below"]]


@pytest.mark.slow
def test_request_is_a_child_of_the_clients_span_and_has_its_route(traced: dict[str, Any]):
    plain = requests(traced)[0]
    assert plain["name"] == "POST /v1/chat/completions"
    assert (plain["context"]["trace_id"], plain["parent_id"]) == (f"0x{TRACE}", f"0x{PARENT}")
    provider = plain["attributes"]["sentinel.provider"]
    assert plain["attributes"] == {
        "http.request.method": "POST",
        "url.path": "/v1/chat/completions",
        "http.response.status_code": 200,
        "sentinel.outcome": "created",
        "sentinel.source": "body.conversation_id",
        "sentinel.provider": provider,
        "gen_ai.request.model": "model-a",
    }
    assert named(plain) == [("resolve", ""), ("attempt", provider)]
    assert plain["below"][0]["attributes"] == {"sentinel.outcome": "created"}


def test_provider_is_sent_the_context_of_its_attempt_and_no_baggage(traced: dict[str, Any]):
    attempt = requests(traced)[0]["below"][1]
    assert traced["sent"] == [f"00-{TRACE}-{attempt['context']['span_id'][2:]}-01", ""]


def test_failed_attempt_has_the_status_and_not_the_text_of_the_provider(traced: dict[str, Any]):
    spilled = requests(traced)[1]
    first = requests(traced)[0]["attributes"]["sentinel.provider"]
    second = {"north": "south", "south": "north"}[first]
    assert named(spilled) == [("resolve", ""), ("attempt", first), ("attempt", second)]
    failed = spilled["below"][1]
    assert failed["status"] == {"status_code": "ERROR"}
    assert failed["attributes"]["error.type"] == "503"
    assert failed["events"] == []
    assert spilled["attributes"]["sentinel.outcome"] == "spilled"
    assert spilled["attributes"]["sentinel.reason"] == "provider failed"
    assert "secret text" not in json.dumps(traced["spans"])


def test_stream_is_traced_until_its_end(traced: dict[str, Any]):
    stream = requests(traced)[2]
    first = requests(traced)[0]["attributes"]["sentinel.provider"]
    assert named(stream) == [("resolve", ""), ("attempt", first), ("relay", first)]
    assert stream["below"][1]["end_time"] <= stream["below"][2]["end_time"] <= stream["end_time"]


def test_refused_request_is_a_span_without_an_attempt(traced: dict[str, Any]):
    refused = requests(traced)[3]
    assert refused["attributes"]["http.response.status_code"] == 401
    assert refused["attributes"]["error.type"] == "invalid_api_key"
    assert refused["status"] == {"status_code": "UNSET"}
    assert refused["below"] == []


def test_request_that_no_provider_serves_has_the_error_of_its_resolve(traced: dict[str, Any]):
    unknown = requests(traced)[4]
    assert named(unknown) == [("resolve", "")]
    assert unknown["below"][0]["attributes"]["error.type"] == "model_not_found"
    assert unknown["attributes"]["http.response.status_code"] == 404


def test_name_of_a_request_has_no_ids(traced: dict[str, Any]):
    model = requests(traced)[5]
    assert model["name"] == "GET /v1/models/{name}"
    assert model["attributes"]["url.path"] == "/v1/models/model-a"


@pytest.mark.parametrize(
    "decorate", [tracing.trace_request, tracing.trace_resolve, tracing.trace_attempt, tracing.send_context]
)
def test_functions_are_unchanged_without_traces(decorate: Any):
    def function() -> None:
        """Do nothing."""

    assert decorate(function) is function
    assert not any(hasattr(each, "__wrapped__") for each in (plan_request, client.call, headers.to_provider))


@pytest.mark.slow
def test_start_names_the_missing_package():
    hide = "import sys; sys.modules['opentelemetry'] = None; import sentinel_project.settings"
    done = run("-c", hide)
    assert done.returncode == 1
    assert done.stderr.strip() == "SENTINEL_TRACES needs opentelemetry-api: pip install 'sessions_sticky[traces]'"
