"""Experiment 10: other programs have put something else under our keys; one bad row breaks nothing but itself."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from sentinel_project.gateway import auth
from sentinel_project.gateway.providers import health_sync
from sentinel_project.gateway.providers.config import ECHO
from sentinel_project.gateway.providers.current import providers
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.slots import Failure
from sentinel_project.gateway.routing import objects, process
from sessions_sticky import SessionManager
from sessions_sticky.jobs.job import Plan
from sessions_sticky.queries.filters import Filters
from tests.conftest import begin_empty
from tests.faults import poisons
from tests.faults.surfaces import Eyes, change, look, session_ids
from tests.faults.truth import stored
from tests.gateway.conftest import FixedKeys
from tests.sessions_sticky.jobs.calls import finished, start

pytestmark = pytest.mark.django_db


@pytest.fixture
def user():
    return User.objects.create_superuser("ada")


@pytest.fixture
def clients(session_cache, settings, monkeypatch, user, bare_pages):
    """A browser, a client of the admin API and an event loop, over a gateway that needs no network."""
    settings.SESSIONS_STICKY = {"API_THROTTLE_RATE": "100000/min", "ON_STORE_ERROR": "raise"}
    monkeypatch.setattr(auth, "keys", FixedKeys())
    monkeypatch.setattr(process, "health", Health(30, providers))
    monkeypatch.setattr(objects, "STORE_SECONDS", 10)  # a busy machine may take its time
    browser = Client()
    browser.force_login(user)
    with asyncio.Runner() as loop:
        yield browser, APIClient(HTTP_AUTHORIZATION=f"Token {Token.objects.create(user=user).key}"), loop


def fill(raw, clients):
    """Make three sessions, a job that is done, a walk that has begun and a provider that cools down."""
    begin_empty(raw)
    manager = SessionManager()
    for number in range(3):
        manager.create(f"conv-{number}", **poisons.BOUND)
    manager.resolve("conv-0", **poisons.BOUND)  # writes the number by which a loss is noticed,
    manager._store.loss_detector.hurry()  # and which the next one reads
    cursor = manager.all().page(limit=1).next_cursor
    health = Health(30, providers)
    health.failed("echo-two", "echo-small", Failure(Cools.MODEL))  # of others the doctor makes an error
    health_sync.write(ECHO[1], health.states["echo-two"], health.now())
    job = start(Plan(Filters(provider="missing")))
    finished(job.key)
    return Eyes(*clients, job.key, cursor)


def test_experiment_has_every_key_of_the_contract():
    assert set(poisons.targets(job="", user=1)) == poisons.documented()


@pytest.mark.timeout(600)  # seconds on an idle machine
@pytest.mark.parametrize("place", sorted(poisons.documented()))
def test_everything_else_continues_when_a_key_is_poisoned(session_cache, clients, user, experiment, place):
    raw, calls, tried = session_cache, 0, 0
    for at, (name, poison) in product(
        range(len(targets(fill(raw, clients), user)[place])), poisons.poisons(place).items()
    ):
        eyes = fill(raw, clients)
        key = targets(eyes, user)[place][at]
        for part in (look, change):
            raw.delete(key)
            poison(raw, key)
            answers = dict(part(eyes))
            assert {what: error for what, error in answers.items() if error} == {}, (key, name)
            calls += len(answers)
        check_repaired(raw)
        tried += 1
    experiment(
        10,
        f"Poison under `{place}`",
        setup="one valkey; methods, pages, admin API, chats, commands",
        fault=f"{tried} wrong values and types, one after another",
        figures={"calls": f"{calls}", "failed": "0"},
    )


def targets(eyes, user):
    return poisons.targets(job=eyes.job, user=user.pk)


def check_repaired(raw):
    """Assert that the healthy sessions are as they were, and that all can be listed, counted, moved and deleted."""
    manager = SessionManager()
    manager.reindex()
    sessions = stored(raw)
    assert {"conv-0", "conv-2"} <= set(sessions)
    assert session_ids(manager) == set(sessions)
    assert manager.all().count() == manager.stats().sessions == len(sessions)
    left = sum(session.provider != "echo-two" for session in sessions.values())
    assert manager.all().rebind(to_provider="echo-two", reason="drain") == left > 0
    assert manager.filter(provider="echo-two").count() == len(sessions)
    assert manager.all().delete() == len(sessions)
    assert stored(raw) == {}
