"""How many events of streams one worker relays in a second, and how late they are: `python bench/events.py`.

Everything runs on this machine and shares its cores: the provider, Redis, the gateway, and the client, this process.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import uvloop  # noqa: E402

from bench.gateway import BODY, gateway_environment, gateway_served, make_key  # noqa: E402
from tests.servers import free_port, start_server  # noqa: E402

STREAMS, SECONDS, RATES = 200, 5, (5_000, 10_000, 15_000, 20_000, 25_000)
SENT_AT = re.compile(rb'"content":"([0-9.]+)"')


class _Provider(asyncio.Protocol):
    """Streams events that hold the time when they were sent, as often as the path says: `/200.0/chat/completions`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if found := re.match(rb"POST /([0-9.]+)/", data):
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            self.transport.write(head)
            self.streaming = asyncio.ensure_future(self.stream(float(found[1])))

    async def stream(self, rate: float) -> None:
        due, end = time.monotonic(), time.monotonic() + SECONDS
        while due < end:
            self.send(b'{"choices":[{"index":0,"delta":{"content":"%.6f"},"finish_reason":null}]}' % time.monotonic())
            due += 1 / rate
            await asyncio.sleep(due - time.monotonic())
        self.send(b"[DONE]")
        self.transport.write(b"0\r\n\r\n")

    def send(self, data: bytes) -> None:
        event = b"data: %b\n\n" % data
        self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))


class _Client(asyncio.Protocol):
    """Asks for a stream, and notes how late its events are."""

    def __init__(self, key: str, number: int, delays: list[float]) -> None:
        self.delays, self.ended = delays, asyncio.get_running_loop().create_future()
        body = f'{BODY},"stream":true,"conversation_id":"e-{number}"}}'.encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        self.request = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self.delays += [now - float(sent_at) for sent_at in SENT_AT.findall(data)]
        if data.endswith(b"0\r\n\r\n") and not self.ended.done():
            self.ended.set_result(None)


def main() -> None:
    """Measure and print."""
    provider = free_port()
    with (
        tempfile.TemporaryDirectory() as folder,
        start_server(tcp=True) as store,
        _provider_served(provider),
    ):
        print(f"{STREAMS} streams, {SECONDS} s each\n events/s sent  relayed  delay 50%      99%")
        for rate in RATES:
            upstream = f"http://127.0.0.1:{provider}/{rate / STREAMS}"
            environment = gateway_environment(Path(folder), store.url, upstream)
            key = make_key(environment)
            with gateway_served(environment, 1) as url:
                delays, seconds = uvloop.run(_stream_all(int(url.split(":")[2].split("/")[0]), key))
            late = sorted(delays)
            middle, last = late[len(late) // 2] * 1e3, late[int(len(late) * 0.99)] * 1e3
            print(f"{rate:14,} {len(late) / seconds:8,.0f} {middle:7.1f} ms {last:5.1f} ms", flush=True)


async def _stream_all(port: int, key: str) -> tuple[list[float], float]:
    """Return how late each event was, and how long all took together."""
    loop, delays = asyncio.get_running_loop(), list[float]()
    clients = []
    started = time.monotonic()
    for number in range(STREAMS):
        _, client = await loop.create_connection(lambda: _Client(key, number, delays), "127.0.0.1", port)  # noqa: B023
        clients.append(client)
    await asyncio.gather(*(client.ended for client in clients))
    return delays, time.monotonic() - started


@contextmanager
def _provider_served(port: int) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, __file__, str(port)])
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


async def _provide(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Provider, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        uvloop.run(_provide(int(sys.argv[1])))
    else:
        main()
