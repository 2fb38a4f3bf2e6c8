"""The HTTP server's limits on one client, over real sockets."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import Any

import pytest

from sentinel_project.gateway import healthchecks
from sentinel_project.http_request import MAX_HEAD_BYTES, MAX_HEADERS
from tests.http_server.conftest import BIG, LIMIT, SECONDS, App, Connect, read, refused
from tests.waiting import stopwatch

POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
pytestmark = pytest.mark.slow


def test_request_is_served_when_its_head_is_at_the_limits(connect: Connect) -> None:
    client = connect()
    headers = b"".join(b"X-%d: y\r\n" % number for number in range(MAX_HEADERS - 2))
    client.sendall(POST + headers + b"Connection: close\r\n\r\n")
    assert read(client).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "head",
    [
        POST + MAX_HEADERS * b"X: y\r\n" + b"\r\n",
        POST + b"X: " + MAX_HEAD_BYTES * b"y" + b"\r\n\r\n",
        POST + b"X: " + 4 * MAX_HEAD_BYTES * b"y",
        POST + 4 * MAX_HEAD_BYTES * b"y",
        b"GET /" + 4 * MAX_HEAD_BYTES * b"y",
    ],
    ids=["many", "long", "a value without an end", "a name without an end", "a path without an end"],
)
def test_request_is_refused_with_431_when_its_head_is_too_large(connect: Connect, app: App, head: bytes) -> None:
    client = connect()
    client.sendall(head[:MAX_HEAD_BYTES])
    client.sendall(head[MAX_HEAD_BYTES : MAX_HEAD_BYTES + 100])
    assert refused(read(client)) == (431, "headers_too_large")
    assert app.served == 0


def test_request_is_refused_with_400_when_it_is_not_http(connect: Connect) -> None:
    client = connect()
    client.sendall(POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert refused(read(client)) == (400, "invalid_http")


def drip(client: socket.socket, start: bytes, piece: bytes) -> float:
    """Send a start, then a piece now and then until the server has had enough; return how long that took."""
    client.sendall(start)
    began = time.monotonic()
    client.settimeout(SECONDS / 10)
    while time.monotonic() - began < 20 * SECONDS:
        try:
            if client.recv(1, socket.MSG_PEEK) is not None:
                break
        except TimeoutError:
            client.sendall(piece)
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("start", "piece", "seconds"),
    [(POST, b"X: y\r\n", SECONDS), (POST + b"Content-Length: 1000\r\n\r\n", b"x", 2 * SECONDS)],
    ids=["headers", "body"],
)
def test_request_is_refused_with_408_when_it_trickles_in(
    connect: Connect, app: App, start: bytes, piece: bytes, seconds: float
) -> None:
    client = connect()
    assert drip(client, start, piece) == pytest.approx(seconds, abs=0.8 * SECONDS)
    assert refused(read(client)) == (408, "request_timeout")
    assert app.served == 0


def test_request_is_refused_with_408_when_it_is_the_second_and_trickles_in(connect: Connect, app: App) -> None:
    client = connect()
    client.sendall(POST + b"\r\n")
    assert client.recv(1000).endswith(b"\r\n\r\n0")
    drip(client, POST, b"X: y\r\n")
    assert refused(read(client)) == (408, "request_timeout")
    assert app.served == 1


@pytest.mark.parametrize(
    "tail", [b"0\r\nX: ", b"0\r\n" + 100 * b"X: y\r\n", b"1;"], ids=["trailer", "trailers", "extension"]
)
def test_request_is_refused_with_413_when_its_chunks_have_no_end(connect: Connect, settings: Any, tail: bytes) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * MAX_HEAD_BYTES
    client = connect()
    client.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + tail)
    with suppress(OSError):
        for _ in range(10):
            client.sendall((b"X: y\r\n" if tail.endswith(b"\r\n") else b"yyyyyy") * (MAX_HEAD_BYTES // 6))
            time.sleep(SECONDS / 100)
    assert read(client).startswith(b"HTTP/1.1 413")


def test_connection_is_closed_when_nothing_but_empty_lines_come(connect: Connect, app: App) -> None:
    client = connect()
    client.sendall(POST + b"\r\n")
    assert client.recv(1000).endswith(b"\r\n\r\n0")
    assert drip(client, b"\r\n", b"\r\n") == pytest.approx(SECONDS, abs=0.8 * SECONDS)
    assert read(client) == b""


def test_connection_is_closed_without_an_answer_when_no_request_arrives(connect: Connect) -> None:
    took = stopwatch()
    assert read(connect()) == b""
    assert took() < 3 * SECONDS


def test_application_learns_that_the_client_left_when_its_body_was_too_slow(connect: Connect, app: App) -> None:
    connect().sendall(POST + b"Content-Length: 1000\r\n\r\nx")
    assert app.ended.wait(10 * SECONDS)
    assert app.served == 0


def test_connection_is_kept_when_it_idles_between_requests(connect: Connect, app: App) -> None:
    client = connect()
    for number in (1, 2):
        client.sendall(POST + b"\r\n")
        assert client.recv(1000).endswith(b"\r\n\r\n0")
        assert app.served == number
        time.sleep(2.5 * SECONDS)


def test_connection_is_cut_when_the_client_does_not_read_its_answer(connect: Connect) -> None:
    client = connect()
    client.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(4 * SECONDS)
    assert len(read(client)) < BIG


def test_answer_is_whole_when_the_client_reads_slowly(connect: Connect) -> None:
    client = connect()
    client.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    got = 0
    while piece := client.recv(2**20):
        got += len(piece)
        time.sleep(SECONDS / 20)
    assert got > BIG


def opened(connect: Connect, count: int) -> list[socket.socket]:
    """Return as many connections, which the server has accepted one after the other; they have sent nothing."""
    clients = []
    for _ in range(count):
        clients.append(connect())
        time.sleep(SECONDS / 50)
    return clients


def is_served(client: socket.socket, head: bytes = POST) -> bool:
    client.sendall(head + b"\r\n")
    status = client.recv(1000).split()[1]
    assert status in (b"200", b"503")
    return status == b"200"


def test_request_is_refused_with_503_when_there_are_too_many_connections(connect: Connect) -> None:
    kept = opened(connect, LIMIT)
    assert all(is_served(client) for client in kept)
    late = connect()
    late.sendall(POST + b"\r\n")
    assert read(late).startswith(b"HTTP/1.1 503")
    kept.pop().close()
    time.sleep(SECONDS / 5)
    assert is_served(connect())


def test_first_connections_are_served_on_when_there_are_too_many(connect: Connect) -> None:
    clients = opened(connect, 3 * LIMIT)
    assert [is_served(client) for client in clients] == LIMIT * [True] + 2 * LIMIT * [False]
    assert all(is_served(client) for client in clients[:LIMIT])


def test_connection_is_served_when_it_was_one_too_many_and_has_room_now(connect: Connect) -> None:
    *kept, late = opened(connect, LIMIT + 1)
    kept[0].close()
    time.sleep(SECONDS / 5)
    assert is_served(late)


@pytest.mark.parametrize("path", healthchecks.PATHS)
def test_health_and_metrics_are_served_when_there_are_too_many_connections(path: str, connect: Connect) -> None:
    late = opened(connect, 2 * LIMIT)[-1]
    assert is_served(late, f"GET {path} HTTP/1.1\r\nHost: x\r\n".encode())
    assert not is_served(late)
