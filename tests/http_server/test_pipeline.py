"""Requests that come behind each other, clients that leave, and clients that only stop sending."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from sentinel_project import http_timers
from sentinel_project.http_protocol import MAX_WAITING_BYTES
from tests.http_server.conftest import BIG, SECONDS, App, Connect, read, statuses
from tests.http_server.test_framing import REFUSED

WAIT = b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
NEVER = b"DELETE /never HTTP/1.1\r\nHost: x\r\n\r\n"

behind = pytest.mark.parametrize(
    "waiting", [b"", NEXT, NEXT[:-2], NEXT * (2 * MAX_WAITING_BYTES // len(NEXT))], ids=["none", "one", "part", "many"]
)


def release_soon(app: App, seconds: float = SECONDS) -> None:
    threading.Timer(seconds, app.release.set).start()


@pytest.mark.slow
def test_pipelined_requests_are_answered_in_order(connect: Connect, app: App) -> None:
    client = connect()
    client.sendall(WAIT + POST + NEXT + LAST + NEVER)
    release_soon(app)
    bodies = [each.partition(b"\r\n\r\n")[2] for each in read(client).split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [b"0", b"3", b"0", b"0"]
    assert [path for _, path, _ in app.requests] == ["/wait", "/chat", "/next", "/last"]


@pytest.mark.parametrize(("status", "request_bytes"), REFUSED.values(), ids=REFUSED)
def test_earlier_answers_come_first_when_a_pipelined_request_is_refused(
    connect: Connect, app: App, status: int, request_bytes: bytes
) -> None:
    client = connect()
    client.sendall(WAIT + POST + request_bytes + NEVER)
    release_soon(app, SECONDS / 5)
    answers = read(client)
    assert statuses(answers) == [200, 200, status]
    assert answers.endswith(b"}")
    assert [path for _, path, _ in app.requests] == ["/wait", "/chat"]


@pytest.mark.slow
def test_pipeline_is_bounded_when_it_is_filled_faster_than_answered(connect: Connect, app: App) -> None:
    client = connect()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
    slow = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
    client.settimeout(SECONDS / 10)
    sent, until = 0, time.monotonic() + 4 * SECONDS
    while time.monotonic() < until:
        with suppress(TimeoutError):
            sent += client.send(3_333 * slow)
        with suppress(TimeoutError):
            client.recv(2**16)
    unanswered = sent - app.served * len(slow)
    assert app.served > 50
    assert unanswered < 1_500_000  # most of it in the sockets' buffers


@pytest.mark.slow
def test_pipeline_is_answered_when_it_is_long(connect: Connect, app: App) -> None:
    client = connect()
    count = 3_333
    threading.Thread(target=client.sendall, args=[(count - 1) * NEXT + LAST], daemon=True).start()
    assert statuses(read(client, 20)) == count * [200]


def close(client: socket.socket) -> None:
    client.close()


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def stop_sending_then_close(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)
    time.sleep(2 * SECONDS)
    client.close()


@pytest.mark.slow
@behind
@pytest.mark.parametrize("leave", [close, reset, stop_sending_then_close])
def test_request_ends_and_those_behind_it_are_not_served_when_the_client_leaves(
    connect: Connect, app: App, waiting: bytes, leave: Callable[[socket.socket], None]
) -> None:
    client = connect()
    client.sendall(WAIT + waiting)
    while not app.requests:
        time.sleep(0.01)
    leave(client)
    assert app.ended.wait(5)
    assert app.served == 1
    connect().sendall(NEVER)  # the server lives on
    while app.served < 2:
        time.sleep(0.01)
    assert [path for _, path, _ in app.requests] == ["/wait", "/never"]


def test_nothing_is_logged_when_a_client_leaves_behind_garbage(
    connect: Connect, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            client = connect()
            client.sendall(NEXT + NEXT + b"garbage\r\n\r\n")
            client.close()
        time.sleep(SECONDS)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 2 * SECONDS], ids=["at once", "after a while"])
def test_answers_come_when_a_client_stops_sending(connect: Connect, app: App, seconds: float) -> None:
    client = connect()
    client.sendall(WAIT + POST + b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n" + NEXT[:-2])
    client.shutdown(socket.SHUT_WR)
    release_soon(app, seconds)
    answers = read(client)
    assert statuses(answers) == [200, 200, 200]
    assert answers.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    assert app.served == 3


@pytest.mark.slow
def test_large_answer_is_whole_when_the_client_stops_sending_within_it(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_timers, "STUCK_SECONDS", 10)
    client = connect()
    client.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
    client.settimeout(5)
    got = len(client.recv(2**16))
    client.shutdown(socket.SHUT_WR)
    assert got + len(read(client, 10)) > BIG


def test_connection_closes_when_the_client_stops_sending_within_a_request(connect: Connect, app: App) -> None:
    client = connect()
    client.sendall(POST[:-1])
    client.shutdown(socket.SHUT_WR)
    assert read(client) == b""
    assert app.ended.wait(5)
    assert app.requests == []
