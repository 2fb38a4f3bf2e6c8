"""Random calls, clock steps and faults on a real store and on a model: hypothesis looks for a difference.

`--hypothesis-profile long` looks for longer; see conftest.py.
"""

from __future__ import annotations

from contextlib import closing
from itertools import product

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test
from redis import Redis as Client

from tests.conftest import PORTABLE_STORES, REAL_STORES, patient_config
from tests.faults.methods import METHODS, NO_ASYNC
from tests.gateway.proxy import Proxy
from tests.servers import VALKEY, FakeServer, free_port, start_server
from tests.sessions_sticky.state_redis_rules import RedisMachine
from tests.sessions_sticky.state_rules import Machine
from tests.sessions_sticky.state_world import Portable, Redis

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

EXAMPLES, STEPS = 60, 40


def run(machine, world, examples=EXAMPLES):
    machine = type(machine.__name__, (machine,), {"world": world})
    long = hypothesis_settings.get_current_profile_name() == "long"
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(
            max_examples=hypothesis_settings.default.max_examples if long else examples,
            stateful_step_count=STEPS,
            derandomize=not long,
            deadline=None,
            database=None,
        ),
    )


@pytest.mark.parametrize("store_name", PORTABLE_STORES, indirect=True)
def test_portable_cache_does_what_the_model_does(manager, monkeypatch):
    run(Machine, Portable(monkeypatch))


@pytest.mark.parametrize("kind", REAL_STORES)
def test_redis_does_what_the_model_does(kind, request, monkeypatch, settings):
    program = request.getfixturevalue("redis_program") if kind == "redis" else VALKEY
    with start_server(program, tcp=True) as server, server.client() as raw, Proxy(server.port) as proxy:
        settings.CACHES = {"default": patient_config(proxy.url)}
        with closing(Redis(monkeypatch, raw, proxy, free_port())) as world:
            run(RedisMachine, world)
        calls = {*product(METHODS, (False, True))} - {*product(NO_ASYNC, (True,))}
        assert world.asked == calls, "a public method without a rule"


def test_fakeredis_does_what_the_model_does(monkeypatch, settings):
    """Few examples: its replies come byte by byte, from threads of this process. No faults: it hangs on some."""
    with FakeServer() as server, Client.from_url(server.url) as raw:
        settings.CACHES = {"default": patient_config(server.url)}
        with closing(Redis(monkeypatch, raw)) as world:
            run(RedisMachine, world, examples=3)
