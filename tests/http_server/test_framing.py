r"""Each request is served exactly once, whatever it offers and however its bytes come; what is ambiguous is refused.

The upgrade tests repeat Kludex/uvicorn#2722, here with two answers to one request:

    uvicorn --port 8000 --http httptools example:app &
    head='POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 33\r\n\r\n'
    (printf "$head"; sleep 1; printf 'GET /second HTTP/1.1\r\nHost: x\r\n\r\n'; sleep 1) | nc localhost 8000

The cause is MagicStack/httptools#124:

    class Events:
        def on_body(self, body): print(body)

    parser = httptools.HttpRequestParser(Events())
    head = b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\n"
    try: parser.feed_data(head)
    except httptools.HttpParserUpgrade: pass  # the server ignores the offer, as RFC 9110, 7.8 allows
    parser.feed_data(b"hello")                # expected: b"hello" is printed; HttpParserInvalidMethodError is raised

`cb_on_headers_complete` returns 1, "no body follows", for each offer. llhttp itself reads the body before it pauses for
the upgrade, if the callback returns 0.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from sentinel_project import http_protocol
from sentinel_project.gateway.errors import ApiError
from sentinel_project.http_body import MAX_OVERHEAD_BYTES, ChunkedBody
from tests.http_server.conftest import SECONDS, App, Connect, read, refused, statuses

BODY = b"POST /smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"5\r\n%b\r\n%x;a=b\r\n%b\r\n0\r\nX-Trailer: y\r\n\r\n" % (BODY[:5], len(BODY) - 5, BODY[5:])
OFFERS = {
    "none": b"",
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    "another case": b"upgrade: H2C\r\nconnection: keep-alive, UPGRADE\r\n",
    "several": b"Connection: upgrade\r\nUpgrade: foo/2, h2c\r\nUpgrade: TLS/1.0\r\n",
    "WebSocket, not by GET": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n",
    "not named by Connection": b"Upgrade: websocket\r\n",
}
Split = Callable[[bytes, bytes], list[bytes]]
SPLITS: dict[str, Split] = {
    "one packet": lambda head, body: [head + body + LAST],
    "head, body": lambda head, body: [head, body + LAST],
    "head with a part, rest": lambda head, body: [head + body[:9], body[9:] + LAST],
    "single bytes": lambda head, body: [b"%c" % byte for byte in head + body + LAST],
}


@pytest.fixture(autouse=True)
def patient(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a request take its time: a busy machine may stop while the test sends it byte by byte."""
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 10)


offers = pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
framings = pytest.mark.parametrize(
    ("framing", "encoded"), [(LENGTH, BODY), (CHUNKED, CHUNKS)], ids=["length", "chunks"]
)


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
@framings
@offers
def test_request_is_served_once(
    connect: Connect, app: App, offer: bytes, framing: bytes, encoded: bytes, split: Split
) -> None:
    client = connect()
    packets = split(b"POST /chat HTTP/1.1\r\nHost: x\r\n" + offer + framing + b"\r\n", encoded)
    for packet in packets:
        client.sendall(packet)
        time.sleep(0.02 if len(packets) < 5 else 0)
    assert statuses(read(client)) == [200, 200]
    assert app.requests == [("POST", "/chat", BODY), ("GET", "/last", b"")]


@framings
@offers
def test_body_is_asked_for_when_the_client_expects_100(
    connect: Connect, app: App, offer: bytes, framing: bytes, encoded: bytes
) -> None:
    client = connect()
    client.sendall(b"POST /chat HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n" + offer + framing + b"\r\n")
    client.settimeout(2)
    assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(encoded + LAST)
    assert statuses(read(client)) == [200, 200]
    assert app.requests == [("POST", "/chat", BODY), ("GET", "/last", b"")]


def test_connection_closes_when_a_client_that_expects_100_gets_a_final_answer(connect: Connect, app: App) -> None:
    client = connect()
    client.sendall(b"POST /unread HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n" + LENGTH + b"\r\n")
    time.sleep(SECONDS / 5)
    client.sendall(BODY + LAST)
    answer = read(client)
    assert statuses(answer) == [200]
    assert b"100 Continue" not in answer
    assert b"connection: close" in answer
    assert app.requests == []


@framings
def test_body_is_dropped_when_the_answer_came_before_it(
    connect: Connect, app: App, framing: bytes, encoded: bytes
) -> None:
    client = connect()
    client.sendall(b"POST /unread HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n")
    client.settimeout(2)
    assert client.recv(1000).endswith(b"unread")
    client.sendall(encoded + LAST)
    assert statuses(read(client)) == [200]
    assert app.requests == [("GET", "/last", b"")]


WEBSOCKET = b"GET %b HTTP/1.1\r\nHost: x\r\n%bSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n"


@pytest.mark.parametrize(
    "offer", [b"Connection: Upgrade\r\nUpgrade: websocket\r\n", OFFERS["several"] + b"Upgrade: WebSocket\r\n"]
)
@pytest.mark.parametrize("path", [b"/", b"/v1/responses"])
def test_websocket_offer_is_refused_with_426_and_the_connection_closes(
    connect: Connect, app: App, path: bytes, offer: bytes
) -> None:
    client = connect()
    client.sendall(WEBSOCKET % (path, offer) + BODY)
    answer = read(client)
    assert refused(answer) == (426, "websocket_not_supported")
    assert b"Connection: close, Upgrade\r\n" in answer
    assert app.requests == []


LINE = b"GET / HTTP/1.1\r\nHost: x\r\n"
REFUSED = {
    "CONNECT": (501, b"CONNECT host:443 HTTP/1.1\r\nHost: host:443\r\n\r\n"),
    "CONNECT with a path": (501, b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "HTTP/0.9": (505, b"GET /\r\n\r\n"),
    "HTTP/0.9, named": (505, b"GET / HTTP/0.9\r\n\r\n"),
    "HTTP/2.0": (505, b"GET / HTTP/2.0\r\nHost: x\r\n\r\n"),
    "HTTP/2 with prior knowledge": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/3.0": (505, b"GET / HTTP/3.0\r\nHost: x\r\n\r\n"),
    "RTSP/1.0": (505, b"OPTIONS / RTSP/1.0\r\n\r\n"),
    "ICE/1.0": (505, b"SOURCE / ICE/1.0\r\n\r\n"),
    "gzip, chunked": (501, LINE + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "identity, chunked": (501, LINE + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
    "identity": (501, LINE + b"Transfer-Encoding: identity\r\n\r\n"),
    "xchunked": (501, LINE + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "empty coding": (400, LINE + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n"),
    "chunked twice": (400, LINE + 2 * CHUNKED + b"\r\n0\r\n\r\n"),
    "chunked, chunked": (400, LINE + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "chunked in HTTP/1.0": (400, b"POST / HTTP/1.0\r\n" + CHUNKED + b"\r\n0\r\n\r\n"),
    "length and chunks": (400, LINE + LENGTH + CHUNKED + b"\r\n0\r\n\r\n"),
    "two lengths": (400, LINE + LENGTH + LENGTH + b"\r\n" + BODY),
    "list of lengths": (400, LINE + b"Content-Length: 1, 1\r\n\r\nx"),
    "hexadecimal length": (400, LINE + b"Content-Length: 0x1\r\n\r\nx"),
    "huge length": (400, LINE + b"Content-Length: 99999999999999999999\r\n\r\nx"),
    "line feeds": (400, b"GET / HTTP/1.1\nHost: x\n\n"),
    "target": (400, b"GET host:1 HTTP/1.1\r\nHost: x\r\n\r\n"),
    "chunk longer than its size": (400, LINE + CHUNKED + b"\r\n2\r\nabc\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize(("status", "request_bytes"), REFUSED.values(), ids=REFUSED)
def test_request_is_refused_and_ends_the_connection(
    connect: Connect, app: App, status: int, request_bytes: bytes
) -> None:
    client = connect()
    client.sendall(request_bytes + LAST)
    assert refused(read(client))[0] == status
    assert app.requests == []


def take(data: bytes, size: int) -> tuple[bytes, bytes, bool]:
    """Feed pieces of a size; return the body, the rest, and whether the body is complete."""
    chunks, body, waiting = ChunkedBody(), b"", b""
    for at in range(0, len(data), size):
        waiting += data[at : at + size]
        if not chunks.is_complete:
            piece, waiting = chunks.take(waiting)
            body += piece
    return body, waiting, chunks.is_complete


@pytest.mark.parametrize("size", range(1, len(CHUNKS) + 9))
def test_chunked_body_is_the_same_wherever_its_bytes_are_split(size: int) -> None:
    assert take(CHUNKS + b"next", size) == (BODY, b"next", True)


@pytest.mark.parametrize(
    "data",
    [
        b"0",
        b"0\r",
        b"0\r\n",
        b"0\r\n\r",
        b"0\r\nA: b\r\n",
        b"5\r\nhello",
        b"5\r\nhello\r\n0\r\n",
        b"FFFFFFFFFFFFFFF\r\nx",
    ],
)
def test_chunked_body_is_incomplete_before_its_last_byte(data: bytes) -> None:
    assert not take(data, 1)[2]


MALFORMED = [
    *(b"-1\r\n", b"+1\r\n", b"0x1\r\n", b"1 \r\n", b" 1\r\n", b"1_0\r\n", b"\r\n", b";a\r\n", b"g\r\n", b"1,\r\n"),
    *(b"1\nx\n\r\n", b"1;a\nb\r\n", b"1;a\rb\r\n", b"1;\x00\r\n", b"1000000000000000\r\n", b"\xc2\xb2\r\n"),
    *(
        b"1\r\nxy\r\n",
        b"1\r\nx\n0\r\n",
        b"0\r\nA\r\n",
        b"0\r\n: b\r\n",
        b"0\r\nA : b\r\n",
        b"0\r\nA: \x00\r\n",
        b"0\r\n A: b\r\n",
    ),
]


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize("data", MALFORMED)
def test_chunked_body_is_refused_when_it_is_malformed(data: bytes, size: int) -> None:
    with pytest.raises(ApiError) as caught:
        take(data, size)
    assert caught.value.status == 400


def test_chunked_body_is_refused_when_its_framing_outgrows_it() -> None:
    with pytest.raises(ApiError) as caught:
        take(MAX_OVERHEAD_BYTES * b"1\r\nx\r\n", 2**16)
    assert caught.value.status == 413
