from __future__ import annotations

import re
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.staticfiles import finders
from django.core.management import call_command
from drf_spectacular.generators import SchemaGenerator

from sentinel_project import api_schema
from tests.sessions_sticky.api.calls import CALLS

if TYPE_CHECKING:
    import redis
    from django.test import Client
    from rest_framework.test import APIClient

OPERATIONS = [
    "GET /api/sessions/",
    "POST /api/sessions/",
    "GET /api/sessions/stats/",
    "GET /api/sessions/id/{conversation_id}/",
    "DELETE /api/sessions/id/{conversation_id}/",
    "GET /api/sessions/history/{conversation_id}/",
    "POST /api/sessions/touch/{conversation_id}/",
    "POST /api/sessions/rebind/{conversation_id}/",
    "POST /api/sessions/delete/",
    "POST /api/sessions/rebind/",
    "GET /api/sessions/events/",
    "GET /api/sessions/operations/",
    "GET /api/sessions/operations/{operation_key}/",
    "POST /api/sessions/operations/{operation_key}/stop/",
    "POST /api/sessions/operations/{operation_key}/resume/",
]


@pytest.fixture(scope="module")
def document() -> Any:
    return SchemaGenerator().get_schema(public=True)


def operations(document: Any) -> dict[str, Any]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if path.startswith("/api/sessions/")  # the gateway has more
    }


@pytest.mark.slow
def test_document_is_valid_and_without_warnings_when_generated() -> None:
    out = StringIO()
    call_command("spectacular", validate=True, fail_on_warn=True, stdout=out)
    assert out.getvalue().startswith("openapi: 3.1.0\n")


def test_document_has_every_route_when_generated(document: Any) -> None:
    assert operations(document).keys() == set(OPERATIONS)
    named = [operation["operationId"] for operation in operations(document).values()]
    assert len(set(named)) == len(named)
    assert all(operation["summary"] and operation["tags"] for operation in operations(document).values())


@pytest.mark.parametrize("label", OPERATIONS)
def test_document_describes_every_problem(document: Any, label: str) -> None:
    answers = operations(document)[label]["responses"]
    assert {"401", "403", "406", "429", "503"} <= answers.keys()
    for status, answer in answers.items():
        assert answer["description"]
        if status >= "400":
            (shape,) = {content["schema"]["$ref"].rpartition("/")[2] for content in answer["content"].values()}
            assert list(answer["content"]) == ["application/problem+json"]
            assert shape == ("StickySessionConflict" if status == "409" else "StickySessionProblem")
    assert all("Retry-After" in answers[status]["headers"] for status in ("429", "503"))


def test_document_describes_the_list_parameters(document: Any) -> None:
    parameters = {parameter["name"]: parameter for parameter in operations(document)[OPERATIONS[0]]["parameters"]}
    assert parameters.keys() == {"provider", "model", "owner", "search", "cursor", "limit"}
    assert parameters["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}
    assert all(parameter["description"] for parameter in parameters.values())


def test_document_limits_request_fields_but_not_response_fields(document: Any) -> None:
    schemas = document["components"]["schemas"]
    limits = {"minLength", "maxLength", "pattern", "oneOf"}
    assert not any(limits & field.keys() for field in schemas["StickySession"]["properties"].values())
    written = schemas["StickySessionRequest"]["properties"]
    assert {name: field["maxLength"] for name, field in written.items()} == dict.fromkeys(written, 256)
    assert "minLength" not in written["owner"]


def test_document_has_every_field_that_is_shown_when_generated(
    document: Any, api: APIClient, bound: bytes, session_cache: redis.Redis
) -> None:
    schemas = document["components"]["schemas"]
    body = CALLS["retrieve"].by(api).json()
    assert body.keys() == schemas["StickySession"]["properties"].keys() == set(schemas["StickySession"]["required"])
    CALLS["rebind"].by(api)
    _, event = CALLS["history"].by(api).json()["results"]
    assert (
        event.keys()
        == schemas["StickySessionEvent"]["properties"].keys()
        == set(schemas["StickySessionEvent"]["required"])
    )


@pytest.mark.parametrize("path", ["/api/schema/", "/api/docs/"])
def test_document_is_public_without_a_login(client: Client, path: str) -> None:
    assert client.get(path).status_code == 200
    assert client.get(path, headers={"authorization": "Token wrong"}).status_code == 200


@pytest.mark.slow
def test_document_is_generated_once_for_each_language(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    get_schema = SchemaGenerator.get_schema
    monkeypatch.setattr(SchemaGenerator, "get_schema", lambda *args, **how: made.append(1) or get_schema(*args, **how))
    api_schema._document.cache_clear()
    for language in ("en", "de", "en-GB", "xx", "de"):
        for _ in range(3):
            response = client.get("/api/schema/?version=1&lang=fr", headers={"Accept-Language": language})
            assert response.json()["openapi"] == "3.1.0"
            assert response.headers["Content-Type"] == "application/vnd.oai.openapi+json"
    assert len(made) == 2


def test_docs_load_nothing_from_elsewhere_when_opened(client: Client) -> None:
    page = client.get("/api/docs/").text
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(loaded) == 5
    *files, script = loaded
    assert all(url.startswith("/static/drf_spectacular_sidecar/swagger-ui-dist/") for url in files)
    assert all(finders.find(url.removeprefix("/static/")) for url in files)
    assert "https://" not in page
    assert "SwaggerUIBundle" in client.get(script).text
    assert "<script>" not in page
