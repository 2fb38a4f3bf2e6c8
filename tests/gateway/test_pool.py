"""The connections to providers over real sockets, on both event loops that may serve."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from sentinel_project.gateway.providers.address import Origin
from sentinel_project.gateway.upstream import pool as pools
from sentinel_project.gateway.upstream.connection import request_head
from sentinel_project.gateway.upstream.pool import (
    IDLE_SECONDS,
    CertificateError,
    ConnectFailed,
    ConnectTimeout,
    NameNotFound,
    Pool,
    TlsError,
)
from sentinel_project.gateway.upstream.response import MAX_UNREAD_BYTES, Disconnected, InvalidResponse, Response
from tests.access import Certificates, make_certificates
from tests.servers import free_port
from tests.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the:pytest.PytestDeprecationWarning")
"""The hook that pytest-asyncio has instead is for all tests of a run, not for a module."""

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Peer:
    """A server. Each request gets the next of `answers`: bytes, or what a function does; `HELLO` if there is none."""

    def __init__(self) -> None:
        self.answers: list[bytes | Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]] = []
        self.origin = Origin("127.0.0.1", 0, is_tls=False)
        self.connections: list[int] = []
        """How many requests each connection has had."""
        self.writers: list[asyncio.StreamWriter] = []
        self.ended = 0
        self.bodies: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.connections)
        self.connections.append(0)
        self.writers.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.connections[number] += 1
                answer = self.answers.pop(0) if self.answers else HELLO
                if not isinstance(answer, bytes):
                    await answer(reader, writer)
                    continue
                length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")), 0)
                self.bodies.append(await reader.readexactly(length))
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()
            self.ended += 1


@asynccontextmanager
async def served(tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0, ssl=tls)
    peer.origin = Origin("127.0.0.1", server.sockets[0].getsockname()[1], is_tls=tls is not None)
    try:
        yield peer
    finally:
        server.close()
        for writer in peer.writers:
            if not writer.transport.is_closing():  # Python 3.11 fails where a close has waited for unsent bytes
                writer.transport.abort()
        await until(lambda: peer.ended == len(peer.connections))


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy(), uvloop.EventLoopPolicy()], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> Any:
    """Run each test on both."""
    return request.param


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with served() as peer:
        yield peer


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool(asyncio.get_running_loop())
    yield pool
    await pool.close()


async def ask(pool: Pool, origin: Origin, body: bytes = b"", *, may_repeat: bool = True) -> Response:
    head = request_head("POST", "/", {"Host": "x", "Content-Length": str(len(body))})
    async with asyncio.timeout(30):
        return await pool.request(origin, head, body, may_repeat=may_repeat)


async def text(response: Response) -> bytes:
    body = bytearray()
    async with asyncio.timeout(30):
        while piece := await response.read():
            body += piece
    return bytes(body)


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def test_requests_in_turn_share_a_connection_and_others_have_their_own(pool: Pool, peer: Peer) -> None:
    for _ in range(5):
        assert await text(await ask(pool, peer.origin)) == b"hello"
    assert peer.connections == [5]
    await asyncio.gather(*(ask(pool, peer.origin) for _ in range(3)))
    assert sorted(peer.connections) == [1, 1, 6]


async def test_request_that_may_not_repeat_takes_a_new_connection(pool: Pool, peer: Peer) -> None:
    await ask(pool, peer.origin)
    await ask(pool, peer.origin, may_repeat=False)
    assert peer.connections == [1, 1]
    await ask(pool, peer.origin)
    assert peer.connections == [2, 1]


async def test_request_takes_a_new_connection_when_the_kept_ones_were_closed(pool: Pool, peer: Peer) -> None:
    await asyncio.gather(*(ask(pool, peer.origin) for _ in range(3)))
    for writer in peer.writers:
        writer.close()
    await until(lambda: peer.ended == 3)
    await asyncio.sleep(0.02)
    assert await text(await ask(pool, peer.origin)) == b"hello"
    assert peer.connections == [1, 1, 1, 1]


async def test_request_is_sent_again_once_when_its_kept_connection_breaks(pool: Pool, peer: Peer) -> None:
    await asyncio.gather(*(ask(pool, peer.origin) for _ in range(2)))
    peer.answers = [hang_up]
    assert await text(await ask(pool, peer.origin)) == b"hello"
    assert sorted(peer.connections) == [1, 1, 2]
    peer.answers = [hang_up, hang_up]
    with pytest.raises(Disconnected):
        await ask(pool, peer.origin)
    assert sum(peer.connections) == 6


@pytest.mark.parametrize("arrived", [b"H", HELLO[:30], b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_request_is_sent_once_when_an_answer_has_begun(pool: Pool, peer: Peer, arrived: bytes) -> None:
    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(arrived)
        await writer.drain()
        writer.close()

    await ask(pool, peer.origin)
    peer.answers = [begin]
    with pytest.raises(Disconnected):
        await ask(pool, peer.origin)
    assert peer.connections == [2]


@pytest.mark.parametrize("stray", [b"x", b"\0" * 40, b"HTTP", b"\r\n\r\n0\r\n\r\n", b"{}"])
async def test_request_is_answered_when_stray_bytes_follow_the_last_response(
    pool: Pool, peer: Peer, stray: bytes
) -> None:
    async def answer_behind_stray_bytes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(stray + HELLO)

    await ask(pool, peer.origin)
    peer.answers = [answer_behind_stray_bytes]  # they arrive when the next request is on its way
    assert await text(await ask(pool, peer.origin)) == b"hello"
    assert peer.connections == [2, 1]
    peer.writers[1].write(stray)  # or while there is none
    await until(lambda: peer.ended == 2)
    assert await text(await ask(pool, peer.origin)) == b"hello"
    peer.answers = [HELLO + stray]  # or with the response
    assert await text(await ask(pool, peer.origin)) == b"hello"
    assert await text(await ask(pool, peer.origin)) == b"hello"


async def test_request_is_sent_once_when_the_answer_is_refused(pool: Pool, peer: Peer) -> None:
    await ask(pool, peer.origin)
    peer.answers = [b"HTTP/1.1 200 OK\r\n" + 300 * b"a: b\r\n" + b"\r\n"]
    with pytest.raises(InvalidResponse):
        await ask(pool, peer.origin)
    assert peer.connections == [2]


async def test_connection_is_kept_alive_by_the_system(pool: Pool, peer: Peer) -> None:
    await ask(pool, peer.origin)
    (connection,) = pool._connections
    opened = connection._transport.get_extra_info("socket")
    assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


async def test_request_is_sent_once_on_a_new_connection(pool: Pool, peer: Peer) -> None:
    peer.answers = [hang_up]
    with pytest.raises(Disconnected):
        await ask(pool, peer.origin)
    assert peer.connections == [1]


async def test_idle_connections_are_closed_when_they_are_old(
    pool: Pool, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.gather(*(ask(pool, peer.origin) for _ in range(3)))
    for connection in pool._idle[peer.origin][:2]:
        connection.idle_since -= IDLE_SECONDS
    pool._sweep()
    await until(lambda: peer.ended == 2)
    assert await text(await ask(pool, peer.origin)) == b"hello"
    assert len(peer.connections) == 3  # the one that is left
    monkeypatch.setattr(pools, "IDLE_SECONDS", 0.05)
    pool._sweep()  # again soon, until none is left
    await until(lambda: peer.ended == 3)
    assert not pool._idle
    assert pool._sweeper is None


async def test_old_connection_is_not_used_before_it_is_closed(
    pool: Pool, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(pool, peer.origin)
    monkeypatch.setattr(pools, "IDLE_SECONDS", 0.0)
    await asyncio.sleep(0.01)
    await ask(pool, peer.origin)
    assert peer.connections == [1, 1]


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 5_000_000])
async def test_body_arrives_whole_also_when_the_server_reads_slowly(pool: Pool, peer: Peer, size: int) -> None:
    async def read_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b""
        while len(body) < size:
            body += await reader.read(100_000)
            await asyncio.sleep(0.001)
        peer.bodies.append(body)
        writer.write(HELLO)

    body = (bytes(range(251)) * (size // 251 + 1))[:size]
    peer.answers = [HELLO, read_slowly]
    for _ in range(2):
        assert await text(await ask(pool, peer.origin, body)) == b"hello"
    assert peer.bodies == [body, body]
    assert peer.connections == [2]


async def test_answer_is_read_when_it_comes_before_the_whole_request(pool: Pool, peer: Peer) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge")
        await is_read.wait()

    is_read = asyncio.Event()
    peer.answers = [refuse]
    response = await ask(pool, peer.origin, 20_000_000 * b"x")
    assert (response.status, await text(response)) == (413, b"large")
    is_read.set()
    assert await text(await ask(pool, peer.origin)) == b"hello"
    assert peer.connections == [1, 1]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 413 Content Too Large\r\n\r\nlarge"])
async def test_response_ends_when_the_server_reads_no_more_and_ends_its_side(
    pool: Pool, peer: Peer, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(answer)
        writer.write_eof()
        await is_read.wait()

    is_read = asyncio.Event()
    peer.answers = [end]
    if answer:
        response = await ask(pool, peer.origin, 20_000_000 * b"x")
        assert (response.status, await text(response)) == (413, b"large")
    else:
        with pytest.raises(Disconnected):
            await ask(pool, peer.origin, 20_000_000 * b"x")
    is_read.set()
    assert not caplog.records


async def test_nothing_is_logged_when_the_server_closes_while_it_is_written_to(
    pool: Pool, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000_000)
        writer.transport.abort()

    async def end_and_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO[:-1])
        writer.write_eof()
        await reader.read()

    for size in (300_000, 20_000_000):
        peer.answers = [close, end_and_read]
        for _ in range(2):
            with pytest.raises(Disconnected):
                await text(await ask(pool, peer.origin, size * b"x", may_repeat=False))
    await asyncio.sleep(0.05)
    assert not caplog.records


async def test_memory_is_bounded_when_the_reader_is_slow(pool: Pool, peer: Peer) -> None:
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(300):
            writer.write(100_000 * b"x")
            await writer.drain()
            sent += 100_000
        writer.close()

    peer.answers = [pour]
    response = await ask(pool, peer.origin)
    before = -1
    while sent != before:
        before = sent
        await asyncio.sleep(0.2)
    assert sent < 20_000_000
    assert response._unread < MAX_UNREAD_BYTES + 300_000
    assert len(await text(response)) == 30_000_000


async def test_cancelled_requests_leave_no_connection_that_is_used_again(pool: Pool, peer: Peer) -> None:
    async def in_parts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for at in range(len(HELLO)):
            writer.write(HELLO[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0.001)

    async def whole() -> None:
        response = await ask(pool, peer.origin)
        try:
            assert await text(response) in (b"hello", b"other")
        finally:
            response.close()

    for rounds in range(40):
        peer.answers = [in_parts]
        task = asyncio.create_task(whole())
        await asyncio.sleep(rounds * 0.002)
        task.cancel()
        await asyncio.wait([task])
        peer.answers = [HELLO.replace(b"hello", b"other")]
        assert await text(await ask(pool, peer.origin)) == b"other"


async def test_connection_is_not_leaked_when_a_request_is_cancelled_while_it_connects(pool: Pool, peer: Peer) -> None:
    for rounds in range(12):
        task = asyncio.create_task(ask(pool, peer.origin))
        for _ in range(rounds):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    await pool.close()
    await until(lambda: peer.ended == len(peer.connections))


async def test_request_fails_when_no_server_listens(pool: Pool) -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        with pytest.raises(ConnectFailed):
            await ask(pool, Origin(host, free_port(), is_tls=False))


@pytest.mark.parametrize("host", ["nothing.invalid", "1.2.3.4.5", "a..b", "x" * 64, "-", "a b"])
async def test_request_fails_when_the_host_has_no_address(pool: Pool, host: str) -> None:
    for _ in range(2):
        with pytest.raises((NameNotFound, ConnectTimeout)):
            await ask(pool, Origin(host, 80, is_tls=False))
    assert not pool._lookups


async def test_lookup_is_shared_and_its_answer_kept(pool: Pool, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    lookups, look_up = [], pool._look_up

    async def counted(origin: Origin) -> Any:
        lookups.append(origin)
        await asyncio.sleep(0.02)
        return await look_up(origin)

    monkeypatch.setattr(pool, "_look_up", counted)
    named = peer.origin._replace(host="localhost")
    first, *_ = tasks = [asyncio.create_task(ask(pool, named, may_repeat=False)) for _ in range(5)]
    await asyncio.sleep(0.01)
    first.cancel()
    for task in tasks[1:]:
        assert (await task).status == 200
    await ask(pool, named, may_repeat=False)
    assert len(lookups) == 1
    pool._lookups.clear()
    monkeypatch.setattr(pools, "LOOKUP_SECONDS", 0.05)
    await ask(pool, named, may_repeat=False)
    assert len(lookups) == 2
    await until(lambda: not pool._lookups)


async def test_request_fails_when_connecting_takes_too_long(
    pool: Pool, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look_up(origin: Origin) -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(pools, "CONNECT_SECONDS", 0.05)
    monkeypatch.setattr(pool, "_look_up", look_up)
    with pytest.raises(ConnectTimeout):
        await ask(pool, peer.origin)


async def test_request_uses_the_next_address_when_the_first_does_not_answer(
    pool: Pool, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = pool._look_up

    async def with_dead_address(origin: Origin) -> Any:
        (alive,) = await look_up(origin)
        return [(*alive[:4], ("127.0.0.1", 1)), alive]

    monkeypatch.setattr(pool, "_look_up", with_dead_address)
    assert await text(await ask(pool, peer.origin)) == b"hello"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def trusted(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Trust the authority; return the server's side."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    monkeypatch.setattr(pools, "_tls_context", pools._tls_context.__wrapped__)
    return server_side(certificates)


def server_side(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    return context


async def test_tls_connection_is_used_again_and_takes_large_bodies(pool: Pool, trusted: ssl.SSLContext) -> None:
    async with served(trusted) as peer:
        for body in (b"", 3_000_000 * b"x", b"y"):
            assert await text(await ask(pool, peer.origin, body)) == b"hello"
        assert [len(body) for body in peer.bodies] == [0, 3_000_000, 1]
        assert peer.connections == [3]
        peer.answers = [hang_up]
        assert await text(await ask(pool, peer.origin)) == b"hello"


async def test_request_fails_when_the_certificate_is_of_another_name(
    pool: Pool, trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = pool._look_up
    async with served(trusted) as peer:
        monkeypatch.setattr(pool, "_look_up", lambda origin: look_up(peer.origin))
        for name in ("localhost", "localhost."):
            assert await text(await ask(pool, peer.origin._replace(host=name))) == b"hello"
        for name in ("other.example", "127.0.0.2", "::1"):
            with pytest.raises(CertificateError):
                await ask(pool, peer.origin._replace(host=name))


async def test_request_fails_when_the_certificate_is_not_trusted(pool: Pool, certificates: Certificates) -> None:
    async with served(server_side(certificates)) as peer:
        with pytest.raises(CertificateError):
            await ask(pool, peer.origin)
        assert peer.connections in ([], [0])


async def test_request_fails_when_the_server_does_not_speak_tls(pool: Pool) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        with pytest.raises(TlsError):
            await ask(pool, Origin("127.0.0.1", server.sockets[0].getsockname()[1], is_tls=True))


async def test_close_ends_connections_with_a_request(pool: Pool, peer: Peer) -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    peer.answers = [wait]
    task = asyncio.create_task(ask(pool, peer.origin))
    await until(lambda: peer.connections == [1])
    await pool.close()
    with pytest.raises(Disconnected):
        await task
