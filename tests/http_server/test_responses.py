"""How responses are framed, and what an application's failure looks like."""

from __future__ import annotations

import gc
import socket

import pytest

from sentinel_project.http_exchange import Exchange
from tests.http_server.conftest import SECONDS, App, Connect, read, refused
from tests.waiting import wait_until


def get(connect: Connect, path: str, version: str = "1.1", method: str = "GET") -> tuple[bytes, bytes]:
    """Return head and body of the response."""
    client = connect()
    client.sendall(f"{method} {path} HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = read(client).partition(b"\r\n\r\n")
    return head.lower(), body


def test_stream_is_chunked_when_the_client_speaks_http_1_1(connect: Connect) -> None:
    head, body = get(connect, "/stream")
    assert b"transfer-encoding: chunked" in head
    assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
def test_stream_ends_with_the_connection_when_the_client_speaks_http_1_0(connect: Connect, connection: bytes) -> None:
    """Kludex/uvicorn#1360."""
    client = connect()
    client.sendall(b"GET /stream HTTP/1.0\r\nConnection: " + connection + b"\r\n\r\n")
    head, _, body = read(client).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    assert body == b"onetwo"


@pytest.mark.parametrize("path", ["/", "/stream"])
def test_response_has_no_body_when_the_method_is_head(connect: Connect, path: str) -> None:
    assert get(connect, path, method="HEAD")[1] == b""


@pytest.mark.parametrize("path", ["/failing", "/injected"])
def test_response_is_an_api_error_when_the_application_fails(connect: Connect, path: str) -> None:
    client = connect()
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = read(client)
    assert refused(answer)[0] == 500
    assert b"x-more" not in answer


def test_stream_has_no_end_when_the_application_fails_within_it(connect: Connect, app: App) -> None:
    assert get(connect, "/broken")[1] == b"3\r\none\r\n3\r\ntwo\r\n"


def test_client_that_left_before_its_stream_is_noticed_while_the_stream_is_quiet(connect: Connect, app: App) -> None:
    client = connect()
    client.sendall(b"GET /quiet HTTP/1.1\r\nHost: h\r\n\r\n")
    client.close()
    assert app.ended.wait(4 * SECONDS)


def test_half_closed_client_gets_its_quiet_stream(connect: Connect, app: App) -> None:
    client = connect()
    client.sendall(b"GET /quiet HTTP/1.1\r\nHost: h\r\n\r\n")
    client.shutdown(socket.SHUT_WR)
    assert not app.ended.wait(2 * SECONDS)
    assert b"one" in client.recv(2**16)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/stream", "/unread"])
def test_exchange_is_freed_at_once_when_its_response_is_complete(connect: Connect, path: str) -> None:
    """One that waits for the garbage collector holds its request, its headers and its task until then."""
    gc.collect()
    gc.disable()
    try:
        get(connect, path)
        wait_until(lambda: not any(isinstance(each, Exchange) for each in gc.get_objects()))
    finally:
        gc.enable()
