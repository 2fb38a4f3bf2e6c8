"""Clients that put load on workers: bounded in number and in time, loopback only."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import aiohttp

from tests.gateway.asgi import CHAT, chat
from tests.waiting import SECONDS

logger = logging.getLogger(__name__)

IN_FLIGHT = 32


class Reply(NamedTuple):
    """The reply that a client got. `status` is 0 if the connection failed."""

    conversation_id: str
    status: int
    outcome: str
    provider: str
    model: str
    reason: str
    seconds: float
    text: str

    @property
    def binding(self) -> tuple[str, str]:
        return self.provider, self.model


class Clients:
    """The clients of some workers, with one key; an asynchronous context manager."""

    def __init__(self, urls: Sequence[str], key: str) -> None:
        self._urls = urls
        self._headers = {"Authorization": f"Bearer {key}"}

    async def __aenter__(self) -> Clients:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=SECONDS),
            headers=self._headers,
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._http.close()

    async def ask(self, conversation_id: str, worker: int = 0, model: str = "model-a", **fields: Any) -> Reply:
        """Send one request to one worker."""
        began = time.monotonic()
        body = chat(model, conversation_id=conversation_id, **fields)
        try:
            async with self._http.post(f"{self._urls[worker]}{CHAT}", json=body) as answer:
                text = await answer.text()
                names = ("Outcome", "Provider", "Model", "Reason")
                session_headers = [answer.headers.get(f"X-Session-{name}", "") for name in names]
                return Reply(conversation_id, answer.status, *session_headers, time.monotonic() - began, text)
        except (aiohttp.ClientError, TimeoutError) as exc:
            return Reply(conversation_id, 0, "", "", "", "", time.monotonic() - began, repr(exc))

    async def visit(self, ids: Iterable[str], *workers: int, **fields: Any) -> list[Reply]:
        """Send one request of each conversation to each of some workers (by default all), a few at once."""
        gate = asyncio.Semaphore(IN_FLIGHT)

        async def ask(conversation_id: str, worker: int) -> Reply:
            async with gate:
                return await self.ask(conversation_id, worker, **fields)

        asked = [(each, worker) for each in ids for worker in workers or range(len(self._urls))]
        return await asyncio.gather(*(ask(*each) for each in asked))

    async def load(
        self, ids: Sequence[str], *, seconds: float, rate: int = 200, one_at_a_time: bool = False, **fields: Any
    ) -> list[Reply]:
        """Send `rate` requests a second, whatever becomes of them; conversations and workers take turns.

        With `one_at_a_time` a conversation waits for its answer before its next request, as people do.
        """
        began, tasks = time.monotonic(), []
        answered = {each: asyncio.Lock() for each in ids} if one_at_a_time else {}

        async def ask(conversation_id: str, worker: int) -> Reply:
            async with answered.get(conversation_id, nullcontext()):
                return await self.ask(conversation_id, worker, **fields)

        for number in range(round(seconds * rate)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            turn, at = divmod(number, len(ids))
            tasks.append(asyncio.create_task(ask(ids[at], (turn + at) % len(self._urls))))
        return list(await asyncio.gather(*tasks))


def bindings(replies: Iterable[Reply]) -> dict[str, tuple[str, str]]:
    """Return provider and model of each conversation; every reply was a success, and all of them agree."""
    found: dict[str, tuple[str, str]] = {}
    for reply in replies:
        assert reply.status == 200, reply
        assert found.setdefault(reply.conversation_id, reply.binding) == reply.binding, reply
    return found


def moved(replies: Iterable[Reply], expected: dict[str, tuple[str, str]]) -> list[Reply]:
    """Return the successes that came from another provider or model than expected."""
    return [reply for reply in replies if reply.status == 200 and reply.binding != expected[reply.conversation_id]]


def failed(replies: Iterable[Reply]) -> list[Reply]:
    """Return what was no success."""
    return [reply for reply in replies if reply.status != 200]


def tell(title: str, replies: Sequence[Reply]) -> None:
    """Log the figures: `pytest --log-cli-level=INFO` shows them."""
    times = sorted(reply.seconds * 1000 for reply in replies)
    logger.info(
        "%s: %d requests, %d failed, outcomes %s; ms: median %.1f, 99 %% %.0f, worst %.0f",
        *(title, len(replies), len(failed(replies)), dict(Counter(reply.outcome for reply in replies))),
        *(times[len(times) // 2], times[len(times) * 99 // 100], times[-1]),
    )
