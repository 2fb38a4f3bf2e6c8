"""What a worker does beside its requests: refresh, share, probe, export and record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial

from sentinel_project.gateway import metrics, request_log
from sentinel_project.gateway.auth import keys
from sentinel_project.gateway.conf import settings
from sentinel_project.gateway.key_limits import quotas
from sentinel_project.gateway.providers import current
from sentinel_project.gateway.providers.controls import follow_forever
from sentinel_project.gateway.providers.gauges import export_forever, export_store_forever
from sentinel_project.gateway.providers.health_sync import share_forever
from sentinel_project.gateway.providers.outages import record_forever
from sentinel_project.gateway.routing import process
from sentinel_project.gateway.routing.warmth import watch_forever
from sentinel_project.gateway.turns.recorder import recorder
from sentinel_project.gateway.upstream.probes import probe_forever

logger = logging.getLogger(__name__)

RESTART_SECONDS = 5.0


def start() -> list[asyncio.Task[None]]:
    """Start the tasks in the running event loop."""
    health, providers = process.health, current.providers
    forever: list[Callable[[], Awaitable[None]]] = [
        keys.refresh_forever,
        quotas.exchange_forever,
        partial(share_forever, health, providers),
        partial(probe_forever, health, providers),
        partial(export_forever, health, process.load, providers),
        export_store_forever,
        partial(follow_forever, lambda: [provider.name for provider in current.configured()]),
        partial(record_forever, health),
        partial(current.watch_forever, settings.SENTINEL_PROVIDERS_FILE, process.forget),
        metrics.count_tasks_forever,
        metrics.write_counts_forever,
        request_log.writer.write_forever,
        recorder.flush_forever,
        partial(watch_forever, process.warmth, health),
        partial(process.load.count_workers_forever, metrics.count_workers),
    ]
    return [asyncio.create_task(keep_running(each)) for each in forever]


async def keep_running(run: Callable[[], Awaitable[None]]) -> None:
    """Run a task until it ends or is cancelled; after an error that it does not expect, start it again.

    Otherwise a worker would serve on with stale keys or providers, or lose all turns.
    """
    while True:
        try:
            return await run()
        except Exception:
            logger.exception("A background task failed and is started again")
            await asyncio.sleep(RESTART_SECONDS)


async def cancel(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks until all have ended: Python 3.11 loses a cancellation that comes as redis-py's `wait_for` ends."""
    while tasks:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=0.1)
