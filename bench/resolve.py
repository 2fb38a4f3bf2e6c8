"""What `resolve` costs beside the same work done otherwise, all in one run, as ratios.

    python bench/resolve.py                     # on a Valkey of its own
    python bench/resolve.py redis://host:6379/9 # on a server of yours; writes keys sentinel:session:bench-*

Each figure is the median of several rounds in which the contenders take turns, so that a machine that changes its speed
changes it for all.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

ROUNDS, CALLS, IN_FLIGHT = 9, 4000, 50
TTL_SECONDS = 86_400
BINDING = {"provider": "openai", "model": "gpt-4", "owner": "user-456"}


def main(url: str) -> None:
    """Measure and print."""
    import django
    from django.conf import settings

    from sessions_sticky import cache_config

    settings.configure(
        CACHES={"default": cache_config(url), "memory": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
        SESSION_TTL_SECONDS=TTL_SECONDS,
        INSTALLED_APPS=["sessions_sticky"],
    )
    django.setup()
    print(f"Python {sys.version.split()[0]}, Django {django.__version__}, {ROUNDS} rounds of {CALLS} calls, medians")
    _print("blocking", _blocking())
    _print("async, one in flight", asyncio.run(_async(1)))
    _print(f"async, {IN_FLIGHT} in flight", asyncio.run(_async(IN_FLIGHT)))


def _blocking() -> dict[str, float]:
    from django.core.cache import cache

    from sessions_sticky import keys, sessions

    sessions.create("bench-1", **BINDING, replace=True)
    key, client = keys.session("bench-1"), cache.client.get_client(write=True)

    def get_and_touch() -> None:
        cache.get(key)
        cache.touch(key, TTL_SECONDS)

    contenders: dict[str, Callable[[], Any]] = {
        "resolve (hit)": lambda: sessions.resolve("bench-1", **BINDING),
        "raw redis-py GETEX": lambda: client.execute_command("GETEX", key, "EX", TTL_SECONDS),
        "django-redis get + touch": get_and_touch,
    }

    def run(call: Callable[[], Any]) -> float:
        started = time.perf_counter()
        for _ in range(CALLS):
            call()
        return time.perf_counter() - started

    rounds = {name: [] for name in contenders}  # type: dict[str, list[float]]
    for call in contenders.values():
        run(call)
    for _ in range(ROUNDS):
        for name, call in contenders.items():
            rounds[name].append(run(call) / CALLS)
    return {name: statistics.median(times) for name, times in rounds.items()}


async def _async(in_flight: int) -> dict[str, float]:
    import redis.asyncio
    from django.core.cache import cache

    from sessions_sticky import keys, sessions

    await sessions.acreate("bench-1", **BINDING, replace=True)
    key = keys.session("bench-1")
    client = redis.asyncio.Redis.from_url(cache.client._server[0])

    async def aget_and_atouch() -> None:
        await cache.aget(key)
        await cache.atouch(key, TTL_SECONDS)

    contenders: dict[str, Callable[[], Awaitable[Any]]] = {
        "aresolve (hit)": lambda: sessions.aresolve("bench-1", **BINDING),
        "raw redis.asyncio GETEX": lambda: client.execute_command("GETEX", key, "EX", TTL_SECONDS),
        "Django aget + atouch": aget_and_atouch,
    }

    async def run(call: Callable[[], Awaitable[Any]]) -> float:
        async def some() -> None:
            for _ in range(CALLS // in_flight):
                await call()

        started = time.perf_counter()
        await asyncio.gather(*(some() for _ in range(in_flight)))
        return time.perf_counter() - started

    rounds = {name: [] for name in contenders}  # type: dict[str, list[float]]
    for call in contenders.values():
        await run(call)
    for _ in range(ROUNDS):
        for name, call in contenders.items():
            rounds[name].append(await run(call) / CALLS)
    await client.aclose()
    return {name: statistics.median(times) for name, times in rounds.items()}


def _print(title: str, medians: dict[str, float]) -> None:
    ours, *others = medians.items()
    print(f"\n{title}\n  {ours[0]:28} {ours[1] * 1e6:8.1f} us")
    for name, seconds in others:
        print(f"  {name:28} {seconds * 1e6:8.1f} us   ours / this = {ours[1] / seconds:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        from tests.servers import start_server

        with start_server() as server:
            main(os.fspath(server.url))
