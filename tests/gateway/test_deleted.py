"""A session that was deleted, or has expired, is gone for every worker, also for those that remember it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import pytest

from sessions_sticky import Session, rendezvous, sessions
from tests.conftest import patient_config
from tests.gateway.live import MODELS
from tests.gateway.load import Clients
from tests.gateway.workers import Workers
from tests.servers import Server, start_server, with_timeout
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.slow

TTL_SECONDS = 4
STORE_SECONDS = 1
ECHOES = {"echo-one": 1.0, "echo-two": 1.0, "echo-three": 1.0}
MODEL, OTHER_MODEL = "echo-small", "echo-large"
assert MODEL not in MODELS


class Ground(NamedTuple):
    """Two workers over the echo providers, and a store whose sessions live for two seconds."""

    workers: Workers
    store: Server

    def bind(self, conversation_id: str) -> str:
        """Bind to the provider that the ranking puts last, and return the one that it puts first."""
        ranking = rendezvous(conversation_id, ECHOES)
        session = Session(conversation_id, ranking[-1], OTHER_MODEL, "ann", 1)
        with self.store.client() as client:
            client.set(f"sentinel:session:{conversation_id}", session.to_json(), ex=TTL_SECONDS)
        return ranking[0]


@pytest.fixture(scope="module")
def _ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("workers")
    with start_server() as store:
        variables = {"REDIS_URL": with_timeout(store.url, STORE_SECONDS), "SESSION_TTL_SECONDS": str(TTL_SECONDS)}
        with Workers(folder, 2, **variables) as workers:
            yield Ground(workers, store)


@pytest.fixture
def ground(_ground: Ground, settings: Settings) -> Ground:
    settings.CACHES = {"default": patient_config(_ground.store.url)}  # an operator's process
    settings.SESSION_TTL_SECONDS = TTL_SECONDS
    return _ground


def exists(ground: Ground, *keys: str) -> bool:
    with ground.store.client() as client:
        return bool(client.exists(*keys))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_session_stays_deleted_when_two_workers_remember_it(ground: Ground, order: tuple[int, int]) -> None:
    ids = [f"deleted-{order[0]}-{number}" for number in range(20)]
    first = {each: ground.bind(each) for each in ids}
    async with Clients(ground.workers.urls, ground.workers.key) as clients:
        assert {reply.outcome for reply in await clients.visit(ids, model=MODEL)} == {"hit"}
        assert all([await sessions.adelete(each) for each in ids])
        for worker, outcome in zip(order, ("created", "hit"), strict=True):
            replies = await clients.visit(ids, worker, model=MODEL)
            assert {reply.outcome for reply in replies} == {outcome}
            assert {reply.conversation_id: reply.binding for reply in replies} == {
                each: (first[each], MODEL) for each in ids
            }


async def test_session_stays_deleted_when_its_marker_has_expired(ground: Ground) -> None:
    first = ground.bind("marked")
    async with Clients(ground.workers.urls, ground.workers.key) as clients:
        assert {reply.outcome for reply in await clients.visit(["marked"], model=MODEL)} == {"hit"}
        assert await sessions.adelete("marked")
        assert not exists(ground, "sentinel:session:marked")
        wait_until(lambda: not exists(ground, "sentinel:deleted:marked"))
        replies = await clients.visit(["marked"], model=MODEL)
    assert {reply.binding for reply in replies} == {(first, MODEL)}


async def test_deleted_session_stays_deleted_after_an_outage_of_the_store(ground: Ground) -> None:
    first = ground.bind("away")
    async with Clients(ground.workers.urls, ground.workers.key) as clients:
        await clients.visit(["away"], model=MODEL)
        await sessions.adelete("away")
        ground.store.stop()
        try:
            assert {reply.outcome for reply in await clients.visit(["away"], model=MODEL)} == {"degraded"}
        finally:
            ground.store.cont()
        await asyncio.sleep(1.1)  # both breakers let the next one through
        replies = await clients.visit(["away"], model=MODEL)
    assert {reply.binding for reply in replies} == {(first, MODEL)}


async def test_session_is_a_new_one_when_it_has_expired(ground: Ground) -> None:
    ids = [f"expired-{number}" for number in range(20)]
    first = {each: ground.bind(each) for each in ids}
    async with Clients(ground.workers.urls, ground.workers.key) as clients:
        assert {reply.outcome for reply in await clients.visit(ids, model=MODEL)} == {"hit"}
        wait_until(lambda: not exists(ground, *(f"sentinel:session:{each}" for each in ids)))
        replies = await clients.visit(ids, 0, model=MODEL) + await clients.visit(ids, 1, model=MODEL)
    assert [reply.outcome for reply in replies] == [*20 * ["created"], *20 * ["hit"]]
    assert all(reply.binding == (first[reply.conversation_id], MODEL) for reply in replies)
