"""Time limits of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sentinel_project.lazy_timer import LazyTimer

HEAD_SECONDS = 10
"""How long a request's headers may take to arrive, also the first ones; nginx's default is 60."""
LINGER_SECONDS = 2
"""How long a refused client may keep sending: closing at once would reset the connection and lose the answer."""
PROBE_SECONDS = 0.1
"""When to check first that a client which sends no more still reads; then after twice, four times as long and so on."""
STUCK_SECONDS = 60
"""How long a client may leave its answer unread; nginx's `send_timeout` is the same."""


class Timer(LazyTimer):
    """A time limit that can be reset."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        super().__init__(loop)
        self._callback = callback
        self._seconds = 0.0

    @property
    def is_running(self) -> bool:
        """Whether a limit is set."""
        return self._until is not None

    def start(self, seconds: float) -> None:
        """Call back in `seconds`, instead of any earlier limit."""
        self._seconds = seconds
        self.start_at(self._loop.time() + seconds)

    def start_doubled(self) -> None:
        """Call back in twice the time of the last limit."""
        self.start(2 * self._seconds)

    def expire(self) -> None:
        """Call back."""
        self._callback()


class Delivery:
    """Aborts a connection whose client leaves its answer unread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = Timer(loop, self._check)
        self._transport: asyncio.Transport | None = None
        self._unread = 0

    def watch(self, transport: asyncio.Transport) -> None:
        """Abort unless the unread answer shrinks every `STUCK_SECONDS`."""
        self._transport, self._unread = transport, transport.get_write_buffer_size()
        self._timer.start(STUCK_SECONDS)

    def cancel(self) -> None:
        """Stop watching."""
        self._timer.cancel()

    def _check(self) -> None:
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size() < self._unread:
            self.watch(self._transport)
        else:
            self._transport.abort()
