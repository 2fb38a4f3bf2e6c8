"""API keys and their owners, cached in memory so that no chat waits for the database."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async
from django.db import Error, close_old_connections, connection
from django.db.models import Count, Max, Sum

from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.key_usage import KeyUses
from sentinel_project.gateway.models import KEY_PREFIX, ApiKey, digest, hint

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 2
MAX_AGE_SECONDS = 25
"""A revoked key must stop working within 30 s: older data is refreshed before it is used."""
DATABASE_SECONDS = 3
"""How long the database may take to answer before it counts as unreachable."""
FAILURE_SECONDS = 1
"""How long a failed read is not repeated; also the `Retry-After` of clients."""
READ_INTERVAL_SECONDS = 0.05
"""Minimum time between two reads for unknown keys, of which clients can send any number."""
UNKNOWN_SECONDS = 5
"""How long an unknown key counts as unknown. Keys are random, so none is tried before it is created."""
MAX_UNKNOWN = 10_000
"""Maximum number of remembered unknown keys."""

_writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="key_uses")
"""A separate thread from reading: a write that waits for a lock must not keep a revoked key working."""


class KeyLimits(NamedTuple):
    """The limits of a key; None: no limit."""

    requests: int | None
    tokens: int | None
    in_flight: int | None

    @property
    def items(self) -> list[tuple[str, int]]:
        """The measures that have a limit, and the limits."""
        return [(name, limit) for name, limit in zip(self._fields, self, strict=True) if limit is not None]


class KeyRefused(ApiError):
    """The refusal of a key that exists; its code names the reason."""


class Caller(NamedTuple):
    """The owner of a key that is not revoked; the key's digest, its limits if it has any, and whether it is paused."""

    owner: str
    key: str
    limits: KeyLimits | None = None
    is_paused: bool = False


class KeyRing:
    """The live keys of this process.

    `refresh_forever` keeps them fresh in the background, and writes when they were used. A key that is not known is
    looked up at once, so a new key works immediately; all such look-ups share reads of the database. While the database
    cannot be read, known keys keep working (none can be revoked), and others get 503.
    """

    def __init__(self) -> None:
        self._callers: dict[str, Caller] = {}
        self._unknown: dict[str, float] = {}
        self._version: Any = None
        self._refreshed = self._failed = float("-inf")
        self._refreshing: asyncio.Task[bool] | None = None
        self._late: asyncio.Future[None] | None = None
        self._uses = KeyUses()

    async def caller(self, key: str) -> Caller | None:
        """Return the caller with a live key, None for other keys.

        Raises `KeyRefused` 403 for a paused key, `ApiError` 503 if the key cannot be checked.
        """
        name = digest(key)
        if name not in self._callers:
            await self._look_up(name)
        elif time.monotonic() - self._refreshed > MAX_AGE_SECONDS:
            await self._refresh_after_now()
        caller = self._callers.get(name)
        if caller is None:
            return None
        if caller.is_paused:
            raise KeyRefused(403, "The API key is paused", code="key_paused")
        self._uses.note(name)
        return caller

    async def refresh(self) -> bool:
        """Read the keys again if any has changed; return whether they could be read."""
        try:
            await self._read_in_time()
        except (Error, TimeoutError) as exc:
            logger.error("API keys could not be read: %s", type(exc).__name__)
            self._failed = self._refreshed = time.monotonic()
            return False
        self._refreshed = time.monotonic()
        return True

    async def refresh_forever(self) -> None:
        """Keep the keys fresh until cancelled, and write when they were used."""
        try:
            while True:
                await self.refresh()
                await self.write_uses()
                await asyncio.sleep(REFRESH_SECONDS)
        finally:
            await self.write_uses()

    async def _look_up(self, name: str) -> None:
        """Read the keys for an unknown one. Raises `ApiError` if that fails."""
        if time.monotonic() - self._unknown.get(name, float("-inf")) < UNKNOWN_SECONDS:
            return
        if time.monotonic() - self._failed < FAILURE_SECONDS or not await self._refresh_after_now():
            raise ApiError(503, "API keys cannot be checked", retry_after=FAILURE_SECONDS)
        if name not in self._callers:
            if len(self._unknown) >= MAX_UNKNOWN:
                self._unknown.clear()
            self._unknown[name] = time.monotonic()

    async def _refresh_after_now(self) -> bool:
        """Refresh with a read that starts after this call, shared with other callers; return its success."""
        refreshing = self._refreshing
        if refreshing is not None and not refreshing.done():
            await asyncio.wait([refreshing])  # it may have started before the key was created
        if self._refreshing is None or self._refreshing is refreshing:  # else another caller did
            self._refreshing = asyncio.create_task(self._refresh_in_turn())
        return await asyncio.shield(self._refreshing)

    async def _refresh_in_turn(self) -> bool:
        await asyncio.sleep(self._refreshed + READ_INTERVAL_SECONDS - time.monotonic())
        return await self.refresh()

    async def write_uses(self) -> None:
        """Write the last uses of keys to the database; log a failure, never raise it."""
        try:
            await sync_to_async(self._write, thread_sensitive=False, executor=_writer)()
        except Error as exc:
            logger.error("the last use of API keys could not be written: %s", type(exc).__name__)

    async def _read_in_time(self) -> None:
        """Read the keys. Raises `TimeoutError` after a timeout, and while that read still runs in its thread."""
        if self._late is not None and not self._late.done():
            raise TimeoutError
        reading = asyncio.ensure_future(sync_to_async(self._read)())
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())  # no caller may await it
        if not (await asyncio.wait([reading], timeout=DATABASE_SECONDS))[0]:
            self._late = reading
            raise TimeoutError
        reading.result()

    def _write(self) -> None:
        try:
            self._uses.write()
        finally:
            connection.close()  # it is needed once a minute

    def _read(self) -> None:
        close_old_connections()
        # Compare counts too: the clock of the host that changes a key may be behind.
        counts = [Count(name) for name in ("pk", "revoked_at", "paused_at", *ApiKey.LIMITS)]
        sums = [Sum(name) for name in ApiKey.LIMITS]
        version = ApiKey.objects.aggregate(*counts, *sums, Max("pk"), Max("changed_at"))
        if version != self._version:
            live = ApiKey.objects.filter(revoked_at=None)
            self._callers = {
                key: Caller(owner, key, KeyLimits(*limits) if any(limits) else None, paused_at is not None)
                for owner, key, paused_at, *limits in live.values_list("owner", "digest", "paused_at", *ApiKey.LIMITS)
            }
            self._version = version


keys = KeyRing()


async def authenticate(headers: Mapping[str, str]) -> Caller:
    """Return the caller with the key in a request's headers, whose names are in lower case.

    `Authorization` is used if it has a key of ours, else `x-api-key`: Anthropic's clients may send both. Raises
    `ApiError` 401, 403 or 503.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    sent = [token.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "").strip()]
    if not any(sent):
        raise _unauthorized("Send your API key as 'Authorization: Bearer KEY' or as 'x-api-key: KEY'")
    for key in filter(None, sent):
        if (caller := await keys.caller(key)) is not None:
            return caller
    raise _unauthorized("The API key is not valid: it does not exist or was revoked")


def key_hint(headers: Mapping[str, str]) -> str | None:
    """Return the public prefix of the key in a request's headers, as the keys page shows it; None for other keys."""
    for sent in (headers.get("authorization", "").rpartition(" ")[2], headers.get("x-api-key", "")):
        if sent.startswith(KEY_PREFIX):
            return hint(sent)
    return None


def _unauthorized(message: str) -> ApiError:
    headers = {"WWW-Authenticate": "Bearer"}
    return ApiError(401, message, code="invalid_api_key", headers=headers)
