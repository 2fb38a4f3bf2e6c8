"""Connections to providers, kept open between requests."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import defaultdict
from collections.abc import Callable
from functools import cache, partial
from typing import Any
from weakref import WeakSet

import aiodns
from aiohappyeyeballs import AddrInfoType, start_connection

from sentinel_project.gateway.providers.address import Origin
from sentinel_project.gateway.upstream.alarm import Alarm
from sentinel_project.gateway.upstream.connection import Connection
from sentinel_project.gateway.upstream.response import HttpError, Response

CONNECT_SECONDS = 5.0
"""How long the lookup of a name, the connection and TLS's handshake may take together."""
NEXT_ADDRESS_SECONDS = 0.25
"""When the next address of a name is tried too (RFC 8305)."""
LOOKUP_SECONDS = 10.0
"""How long the addresses of a name are used."""
IDLE_SECONDS = 15.0
"""How long a connection is kept without a request."""
KEEPALIVE = {"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}
"""Options of sockets: a router forgets a connection without traffic, and a model may think for minutes. It also ends
requests to a machine that is gone, after 70 s."""
CLOSING_SECONDS = 2.0
"""How soon a kept connection breaks if the provider was closing it; a later break is a failure."""


class NotConnected(HttpError):
    """The request was not sent."""


class InvalidUrl(NotConnected):
    """The provider's URL has no valid host."""


class ConnectTimeout(NotConnected):
    """No connection within `CONNECT_SECONDS`."""


class NameNotFound(NotConnected):
    """The name has no address."""


class CertificateError(NotConnected):
    """The server's certificate is not valid for the name, or not trusted."""


class TlsError(NotConnected):
    """The server does not speak TLS as the gateway does."""


class ConnectFailed(NotConnected):
    """No address of the name takes connections."""


class Pool:
    """The connections of an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.alarms: list[Alarm] = []
        """Those that no request uses now: each keeps its timer for the next one."""
        self._loop = loop
        self._connections: WeakSet[Connection] = WeakSet()
        self._idle: dict[Origin, list[Connection]] = defaultdict(list)
        self._lookups: dict[Origin, asyncio.Task[list[AddrInfoType]]] = {}
        self._resolver: aiodns.DNSResolver | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def request(self, origin: Origin, head: bytes, body: bytes, *, may_repeat: bool) -> Response:
        """Send a request; return its response when the headers are there. Raises `HttpError`.

        A request that `may_repeat` takes a kept connection. If that breaks before any answer, it is sent once more on a
        new one: the provider may close a kept connection at any time, and one that stops closes all. Others send stray
        bytes behind their former response.
        """
        kept = self._take(origin) if may_repeat else None
        if kept is not None:
            sent = self._loop.time()
            try:
                return await kept.send(head, body)
            except HttpError:
                if kept.has_answered or self._loop.time() - sent > CLOSING_SECONDS:
                    raise
        connection = await self._connect(origin, partial(self._keep, origin) if may_repeat else Connection.close)
        return await connection.send(head, body)

    async def close(self) -> None:
        """Close all connections, also those with a request."""
        for connection in self._connections:
            connection.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._resolver is not None:
            await self._resolver.close()
        for alarm in self.alarms:
            alarm.cancel()
        await asyncio.sleep(0)  # the loop closes sockets in its next round

    def _take(self, origin: Origin) -> Connection | None:
        """Return the connection that was used last, so that those beyond the need become old."""
        connections, since = self._idle[origin], self._loop.time() - IDLE_SECONDS
        while connections:
            connection = connections.pop()
            if not connection.is_closed and connection.idle_since >= since:
                return connection
            connection.close()
        return None

    def _keep(self, origin: Origin, connection: Connection) -> None:
        connection.idle_since = self._loop.time()
        self._idle[origin].append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(IDLE_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close old connections, and forget closed ones."""
        self._sweeper, since = None, self._loop.time() - IDLE_SECONDS
        for origin, connections in list(self._idle.items()):
            self._idle[origin] = []
            for each in connections:
                if each.is_closed or each.idle_since <= since:
                    each.close()
                else:
                    self._idle[origin].append(each)
            if not self._idle[origin]:
                del self._idle[origin]
        if self._idle:
            self._sweeper = self._loop.call_later(IDLE_SECONDS, self._sweep)

    async def _connect(self, origin: Origin, on_idle: Callable[[Connection], None]) -> Connection:
        tls: dict[str, Any] = {}
        if origin.is_tls:
            tls = {"ssl": _tls_context(), "server_hostname": origin.host.rstrip(".")}  # as certificates have names
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                addresses = await self._addresses(origin)
                opened = await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1)
                _keep_alive(opened)
                _, connection = await self._loop.create_connection(partial(Connection, on_idle), sock=opened, **tls)
        except TimeoutError as exc:
            raise ConnectTimeout from exc
        except (aiodns.error.DNSError, UnicodeError) as exc:
            raise NameNotFound from exc
        except ssl.CertificateError as exc:
            raise CertificateError from exc
        except ssl.SSLError as exc:
            raise TlsError from exc
        except OSError as exc:
            raise ConnectFailed from exc
        self._connections.add(connection)
        return connection

    async def _addresses(self, origin: Origin) -> list[AddrInfoType]:
        if origin not in self._lookups:
            self._lookups[origin] = task = self._loop.create_task(self._look_up(origin))
            task.add_done_callback(partial(self._on_lookup, origin))
        return await asyncio.shield(self._lookups[origin])

    async def _look_up(self, origin: Origin) -> list[AddrInfoType]:
        """Return the addresses of a name, without a thread that would wait for DNS."""
        self._resolver = self._resolver or aiodns.DNSResolver(loop=self._loop)
        found = await self._resolver.getaddrinfo(origin.host, port=origin.port, type=socket.SOCK_STREAM)
        return [
            (each.family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (each.addr[0].decode(), *each.addr[1:]))
            for each in found.nodes
        ]

    def _on_lookup(self, origin: Origin, task: asyncio.Task[list[AddrInfoType]]) -> None:
        if task.cancelled() or task.exception() is not None:
            del self._lookups[origin]
        else:
            self._loop.call_later(LOOKUP_SECONDS, self._lookups.pop, origin, None)


def _keep_alive(opened: socket.socket) -> None:
    for name, value in KEEPALIVE.items():
        if (option := getattr(socket, name, None)) is not None:  # each system has some of them
            level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
            opened.setsockopt(level, option, value)


@cache
def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
