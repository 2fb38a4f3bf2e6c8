"""Upstream objects: which provider has a stored response, a conversation or a compacted history.

Each exists at one provider, or with one account, only. What the gateway has seen being made is kept in Redis, through
Django's cache.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from sentinel_project.gateway import shared_cache
from sentinel_project.gateway.apis import events
from sentinel_project.gateway.apis.base import Api, ApiRequest, Reference
from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.errors import ApiError
from sentinel_project.gateway.providers.current import providers
from sentinel_project.gateway.routing.dispatch import Served
from sentinel_project.gateway.routing.plan import Plan
from sessions_sticky import InvalidConversationId, keys
from sessions_sticky.identity import Identity, continued, identify

logger = logging.getLogger(__name__)

STORE_SECONDS = 0.5
"""How long a request waits for the store; the cache's timeouts are shorter."""
REMEMBERED = 4096
"""How many objects a process remembers, in case the store loses them or is down; about 300 bytes each."""

_remembered: OrderedDict[str, StoredObject] = OrderedDict()
_writing: set[asyncio.Task[None]] = set()


class StoredObject(msgspec.Struct, frozen=True):
    """What is kept of an object: the provider that has it, the owner it was made for, and the conversation.

    `conversation` is the `ranking_id` of the request that made it; None when that had none, or only its content's.
    """

    provider: str
    owner: str
    conversation: str | None = None


class Placement(NamedTuple):
    """The providers of the objects that a request refers to.

    `providers` None: not known, so that no other than the first provider may be asked.
    """

    providers: frozenset[str] | None
    continues: tuple[Reference, StoredObject | None] | None
    """The object whose conversation the request continues."""


async def locate(references: Sequence[Reference], owner: str) -> Placement:
    """Return where the objects of a request are.

    Raises the reference's `not_found` for an object of another owner, and `ApiError` 503 while the store cannot say.
    """
    placed: frozenset[str] | None = None
    continues = None
    found = await asyncio.gather(*map(_read_reference, references))
    for reference, stored in zip(references, found, strict=True):
        if stored is not None and not reference.is_account_wide and stored.owner != owner:
            raise reference.not_found
        if continues is None and reference.continues:
            continues = reference, stored
        if stored is not None and placed is None:
            placed = _places(stored.provider, is_account_wide=reference.is_account_wide)
    return Placement(placed, continues)


def identity_of(placement: Placement, own: Identity, *, owner: str, model: str, api: Api) -> Identity:
    """Return the conversation of a request: that of the object it continues, unless the request names one.

    An object without a known conversation is one itself, unless the request has an id of its own.
    """
    if placement.continues is None or own.pins_model:
        return own
    reference, stored = placement.continues
    if stored is not None and stored.conversation is not None:
        return continued(stored.conversation, source=reference.source, model=model)
    if own.source not in ("content", "none"):
        return own
    body = {reference.source.partition(".")[2]: reference.id}
    key, sources = settings.SENTINEL_ID_KEY, (reference.source,)
    return identify({}, body, owner=owner, model=model, api=api, key=key, named=(), sources=sources)


async def _read_reference(reference: Reference) -> StoredObject | None:
    try:
        return await read(reference.id) if reference.is_kept else None
    except ApiError:
        if reference.is_account_wide:  # the provider that the conversation is bound to can probably read it
            return None
        raise


async def read(object_id: str) -> StoredObject | None:
    """Return the record of an object, None if there is none. Raises `ApiError` 503 if the store is unavailable."""
    try:
        keys.check(object_id)
    except InvalidConversationId:
        return None
    try:
        async with asyncio.timeout(STORE_SECONDS):
            stored = await shared_cache.in_thread(_read, object_id)
    except Exception as exc:  # cache backends raise different errors
        if object_id in _remembered:
            return _remembered[object_id]
        logger.warning("upstream object %r cannot be looked up: %s", object_id, type(exc).__name__)
        message = f"The provider of {object_id!r} cannot be looked up now"
        raise ApiError(503, message, code="store_unavailable", retry_after=1) from exc
    if stored is not None:
        _remember(object_id, stored)
    elif (stored := _remembered.get(object_id)) is not None:  # the store has lost it: no record is ever deleted
        await write([object_id], stored)
    return stored


async def write(object_ids: Iterable[str], stored: StoredObject) -> None:
    """Record the provider of objects; waits only briefly for the store."""
    tasks = []
    for object_id in object_ids:
        _remember(object_id, stored)
        task = asyncio.create_task(_write_logged(object_id, stored))
        _writing.add(task)
        task.add_done_callback(_writing.discard)
        tasks.append(task)
    if tasks:
        await asyncio.wait(tasks, timeout=STORE_SECONDS)


async def keep_made(request: ApiRequest, plan: Plan, served: Served) -> Served:
    """Record the objects that an answer creates, before their bytes are sent to the client."""
    conversation = None if plan.identity.source == "content" else plan.identity.ranking_id
    stored = StoredObject(served.provider.name, plan.owner, conversation)
    body = served.answer.body
    if isinstance(body, bytes):
        await write(request.api.made(request.body, body), stored)
        return served
    chunks = _keep_made_in_stream(request, stored, body)
    return served._replace(answer=served.answer._replace(body=chunks))


async def _keep_made_in_stream(
    request: ApiRequest, stored: StoredObject, chunks: AsyncGenerator[bytes]
) -> AsyncGenerator[bytes]:
    known: set[str] = set()
    async with aclosing(chunks):
        async for chunk in chunks:
            made = [each for event in events.split(chunk) for each in request.api.made(request.body, event)]
            if new := dict.fromkeys(each for each in made if each not in known):
                known.update(new)
                await write(new, stored)
            yield chunk


def _places(name: str, *, is_account_wide: bool) -> frozenset[str] | None:
    """Return the providers that share an object with the given one; None if it is no longer configured."""
    account = next((provider.account or name for provider in providers() if provider.name == name), None)
    if account is None:
        return None
    if not is_account_wide:
        return frozenset({name})
    return frozenset(provider.name for provider in providers() if (provider.account or provider.name) == account)


def _remember(object_id: str, stored: StoredObject) -> None:
    _remembered[object_id] = stored
    _remembered.move_to_end(object_id)
    if len(_remembered) > REMEMBERED:
        _remembered.popitem(last=False)


async def _write_logged(object_id: str, stored: StoredObject) -> None:
    try:
        async with asyncio.timeout(STORE_SECONDS):
            await shared_cache.in_thread(_write, object_id, stored)
    except Exception as exc:  # cache backends raise different errors
        logger.warning("upstream object %r of %r was not stored: %s", object_id, stored.provider, type(exc).__name__)


def _read(object_id: str) -> StoredObject | None:
    stored = shared_cache.read(_key(object_id), StoredObject)
    if stored is not None:  # a conversation may be in use for years
        shared_cache.cache().touch(_key(object_id), settings.SENTINEL_OBJECT_TTL_SECONDS)
    return stored


def _write(object_id: str, stored: StoredObject) -> None:
    shared_cache.write(_key(object_id), stored, settings.SENTINEL_OBJECT_TTL_SECONDS)


def _key(object_id: str) -> str:
    return keys.prefixed(f"object:{object_id}")
