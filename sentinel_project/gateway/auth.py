"""Whose key is it: API keys, held in memory so that no chat waits for the database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgiref.sync import sync_to_async
from django.db import Error, close_old_connections, connection
from django.db.models import Count, Max

from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.key_usage import KeyUses
from sentinel_project.gateway.models import KEY_PREFIX, ApiKey, digest, hint

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 10
MAX_AGE_SECONDS = 25
"""A revoked key must stop working within 30 s: what is older is not used before it was refreshed."""
DATABASE_SECONDS = 3
"""How long the database may take to answer; after that it is as good as unreachable."""

_writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="key_uses")
"""Apart from reading: a write that waits for another's lock must not keep a revoked key working."""


class KeyRing:
    """The live keys of this process.

    `refresh_forever` keeps them fresh in the background, and writes when they were used. A key that is not known is
    looked up at once, so a new key works immediately. While the database is unreachable the keys known last go on
    working: nobody can revoke one.
    """

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}
        self._version: Any = None
        self._refreshed = float("-inf")
        self._late: asyncio.Future[None] | None = None
        self._uses = KeyUses()

    async def owner(self, key: str) -> str | None:
        """Return the owner of a live key; None for any other. Raises `ApiError` when that cannot be known."""
        name = digest(key)
        if name not in self._owners or time.monotonic() - self._refreshed > MAX_AGE_SECONDS:
            await self.refresh()
        owner = self._owners.get(name)
        if owner is not None:
            self._uses.note(name)
        return owner

    async def refresh(self) -> None:
        """Read the keys again if any has changed. Raises `ApiError` when they could never be read."""
        try:
            await self._read_in_time()
        except (Error, TimeoutError) as exc:
            logger.error("API keys could not be read: %s", type(exc).__name__)
            if self._version is None:
                message = "API keys cannot be checked at the moment"
                raise ApiError(503, message, type="service_unavailable", headers={"Retry-After": "1"}) from exc
        self._refreshed = time.monotonic()

    async def refresh_forever(self) -> None:
        """Keep the keys fresh until cancelled, and write when they were used."""
        try:
            while True:
                with contextlib.suppress(ApiError):  # logged; the chats that need a key say so
                    await self.refresh()
                await self.write_uses()
                await asyncio.sleep(REFRESH_SECONDS)
        finally:
            await self.write_uses()

    async def write_uses(self) -> None:
        """Write to the database when keys were last used; a database that fails is logged, never raised."""
        try:
            await sync_to_async(self._write, thread_sensitive=False, executor=_writer)()
        except Error as exc:
            logger.error("the last use of API keys could not be written: %s", type(exc).__name__)

    async def _read_in_time(self) -> None:
        """Read. Raises `TimeoutError` when that takes too long, and as long as it goes on: no thread can be stopped."""
        if self._late is not None and not self._late.done():
            raise TimeoutError
        reading = asyncio.ensure_future(sync_to_async(self._read)())
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may ask for it any more
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
        # The counts as well: the clock of the host that changes a key may be behind those before it.
        version = ApiKey.objects.aggregate(Count("pk"), Count("revoked_at"), Max("pk"), Max("changed_at"))
        if version != self._version:
            self._owners = dict(ApiKey.objects.filter(revoked_at=None).values_list("digest", "owner"))
            self._version = version


keys = KeyRing()


async def authenticate(headers: Mapping[str, str]) -> str:
    """Return the owner of the key in a request's headers, whose names are in lower case.

    `Authorization` counts if its key is one of ours, else `x-api-key`: Anthropic's clients may send both. Raises
    `ApiError` 401.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    sent = [token.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "").strip()]
    if not any(sent):
        raise _unauthorized("Send your API key as 'Authorization: Bearer KEY' or as 'x-api-key: KEY'")
    for key in filter(None, sent):
        if (owner := await keys.owner(key)) is not None:
            return owner
    raise _unauthorized("The API key is not valid: it does not exist or was revoked")


def key_hint(headers: Mapping[str, str]) -> str | None:
    """Return the public beginning of the key in a request's headers, as the keys page shows it; None for other keys."""
    for sent in (headers.get("authorization", "").rpartition(" ")[2], headers.get("x-api-key", "")):
        if sent.startswith(KEY_PREFIX):
            return hint(sent)
    return None


def _unauthorized(message: str) -> ApiError:
    headers = {"WWW-Authenticate": "Bearer"}
    return ApiError(401, message, type="authentication_error", code="invalid_api_key", headers=headers)
