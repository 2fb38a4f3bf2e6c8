"""Releasing and moving all sessions that match the filters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from sessions_sticky import sessions
from sessions_sticky.jobs.service import Jobs
from tests.sessions_sticky.admin.pages import CONFIRMED, DELETE, MOVE, TARGET, hidden_fields, logged, selected

if TYPE_CHECKING:
    from django.test import Client

    from sessions_sticky import Session


def job_at(url: str) -> Any:
    """The job whose page a redirect leads to, once it has ended."""
    job = Jobs().get(url.rstrip("/").rpartition("/")[2])
    return job and Jobs().wait(job, 10)


def test_delete_previews_the_count_when_all_matches_are_selected(ada: Client, chosen: list[Session]) -> None:
    sessions.create("other", "mistral", "large", "user-7")
    response = ada.post(DELETE, {"all": "1", "provider": "openai", **selected(chosen[:1])})
    assert "<strong>3</strong> sessions will be deleted." in response.text
    assert hidden_fields(response) == {"all": ["1"], "provider": ["openai"]}
    assert sessions.all().count() == 4


def test_delete_starts_a_job_when_all_matches_are_selected(ada: Client, chosen: list[Session]) -> None:
    sessions.create("other", "mistral", "large", "user-7")
    response = ada.post(DELETE, {"all": "1", "provider": "openai", **CONFIRMED})
    assert response.status_code == 302
    job = job_at(response.url)
    assert (job.kind, job.provider, job.everything, job.actor) == ("delete", "openai", False, "ada")
    assert (job.state, job.done) == ("done", 3)
    assert sessions.all().count() == 1
    message = f"Started, 3 sessions expected: delete sessions of provider 'openai' (operation {job.key})"
    assert logged() == {(job.key, 3, message)}


def test_move_previews_target_and_count_when_all_matches_are_selected(ada: Client, chosen: list[Session]) -> None:
    sessions.create("there", "mistral", "large", "user-456")
    asked = ada.post(MOVE, {"all": "1", "owner": "user-456"})
    assert "<strong>4</strong> sessions to move" in asked.text
    preview = ada.post(MOVE, {**hidden_fields(asked), **TARGET})
    assert "<strong>3</strong> sessions will move." in preview.text
    assert hidden_fields(preview) == {"all": ["1"], "owner": ["user-456"], **{k: [v] for k, v in TARGET.items()}}
    assert sessions.filter(provider="mistral").count() == 1
    job = job_at(ada.post(MOVE, {**hidden_fields(preview), **CONFIRMED}).url)
    assert (job.kind, job.owner, job.to_provider, job.to_model) == ("rebind", "user-456", "mistral", "large")
    assert (job.reason, job.state, job.done) == ("openai is being drained", "done", 3)
    assert sessions.filter(provider="mistral").count() == 4
    assert [flag for _, flag, _ in logged()] == [2]


def test_move_keeps_models_when_all_are_selected_without_a_model(ada: Client, chosen: list[Session]) -> None:
    response = ada.post(MOVE, {"all": "1", "provider": "openai", **TARGET, "to-model": ""})
    assert "Keep current models" in response.text
    assert job_at(ada.post(MOVE, {**hidden_fields(response), **CONFIRMED}).url).to_model is None
    assert sessions.filter(provider="mistral", model="gpt-4").count() == 3


@pytest.mark.parametrize(("path", "more"), [(DELETE, {}), (MOVE, TARGET)])
def test_action_asks_for_a_second_confirmation_for_all_sessions(
    ada: Client, chosen: list[Session], path: str, more: dict[str, str]
) -> None:
    response = ada.post(path, {"all": "1", **more, **CONFIRMED})
    assert response.status_code == 200
    assert 'name="everything" value="1" required' in response.text
    assert sessions.filter(provider="openai").count() == 3
    job = job_at(ada.post(path, {"all": "1", **more, **CONFIRMED, "everything": "1"}).url)
    assert (job.everything, job.done) == (True, 3)


def test_action_applies_to_the_blank_owner_when_filtered_by_it(ada: Client, chosen: list[Session]) -> None:
    sessions.create("ownerless", "openai", "gpt-4", "")
    response = ada.post(DELETE, {"all": "1", "no_owner": "1"})
    assert "<strong>1</strong> session will be deleted." in response.text
    job_at(ada.post(DELETE, {**hidden_fields(response), **CONFIRMED}).url)
    assert sessions.all().count() == 3


def test_action_shows_at_most_when_counting_would_take_long(
    ada: Client, chosen: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessions_sticky.admin.filters.MAX_COUNTED", 1)
    response = ada.post(DELETE, {"all": "1", "provider": "openai", "owner": "user-456"})
    assert "At most <strong>3</strong> sessions will be deleted." in response.text


def test_job_page_is_asked_for_by_its_key_when_a_job_has_begun(ada: Client, chosen: list[Session]) -> None:
    url = ada.post(DELETE, {"all": "1", "provider": "openai", **CONFIRMED}).url
    assert ada.get(url).status_code == 200
    job = job_at(url)
    assert job.started_at == pytest.approx(time.time(), abs=60)
