"""One connection to a provider: whatever the server sends, the response ends, and no other gets its bytes."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentinel_project.gateway.upstream.connection import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_INFLATED_BYTES,
    MAX_WRITE_BYTES,
    Connection,
    request_head,
)
from sentinel_project.gateway.upstream.response import (
    MAX_UNREAD_BYTES,
    Disconnected,
    HttpError,
    InvalidResponse,
    Response,
)


class Transport:
    """A transport that keeps what is written, and the order of calls to read."""

    def __init__(self) -> None:
        self.written = b""
        self.is_aborted = self.is_paused = False
        self.unsent = 0

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        assert not self.is_paused
        self.is_paused = True

    def resume_reading(self) -> None:
        assert self.is_paused
        self.is_paused = False


class Line:
    """A connection with a server whose part the test plays."""

    def __init__(self) -> None:
        self.idle: list[Connection] = []
        self.transport = Transport()
        self.connection = Connection(self.idle.append)
        self.connection.connection_made(self.transport)

    async def send(self, body: bytes = b"") -> asyncio.Task[Response]:
        """Return a request that has been written."""
        task = asyncio.create_task(self.connection.send(b"POST / HTTP/1.1\r\n\r\n", body))
        await asyncio.sleep(0)
        return task

    def lose(self, exc: Exception | None = None) -> None:
        """Close the connection as the server does; the loop calls back once."""
        self.transport.is_aborted = True
        self.connection.connection_lost(exc)

    @property
    def is_kept(self) -> bool:
        return bool(self.idle) and not self.transport.is_aborted


async def read_all(response: Response) -> bytes:
    body = b""
    while piece := await response.read():
        body += piece
    return body


async def outcome(line: Line, *pieces: bytes) -> tuple[int, bytes]:
    """Return the status and body of a response that arrives in pieces."""
    task = await line.send()
    for piece in pieces:
        line.connection.data_received(piece)
        await asyncio.sleep(0)
    response = await task
    return response.status, await read_all(response)


HEAD = b"HTTP/1.1 200 OK\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 9\r\n\r\n"
WHOLE = {
    "length": HEAD + b"Content-Length: 5\r\n\r\nhello",
    "empty": HEAD + b"Content-Length: 0\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "trailers": HEAD + b"transfer-encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\nServer-Timing: a\r\nX-Sum: 1\r\n\r\n",
    "after interim responses": INTERIM + HEAD + b"Content-Length: 5\r\n\r\nhello",
    "lines that end in a line feed": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    "spaces behind framing": HEAD + b"Transfer-Encoding: chunked \r\n\r\n5  \r\nhello\r\n0  \r\n\r\n",
    "compressed by gzip": HEAD
    + b"Content-Encoding: gzip\r\nContent-Length: 25\r\n\r\n"
    + gzip.compress(b"hello", mtime=0),
    "compressed by zlib": HEAD + b"content-encoding: Deflate\r\nContent-Length: 13\r\n\r\n" + zlib.compress(b"hello"),
    "compressed, empty": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
    "kept by HTTP/1.0": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("name", WHOLE)
async def test_response_is_the_same_wherever_its_bytes_are_split(name: str) -> None:
    data = WHOLE[name]
    expected = (204, b"") if name == "no content" else (200, b"" if "empty" in name else b"hello")
    for at in range(1, len(data)):
        line = Line()
        for _ in range(2):  # also on a connection that is used again
            assert await outcome(line, data[:at], data[at:]) == expected
            assert line.is_kept
    line = Line()
    assert await outcome(line, *(bytes([byte]) for byte in data)) == expected
    assert line.is_kept


async def test_compressed_response_arrives_in_parts() -> None:
    line, compressor = Line(), zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    task = await line.send()
    line.connection.data_received(HEAD + b"Content-Encoding: gzip\r\n\r\n")
    response = await task
    for part in (b"data: 1\n\n", b"data: 2\n\n"):
        line.connection.data_received(compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH))
        assert await response.read() == part
    line.connection.data_received(compressor.flush())
    line.lose()
    assert await read_all(response) == b""


async def test_compressed_response_is_refused_when_it_expands_to_much_at_once() -> None:
    line, body = Line(), gzip.compress((MAX_INFLATED_BYTES + 1) * b"x")
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    with pytest.raises(InvalidResponse, match="more than"):
        await outcome(line, head + body)
    assert line.transport.is_aborted


async def test_response_has_no_header_of_interim_responses_or_trailers() -> None:
    line = Line()
    task = await line.send()
    line.connection.data_received(INTERIM + WHOLE["trailers"])
    assert (await task).headers == {"transfer-encoding": "Chunked"}


async def test_first_value_counts_when_a_header_is_repeated() -> None:
    line = Line()
    task = await line.send()
    line.connection.data_received(HEAD + b"X-A: 1\r\nx-a: 2\r\nX-B: \xff\r\nContent-Length: 0\r\n\r\n")
    assert (await task).headers == {"x-a": "1", "x-b": "\xff", "content-length": "0"}


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_response_without_length_ends_with_its_connection(version: bytes) -> None:
    line = Line()
    task = await line.send()
    line.connection.data_received(b"HTTP/%b 200 OK\r\n\r\nhel" % version)
    response = await task
    assert await response.read() == b"hel"
    line.connection.data_received(b"lo")
    line.lose()
    assert await read_all(response) == b"lo"
    assert not line.idle


@pytest.mark.parametrize(
    ("sent", "exc"),
    [
        (b"", None),
        (b"", ConnectionResetError("reset")),
        (HEAD, None),
        (INTERIM, None),
        (HEAD + b"Content-Length: 5\r\n\r\nhell", None),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", None),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", None),
        (HEAD + b"\r\nhello", ConnectionResetError("reset")),
        (HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"hello", mtime=0)[:-1], None),
    ],
)
async def test_response_fails_when_its_connection_breaks(sent: bytes, exc: Exception | None) -> None:
    line = Line()
    task = await line.send()
    if sent:
        line.connection.data_received(sent)
    line.lose(exc)
    with pytest.raises(Disconnected):
        await read_all(await task)
    assert line.connection.has_answered is bool(sent)
    assert not line.idle


CLOSING = {
    "closes": HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "more bytes": WHOLE["length"] + b"x",
    "a second response": WHOLE["length"] + WHOLE["length"],
    "a second head": WHOLE["chunks"] + HEAD,
    "bytes behind no content": WHOLE["no content"] + b"hello",
    "a second interim response": WHOLE["length"] + INTERIM,
}


@pytest.mark.parametrize("name", CLOSING)
async def test_connection_is_closed_behind_a_response_that(name: str) -> None:
    line = Line()
    assert (await outcome(line, CLOSING[name]))[1] in (b"hello", b"")
    assert not line.idle
    assert line.transport.is_aborted


@pytest.mark.parametrize("data", [b"x", b"\r\n", WHOLE["length"], b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
async def test_connection_is_closed_when_bytes_come_without_a_request(data: bytes) -> None:
    line = Line()
    await outcome(line, WHOLE["length"])
    line.connection.data_received(data)
    assert line.transport.is_aborted
    with pytest.raises(Disconnected):
        await line.connection.send(b"", b"")


INVALID = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"<html>",
    "two framings": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two framings in the other order": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "the same length twice": HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
    "a list of lengths": HEAD + b"Content-Length: 5, 5\r\n\r\n",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a hexadecimal length": HEAD + b"Content-Length: 0x5\r\n\r\n",
    "a huge length": HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
    "another coding": HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    "two codings": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "a coding behind another": HEAD + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked not last": HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
    "compressed otherwise": HEAD + b"Content-Encoding: br\r\nContent-Length: 5\r\n\r\n",
    "compressed, damaged": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    "compressed, cut off": HEAD
    + b"Content-Encoding: gzip\r\nContent-Length: 15\r\n\r\n"
    + gzip.compress(b"hello", mtime=0)[:15],
    "compressed twice": HEAD
    + b"Content-Encoding: gzip\r\nContent-Length: 50\r\n\r\n"
    + 2 * gzip.compress(b"hello", mtime=0),
    "a chunk without size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a chunk of another size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n",
    "a huge chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffffff\r\n",
    "a length in its trailers": WHOLE["chunks"][:-2] + b"Content-Length: 5\r\n\r\n",
    "a folded header": HEAD + b"X-A: a\r\n b\r\n\r\n",
    "a header without name": HEAD + b": a\r\n\r\n",
    "a space before the colon": HEAD + b"Content-Length : 5\r\n\r\n",
    "a bare line feed within a line": HEAD + b"X-A: a\nb\r\n\r\n",
    "a zero byte": HEAD + b"X-A: \0\r\n\r\n",
    "a status below 100": b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "an upgrade without headers": b"HTTP/1.1 101 Switching Protocols\r\n\r\nhello",
    "many headers": HEAD + b"".join(b"X-%d: a\r\n" % number for number in range(MAX_HEADERS + 1)) + b"\r\n",
    "a long header": HEAD + b"X-A: " + MAX_HEAD_BYTES * b"a" + b"\r\n\r\n",
    "a header without end": HEAD + b"X-A: " + MAX_HEAD_BYTES * b"a",
    "many interim responses": MAX_HEAD_BYTES // 25 * b"HTTP/1.1 100 Continue\r\n\r\n" + b" " * 100,
    "long trailers": WHOLE["chunks"][:-2] + b"X-A: " + 2 * MAX_HEAD_BYTES * b"a",
}


@pytest.mark.parametrize("is_split", [False, True])
@pytest.mark.parametrize("name", INVALID)
async def test_response_is_refused_when_it_has(name: str, is_split: bool) -> None:
    line, data = Line(), INVALID[name]
    size = 64 * 1024 if not is_split else 1000 if len(data) > 1000 else 1
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    task = await line.send()
    for piece in pieces:
        line.connection.data_received(piece)
    with pytest.raises(InvalidResponse):
        async with asyncio.timeout(5):
            await read_all(await task)
    assert not line.idle
    assert line.transport.is_aborted


async def test_long_stream_of_small_chunks_is_not_a_long_head() -> None:
    line = Line()
    task = await line.send()
    line.connection.data_received(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    response = await task
    for _ in range(MAX_HEAD_BYTES):
        line.connection.data_received(b"1;name=value\r\na\r\n")
        assert await response.read() == b"a"
    line.connection.data_received(b"0\r\n\r\n")
    assert await response.read() == b""
    assert line.is_kept


async def test_reading_pauses_when_the_reader_is_slow() -> None:
    line = Line()
    task = await line.send()
    line.connection.data_received(HEAD + b"Content-Length: 1000000000\r\n\r\n")
    response = await task
    for _ in range(3):
        fed = 0
        while not line.transport.is_paused:
            line.connection.data_received(1000 * b"x")
            fed += 1000
        assert MAX_UNREAD_BYTES < fed < MAX_UNREAD_BYTES + 2000
        assert len(await response.read()) == fed
        assert not line.transport.is_paused


async def test_connection_reads_again_when_a_response_is_complete_but_not_read() -> None:
    line, size = Line(), 2 * MAX_UNREAD_BYTES
    task = await line.send()
    line.connection.data_received(HEAD + b"Content-Length: %d\r\n\r\n" % size)
    line.connection.data_received(size // 2 * b"x" + b"x")
    assert line.transport.is_paused
    line.connection.data_received((size - size // 2 - 1) * b"x")  # what the loop had read before
    assert line.is_kept
    assert not line.transport.is_paused
    assert await outcome(line, WHOLE["length"]) == (200, b"hello")
    assert len(await read_all(await task)) == size


async def test_request_is_written_as_the_server_reads() -> None:
    line, body = Line(), bytes(range(256)) * (MAX_WRITE_BYTES // 64)
    task = await line.send()
    line.connection.data_received(WHOLE["length"])
    await task
    head, line.transport.written = line.transport.written, b""
    line.connection.pause_writing()
    task = await line.send(body)
    while (written := len(line.transport.written)) < len(body) + len(head):
        assert written <= MAX_WRITE_BYTES + len(head)
        line.connection.resume_writing()  # as loops do: within it, `write` pauses again
        break
    assert line.transport.written == head + body
    line.connection.data_received(WHOLE["length"])
    assert (await task).is_complete
    assert line.is_kept


@pytest.mark.parametrize("unsent", ["by the connection", "by the transport"])
async def test_connection_is_closed_when_the_answer_comes_before_the_whole_request(unsent: str) -> None:
    line = Line()
    if unsent == "by the transport":
        line.transport.unsent = 1
    else:
        line.connection.pause_writing()
    task = await line.send(2 * MAX_WRITE_BYTES * b"x")
    line.connection.data_received(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nhello")
    response = await task
    assert (response.status, await read_all(response)) == (413, b"hello")
    assert not line.idle
    assert line.transport.is_aborted
    written = len(line.transport.written)
    line.connection.resume_writing()
    assert len(line.transport.written) == written


@pytest.mark.parametrize("arrived", [b"", HEAD, INTERIM, HEAD + b"Content-Length: 5\r\n\r\nhel"])
async def test_connection_is_closed_when_its_reader_is_cancelled(arrived: bytes) -> None:
    line = Line()

    async def ask() -> bytes:
        response = await line.connection.send(b"GET / HTTP/1.1\r\n\r\n", b"")
        try:
            return await read_all(response)
        finally:
            response.close()

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    if arrived:
        line.connection.data_received(arrived)
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not line.idle
    assert line.transport.is_aborted


async def test_connection_is_kept_when_its_sender_is_cancelled_after_the_response() -> None:
    """The next request may already have it."""
    line = Line()
    task = await line.send()
    line.connection.data_received(WHOLE["length"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert line.is_kept


async def test_connection_is_kept_when_a_discarded_response_ends_soon() -> None:
    line = Line()
    task = await line.send()
    line.connection.data_received(HEAD + b"Content-Length: 1000000\r\n\r\n" + 200_000 * b"x")
    response = await task
    assert line.transport.is_paused
    response.discard(0.05)
    assert not line.transport.is_paused
    line.connection.data_received(800_000 * b"x")
    assert line.is_kept
    await asyncio.sleep(0.06)
    assert line.is_kept


async def test_connection_is_closed_when_a_discarded_response_does_not_end() -> None:
    line = Line()
    task = await line.send()
    line.connection.data_received(HEAD + b"Content-Length: 5\r\n\r\nhel")
    (await task).discard(0.01)
    assert not line.transport.is_aborted
    await asyncio.sleep(0.02)
    assert line.transport.is_aborted


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/", {"a": "1\r\nb: 2"}),
        ("/", {"a": "1\n"}),
        ("/", {"a": "\r"}),
        ("/", {"a\r\nb": "1"}),
        ("/ HTTP/1.1\r\nHost: other", {}),
        ("/a b", {}),
    ],
)
def test_request_head_refuses_line_breaks_and_spaces(target: str, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must not have line breaks"):
        request_head("GET", target, headers)


def test_request_head_has_the_line_and_headers() -> None:
    head = request_head("POST", "/v1?a=b", {"Host": "h:1", "x": "\u00fc"})
    assert head == b"POST /v1?a=b HTTP/1.1\r\nHost: h:1\r\nx: \xc3\xbc\r\n\r\n"


TOKENS = [
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 100 C\r\n\r\n", b"HTTP/1.1 204 N\r\n", b"\r\n", b"\n"),
    *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Upgrade: h2c\r\n"),
    *(b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"abc", b": ", b"\0", b"\xff", b"ffffffffffffffff\r\n"),
]


@pytest.mark.slow
@given(st.lists(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=5)), max_size=12), st.integers(1, 40))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_request_ends_whatever_the_server_sends(tokens: list[bytes], size: int) -> None:
    data = b"".join(tokens)

    async def run() -> None:
        line = Line()
        task = await line.send()
        for at in range(0, len(data), size):
            if line.transport.is_aborted or line.idle:
                break
            line.connection.data_received(data[at : at + size])
        was_kept = line.is_kept
        if not was_kept:
            line.lose()
        with contextlib.suppress(HttpError):
            async with asyncio.timeout(5):
                body = await read_all(await task)
            assert body in data or b"chunked" in data
        assert was_kept is bool(line.idle)

    asyncio.run(run())


@pytest.mark.slow
def test_fuzz_knows_all_kinds_of_outcomes() -> None:
    """The tokens make whole responses, broken ones and invalid ones."""
    kinds: set[Any] = set()

    async def run(data: bytes) -> None:
        line = Line()
        task = await line.send()
        line.connection.data_received(data)
        line.lose()
        try:
            kinds.add((await read_all(await task)) != b"")
        except HttpError as exc:
            kinds.add(type(exc))

    for tokens in itertools.product(TOKENS[:11], repeat=3):
        asyncio.run(run(b"".join(tokens)))
    assert kinds == {True, False, Disconnected, InvalidResponse}
