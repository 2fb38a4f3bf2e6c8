"""Connections that ask Sentinels for the primary; tests/faults has whole failovers."""

from __future__ import annotations

import asyncio

import pytest
from django.core.cache import cache, caches

from sessions_sticky import SessionStoreUnavailable
from sessions_sticky.connections import async_client, sentinel
from sessions_sticky.connections.async_client import AsyncRedis
from sessions_sticky.connections.commands import Command
from tests.servers import start_server
from tests.sessions_sticky.calls import PROPOSAL

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("store_name", ["sentinel"], indirect=True)]
UNREACHABLE = ("127.0.0.1", 1)
FOR_A_CONNECTION = 3
"""So often Sentinels are asked: by redis-py, before connecting and after it."""


@pytest.fixture
def tell(manager, monkeypatch):
    """Let `tell(number, found)` say what the Sentinels answer to question `number`, the first being 1."""
    cache.client.get_client().connection_pool.disconnect()
    asked = []

    def set_up(answer):
        def record(found):
            asked.append(found)
            return answer(len(asked), found)

        sync, twin = sentinel._Sentinel.discover_master, sentinel._AsyncSentinel.discover_master

        async def atold(self, name):
            return record(await twin(self, name))

        monkeypatch.setattr(sentinel._Sentinel, "discover_master", lambda self, name: record(sync(self, name)))
        monkeypatch.setattr(sentinel._AsyncSentinel, "discover_master", atold)
        return asked

    return set_up


def test_connection_is_not_used_when_the_primary_was_replaced_while_connecting(call, tell):
    tell(lambda number, found: found if number % FOR_A_CONNECTION else UNREACHABLE)
    with pytest.raises(SessionStoreUnavailable, match=sentinel.REPLACED):
        call("get", "conv-123")


def test_command_goes_to_the_new_primary_when_replaced_while_connecting(call, tell):
    asked = tell(lambda number, found: UNREACHABLE if number == FOR_A_CONNECTION else found)
    assert call("create", "conv-123", **PROPOSAL).provider == PROPOSAL["provider"]
    assert len(asked) == 2 * FOR_A_CONNECTION


async def test_open_connection_stays_where_it_is(manager, tell):
    client = caches["default"].client
    pool = client.get_client().connection_pool
    twin = async_client.new_pool(client.connection_factory, client._server[0])
    connection, other = pool.get_connection(), await twin.get_connection()
    asked = tell(lambda number, found: UNREACHABLE)
    connection.connect_check_health()
    await other.connect_check_health()
    pool.release(connection)
    await twin.release(other)
    await twin.aclose()
    assert asked == []


async def test_kept_connections_leave_a_replaced_primary_when_one_of_them_reconnects(manager, tell):
    client = caches["default"].client
    twin = AsyncRedis(lambda: async_client.new_pool(client.connection_factory, client._server[0]))

    async def ask(*args):
        return (await twin.exchange([Command(args)]))[0]

    async def ask_on_both(*args):
        first = asyncio.create_task(ask(*args))
        for _ in range(2):  # its pipeline is sent
            await asyncio.sleep(0)
        return [await ask(*args), await first]

    primary = []
    with start_server(tcp=True) as replacing:
        tell(lambda number, found: primary[0] if primary else found)
        await ask("PING")
        first, second = await ask_on_both("CLIENT", "ID")
        assert first != second
        client.get_client().client_kill_filter(_id=await ask("CLIENT", "ID"))
        primary.append(("127.0.0.1", replacing.port))
        await ask("PING")
        assert await ask_on_both("CONFIG", "GET", "port") == [[b"port", b"%d" % replacing.port]] * 2
