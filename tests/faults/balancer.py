"""A load balancer over workers that come and go, and what became of each request that went through it."""

from __future__ import annotations

import time
from collections import Counter
from random import Random
from typing import Any, NamedTuple

import aiohttp

from tests.gateway.asgi import CHAT, chat
from tests.gateway.workers import Worker

LIMIT_SECONDS = 20.0
MOVED_AWAY = "provider not configured for the model"


class Reply(NamedTuple):
    """The reply that a client got. `status` is 0 if it is missing or incomplete."""

    status: int
    outcome: str
    provider: str
    reason: str
    text: str


class Slot:
    """A worker, the connections to it, and what it knows.

    `is_killed`: with `kill -9`, after which clients notice the end of their connections when they can. `known` are the
    conversations that it has found in the store.
    """

    def __init__(self, worker: Worker, key: str) -> None:
        self.worker = worker
        self.is_killed = False
        self.known: set[str] = set()
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=LIMIT_SECONDS),
            headers={"Authorization": f"Bearer {key}"},
        )


class Balancer:
    """Sends each request to one of the workers; one that takes no connection is passed over, as proxies do.

    `unexplained` lists what must not be: requests that failed and conversations that moved for no reason. `broken_at`
    are the times at which a provider was killed, which breaks its streams.
    """

    def __init__(self, random: Random) -> None:
        self.slots: list[Slot] = []
        self.broken_at: list[float] = []
        self.unexplained: list[str] = []
        self.counts: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self._random = random
        self._bound: dict[str, str] = {}
        self._unsure: set[str] = set()

    async def ask(self, conversation_id: str, slot: Slot | None = None, **fields: Any) -> str:
        """Send a request of a conversation, to any worker or a certain one; judge the answer, return its outcome."""
        slots = [slot] if slot else self._random.sample(self.slots, len(self.slots))
        for each in slots:
            began = time.monotonic()
            try:
                reply = await self._send(each, conversation_id, fields)
            except aiohttp.ClientConnectorError:
                self.counts["passed over"] += 1
                continue
            except (aiohttp.ClientError, TimeoutError) as exc:
                reply = Reply(0, "", "", "", repr(exc))
            self._judge(conversation_id, reply, each, began)
            return reply.outcome
        self.unexplained.append(f"{conversation_id}: no worker takes connections")
        return ""

    async def _send(self, slot: Slot, conversation_id: str, fields: dict[str, Any]) -> Reply:
        body = chat(conversation_id=conversation_id, **fields)
        async with slot.http.post(f"{slot.worker.url}{CHAT}", json=body) as answer:
            session_headers = [
                answer.headers.get(f"X-Session-{name}", "") for name in ("Outcome", "Provider", "Reason")
            ]
            return Reply(answer.status, *session_headers, await answer.text())

    def _judge(self, conversation_id: str, reply: Reply, slot: Slot, began: float) -> None:
        self.counts["requests"] += 1
        if reply.status == 0 and slot.is_killed:
            self.counts["broken by kill -9 of their worker"] += 1
            self._unsure.add(conversation_id)
        elif reply.status != 200:
            self.unexplained.append(f"{conversation_id}: {reply}")
        else:
            self.outcomes[reply.outcome] += 1
            if '"error"' in reply.text:
                self._judge_error(conversation_id, reply, began)
            self._judge_move(conversation_id, reply, slot)

    def _judge_error(self, conversation_id: str, reply: Reply, began: float) -> None:
        if "upstream_unreachable" in reply.text and any(at >= began for at in self.broken_at):
            self.counts["streams broken with their provider"] += 1
        else:
            self.unexplained.append(f"{conversation_id}: {reply}")

    def _judge_move(self, conversation_id: str, reply: Reply, slot: Slot) -> None:
        before = self._bound.setdefault(conversation_id, reply.provider)
        if reply.outcome == "spilled":
            return
        if reply.outcome == "degraded" and reply.provider != before and conversation_id not in slot.known:
            # The store did not answer in time, and the worker is too new to know better, or has not met the
            # conversation since another one moved it. It stays bound as it was.
            self.counts["served elsewhere by a new worker without the store"] += 1
            return
        if reply.outcome != "degraded":
            slot.known.add(conversation_id)
        if reply.outcome == "rebound" and reply.reason == MOVED_AWAY:
            self.counts["rebound, with the reason"] += 1
            self._forget(conversation_id, slot)
        elif reply.provider != before and conversation_id in self._unsure:
            self.counts["rebound, the answer broken"] += 1
            self._forget(conversation_id, slot)
        elif reply.provider != before:
            self.unexplained.append(f"{conversation_id}: was at {before}, {reply}")
        self._unsure.discard(conversation_id)
        self._bound[conversation_id] = reply.provider

    def _forget(self, conversation_id: str, mover: Slot) -> None:
        for slot in self.slots:
            if slot is not mover:
                slot.known.discard(conversation_id)
