"""The API does what its document says, whatever is sent: no 500, no answer that is not documented."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from sessions_sticky import sessions
from tests.sessions_sticky.api.calls import BASE
from tests.sessions_sticky.api.test_openapi import OPERATIONS

if TYPE_CHECKING:
    import redis
    from schemathesis import BaseSchema

pytestmark = pytest.mark.slow

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
WITHOUT_INPUT = ("GET /api/sessions/stats/", "GET /api/sessions/operations/")
EXAMPLES = 40
"""Of each operation, once with input that fits and once with input that does not; half a minute in all."""


@pytest.fixture
def document(session_cache: redis.Redis, no_login: None, db: None, settings: Any) -> BaseSchema:
    """As it is served. `db`, since Django looks after its connections at the begin and end of each request."""
    settings.SESSIONS_STICKY = {"API_THROTTLE_RATE": None}
    settings.ALLOWED_HOSTS = ["*"]
    return schemathesis.openapi.from_wsgi("/api/schema/", get_wsgi_application())


def known_values(client: Any) -> dict[str, str]:
    """What lets a call meet something: a session, an operation."""
    sessions.create("conv-1", "openai", "gpt-4", "user-456", replace=True)
    body = json.dumps({"provider": "missing", "to_provider": "p", "reason": "r"})
    begun = client.post(f"{BASE}rebind/", body, content_type="application/json").json()
    return {"conversation_id": "conv-1", "operation_key": begun["url"].split("/")[-2]}


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        (label, mode)
        for label in OPERATIONS
        for mode in GenerationMode
        if mode.is_positive or label not in WITHOUT_INPUT
    ],
)
def test_every_answer_is_documented_when_requests_are_arbitrary(
    document: BaseSchema, client: Any, label: str, mode: GenerationMode
) -> None:
    method, path = label.split()
    operation = document[path][method]
    known = known_values(client)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), meets=st.booleans())
    def check(case: Case, meets: bool) -> None:
        if meets:
            case.path_parameters = {name: known[name] for name in case.path_parameters}
            sessions.create("conv-1", "openai", "gpt-4", "user-456", replace=True)
        answers.append(case.call_and_validate(checks=CHECKS).status_code)

    answers: list[int] = []
    check()
    assert answers
