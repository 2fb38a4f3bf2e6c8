"""Values that all workers share, in Django's cache. Errors are those of its backend, and differ between backends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from django.core.cache import DEFAULT_CACHE_ALIAS, caches

T = TypeVar("T")

_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="shared_cache")
"""For coroutines: asgiref's thread may wait for the database, and asyncio's few for other calls that block."""


def cache() -> Any:
    """Return the cache."""
    return caches[DEFAULT_CACHE_ALIAS]


async def in_thread(call: Callable[..., T], *arguments: object) -> T:
    """Call a function that uses the cache, which blocks."""
    return await asyncio.get_running_loop().run_in_executor(_threads, call, *arguments)


def read(key: str, kind: type[T]) -> T | None:
    """Return a value; None if there is none, or what another program has written there."""
    try:
        value = cache().get(key)
        return None if value is None else msgspec.convert(value, kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    except Exception as exc:
        if "WRONGTYPE" in f"{exc} {exc.__cause__}":
            return None
        raise


def read_many(keys: Collection[str], kind: type[T]) -> dict[str, T]:
    """Return the values of those keys that `read` returns one for."""
    with suppress(msgspec.MsgspecError, UnicodeError, RecursionError):  # one of the values
        keys = cache().get_many(keys)  # those that exist
    return {key: value for key in keys if (value := read(key, kind)) is not None}


def write(key: str, value: object, seconds: int | None) -> None:
    """Set a value, for so many seconds; None: without an expiry."""
    cache().set(key, msgspec.to_builtins(value), seconds)
