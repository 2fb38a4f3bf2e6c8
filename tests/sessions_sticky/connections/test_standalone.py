"""Commands that go out together, on a real Valkey."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from unittest.mock import Mock

import pytest
from django.core.cache import cache, caches
from redis import Connection, ConnectionPool, Redis
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sessions_sticky import SessionManager, cache_config
from sessions_sticky.connections import standalone
from sessions_sticky.connections.commands import Batch, Command
from sessions_sticky.connections.standalone import RedisServer
from tests.waiting import wait_until


@pytest.fixture
def connection(valkey_url: str) -> Iterator[Connection]:
    pool = ConnectionPool.from_url(valkey_url)
    yield pool.get_connection()
    pool.disconnect()


def exchange(connection: Connection, commands: list[Command]) -> list[object]:
    standalone.write(connection, commands)
    return standalone.read(connection, len(commands))


@pytest.mark.parametrize("size", [0, 1, standalone.PART_BYTES - 1, standalone.PART_BYTES, 5 * standalone.PART_BYTES])
def test_replies_come_in_their_order_when_commands_fill_several_parts(connection: Connection, size: int) -> None:
    texts = [b"%d:" % number + size * b"x" for number in range(20)]
    assert exchange(connection, [Command(("ECHO", text)) for text in texts]) == texts


def test_parts_are_as_long_as_redis_reads_at_a_time(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[bytes] = []
    monkeypatch.setattr(connection, "send_packed_command", parts.extend)
    standalone.write(connection, [Command(("ECHO", 1_000 * b"x"))] * 100)
    assert len(parts) == 6
    assert all(standalone.PART_BYTES <= len(part) < standalone.PART_BYTES + 1_023 for part in parts[:-1])


def test_refusal_is_at_the_position_of_its_command(connection: Connection) -> None:
    before, refused, after = exchange(connection, [Command(("ECHO", b"1")), Command(("NO",)), Command(("ECHO", b"2"))])
    assert (before, after) == (b"1", b"2")
    assert isinstance(refused, ResponseError)


@pytest.mark.parametrize("stopped", [RedisTimeoutError, KeyboardInterrupt])
def test_next_caller_gets_none_of_the_replies_when_a_batch_was_given_up(valkey_url, settings, monkeypatch, stopped):
    """Otherwise a chat would be answered with another conversation's session."""
    settings.CACHES = {"default": cache_config(valkey_url)}
    server = RedisServer(cache)  # type: ignore[arg-type]
    with monkeypatch.context() as patches:
        patches.setattr(standalone, "read", Mock(side_effect=stopped))
        with pytest.raises(stopped):
            server.send(Batch([Command(("ECHO", b"theirs"))]))
    server._breaker.record()  # otherwise the breaker rejects the call
    assert server.send(Batch([Command(("ECHO", b"mine"))])) == [b"mine"]


def test_connections_of_operators_close_at_once_when_a_manager_is_dropped(
    session_cache: Redis, request: pytest.FixtureRequest
) -> None:
    gc.collect()
    gc.disable()
    request.addfinalizer(gc.enable)
    before = {each["id"] for each in session_cache.client_list()}
    SessionManager(caches["default"]).stats()
    wait_until(lambda: {each["id"] for each in session_cache.client_list()} == before)
