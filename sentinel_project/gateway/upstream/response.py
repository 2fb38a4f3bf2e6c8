"""A provider's response as it arrives: what its connection adds, its reader takes."""

from __future__ import annotations

import asyncio
from typing import Protocol

MAX_UNREAD_BYTES = 128 * 1024
"""How much of a response waits for its reader; beyond it, reading pauses."""


class HttpError(Exception):
    """A request got no whole response. Operators see the class's name."""


class Disconnected(HttpError):
    """The server closed the connection before the end of its response."""


class InvalidResponse(HttpError):
    """What the server sent is not an HTTP/1.1 response, or exceeds a limit."""


class Source(Protocol):
    """The connection that a response comes from."""

    def pause_reading(self, pause: bool) -> None:
        """Pause or resume reading."""

    def close(self) -> None:
        """Close the connection at once."""


class Response:
    """A response as it arrives. Names of headers are in lower case; of repeated ones the first counts."""

    def __init__(self, connection: Source) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_complete = False
        self._connection = connection
        self._chunks: list[bytes] = []
        self._unread = 0
        self._give_up: asyncio.TimerHandle | None = None
        """Closes the connection, if the rest of the body, which is dropped, does not end before."""
        self._error: HttpError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """Return what has arrived of the body, after a wait if that is nothing; b"" at its end. Raises `HttpError`."""
        while not self._chunks and not self.is_complete:
            await self.wait()
        body = b"".join(self._chunks)
        self._chunks.clear()
        self._unread = 0
        if not self.is_complete:
            self._connection.pause_reading(False)
        return body

    def close(self) -> None:
        """Close the connection, unless the response is complete."""
        if not self.is_complete:
            self._connection.close()

    def discard(self, seconds: float) -> None:
        """Drop the rest of the body; close the connection unless the response ends within some seconds."""
        if not self.is_complete:
            self._connection.pause_reading(False)
            self._give_up = asyncio.get_running_loop().call_later(seconds, self.close)

    def wait(self) -> asyncio.Future[None]:
        """Return what to await for more of the response; raises `HttpError` if none will come."""
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def wake(self) -> None:
        """End the wait; the connection calls it when something has arrived, and at the end."""
        if self._give_up is not None and (self.is_complete or self._error):
            self._give_up.cancel()  # it would keep the response
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def feed(self, data: bytes) -> None:
        """Add a part of the body."""
        if self._give_up is not None:
            return
        self._chunks.append(data)
        self._unread += len(data)
        if self._unread > MAX_UNREAD_BYTES:
            self._connection.pause_reading(True)

    def fail(self, error: HttpError) -> None:
        """Set the error that is raised after what has arrived, unless that is all."""
        if not self.is_complete:
            self._error = error
        self.wake()
