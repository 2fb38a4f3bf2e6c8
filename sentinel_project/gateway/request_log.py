"""One line of JSON for each request; never a whole key, never a message's text, never an owner."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import random
import re
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from sentinel_project.gateway import metrics
from sentinel_project.gateway.auth import key_hint
from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.errors import outcome_of
from sentinel_project.gateway.recent import recent
from sentinel_project.gateway.request_id import request_id
from sessions_sticky.identity import Identity
from sessions_sticky.turns import SPILLED

logger = logging.getLogger("sentinel_project.requests")

WRITE_SECONDS = 0.1
"""How long a line waits for others: a record of the log and its write take 20 us, of one line or of many."""

_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_encoder = msgspec.json.Encoder()


@lru_cache(maxsize=4)
def _iso_second(unix_seconds: int) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _ascii_json(lines: list[dict[str, Any]]) -> str:
    """Return lines of JSON in printable ASCII: other characters may break lines, hide text or control a terminal."""
    text = _encoder.encode_lines(lines)[:-1]  # ten times as fast as json.dumps
    if text.isascii() and b"\x7f" not in text:
        return text.decode()
    return "\n".join(json.dumps(line, separators=(",", ":")).replace("\x7f", r"\u007f") for line in lines)


class Writer:
    """Writes lines: at once, or many in one record while `write_forever` runs."""

    def __init__(self) -> None:
        self._waiting: deque[dict[str, Any]] = deque()
        self._is_batching = False

    def put(self, line: dict[str, Any]) -> None:
        """Write a line, perhaps with those that follow."""
        self._waiting.append(line)
        if not self._is_batching:
            self._write()

    async def write_forever(self) -> None:
        """Write what waits every `WRITE_SECONDS`, until cancelled."""
        self._is_batching = True
        try:
            while True:
                await asyncio.sleep(WRITE_SECONDS)
                self._write()
        finally:
            self._is_batching = False
            self._write()

    def _write(self) -> None:
        lines = []
        with suppress(IndexError):  # another thread may take some
            while self._waiting:
                lines.append(self._waiting.popleft())
        if lines:
            logger.info(_ascii_json(lines))


writer = Writer()


class RequestLog:
    """The log line of a request. `request_id` is the client's `X-Request-Id` if valid, else a new one."""

    def __init__(self, headers: dict[str, str]) -> None:
        given = headers.get("x-request-id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
        request_id.set(self.request_id)
        self.fields: dict[str, Any] = {}
        if hint := key_hint(headers):
            self.fields["key"] = hint
        self._route = ("", "")
        self._at = time.time()
        self._started = time.perf_counter()

    def note_request(self, identity: Identity, *, model: str, is_stream: bool) -> None:
        """Add the fields of the request."""
        conversation_id = identity.client_id or identity.session_id
        if conversation_id is not None:
            text = conversation_id.encode(errors="replace")  # a header need not be UTF-8
            if settings.SENTINEL_LOG_HASHED_IDS:
                conversation_id = hmac.digest(settings.SENTINEL_ID_KEY, b"log\0" + text, "sha256").hex()[:16]
            else:
                conversation_id = text.decode()
        self.fields.update(conversation_id=conversation_id, source=identity.source, model=model, stream=is_stream)

    def note_route(self, provider: str, bound: str | None, *, model: str, outcome: str, reason: str | None) -> None:
        """Add the answering provider and the bound one."""
        self.fields.update(outcome=outcome, provider=provider, bound_provider=bound, model=model)
        self._route = (provider, model)
        if outcome == SPILLED and bound is not None:
            metrics.spills.labels(bound, provider, reason or "").inc()
        if reason is not None:
            self.fields["reason"] = reason

    def note_refusal(self, code: str) -> None:
        """Add why a key was refused, and count it."""
        self.fields["refused"] = code
        metrics.key_refusals.labels(code).inc()

    def write(self, status: int) -> None:
        """Write the line, and count the request."""
        if status >= 400 and "model" in self.fields:
            self.fields.setdefault("outcome", outcome_of(status))  # no provider was chosen, or the client left
        metrics.request_count(status, self.fields.get("outcome", "none"), *self._route).inc()
        if "model" in self.fields:
            recent.count(status)
        if logger.isEnabledFor(logging.INFO):
            at = f"{_iso_second(int(self._at))}.{int(self._at % 1 * 1000):03}Z"
            latency_ms = round((time.perf_counter() - self._started) * 1000, 1)
            line = {"at": at, "request_id": self.request_id, "status": status, "latency_ms": latency_ms, **self.fields}
            writer.put(line)
