"""The gauges of providers, which Prometheus reads from each process."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest
from prometheus_client import Gauge

from sentinel_project.gateway import metrics
from sentinel_project.gateway.providers import gauges
from sentinel_project.gateway.providers.config import Provider
from sentinel_project.gateway.providers.failures import Cools
from sentinel_project.gateway.providers.gauges import export_forever, export_store_forever
from sentinel_project.gateway.providers.health import Health
from sentinel_project.gateway.providers.load import Load
from sentinel_project.gateway.providers.slots import Failure
from sessions_sticky import SessionStoreUnavailable, sessions
from tests.waiting import until

GAUGED = Provider(name="gauged", base_url="https://gauged.invalid/v1", api_key=None, models=("m",), weight=3)


def value(gauge: Gauge) -> float:
    return float(gauge.labels("gauged")._value.get())


async def test_gauges_follow_a_provider_until_it_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "EXPORT_SECONDS", 0.01)
    configured = [GAUGED]
    health, load = Health(30, lambda: configured), Load()
    task = asyncio.create_task(export_forever(health, load, lambda: configured))
    try:
        await until(lambda: value(metrics.provider_weight) == 3)
        assert value(metrics.provider_failing_since) == value(metrics.provider_cooling) == 0
        health.failed("gauged", "m", Failure(Cools.PROVIDER))
        await load.gates["gauged"].enter("ann", lambda: 9)
        await until(lambda: value(metrics.provider_in_flight) == 1)
        assert abs(value(metrics.provider_failing_since) - time.time()) < 5
        assert value(metrics.provider_cooling) == 1
        load.gates["gauged"].leave()
        configured[:] = [msgspec.structs.replace(GAUGED, name="another")]
        await until(lambda: value(metrics.provider_weight) == 0)
        assert value(metrics.provider_failing_since) == value(metrics.provider_cooling) == 0
    finally:
        task.cancel()


async def test_gauges_of_the_store_are_set_again_after_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "STORE_SECONDS", 0.01)
    exported: list[bool] = []

    def export() -> None:
        exported.append(True)
        if len(exported) < 3:
            raise SessionStoreUnavailable("gone")

    monkeypatch.setattr(sessions, "export_gauges", export)
    task = asyncio.create_task(export_store_forever())
    try:
        await until(lambda: len(exported) >= 4)
    finally:
        task.cancel()
