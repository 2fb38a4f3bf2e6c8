"""Probe the providers that are failing, to find out whether they answer again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.upstream import client
from sentinel_project.gateway.upstream.response import HttpError

PROBE_SECONDS = 3.0


async def probe_forever(health: Health, providers: Callable[[], Sequence[Provider]]) -> None:
    """Probe providers that are failing, until cancelled.

    A provider is alive if it answers `GET {base_url}/models` with a status below 500. So a provider that flaps is never
    lost, even if each of its trials fails.
    """
    while True:
        await asyncio.sleep(PROBE_SECONDS)
        failing = [provider for provider in providers() if provider.name in health.failing()]
        alive = await asyncio.gather(*(_is_alive(provider) for provider in failing))
        for provider, answer in zip(failing, alive, strict=True):
            health.record_probe(provider.name, is_alive=answer)


async def _is_alive(provider: Provider) -> bool:
    try:
        return await client.probe(provider) < 500
    except (HttpError, TimeoutError):
        return False
