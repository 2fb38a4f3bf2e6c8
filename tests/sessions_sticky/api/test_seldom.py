from __future__ import annotations

from types import SimpleNamespace

import pytest

from sessions_sticky.api import bulk
from sessions_sticky.api.problems import problem_handler
from sessions_sticky.jobs.job import Job
from tests.sessions_sticky.api.calls import BASE
from tests.sessions_sticky.api.test_problems import assert_problem
from tests.sessions_sticky.jobs.calls import MOVE_ALL


def test_api_leaves_bugs_to_django():
    assert problem_handler(ZeroDivisionError(), {}) is None


@pytest.mark.parametrize("what", ["stop", "resume"])
def test_changing_an_unknown_operation_is_refused(api, session_cache, what):
    problem = assert_problem(api.post(f"{BASE}operations/{'0' * 32}/{what}/"), 404)
    assert "No operation 000" in problem["detail"]


def test_changing_an_operation_is_refused_when_it_has_expired(api, session_cache, monkeypatch):
    job = Job.begin("0" * 32, MOVE_ALL, actor="ada", expected=1)
    monkeypatch.setattr(bulk, "jobs", SimpleNamespace(get=lambda key: job, stop=lambda key: None))
    assert_problem(api.post(f"{BASE}operations/{job.key}/stop/"), 404)


@pytest.mark.parametrize("body", ["[" * 70_000, f'{{"provider": [{"[]," * 30_000}[]]}}', f'{{"id": "{"x" * 70_000}"}}'])
@pytest.mark.parametrize("path", ["", "rebind/conv-1/", "rebind/", "delete/"])
def test_body_is_refused_undecoded_when_it_is_too_long(api, session_cache, monkeypatch, path, body):
    monkeypatch.setattr("rest_framework.parsers.json.load", lambda *args, **kwargs: pytest.fail("decoded"))
    problem = assert_problem(api.post(f"{BASE}{path}", body, content_type="application/json"), 413)
    assert problem["detail"] == "The body is larger than 65536 bytes."


def test_body_is_refused_when_it_is_nested_too_deeply(api, session_cache):
    body = "[" * 10_000
    problem = assert_problem(api.post(BASE, body, content_type="application/json"), 400)
    assert problem["detail"] == "JSON parse error - nested too deeply"
